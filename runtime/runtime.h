// Containers by the OCI runtime specification, in the calling process: no runtime binary is
// started.
//
// A Container is known by (state root, id). Life cycle:
//
//   Create   everything but the program runs: namespaces, cgroup with limits, mounts, devices,
//   pivot,
//            the program looked up. Its init waits.               state: creating → created
//   Start    init passes on and becomes the program.              state: running
//   Pause, Resume, Update, Exec, Kill while it runs               state: running, paused
//   the program ends; the caller, its parent, reaps it            state: stopped
//   Delete   removes cgroup and state, runs poststop hooks
//
//   ASSIGN_OR_RETURN(runtime::Container container, runtime::Container::Create(options));
//   … watch container.pidfd() …
//   RETURN_IF_ERROR(container.Start());
//
// Init and exec'd programs are children of the caller: it reaps them, by pidfd
// (waitid(P_PIDFD)), and nothing here reaps behind its back. The caller is single-threaded, and has
// called ProtectSelf() as the first thing in main when it creates or execs.
//
// Root file systems are mounted by the caller before Create, on the spec's root.path.
// State: `<state_root>/<id>/` (docs/formats/runtime-state.md); every command works from it alone,
// so a new process goes on after a crash at any point. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// What `features` may promise.
inline constexpr bool kIdmapMounts = true;
inline constexpr bool kNetDevices = true;

// Makes sure that the running binary cannot be overwritten through /proc/PID/exe (CVE-2019-5736,
// SECURITY-RULES 2): unless it runs from a read-only mount or a sealed memfd already, executes
// itself anew from a private read-only clone of its mount. Costs one exec, once a process; `argv`
// and the environment stay. Also makes the process undumpable. Call it before anything else is set
// up.
absl::Status ProtectSelf(char** argv);

// The running binary through a read-only clone of its mount (else as a sealed memfd): executing
// "/proc/self/fd/N" of it yields a process for which ProtectSelf has nothing to do.
absl::StatusOr<sys::UniqueFd> OpenProtectedExecutable();

enum class Status { kCreating, kCreated, kRunning, kPaused, kStopped };
absl::string_view StatusName(Status status);  // "created"

// One step of a start and how long it took.
struct Timing {
  std::string step;  // From a small fixed set: parse, cgroup, seccomp, clone, join, mounts, pivot …
  int64_t microseconds = 0;
};

enum class CgroupManager { kCgroupfs, kSystemd, kDisabled };

// Descriptors of the program; borrowed, and copied into it as 0, 1 and 2. -1: the null device.
struct Stdio {
  int in = -1, out = -1, err = -1;
};

struct TerminalSize {
  uint16_t rows = 0, columns = 0;
};

struct CreateOptions {
  std::string id;          // [A-Za-z0-9_+-][A-Za-z0-9_+.-]*, at most 1024 bytes
  std::string bundle;      // Absolute.
  std::string state_root;  // Absolute; made when missing, mode 0700.

  // The configuration when the caller has it parsed; else <bundle>/<config_name> is read.
  const oci::Spec* spec = nullptr;
  std::string config_name = "config.json";

  // With process.terminal a pty is made: its master goes to `console_socket` when set, else to the
  // caller (Container::TakeConsole), and `stdio` is not used.
  Stdio stdio;
  std::string console_socket;
  TerminalSize terminal_size;  // 0: process.consoleSize, else the kernel's default.

  std::string pid_file;      // Written complete (temporary name, rename) once init waits.
  std::string pidfd_socket;  // Gets init's pidfd.
  int preserve_fds = 0;  // Keep descriptors 3 … 3+N-1 (after those of LISTEN_FDS) open in init.
  int listen_fds = 0;    // LISTEN_FDS of the caller, passed on with LISTEN_PID=1.
  std::string notify_socket;  // Not empty: the container gets /run/notify/notify.sock (sd_notify).
  bool no_pivot = false;
  bool no_new_keyring = false;
  CgroupManager cgroup_manager = CgroupManager::kCgroupfs;
  std::optional<bool> rootless;  // Unset: found out.

  // Where compiled seccomp filters are kept; empty: "<state_root>/.cache/seccomp".
  std::string seccomp_cache;

  // Another process will call Start (the command line). Off, init waits on a descriptor of this
  // process only, and dies with it if it was not started: cheaper, and what the shim wants.
  bool start_by_others = true;
};

struct ExecOptions {
  oci::Process
      process;  // Members that are absent are not taken from the container's configuration…
  bool inherit_defaults =
      true;  // …except capabilities, no_new_privileges, labels, rlimits with this.
  Stdio stdio;
  std::string console_socket;
  TerminalSize terminal_size;
  std::string pid_file, pidfd_socket;
  int preserve_fds = 0;
  std::map<std::string, std::string>
      cgroups;  // Controller ("" for all) to a path below the container's.
  bool ignore_paused = false;
};

