// What a container leaves on disk: `<state_root>/<id>/state.json` (docs/formats/runtime-state.md).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "runtime/resctrl.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

inline constexpr char kRecordName[] = "state.json";
inline constexpr char kConfigName[] = "config.json";
inline constexpr char kStartSocketName[] = "start.sock";

// Written twice in a creation: before anything else exists (pid 0), so that a crash leaves a name
// to delete by, and once init waits.
struct Record {
  std::string id, bundle, rootfs, owner, oci_version;
  absl::Time created;
  pid_t pid = 0;
  uint64_t start_time = 0;  // Of pid, in clock ticks: with it, an identity.
  std::string boot_id;      // After a reboot pids mean nothing.
  bool own_pid_namespace = false;
  bool start_by_others = false;
  bool rootless = false;
  bool no_new_keyring = false;
  // Whether the configuration has such hooks: start and delete need not read it when not.
  bool has_poststart = false, has_poststop = false;
  CgroupManager cgroup_manager = CgroupManager::kCgroupfs;
  std::string systemd_unit;   // Of the systemd driver: "gantry-web.scope".
  bool systemd_user = false;  // It belongs to the user's own systemd.
  cgroup::Mode cgroup_mode = cgroup::Mode::kV1;
  std::vector<cgroup::Directory> cgroups;
  ResctrlPlan resctrl;
  oci::StringMap annotations;
  std::string seccomp_cache;
};

// Replaces the record by rename. `directory` is the container's.
absl::Status SaveRecord(const std::string& directory, const Record& record);

// The first record and the configuration, straight into the directory that was just claimed: a
// crash in the middle leaves half a file, which means that nothing else was made yet.
absl::Status SaveFirstRecord(const std::string& directory, const Record& record,
                             absl::string_view config_json);

// Removes the files above and the directory; what else is in it, too.
absl::Status RemoveContainerDirectory(const std::string& directory);

// Errors: NotFound; DataLoss — not a record of ours.
absl::StatusOr<Record> LoadRecord(const std::string& directory);

// /proc/sys/kernel/random/boot_id.
std::string BootId();

}  // namespace gantry::runtime
