#include "runtime/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"

namespace gantry::runtime {
namespace {

constexpr size_t kMaxStderrBytes = 4096;

absl::StatusOr<sys::UniqueFd> StateInMemory(const std::string& state_json) {
  sys::UniqueFd memory(::memfd_create("state", MFD_CLOEXEC));
  if (!memory.ok()) return sys::ErrnoError(errno, "make a file in memory for the state");
  RETURN_IF_ERROR(sys::WriteAll(memory, state_json));
  if (::lseek(memory.get(), 0, SEEK_SET) < 0) return sys::ErrnoError(errno, "rewind the state");
  return memory;
}

// What the hook says until it ends, or until its time is over (false). A daemon that it leaves
// behind may keep the pipe open: the hook's own end is what counts.
bool ListenUntilEnd(const sys::Child& child, const sys::UniqueFd& output, absl::Time deadline,
                    std::string* text) {
  bool open = true;
  for (;;) {
    pollfd polls[2] = {{child.pidfd().get(), POLLIN, 0}, {open ? output.get() : -1, POLLIN, 0}};
    int milliseconds = -1;
    if (deadline != absl::InfiniteFuture()) {
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now()) + 1;
      if (left <= 0) return false;
      milliseconds = static_cast<int>(std::min<int64_t>(left, 1 << 30));
    }
    if (::poll(polls, 2, milliseconds) < 0 && errno != EINTR) return true;
    if (open && polls[1].revents != 0) {
      char bytes[1024];
      const ssize_t size = ::read(output.get(), bytes, sizeof bytes);
      if (size <= 0 && errno != EINTR) open = false;
      if (size > 0 && text->size() < kMaxStderrBytes)
        text->append(bytes, static_cast<size_t>(size));
      continue;
    }
    if (polls[0].revents != 0) return true;
  }
}

absl::Status RunHook(const oci::Hook& hook, const std::string& state_json,
                     const HookOutput& output) {
  RETURN_IF_ERROR(FAILPOINT("runtime.hook.before_run"));
  ASSIGN_OR_RETURN(sys::UniqueFd state, StateInMemory(state_json));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe for the hook");
  sys::UniqueFd reader(ends[0]), writer(ends[1]);
  sys::SpawnOptions options;
  options.program = hook.path;
  options.argv = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  options.environment = hook.env;
  options.descriptors = {{state.get(), 0}, {output.err.ok() ? output.err.get() : writer.get(), 2}};
  if (output.out.ok()) options.descriptors.push_back({output.out.get(), 1});
  options.new_process_group = true;
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(options));
  writer.Reset();
  const absl::Time deadline = hook.timeout_seconds
                                  ? absl::Now() + absl::Seconds(*hook.timeout_seconds)
                                  : absl::InfiniteFuture();
  std::string text;
  if (!ListenUntilEnd(child, reader, deadline, &text)) {
    ::kill(-child.pid(), SIGKILL);
    child.KillAndReap();
    return absl::DeadlineExceededError(
        absl::StrCat("did not end within ", *hook.timeout_seconds, " s and was killed"));
  }
  ASSIGN_OR_RETURN(sys::ExitStatus status, child.Wait());
  if (status.code == 0) return absl::OkStatus();
  const absl::string_view said = absl::StripAsciiWhitespace(text);
  return absl::FailedPreconditionError(
      absl::StrCat(status.signal != 0 ? absl::StrCat("killed by signal ", status.signal)
                                      : absl::StrCat("exit status ", status.code),
                   said.empty() ? "" : absl::StrCat(", stderr: ", EscapeForTerminal(said))));
}

}  // namespace

absl::Status RunHooks(const std::vector<oci::Hook>& hooks, absl::string_view kind,
                      const std::string& state_json, const HookOutput& output) {
  for (size_t i = 0; i < hooks.size(); ++i) {
    absl::Status status = RunHook(hooks[i], state_json, output);
    if (!status.ok()) {
      return absl::FailedPreconditionError(absl::StrCat("error running ", kind, " hook #", i, " '",
                                                        EscapeForTerminal(hooks[i].path),
                                                        "': ", status.message()));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> RunAllHooks(const std::vector<oci::Hook>& hooks, absl::string_view kind,
                                     const std::string& state_json, const HookOutput& output) {
  std::vector<std::string> failures;
  for (size_t i = 0; i < hooks.size(); ++i) {
    absl::Status status = RunHook(hooks[i], state_json, output);
    if (!status.ok()) {
      failures.push_back(absl::StrCat("error running ", kind, " hook #", i, " '",
                                      EscapeForTerminal(hooks[i].path), "': ", status.message()));
    }
  }
  return failures;
}

}  // namespace gantry::runtime
