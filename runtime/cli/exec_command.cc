#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/foreground.h"

namespace gantry::runtime {
namespace {

absl::StatusOr<uint32_t> ParseId(absl::string_view text, absl::string_view option) {
  uint32_t id = 0;
  const bool digits =
      !text.empty() && text.find_first_not_of("0123456789") == absl::string_view::npos;
  if (digits && absl::SimpleAtoi(text, &id) && id != UINT32_MAX) return id;
  return absl::InvalidArgumentError(absl::StrCat("--", option, ": '", EscapeForTerminal(text),
                                                 "' is not an id from 0 to 4294967294"));
}

// The container's own process with what the options change.
absl::Status ApplyOptions(const Arguments& arguments, oci::Process* process) {
  process->args.assign(arguments.operands().begin() + 1, arguments.operands().end());
  process->terminal = arguments.IsSet("tty");
  if (arguments.Has("cwd")) process->cwd = arguments.Value("cwd");
  for (const std::string& entry : arguments.Values("env")) process->env.push_back(entry);
  if (arguments.Has("user")) {
    const std::vector<std::string> parts =
        absl::StrSplit(arguments.Value("user"), absl::MaxSplits(':', 1));
    ASSIGN_OR_RETURN(process->user.uid, ParseId(parts[0], "user"));
    if (parts.size() > 1) {
      ASSIGN_OR_RETURN(process->user.gid, ParseId(parts[1], "user"));
    }
  }
  for (const std::string& list : arguments.Values("additional-gids")) {
    for (absl::string_view one : absl::StrSplit(list, ',')) {
      ASSIGN_OR_RETURN(uint32_t gid, ParseId(one, "additional-gids"));
      process->user.additional_gids.push_back(gid);
    }
  }
  if (arguments.Has("cap")) {
    oci::Capabilities sets = process->capabilities.value_or(oci::Capabilities());
    for (const std::string& name : arguments.Values("cap")) {
      ASSIGN_OR_RETURN(int number, oci::CapabilityNumber(name));
      const std::string full(oci::CapabilityName(number));
      for (auto* set : {&sets.bounding, &sets.permitted, &sets.effective}) {
        if (std::find(set->begin(), set->end(), full) == set->end()) set->push_back(full);
      }
    }
    process->capabilities = std::move(sets);
  }
  if (arguments.Has("no-new-privs")) process->no_new_privileges = arguments.IsSet("no-new-privs");
  if (arguments.Has("apparmor")) process->apparmor_profile = arguments.Value("apparmor");
  if (arguments.Has("process-label")) process->selinux_label = arguments.Value("process-label");
  return absl::OkStatus();
}

absl::StatusOr<ExecOptions> MakeExecOptions(const Container& container,
                                            const Arguments& arguments) {
  ExecOptions options;
  if (arguments.Has("process")) {
    ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(arguments.Value("process")));
    ASSIGN_OR_RETURN(options.process, oci::ParseProcess(bytes));
    if (arguments.Has("tty")) options.process.terminal = arguments.IsSet("tty");
  } else {
    if (arguments.operands().size() < 2) {
      return absl::InvalidArgumentError(
          "exec: process args cannot be empty; name a program or give --process");
    }
    ASSIGN_OR_RETURN(const oci::Spec* spec, container.GetSpec());
    options.process = *spec->process;
    RETURN_IF_ERROR(ApplyOptions(arguments, &options.process));
    options.inherit_defaults = false;
  }
  options.stdio = {0, 1, 2};
  options.console_socket = arguments.Value("console-socket");
  options.pid_file = arguments.Value("pid-file");
  options.pidfd_socket = arguments.Value("pidfd-socket");
  options.ignore_paused = arguments.IsSet("ignore-paused");
  if (arguments.Has("preserve-fds") &&
      (!absl::SimpleAtoi(arguments.Value("preserve-fds"), &options.preserve_fds) ||
       options.preserve_fds < 0 || options.preserve_fds > 1023)) {
    return absl::InvalidArgumentError("--preserve-fds: not a small number");
  }
  for (const std::string& text : arguments.Values("cgroup")) {
    const size_t colon = text.find(':');
    const std::string path = colon == std::string::npos ? text : text.substr(colon + 1);
    const std::string controllers = colon == std::string::npos ? "" : text.substr(0, colon);
    for (absl::string_view one : absl::StrSplit(controllers, ','))
      options.cgroups[std::string(one)] = path;
  }
  return options;
}

}  // namespace

absl::StatusOr<int> RunExecCommand(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  ASSIGN_OR_RETURN(ExecOptions options, MakeExecOptions(container, arguments));
  const bool detach = arguments.IsSet("detach");
  if (detach && options.process.terminal && options.console_socket.empty()) {
    return absl::InvalidArgumentError("a detached program with a terminal needs --console-socket");
  }
  Foreground foreground;
  if (!detach) RETURN_IF_ERROR(foreground.Begin());
  ASSIGN_OR_RETURN(ExecedProcess process, container.Exec(options));
  if (detach) return 0;
  return foreground.Wait(process.pidfd, process.console);
}

}  // namespace gantry::runtime
