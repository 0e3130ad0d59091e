#include "lib/cgroup/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/cgroup/control_file.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"

namespace gantry::cgroup {
namespace {

constexpr absl::Duration kRemoveTimeout = absl::Seconds(2);
constexpr absl::Duration kFreezeTimeout = absl::Seconds(10);
constexpr int kKillRounds = 100;

// Calls `done` until it says yes or `timeout` is over. The kernel offers no event for what we wait
// for here (v1 has none at all), so the pauses grow from 100 µs to 10 ms.
bool WaitUntil(absl::Duration timeout, const std::function<bool()>& done) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::Duration pause = absl::Microseconds(100);
  while (!done()) {
    if (absl::Now() > deadline) return false;
    const timespec wait = absl::ToTimespec(pause);
    ::ppoll(nullptr, 0, &wait, nullptr);
    pause = std::min(pause * 2, absl::Milliseconds(10));
  }
  return true;
}

bool HasController(absl::string_view list, absl::string_view controller) {
  for (absl::string_view name : absl::StrSplit(list, ',')) {
    if (name == controller) return true;
  }
  return false;
}

// cpuset of v1 starts with empty lists, with which no process can join: copies the parent's, from
// the mount point down. Levels that have lists already cost one read each.
absl::Status FillCpuset(const std::string& mount_point, const std::string& path) {
  for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
    ASSIGN_OR_RETURN(std::string own, ReadControl(path, file));
    if (!own.empty()) continue;
    const std::string parent = path.substr(0, path.rfind('/'));
    if (parent.size() < mount_point.size()) continue;
    RETURN_IF_ERROR(FillCpuset(mount_point, parent));
    ASSIGN_OR_RETURN(std::string inherited, ReadControl(parent, file));
    RETURN_IF_ERROR(WriteControl(path, file, inherited));
  }
  return absl::OkStatus();
}

// Enables every controller that `directory` has for its children; those the kernel refuses
// (threads, a real-time task) are left out, and a limit that needs one fails at its own file.
void EnableControllers(const std::string& directory) {
  absl::StatusOr<std::string> available = ReadControl(directory, "cgroup.controllers");
  absl::StatusOr<std::string> enabled = ReadControl(directory, "cgroup.subtree_control");
  if (!available.ok() || !enabled.ok()) return;
  const std::vector<std::string> have = absl::StrSplit(*enabled, ' ');
  std::vector<std::string> missing;
  for (absl::string_view name : absl::StrSplit(*available, ' ', absl::SkipEmpty())) {
    if (std::find(have.begin(), have.end(), name) == have.end()) {
      missing.push_back(absl::StrCat("+", name));
    }
  }
  if (missing.empty() ||
      WriteControl(directory, "cgroup.subtree_control", absl::StrJoin(missing, " ")).ok()) {
    return;
  }
  for (const std::string& one : missing) {
    (void)WriteControl(directory, "cgroup.subtree_control", one);
  }
}

// A controller is there in a cgroup when every level above hands it down; levels that exist may
// have been made by somebody who needed none.
void EnableControllersAbove(const std::string& path) {
  const std::string parent = path.substr(0, path.rfind('/'));
  if (!sys::Exists(absl::StrCat(parent, "/cgroup.controllers"))) return;  // Above the mount point.
  EnableControllersAbove(parent);
  EnableControllers(parent);
}

// mkdir -p below the mount point; `made` collects what was new, outermost first.
absl::Status MakeLevels(const std::string& mount_point, const std::string& path,
                        std::vector<std::string>& made) {
  // The usual case first: only the last level is missing.
  for (size_t end = path.size();;) {
    const std::string level = path.substr(0, end);
    const bool is_new = ::mkdir(level.c_str(), 0755) == 0;
    if (is_new) made.push_back(level);
    if (is_new || errno == EEXIST) {
      if (end == path.size()) return absl::OkStatus();
      end = path.find('/', end + 1);
      if (end == std::string::npos) end = path.size();
      continue;
    }
    if (errno != ENOENT || level.size() <= mount_point.size()) {
      return sys::ErrnoError(errno, absl::StrCat("make the cgroup '", level, "'"));
    }
    end = path.rfind('/', end - 1);
  }
}

absl::Status RemoveLevels(const std::string& path) {
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  if (errno != EBUSY && errno != ENOTEMPTY) {
    return sys::ErrnoError(errno, absl::StrCat("remove the cgroup '", path, "'"));
  }
  // Cgroups that the container made below its own.
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(path);
  if (names.ok()) {
    for (const std::string& name : *names) {
      const std::string child = absl::StrCat(path, "/", name);
      struct stat info = {};
      if (::lstat(child.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
        RETURN_IF_ERROR(RemoveLevels(child));
      }
    }
  }
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return sys::ErrnoError(errno, absl::StrCat("remove the cgroup '", path, "'"));
}

void CollectPids(const std::string& path, std::vector<pid_t>& pids) {
  absl::StatusOr<std::string> text = ReadControl(path, "cgroup.procs");
  if (text.ok()) {
    for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
      pid_t pid = 0;
      if (absl::SimpleAtoi(line, &pid) && pid > 0) pids.push_back(pid);
    }
  }
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(path);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    struct stat info = {};
    const std::string child = absl::StrCat(path, "/", name);
    if (::lstat(child.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) CollectPids(child, pids);
  }
}

}  // namespace

