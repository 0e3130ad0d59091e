// Engine: the processes of a container.
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "services/engine/engine.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kPsTime = absl::Seconds(10);

std::string UserName(uid_t uid) {
  struct passwd entry = {};
  struct passwd* found = nullptr;
  char buffer[4096];
  if (::getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr) {
    return found->pw_name;
  }
  return absl::StrCat(uid);
}

std::string TtyName(int64_t device) {
  if (device == 0) return "?";
  const int64_t major = (device >> 8) & 0xfff;
  const int64_t minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  return major >= 136 && major < 144 ? absl::StrCat("pts/", (major - 136) * 256 + minor)
                                     : absl::StrCat("tty", minor);
}

// One line of `ps -ef` from /proc; false when the process has ended.
bool ReadProcess(int64_t pid, v1::TopResponse::Process* line) {
  const std::string directory = absl::StrCat("/proc/", pid);
  absl::StatusOr<std::string> stat = sys::ReadFile(absl::StrCat(directory, "/stat"), 64 << 10);
  absl::StatusOr<std::string> command = sys::ReadFile(absl::StrCat(directory, "/cmdline"), 1 << 20);
  struct stat owner = {};
  if (!stat.ok() || !command.ok() || ::stat(directory.c_str(), &owner) != 0) return false;
  // The name is in parentheses and may hold anything, parentheses too.
  const size_t open = stat->find('(');
  const size_t close = stat->rfind(')');
  if (open == std::string::npos || close == std::string::npos) return false;
  const std::string name = stat->substr(open + 1, close - open - 1);
  const std::vector<std::string> fields =
      absl::StrSplit(absl::string_view(*stat).substr(close + 2), ' ');
  if (fields.size() < 20) return false;
  int64_t tty = 0, user_ticks = 0, system_ticks = 0, start_ticks = 0;
  (void)absl::SimpleAtoi(fields[4], &tty);
  (void)absl::SimpleAtoi(fields[11], &user_ticks);
  (void)absl::SimpleAtoi(fields[12], &system_ticks);
  (void)absl::SimpleAtoi(fields[19], &start_ticks);
  const int64_t per_second = ::sysconf(_SC_CLK_TCK);
  const int64_t cpu_seconds = (user_ticks + system_ticks) / per_second;
  timespec boot = {};
  ::clock_gettime(CLOCK_BOOTTIME, &boot);
  const absl::Duration age =
      absl::DurationFromTimespec(boot) - absl::Seconds(start_ticks / per_second);
  const absl::Time started = absl::Now() - age;
  const int64_t percent =
      age > absl::Seconds(1) ? cpu_seconds * 100 / absl::ToInt64Seconds(age) : 0;
  std::replace(command->begin(), command->end(), '\0', ' ');
  std::string text(absl::StripTrailingAsciiWhitespace(*command));
  if (text.empty()) text = absl::StrCat("[", name, "]");

  line->add_fields(UserName(owner.st_uid));
  line->add_fields(absl::StrCat(pid));
  line->add_fields(fields[1]);
  line->add_fields(absl::StrCat(percent));
  line->add_fields(
      absl::FormatTime(age < absl::Hours(24) ? "%H:%M" : "%b%d", started, absl::LocalTimeZone()));
  line->add_fields(TtyName(tty));
  line->add_fields(absl::StrFormat("%02d:%02d:%02d", cpu_seconds / 3600, cpu_seconds / 60 % 60,
                                   cpu_seconds % 60));
  line->add_fields(EscapeForTerminal(text));
  return true;
}

// The table that ps(1) prints, reduced to our processes.
absl::StatusOr<v1::TopResponse> RunPs(const std::vector<std::string>& args,
                                      const std::vector<int64_t>& pids) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe for ps");
  sys::UniqueFd reader(ends[0]), writer(ends[1]);
  sys::SpawnOptions options;
  options.argv = {sys::Exists("/bin/ps") ? "/bin/ps" : "/usr/bin/ps"};
  options.argv.insert(options.argv.end(), args.begin(), args.end());
  options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"};
  options.descriptors = {{writer.get(), 1}, {writer.get(), 2}};
  absl::StatusOr<sys::Child> child = sys::Spawn(options);
  if (!child.ok()) return Annotate(child.status(), "start ps; is the package procps installed?");
  writer.Reset();
  ASSIGN_OR_RETURN(std::string text, sys::ReadAll(reader));
  ASSIGN_OR_RETURN(sys::ExitStatus exit, child->Wait(kPsTime));
  std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (exit.code != 0 || lines.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Error running ps: ", lines.empty() ? "no output" : lines[0]));
  }
  v1::TopResponse response;
  const std::vector<std::string> titles = absl::StrSplit(lines[0], ' ', absl::SkipEmpty());
  const auto pid_title = std::find(titles.begin(), titles.end(), "PID");
  if (pid_title == titles.end()) {
    return absl::InvalidArgumentError("Couldn't find PID field in ps output");
  }
  const size_t pid_at = static_cast<size_t>(pid_title - titles.begin());
  for (const std::string& title : titles) response.add_titles(title);
  const std::set<int64_t> wanted(pids.begin(), pids.end());
  for (size_t i = 1; i < lines.size(); ++i) {
    std::vector<std::string> fields = absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
    int64_t pid = 0;
    if (fields.size() < titles.size() || !absl::SimpleAtoi(fields[pid_at], &pid) ||
        wanted.count(pid) == 0) {
      continue;
    }
    v1::TopResponse::Process* process = response.add_processes();
    for (size_t at = 0; at + 1 < titles.size(); ++at) process->add_fields(fields[at]);
    // The last column may have spaces.
    process->add_fields(EscapeForTerminal(absl::StrJoin(
        fields.begin() + static_cast<ptrdiff_t>(titles.size()) - 1, fields.end(), " ")));
  }
  return response;
}

}  // namespace

absl::StatusOr<v1::TopResponse> Engine::Top(const v1::TopRequest& request) {
  ASSIGN_OR_RETURN(ContainerPtr container, FindRunning(request.container(), "list processes of"));
  ASSIGN_OR_RETURN(std::vector<int64_t> pids, tasks_.ListPids(container->id()));
  if (request.ps_args_size() > 0) {
    return RunPs({request.ps_args().begin(), request.ps_args().end()}, pids);
  }
  v1::TopResponse response;
  for (const char* title : {"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}) {
    response.add_titles(title);
  }
  for (int64_t pid : pids) {
    v1::TopResponse::Process process;
    if (ReadProcess(pid, &process)) *response.add_processes() = std::move(process);
  }
  return response;
}

}  // namespace gantry::engine
