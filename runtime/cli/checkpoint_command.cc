// checkpoint and restore need criu, and criu a kernel that it knows. What is missing is said
// exactly: callers such as podman show it to people.
#include <fcntl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {
namespace {

constexpr size_t kMaxOutputBytes = 64 << 10;

absl::StatusOr<std::string> FindCriu(const std::string& asked) {
  const std::vector<std::string> places =
      asked.empty() ? std::vector<std::string>{"/usr/sbin/criu", "/usr/local/sbin/criu",
                                               "/usr/bin/criu", "/usr/local/bin/criu"}
                    : std::vector<std::string>{asked};
  for (const std::string& place : places) {
    if (sys::Exists(place)) return place;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "criu is not installed (looked for ", Quote(places[0]), "); install the package 'criu'"));
}

// Fine when criu says that this kernel has all it needs.
absl::Status AskCriu(const std::string& program) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError("make a pipe");
  sys::UniqueFd reader(ends[0]), writer(ends[1]);
  sys::SpawnOptions options;
  options.program = program;
  options.argv = {"criu", "check"};
  options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  options.descriptors = {{writer.get(), 1}, {writer.get(), 2}};
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(options));
  writer.Reset();
  ASSIGN_OR_RETURN(std::string text, sys::ReadAll(reader, kMaxOutputBytes));
  ASSIGN_OR_RETURN(sys::ExitStatus status, child.Wait());
  if (status.code == 0) return absl::OkStatus();
  // The first error is the cause, the others follow from it.
  std::string cause = absl::StrCat("exit status ", status.code);
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "Error")) continue;
    cause = EscapeForTerminal(absl::StripAsciiWhitespace(line));
    break;
  }
  return absl::FailedPreconditionError(absl::StrCat("criu does not work on this kernel: `", program,
                                                    " check` says: ", cause,
                                                    "; use a criu that is made for it"));
}

}  // namespace

absl::StatusOr<int> RunCheckpoint(const Global& global, const Arguments& arguments) {
  RETURN_IF_ERROR(Container::Load(global.root, arguments.operands()[0]).status());
  return RunRestore(global, arguments);
}

absl::StatusOr<int> RunRestore(const Global& global, const Arguments&) {
  ASSIGN_OR_RETURN(std::string criu, FindCriu(global.criu));
  RETURN_IF_ERROR(AskCriu(criu));
  return absl::UnimplementedError(
      "this version of gantry-runtime cannot checkpoint or restore yet; `features` says so "
      "(org.opencontainers.runc.checkpoint.enabled)");
}

}  // namespace gantry::runtime
