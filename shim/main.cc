// containerd-shim-gantry-v2: a shim of containerd's runtime v2 contract. See README.md.
#include <stdio.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/unique_fd.h"
#include "lib/ttrpc/minipb.h"
#include "runtime/runtime.h"
#include "shim/arguments.h"
#include "shim/assignment.h"
#include "shim/bootstrap.h"
#include "shim/cleanup.h"
#include "shim/server.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

constexpr char kVersionText[] = "containerd-shim-gantry-v2:\n  Version:  0.1.0\n";
constexpr size_t kMaxInputBytes = 4 << 20;

absl::StatusOr<std::string> ReadInput() {
  sys::UniqueFd input(0);
  absl::StatusOr<std::string> bytes = sys::ReadAll(input, kMaxInputBytes);
  (void)input.Release();
  return bytes;
}

// containerd.types.RuntimeInfo.
std::string Info() {
  std::string info;
  pb::Writer writer(&info);
  writer.String(1, "io.containerd.gantry.v2");
  writer.Message(2, [](pb::Writer& version) { version.String(1, "0.1.0"); });
  WriteAny(writer, 4, "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
           R"({"ociVersionMin":"1.0.0","ociVersionMax":"1.3.0"})");
  return info;
}

absl::StatusOr<std::string> Run(Arguments arguments, char** argv) {
  RETURN_IF_ERROR(failpoint::ArmFromEnvironment());
  if (arguments.version) return std::string(kVersionText);
  if (arguments.info) return Info();
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
