// A container's cgroup, on cgroup v2, v1, or both mounted side by side (hybrid).
//
// On v1 a cgroup is one directory in each mounted hierarchy (cpu, memory, freezer …, name=systemd),
// on v2 one directory; a hybrid machine has the v1 directories and one in the v2 tree without
// controllers, which still gives us birth inside (CLONE_INTO_CGROUP), cgroup.kill and
// cgroup.events. The class keeps the list of directories, so that callers need not know which kind
// of machine this is.
//
// Joining: a write to `cgroup.procs` waits for an RCU grace period per hierarchy, milliseconds; a
// single-threaded process that writes 0 to `tasks` skips the lock (COSTS 11), and on v2 clone3
// gives birth inside. So the joiner is the container's init itself, through JoinDescriptors.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::cgroup {

enum class Mode { kV1, kHybrid, kV2 };

// One mounted hierarchy of this machine.
struct Hierarchy {
  std::string mount_point;  // "/sys/fs/cgroup/memory"
  std::string controllers;  // "cpu,cpuacct", "name=systemd"; empty for v2.
  std::string own_path;     // Where the calling process is: "/user.slice".
  bool unified() const { return controllers.empty(); }
};

// What is mounted. Reads /proc/self/cgroup and, where things are not at their usual place, the
// mount table. Errors: NotFound — no cgroups on this machine.
struct Layout {
  Mode mode = Mode::kV1;
  std::vector<Hierarchy> hierarchies;
  static absl::StatusOr<Layout> Detect();
};

struct Directory {
  std::string path;         // "/sys/fs/cgroup/memory/gantry/web"
  std::string controllers;  // As in Hierarchy.
  bool unified() const { return controllers.empty(); }
};

// Thread-compatible. Holds no descriptors and owns nothing: the directories live until Remove.
class Cgroup {
 public:
  Cgroup() = default;
  // From recorded directories (the runtime's state), without looking at the machine.
  Cgroup(Mode mode, std::vector<Directory> directories)
      : mode_(mode), directories_(std::move(directories)) {}

  // Names the directories; makes nothing. `path` is linux.cgroupsPath: absolute from the root of
  // each hierarchy, relative below the caller's own cgroup. Errors: InvalidArgument — empty, or
  // "..", or a control byte in it (SECURITY-RULES 21).
  static absl::StatusOr<Cgroup> Plan(const Layout& layout, absl::string_view path);

  // Makes the directories, enabling v2 controllers from the root down, and copies cpuset's cpus and
  // mems from the parents on v1. What was made is removed again on failure; a directory that was
  // there is an error unless `reuse` is set (callers that share one cgroup between containers).
  absl::Status Create(bool reuse = true);

  // Writes the limits. On v2 the device rules become an eBPF program. `rootless` leaves devices
  // alone. Errors: InvalidArgument — a value the kernel refuses, or a limit whose controller is not
  // mounted.
  absl::Status Apply(const oci::Resources& resources, bool rootless = false) const;

  // checkBeforeUpdate: whether memory in use is below a new limit. Errors: FailedPrecondition.
  absl::Status CheckUpdate(const oci::Resources& resources) const;

  // v2: gives the directory, and the files of it that the kernel says may be given
  // (/sys/kernel/cgroup/delegate), to a user, who can then make cgroups below it and move its
  // processes between them. Limits stay out of reach: they are files of ours.
  absl::Status Delegate(uid_t uid) const;

  // Changes limits of a running container: raising and lowering memory and swap in the right order,
  // replacing the device program only if rules are given.
  absl::Status Update(const oci::Resources& resources) const;

  // What a new process needs to join. `into` (may be none) is for clone3's CLONE_INTO_CGROUP; the
  // child then writes "0" to each of `tasks`. All close-on-exec.
  struct JoinDescriptors {
    sys::UniqueFd into;
    std::vector<sys::UniqueFd> tasks;
  };
  absl::StatusOr<JoinDescriptors> OpenForJoining() const;

  // Freezes or thaws all processes, and waits until the kernel says so.
  absl::Status Freeze() const;
  absl::Status Thaw() const;
  absl::StatusOr<bool> IsFrozen() const;

  // All processes in the cgroup and below it, sorted, without duplicates.
  absl::StatusOr<std::vector<pid_t>> Pids() const;

  // SIGKILL to every process in it and below it: cgroup.kill where there is one, else freeze,
  // signal, thaw, until none is left. Does not wait for them to end.
  absl::Status KillAll() const;
  // Any signal to every process.
  absl::Status SignalAll(int signal) const;

  // Removes the directories and those below them; fine when they are gone. Waits up to two seconds
  // for processes that are dying. Errors: FailedPrecondition — processes are left.
  absl::Status Remove() const;

