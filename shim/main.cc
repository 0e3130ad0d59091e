// containerd-shim-gantry-v2: a shim of containerd's runtime v2 contract. See README.md.
#include <stdio.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/version.h"
#include "lib/sys/file.h"
#include "lib/sys/unique_fd.h"
#include "runtime/runtime.h"
#include "shim/arguments.h"
#include "shim/assignment.h"
#include "shim/bootstrap.h"
#include "shim/cleanup.h"
#include "shim/info.h"
#include "shim/server.h"

namespace gantry::shim {
namespace {

constexpr size_t kMaxInputBytes = 4 << 20;

absl::StatusOr<std::string> ReadInput() {
  sys::UniqueFd input(0);
  absl::StatusOr<std::string> bytes = sys::ReadAll(input, kMaxInputBytes);
  (void)input.Release();
  return bytes;
}

absl::StatusOr<std::string> Run(Arguments arguments, char** argv) {
  RETURN_IF_ERROR(failpoint::ArmFromEnvironment());
  if (arguments.version) {
    return absl::StrCat("containerd-shim-gantry-v2:\n  Version:  ", Version(), "\n");
  }
  if (arguments.info) {
    ASSIGN_OR_RETURN(const std::string input, ReadInput());
    return RuntimeInfo(input);
  }
  if (arguments.failpoints) return absl::StrCat(absl::StrJoin(failpoint::List(), "\n"), "\n");
  if (arguments.action == "start") {
    ASSIGN_OR_RETURN(const std::string input, ReadInput());
    return Start(arguments, input);
  }
  if (arguments.action == "delete") return CleanUp(arguments);
  if (!arguments.action.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("action '", arguments.action, "'; use start or delete"));
  }
  // First of all: what follows creates containers from this very file.
  RETURN_IF_ERROR(runtime::ProtectSelf(argv));
  if (arguments.await) {
    ASSIGN_OR_RETURN(const bool assigned, AwaitAssignment(&arguments, argv));
    if (!assigned) return std::string();
  }
  RETURN_IF_ERROR(Serve(arguments));
  return std::string();
}

int Main(int argc, char** argv) {
  const absl::StatusOr<std::string> output =
      Run(ParseArguments(std::vector<std::string>(argv + 1, argv + argc)), argv);
  if (!output.ok()) {
    ::dprintf(2, "containerd-shim-gantry-v2: %s\n", std::string(output.status().message()).c_str());
    return 1;
  }
  sys::UniqueFd out(1);
  const bool written = output->empty() || sys::WriteAll(out, *output).ok();
  (void)out.Release();
  return written ? 0 : 1;
}

}  // namespace
}  // namespace gantry::shim

int main(int argc, char** argv) {
  // Nothing is left that a destructor would have to do.
  ::_exit(gantry::shim::Main(argc, argv));
}
