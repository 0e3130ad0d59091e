// create, run, start, kill, delete, pause, resume.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/foreground.h"
#include "runtime/cli/notify.h"

namespace gantry::runtime {
namespace {

absl::StatusOr<std::string> AbsolutePath(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return sys::ErrnoError(errno, absl::StrCat("open '", EscapeForTerminal(path), "'"));
  }
  return std::string(resolved);
}

absl::StatusOr<int> ParseCount(const Arguments& arguments, absl::string_view name) {
  int count = 0;
  if (!arguments.Has(name)) return count;
  if (absl::SimpleAtoi(arguments.Value(name), &count) && count >= 0 && count < 1024) return count;
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": not a small number"));
}

// Sockets that were passed to us by the LISTEN_FDS protocol go on into the container.
absl::StatusOr<int> ListenFds() {
  const char* text = ::getenv("LISTEN_FDS");
  int count = 0;
  if (text == nullptr) return count;
  if (absl::SimpleAtoi(text, &count) && count >= 0 && count < 1024) return count;
  return absl::InvalidArgumentError("LISTEN_FDS in the environment is not a number");
}

absl::StatusOr<CreateOptions> MakeCreateOptions(const Global& global, const Arguments& arguments) {
  CreateOptions options;
  options.id = arguments.operands()[0];
  options.state_root = global.root;
  ASSIGN_OR_RETURN(options.bundle,
                   AbsolutePath(arguments.Has("bundle") ? arguments.Value("bundle") : "."));
  if (arguments.Has("config")) options.config_name = arguments.Value("config");
  options.stdio = {0, 1, 2};
  options.console_socket = arguments.Value("console-socket");
  options.pid_file = arguments.Value("pid-file");
  options.pidfd_socket = arguments.Value("pidfd-socket");
  ASSIGN_OR_RETURN(options.preserve_fds, ParseCount(arguments, "preserve-fds"));
  ASSIGN_OR_RETURN(options.listen_fds, ListenFds());
  options.no_pivot = arguments.IsSet("no-pivot");
  options.no_new_keyring = arguments.IsSet("no-new-keyring");
  options.cgroup_manager = global.cgroup_manager;
  options.rootless = global.rootless;
  return options;
}

absl::Status NeedConsoleSocket(Container& container) {
  // Create hands the master over only when there is a terminal and nobody else to give it to.
  if (!container.TakeConsole().ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "process.terminal is set and the container is detached: give --console-socket");
}

std::string TimingText(const Container& container) {
  std::string text = "steps in microseconds:";
  int64_t total = 0;
  for (const Timing& timing : container.timings()) {
    absl::StrAppend(&text, " ", timing.step, "=", timing.microseconds);
    total += timing.microseconds;
  }
  return absl::StrCat(text, " total=", total);
}

// Only a detached start can wait for the container to be ready.
void OfferNotify(CreateOptions* options) {
  if (const char* socket = ::getenv("NOTIFY_SOCKET")) options->notify_socket = socket;
}

// The id, or with --regex all that match the extended regular expression.
absl::StatusOr<std::vector<std::string>> MatchingIds(const Global& global,
                                                     const Arguments& arguments) {
  const std::string& word = arguments.operands()[0];
  if (!arguments.IsSet("regex")) return std::vector<std::string>{word};
  regex_t pattern;
  if (::regcomp(&pattern, word.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--regex: '", EscapeForTerminal(word), "' is not a regular expression"));
  }
  absl::Cleanup release = [&] { ::regfree(&pattern); };
  ASSIGN_OR_RETURN(std::vector<std::string> ids, ListContainers(global.root));
  ids.erase(std::remove_if(ids.begin(), ids.end(),
                           [&](const std::string& id) {
                             return ::regexec(&pattern, id.c_str(), 0, nullptr, 0) != 0;
                           }),
            ids.end());
  return ids;
}

}  // namespace

absl::StatusOr<int> RunCreate(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(CreateOptions options, MakeCreateOptions(global, arguments));
  OfferNotify(&options);
  ASSIGN_OR_RETURN(Container container, Container::Create(options));
  absl::Status console = NeedConsoleSocket(container);
  if (!console.ok()) {
    (void)container.Delete(true);
    return console;
  }
  return 0;
}

absl::StatusOr<int> RunRun(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(CreateOptions options, MakeCreateOptions(global, arguments));
  const bool detach = arguments.IsSet("detach");
  // Nobody else can start it, so it need not be reachable by others, and it dies with us until
  // then.
  options.start_by_others = false;
  if (detach) OfferNotify(&options);
  Foreground foreground;
  if (!detach) RETURN_IF_ERROR(foreground.Begin());
  ASSIGN_OR_RETURN(Container container, Container::Create(options));
  Notify notify;
  absl::Status status = detach ? NeedConsoleSocket(container) : absl::OkStatus();
  if (status.ok() && detach) status = notify.Begin(options.state_root, options.id);
  if (status.ok()) status = container.Start();
  if (status.ok()) status = notify.Await(container);
  if (!status.ok()) {
    (void)container.Delete(true);
    return status;
  }
  global.report->Debug([&] { return TimingText(container); });
  if (detach) return 0;
  ASSIGN_OR_RETURN(int code, foreground.Wait(container.pidfd(), container.TakeConsole()));
  if (arguments.IsSet("keep")) return code;
  std::vector<std::string> warnings;
  RETURN_IF_ERROR(container.Delete(true, &warnings));
  for (const std::string& warning : warnings) global.report->Warning(warning);
  return code;
}

absl::StatusOr<int> RunStart(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  Notify notify;
  RETURN_IF_ERROR(notify.Begin(global.root, container.id()));
  RETURN_IF_ERROR(container.Start());
  RETURN_IF_ERROR(notify.Await(container));
  return 0;
}

absl::StatusOr<int> RunKill(const Global& global, const Arguments& arguments) {
  const std::string text = arguments.operands().size() > 1 ? arguments.operands()[1] : "TERM";
  ASSIGN_OR_RETURN(int signal, oci::ParseSignal(text));
  ASSIGN_OR_RETURN(std::vector<std::string> ids, MatchingIds(global, arguments));
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(Container container, Container::Load(global.root, id));
    RETURN_IF_ERROR(container.Kill(signal, arguments.IsSet("all")));
  }
  return 0;
}

absl::StatusOr<int> RunDelete(const Global& global, const Arguments& arguments) {
  const bool force = arguments.IsSet("force");
  ASSIGN_OR_RETURN(std::vector<std::string> ids, MatchingIds(global, arguments));
  for (const std::string& id : ids) {
    absl::StatusOr<Container> container = Container::Load(global.root, id);
    if (force && !container.ok()) {
      // Unknown is as good as deleted; a record that cannot be read is only removed by force.
      RETURN_IF_ERROR(absl::IsInvalidArgument(container.status()) ? container.status()
                                                                  : ForceDelete(global.root, id));
      continue;
    }
    RETURN_IF_ERROR(container.status());
    std::vector<std::string> warnings;
    RETURN_IF_ERROR(container->Delete(force, &warnings));
    for (const std::string& warning : warnings) global.report->Warning(warning);
  }
  return 0;
}

absl::StatusOr<int> RunPause(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  RETURN_IF_ERROR(container.Pause());
  return 0;
}

absl::StatusOr<int> RunResume(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  RETURN_IF_ERROR(container.Resume());
  return 0;
}

}  // namespace gantry::runtime
