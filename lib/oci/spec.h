// config.json of an OCI bundle (runtime spec 1.0 to 1.3) as types, with a strict reader and a
// writer.
//
// The members are the document's, by the same names in our spelling; what they mean is the runtime
// specification's to say, so comments here only state what the document cannot: our defaults and
// checks. An absent member is the default-constructed value, or std::nullopt where zero and absent
// differ.
//
//   ASSIGN_OR_RETURN(oci::Spec spec, oci::ParseSpec(config_json));   // the runtime
//   oci::Spec spec = oci::DefaultSpec();                             // the engine
//   spec.process->args = {"sh"};
//   std::string config_json = oci::WriteSpec(spec);
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/json/json.h"

namespace gantry::oci {

inline constexpr char kSpecVersion[] = "1.3.0";

using StringMap = std::map<std::string, std::string>;

struct User {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::optional<uint32_t> umask;
  std::vector<uint32_t> additional_gids;
};

struct Capabilities {  // Names as "CAP_CHOWN".
  std::vector<std::string> bounding, permitted, effective, inheritable, ambient;
};

struct Rlimit {
  std::string type;  // "RLIMIT_NOFILE"
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct Scheduler {
  std::string policy;  // "SCHED_OTHER"
  int32_t nice = 0;
  int32_t priority = 0;
  std::vector<std::string> flags;
  uint64_t runtime = 0, deadline = 0, period = 0;
};

struct IoPriority {
  std::string priority_class;  // "IOPRIO_CLASS_BE"; the document calls it `class`.
  int32_t priority = 0;
};

struct CpuAffinity {
  std::string initial, final;  // Lists such as "0-3,7".
};

struct ConsoleSize {
  uint64_t height = 0, width = 0;
};

struct Process {
  bool terminal = false;
  std::optional<ConsoleSize> console_size;
  User user;
  std::vector<std::string> args;
  std::vector<std::string> env;  // "NAME=value"
  std::string cwd = "/";
  std::optional<Capabilities> capabilities;
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
  std::optional<int32_t> oom_score_adj;
  std::string apparmor_profile;
  std::string selinux_label;
  std::optional<Scheduler> scheduler;
  std::optional<IoPriority> io_priority;
  std::optional<CpuAffinity> exec_cpu_affinity;
};

struct Root {
  std::string path;  // Absolute, or relative to the bundle.
  bool readonly = false;
};

struct IdMapping {
  uint32_t container_id = 0, host_id = 0, size = 0;
};

struct Mount {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;
  std::vector<IdMapping> uid_mappings, gid_mappings;
};

struct Hook {
  std::string path;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::optional<int64_t> timeout_seconds;
};

struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart,
      poststop;
};

struct Namespace {
  std::string type;  // mount pid network uts ipc user cgroup time
  std::string path;  // Empty: a new one.
};

struct Device {
  std::string type;  // c b u p
  std::string path;
  int64_t major = 0, minor = 0;
  std::optional<uint32_t> file_mode;
  std::optional<uint32_t> uid, gid;
};

struct DeviceRule {
  bool allow = false;
  std::string type;                     // a c b; empty: a.
  std::optional<int64_t> major, minor;  // Absent or -1: all.
  std::string access;                   // Of r w m; empty: all.
};

struct MemoryResources {
  std::optional<int64_t> limit, reservation, swap, kernel, kernel_tcp;  // Bytes; -1: no limit.
  std::optional<uint64_t> swappiness;
  std::optional<bool> disable_oom_killer, use_hierarchy, check_before_update;
};

struct CpuResources {
  std::optional<uint64_t> shares;
  std::optional<int64_t> quota;  // Microseconds a period; -1: no limit.
  std::optional<uint64_t> burst, period, realtime_period;
  std::optional<int64_t> realtime_runtime;
  std::string cpus, mems;  // Lists such as "0-3,7"; empty: not limited.
  std::optional<int64_t> idle;
};

struct BlockIoResources {
  struct Weight {
    int64_t major = 0, minor = 0;
    std::optional<uint16_t> weight, leaf_weight;
  };
  struct Throttle {
    int64_t major = 0, minor = 0;
    uint64_t rate = 0;
  };
  std::optional<uint16_t> weight, leaf_weight;
  std::vector<Weight> weight_devices;
  std::vector<Throttle> read_bps, write_bps, read_iops, write_iops;
};

struct HugepageLimit {
  std::string page_size;  // "2MB"
  uint64_t limit = 0;
};

struct NetworkResources {
  std::optional<uint32_t> class_id;
  struct Priority {
    std::string name;
    uint32_t priority = 0;
  };
  std::vector<Priority> priorities;
};

struct RdmaLimit {
  std::optional<uint32_t> hca_handles, hca_objects;
};

struct Resources {
  std::vector<DeviceRule> devices;
  std::optional<MemoryResources> memory;
  std::optional<CpuResources> cpu;
  std::optional<int64_t> pids_limit;  // -1: no limit.
  std::optional<BlockIoResources> block_io;
  std::vector<HugepageLimit> hugepages;
  std::optional<NetworkResources> network;
  std::map<std::string, RdmaLimit> rdma;
  StringMap unified;  // cgroup v2 file names to values.
};

struct SeccompArg {
  uint32_t index = 0;
  uint64_t value = 0, value_two = 0;
  std::string op;  // "SCMP_CMP_EQ"
};

struct SeccompRule {
  std::vector<std::string> names;
  std::string action;  // "SCMP_ACT_ALLOW"
  std::optional<uint32_t> errno_ret;
  std::vector<SeccompArg> args;
};

struct Seccomp {
  std::string default_action;
  std::optional<uint32_t> default_errno_ret;
  std::vector<std::string>
      architectures;  // "SCMP_ARCH_X86_64"; the machine's own is always covered.
  // Absent: SECCOMP_FILTER_FLAG_SPEC_ALLOW, as runc has it; empty: none.
  std::optional<std::vector<std::string>> flags;
  std::string listener_path, listener_metadata;
  std::vector<SeccompRule> syscalls;
};

struct IntelRdt {
  std::string clos_id;
  std::vector<std::string> schemata;
  std::string l3_cache_schema, mem_bw_schema;
  bool enable_monitoring = false;
};

struct MemoryPolicy {
  std::string mode, nodes;
  std::vector<std::string> flags;
};

struct Personality {
  std::string domain;  // LINUX or LINUX32
  std::vector<std::string> flags;
};

struct TimeOffset {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
};

struct Linux {
  std::vector<Namespace> namespaces;
  std::vector<IdMapping> uid_mappings, gid_mappings;
  std::map<std::string, TimeOffset> time_offsets;  // "boottime", "monotonic"
  std::vector<Device> devices;
  std::string cgroups_path;
  std::optional<Resources> resources;
  std::string rootfs_propagation;
  std::optional<Seccomp> seccomp;
  StringMap sysctl;
  std::vector<std::string> masked_paths, readonly_paths;
  std::string mount_label;
  std::optional<IntelRdt> intel_rdt;
  std::optional<MemoryPolicy> memory_policy;
  std::optional<Personality> personality;
  std::map<std::string, std::string> net_devices;  // Host name to container name (may be empty).