absl::StatusOr<Cgroup> Cgroup::Plan(const Layout& layout, absl::string_view path) {
  if (path.empty() || path == "/") {
    return absl::InvalidArgumentError("the cgroup path is empty; name one below the root");
  }
  std::vector<absl::string_view> parts = absl::StrSplit(path, '/', absl::SkipEmpty());
  for (absl::string_view part : parts) {
    const bool control = std::any_of(part.begin(), part.end(),
                                     [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (part == ".." || part == "." || control) {
      return absl::InvalidArgumentError(absl::StrCat("the cgroup path '", EscapeForTerminal(path),
                                                     "' has a part that is no plain name"));
    }
  }
  const std::string below = absl::StrJoin(parts, "/");
  std::vector<Directory> directories;
  for (const Hierarchy& hierarchy : layout.hierarchies) {
    std::string base = hierarchy.mount_point;
    if (path[0] != '/' && hierarchy.own_path != "/") {
      // Inside a container the path may be seen from a root that is not mounted here.
      const std::string own = absl::StrCat(base, hierarchy.own_path);
      if (sys::Exists(own)) base = own;
    }
    directories.push_back({absl::StrCat(base, "/", below), hierarchy.controllers});
  }
  return Cgroup(layout.mode, std::move(directories));
}

absl::Status Cgroup::Create(bool reuse) {
  std::vector<std::string> made;
  absl::Cleanup undo = [&] {
    for (auto path = made.rbegin(); path != made.rend(); ++path) ::rmdir(path->c_str());
  };
  for (const Directory& directory : directories_) {
    RETURN_IF_ERROR(FAILPOINT("cgroup.create.before_mkdir"));
    const std::string mount_point = "/sys/fs/cgroup";
    const size_t before = made.size();
    RETURN_IF_ERROR(MakeLevels(mount_point, directory.path, made));
    if (mode_ == Mode::kV2) EnableControllersAbove(directory.path);
    const bool new_leaf = made.size() > before;
    if (!reuse && !new_leaf) {
      return absl::AlreadyExistsError(
          absl::StrCat("the cgroup '", directory.path, "' exists already"));
    }
    if (HasController(directory.controllers, "cpuset")) {
      // Levels above that are ours hand their lists down by themselves from now on; writing lists
      // makes the kernel rebuild its scheduling domains.
      for (size_t i = before; i < made.size(); ++i) {
        if (made[i] != directory.path) (void)WriteControl(made[i], "cgroup.clone_children", "1");
      }
      RETURN_IF_ERROR(FillCpuset(mount_point, directory.path));
    }
  }
  std::move(undo).Cancel();
  made_ = !made.empty() && made.back() == directories_.back().path;
  return absl::OkStatus();
}

absl::StatusOr<Cgroup::JoinDescriptors> Cgroup::OpenForJoining() const {
  JoinDescriptors join;
  for (const Directory& directory : directories_) {
    if (directory.unified()) {
      ASSIGN_OR_RETURN(join.into, sys::Open(directory.path, O_RDONLY | O_DIRECTORY));
    } else {
      ASSIGN_OR_RETURN(sys::UniqueFd tasks,
                       sys::Open(absl::StrCat(directory.path, "/tasks"), O_WRONLY));
      join.tasks.push_back(std::move(tasks));
    }
  }
  return join;
}

std::string Cgroup::DirectoryOf(absl::string_view controller) const {
  std::string unified;
  for (const Directory& directory : directories_) {
    if (directory.unified()) unified = directory.path;
    if (HasController(directory.controllers, controller)) return directory.path;
  }
  return mode_ == Mode::kV2 ? unified : "";
}

absl::StatusOr<bool> Cgroup::IsFrozen() const {
  if (const std::string freezer = DirectoryOf("freezer"); mode_ != Mode::kV2 && !freezer.empty()) {
    ASSIGN_OR_RETURN(std::string state, ReadControl(freezer, "freezer.state"));
    return state == "FROZEN";
  }
  for (const Directory& directory : directories_) {
    if (!directory.unified()) continue;
    return ValueOf(ReadNamed(directory.path, "cgroup.events"), "frozen") == 1;
  }
  return false;
}

namespace {

absl::Status SetFrozen(const Cgroup& cgroup, bool frozen) {
  RETURN_IF_ERROR(FAILPOINT("cgroup.freeze.before_write"));
  const std::string freezer = cgroup.mode() == Mode::kV2 ? "" : cgroup.DirectoryOf("freezer");
  std::string unified;
  for (const Directory& directory : cgroup.directories()) {
    if (directory.unified()) unified = directory.path;
  }
  if (freezer.empty() && unified.empty()) {
    return absl::FailedPreconditionError(
        "this machine has neither the freezer controller nor cgroup v2: cannot pause");
  }
  const auto write = [&] {
    return freezer.empty() ? WriteControl(unified, "cgroup.freeze", frozen ? "1" : "0")
                           : WriteControl(freezer, "freezer.state", frozen ? "FROZEN" : "THAWED");
  };
  RETURN_IF_ERROR(write());
  absl::Status failure;
  const bool done = WaitUntil(kFreezeTimeout, [&] {
    absl::StatusOr<bool> now = cgroup.IsFrozen();
    if (!now.ok()) {
      failure = now.status();
      return true;
    }
    if (*now == frozen) return true;
    // v1 sometimes needs the request again, when a process was in the middle of forking.
    if (!freezer.empty()) (void)write();
    return false;
  });
  RETURN_IF_ERROR(failure);
  if (done) return absl::OkStatus();
  if (frozen) (void)SetFrozen(cgroup, false);
  return absl::DeadlineExceededError(absl::StrCat("the kernel did not ", frozen ? "freeze" : "thaw",
                                                  " the processes in ",
                                                  absl::FormatDuration(kFreezeTimeout)));
}

}  // namespace

absl::Status Cgroup::Freeze() const { return SetFrozen(*this, true); }
absl::Status Cgroup::Thaw() const { return SetFrozen(*this, false); }

absl::StatusOr<std::vector<pid_t>> Cgroup::Pids() const {
  if (directories_.empty()) return std::vector<pid_t>();
  // One hierarchy is enough, as all processes are in all of them; a controller's own is harder to
  // leave than the named one that systemd may rearrange.
  std::string path = DirectoryOf("pids");
  if (path.empty()) path = directories_[0].path;
  if (!sys::Exists(path)) {
    return absl::NotFoundError(absl::StrCat("the cgroup '", path, "' is gone"));
  }
  std::vector<pid_t> pids;
  CollectPids(path, pids);
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return pids;
}

absl::Status Cgroup::SignalAll(int signal) const {
  ASSIGN_OR_RETURN(std::vector<pid_t> pids, Pids());
  for (pid_t pid : pids) {
    // Opened first and looked up again: a pid that was reused in between is not in our cgroup.
    absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(pid);
    if (!pidfd.ok()) continue;
    ASSIGN_OR_RETURN(std::vector<pid_t> still, Pids());
    if (!std::binary_search(still.begin(), still.end(), pid)) continue;
    absl::Status sent = sys::SignalPidfd(*pidfd, signal);
    if (!sent.ok() && !absl::IsNotFound(sent)) return sent;
  }
  return absl::OkStatus();
}

absl::Status Cgroup::KillAll() const {
  RETURN_IF_ERROR(FAILPOINT("cgroup.kill.before_kill"));
  bool killed = false;
  for (const Directory& directory : directories_) {
    if (directory.unified() && WriteControl(directory.path, "cgroup.kill", "1").ok()) killed = true;
  }
  if (mode_ == Mode::kV2 && killed) return absl::OkStatus();
  // v1: a frozen process dies only once it is thawed. Freezing first keeps forks from escaping;
  // where that does not work, rounds of signals catch them.
  const bool frozen = Freeze().ok();
  absl::Status status;
  for (int round = 0; round < kKillRounds; ++round) {
    absl::StatusOr<std::vector<pid_t>> pids = Pids();
    if (!pids.ok() || pids->empty()) break;
    status = SignalAll(SIGKILL);
    if (frozen || !status.ok()) break;
  }
  if (frozen || IsFrozen().value_or(false)) status = FirstError(status, Thaw());
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status Cgroup::Remove() const {
  absl::Status first;
  for (const Directory& directory : directories_) {
    RETURN_IF_ERROR(FAILPOINT("cgroup.remove.before_rmdir"));
    absl::Status status;
    const bool done = WaitUntil(kRemoveTimeout, [&] {
      status = RemoveLevels(directory.path);
      return status.ok() || (!absl::IsFailedPrecondition(status) && !absl::IsUnavailable(status) &&
                             !absl::IsResourceExhausted(status));
    });
    if (!done) {
      status = absl::FailedPreconditionError(absl::StrCat(
          "remove the cgroup '", directory.path, "': processes are left in it; kill them first"));
    }
    first = FirstError(first, status);
  }
  return first;
}

bool Cgroup::Exists() const {
  return std::any_of(directories_.begin(), directories_.end(),
                     [](const Directory& directory) { return sys::Exists(directory.path); });
}

}  // namespace gantry::cgroup