  bool Exists() const;
  // Whether Create made it, so that undoing a failed creation does not take what others use.
  bool made() const { return made_; }
  bool empty() const { return directories_.empty(); }
  Mode mode() const { return mode_; }
  const std::vector<Directory>& directories() const { return directories_; }

  // Directory of a controller ("memory"); on v2 the one directory, whatever is asked. Empty: none.
  std::string DirectoryOf(absl::string_view controller) const;

 private:
  Mode mode_ = Mode::kV1;
  std::vector<Directory> directories_;
  bool made_ = false;
};

// --- Reading
// -----------------------------------------------------------------------------------------

struct NamedValue {
  std::string name;
  uint64_t value = 0;
};

struct BlockIoEntry {
  uint64_t major = 0, minor = 0;
  std::string operation;  // v1: "Read", "Write", "Sync" …; empty where the file has none.
  uint64_t value = 0;
};

inline constexpr uint64_t kNoLimit = UINT64_MAX;

// v1, units as the files have them: nanoseconds, bytes. Missing controllers leave zeros.
struct StatsV1 {
  uint64_t pids_current = 0, pids_limit = 0;  // Limit 0: none.
  uint64_t cpu_usage_total = 0;
  std::vector<uint64_t> cpu_usage_percpu;
  uint64_t cpu_usage_kernel = 0, cpu_usage_user = 0;
  uint64_t throttling_periods = 0, throttled_periods = 0, throttled_time = 0;
  std::vector<NamedValue> memory_stat;  // memory.stat, line by line.
  struct MemoryEntry {
    uint64_t limit = 0, usage = 0, max = 0, failcnt = 0;
  };
  MemoryEntry memory, memory_swap, kernel, kernel_tcp;
  uint64_t oom_kill_disable = 0, under_oom = 0, oom_kill = 0;  // memory.oom_control
  std::vector<BlockIoEntry> io_service_bytes_recursive, io_serviced_recursive, io_queued_recursive,
      io_service_time_recursive, io_wait_time_recursive, io_merged_recursive, io_time_recursive,
      sectors_recursive;
  struct Hugetlb {
    std::string page_size;
    uint64_t usage = 0, max = 0, failcnt = 0;
  };
  std::vector<Hugetlb> hugetlb;
};

// v2, units as the files have them: microseconds, bytes.
struct StatsV2 {
  uint64_t pids_current = 0, pids_limit = 0;  // Limit 0: none ("max").
  std::vector<NamedValue> cpu_stat;  // cpu.stat: usage_usec, user_usec, system_usec, nr_periods …
  std::vector<NamedValue> memory_stat;
  uint64_t memory_usage = 0, memory_limit = kNoLimit, memory_max_usage = 0;
  uint64_t swap_usage = 0, swap_limit = kNoLimit, swap_max_usage = 0;
  std::vector<NamedValue> memory_events;  // low high max oom oom_kill
  struct Io {
    uint64_t major = 0, minor = 0, rbytes = 0, wbytes = 0, rios = 0, wios = 0, dbytes = 0, dios = 0;
  };
  std::vector<Io> io;
  struct Hugetlb {
    std::string page_size;
    uint64_t current = 0, max = 0, events_max = 0;
  };
  std::vector<Hugetlb> hugetlb;
  // cpu.pressure, memory.pressure, io.pressure as they are; empty where the kernel has none.
  std::string cpu_pressure, memory_pressure, io_pressure;
};

// Value of `name`, 0 when it is not there.
uint64_t ValueOf(const std::vector<NamedValue>& values, absl::string_view name);

// Read StatsV1 where mode() is not kV2. Errors: NotFound — the cgroup is gone.
absl::StatusOr<StatsV1> ReadStatsV1(const Cgroup& cgroup);
absl::StatusOr<StatsV2> ReadStatsV2(const Cgroup& cgroup);

// Tells when the kernel killed for lack of memory: an eventfd on v1's memory.oom_control, inotify
// on v2's memory.events. Move-only, thread-compatible.
class OomWatch {
 public:
  // Errors: NotFound — no memory controller, or the cgroup is gone.
  static absl::StatusOr<OomWatch> Open(const Cgroup& cgroup);

  // Readable when there may be news; non-blocking.
  int fd() const { return fd_.get(); }

  // Processes killed since the last call (or since Open). 0: nothing; also when the cgroup was
  // removed, after which `gone` is true and the descriptor should no longer be polled.
  uint64_t Drain();
  bool gone() const { return gone_; }

 private:
  OomWatch() = default;
  uint64_t ReadKills() const;

  sys::UniqueFd fd_, counter_;
  bool unified_ = false;
  bool gone_ = false;
  uint64_t seen_ = 0;
};

}  // namespace gantry::cgroup
