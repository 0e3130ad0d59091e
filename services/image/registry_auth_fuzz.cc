// Any bytes as a WWW-Authenticate header, a token answer, a credentials file and a worker's report.
#include <cstddef>
#include <cstdint>

#include "services/image/registry_auth.h"
#include "services/image/worker_report.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gantry::image;  // NOLINT: a fuzz target is one function.
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)ParseChallenges(bytes);
  (void)ParseToken(bytes);
  (void)FindCredentials(bytes, "docker.io");
  (void)DecodeReport(bytes);
  return 0;
}
