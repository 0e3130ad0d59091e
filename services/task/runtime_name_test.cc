#include "services/task/runtime_name.h"

#include <sys/stat.h>

#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::task {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;

class RuntimeNameTest : public ::testing::Test {
 protected:
  void Program(const std::string& path) {
    ASSERT_OK(sys::MakeDirectories(path.substr(0, path.rfind('/'))));
    ASSERT_OK(sys::WriteFileAtomically(path, "", 0755));
  }
  sys::TempDir temp_ = *sys::TempDir::Create();
  BinarySearch search_{.own_directory = temp_.path() + "/own", .path = {temp_.path() + "/bin"}};
};

TEST_F(RuntimeNameTest, TheLastTwoPartsNameTheBinary) {
  EXPECT_EQ(*ShimBinaryName("io.containerd.runc.v2"), "containerd-shim-runc-v2");
  EXPECT_EQ(*ShimBinaryName("kata.v2"), "containerd-shim-kata-v2");
  for (const char* bad : {"", "runc", "io..v2", "a.b/c", "a.b v2", "a.$(x)"}) {
    EXPECT_THAT(ShimBinaryName(bad), HasCode(absl::StatusCode::kInvalidArgument)) << bad;
  }
}

TEST_F(RuntimeNameTest, OursIsLookedForBesideUsFirstOthersLast) {
  for (const char* directory : {"/own/", "/bin/"}) {
    Program(temp_.path() + directory + "containerd-shim-gantry-v2");
    Program(temp_.path() + directory + "containerd-shim-kata-v2");
  }
  EXPECT_EQ(*FindShimBinary(kOwnRuntime, search_), temp_.path() + "/own/containerd-shim-gantry-v2");
  EXPECT_EQ(*FindShimBinary("io.containerd.kata.v2", search_),
            temp_.path() + "/bin/containerd-shim-kata-v2");
}

TEST_F(RuntimeNameTest, PathsMustBeAbsoluteProgramsAndErrorsSayWhere) {
  EXPECT_THAT(FindShimBinary("io.containerd.kata.v2", search_),
              Fails(absl::StatusCode::kNotFound, temp_.path() + "/bin"));
  EXPECT_THAT(FindShimBinary("./shim", search_),
              Fails(absl::StatusCode::kInvalidArgument, "relative"));
  EXPECT_THAT(FindShimBinary("/no/such", search_), Fails(absl::StatusCode::kNotFound, "/no/such"));
  EXPECT_OK(FindShimBinary("/bin/sh", search_));
}

}  // namespace
}  // namespace gantry::task