  // The first namespace of this type; nullptr when the container shares its creator's.
  const Namespace* FindNamespace(absl::string_view type) const;
  Namespace* FindNamespace(absl::string_view type);
};

struct Spec {
  std::string oci_version = kSpecVersion;
  std::optional<Process> process;
  std::optional<Root> root;
  std::string hostname, domainname;
  std::vector<Mount> mounts;
  Hooks hooks;
  StringMap annotations;
  Linux linux_;  // `linux` is a macro of the GNU dialect.
};

// Reads and checks config.json. Nothing is changed on the machine before this has said OK.
// Errors: InvalidArgument, with the path of the wrong key ("linux.namespaces[1].type: …").
absl::StatusOr<Spec> ParseSpec(absl::string_view json);

// The parts callers hand over alone: `exec --process FILE`, `update --resources FILE`.
absl::StatusOr<Process> ParseProcess(absl::string_view json);
absl::StatusOr<Resources> ParseResources(absl::string_view json);
// An array of mounts, as crun's `mounts add` takes it.
absl::StatusOr<std::vector<Mount>> ParseMounts(absl::string_view json);

// The checks of ParseSpec on a Spec made in memory. Errors: as ParseSpec.
absl::Status CheckSpec(const Spec& spec);
absl::Status CheckMounts(const std::vector<Mount>& mounts);
absl::Status CheckProcess(const Process& process, absl::string_view path);
absl::Status CheckResources(const Resources& resources, absl::string_view path);

// The document; ParseSpec reads it back as the same Spec.
std::string WriteSpec(const Spec& spec);
std::string WriteProcess(const Process& process);
std::string WriteResources(const Resources& resources);

// Docker's defaults, as a start for the engine: root user, its 14 capabilities in bounding,
// permitted and effective, no_new_privileges off, /proc /dev /dev/pts /dev/shm /dev/mqueue /sys
// /sys/fs/cgroup, masked and read-only paths, the six namespaces and cgroup, the device allow-list,
// seccomp by DefaultSeccomp for these capabilities. root.path is "rootfs"; process.args is empty
// and to be set.
Spec DefaultSpec();

// What `gantry-runtime spec` writes: runc's example, which runs `sh` on a terminal.
Spec ExampleSpec(bool rootless);

// Docker's default seccomp profile for a process whose bounding set is `capabilities`; recompute it
// after changing them.
Seccomp DefaultSeccomp(const std::vector<std::string>& capabilities);

// "CAP_CHOWN" (or "chown", any case) to its number and back. Errors: NotFound — no such capability.
absl::StatusOr<int> CapabilityNumber(absl::string_view name);
absl::string_view CapabilityName(int number);  // Empty above the last one.
inline constexpr int kLastCapability = 40;     // CAP_CHECKPOINT_RESTORE

// Docker's default set, and all that exist.
const std::vector<std::string>& DefaultCapabilities();
std::vector<std::string> AllCapabilities();

// Signals by number or name: "9", "KILL", "sigkill", "RTMIN+3". Errors: InvalidArgument.
absl::StatusOr<int> ParseSignal(absl::string_view text);

}  // namespace gantry::oci
