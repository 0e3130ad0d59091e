// main() of integration tests: own namespaces first, then GoogleTest.

#include <cstdio>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"
#include "tests/support/isolation.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (gantry::testing::IsRoot()) {
    if (absl::Status status = gantry::testing::EnterPrivateNamespaces(); !status.ok()) {
      std::fprintf(stderr, "isolate the test: %s\n", status.ToString().c_str());
      return 1;
    }
  }
  return RUN_ALL_TESTS();
}