// A process of the container that the caller must reap.
struct ExecedProcess {
  pid_t pid = 0;
  sys::UniqueFd pidfd;
  sys::UniqueFd
      console;  // Master of its pty, when it has a terminal and no console socket was given.
  std::vector<Timing> timings;
};

// What `state` prints.
struct State {
  std::string oci_version, id, bundle, rootfs, owner;
  Status status = Status::kStopped;
  pid_t pid = 0;  // 0 when stopped.
  absl::Time created;
  oci::StringMap annotations;
};
std::string WriteState(const State& state);

// Move-only. Holding one holds init's pidfd, not its life: destroying it changes nothing outside.
class Container {
 public:
  // Errors: AlreadyExists — the id is taken; InvalidArgument — the configuration, with the path of
  // the wrong key; NotFound — `exec: "X": executable file not found in $PATH`. Nothing is left
  // behind on failure.
  static absl::StatusOr<Container> Create(const CreateOptions& options);

  // From the files of `<state_root>/<id>` alone. A creation that died half-way loads as kStopped,
  // for Delete. Errors: NotFound "container '<id>' does not exist".
  static absl::StatusOr<Container> Load(const std::string& state_root, const std::string& id);

  Container(Container&&) noexcept;
  Container& operator=(Container&&) noexcept;
  ~Container();

  const std::string& id() const;
  pid_t pid() const;                   // Init's, also after it ended.
  const sys::UniqueFd& pidfd() const;  // Init's; not ok() when it was gone at Load.
  const cgroup::Cgroup& cgroup() const;
  // Fixed at Create: whether the init has a pid namespace of its own, so that killing it kills all.
  bool has_own_pid_namespace() const;

  // The pty's master after Create with a terminal and without a console socket; once.
  sys::UniqueFd TakeConsole();

  // Releases init and waits until the program is executed (microseconds), or the error of that.
  // Then runs poststart hooks, whose failure kills the container. Errors: FailedPrecondition — not
  // in state created; NotFound, PermissionDenied … — from exec.
  absl::Status Start();

  // Runs one more process in all namespaces and the cgroup of the container; returns once its
  // program is executed. Errors: FailedPrecondition — stopped or paused; NotFound … — from exec.
  absl::StatusOr<ExecedProcess> Exec(const ExecOptions& options);

  // To init, or with `all` to every process of the container. Errors: FailedPrecondition "container
  // not running".
  absl::Status Kill(int signal, bool all = false);

  absl::Status Pause();
  absl::Status Resume();
  absl::Status Update(const oci::Resources& resources);
  // Lines of the container's resctrl group; an empty one changes nothing. Errors:
  // FailedPrecondition — it has no such group.
  absl::Status UpdateCacheAndBandwidth(const std::string& l3_cache_schema,
                                       const std::string& mem_bw_schema);

  // Mounts one after the other into the root of the container, as config.json's; sources are the
  // host's. The first that fails ends it, those before stay. Errors: FailedPrecondition — stopped;
  // InvalidArgument — a kind that only a creation can make.
  absl::Status AddMounts(const std::vector<oci::Mount>& mounts);
  // Unmounts each destination; nothing else of `mounts` counts. Errors: FailedPrecondition —
  // nothing is mounted there.
  absl::Status RemoveMounts(const std::vector<oci::Mount>& mounts);

  // Host pids of all processes, sorted.
  absl::StatusOr<std::vector<pid_t>> Pids() const;

  absl::StatusOr<Status> GetStatus() const;
  absl::StatusOr<State> GetState() const;

  // Removes cgroup and state, then runs poststop hooks (failures are in `warnings`). With `force`,
  // a container that is not stopped is killed first, and waited for up to ten seconds. Errors:
  // FailedPrecondition — not stopped.
  absl::Status Delete(bool force, std::vector<std::string>* warnings = nullptr);

  // Steps of Create and Start so far, in order.
  const std::vector<Timing>& timings() const;

  // The configuration as it was at Create, read from the state on first use.
  absl::StatusOr<const oci::Spec*> GetSpec() const;

  class Impl;

 private:
  explicit Container(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Ids with a directory below the state root, sorted. A missing root is an empty list.
absl::StatusOr<std::vector<std::string>> ListContainers(const std::string& state_root);

// Force-deletes by files alone; fine when there is no such container. What a shim's `delete` needs.
absl::Status ForceDelete(const std::string& state_root, const std::string& id);

// [A-Za-z0-9_+-][A-Za-z0-9_+.-]*. Errors: InvalidArgument.
absl::Status CheckContainerId(absl::string_view id);

}  // namespace gantry::runtime
