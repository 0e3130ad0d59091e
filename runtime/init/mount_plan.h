// A mount of config.json with its options understood: pure, so that a wrong option is refused
// before anything is made.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

struct MountPlan {
  std::string destination;  // Clean: begins with one '/', no "." or "..".
  std::string type, source;
  bool bind = false;
  bool recursive = false;                              // rbind
  uint64_t set = 0, clear = 0;                         // MOUNT_ATTR_* of the mount itself.
  uint64_t recursive_set = 0, recursive_clear = 0;     // … of everything below it, too.
  std::vector<std::pair<uint64_t, bool>> propagation;  // MS_SHARED …, and whether recursive.
  std::vector<std::string> flags;                      // File system flags: "sync".
  std::vector<std::pair<std::string, std::string>>
      data;              // Options of the file system; value may be "".
  bool copy_up = false;  // tmpcopyup: the tmpfs begins with what it hides.
  bool idmap = false, idmap_recursive = false;
  std::vector<oci::IdMapping> uid_mappings, gid_mappings;
  bool source_is_directory = true;  // Of a bind; found out when planning for real.

  // Made by the creator where the new process could not: a detached clone of the source.
  sys::UniqueFd tree;
};

// `index` names the mount in errors. Errors: InvalidArgument — an option that contradicts, a place
// where nothing may be mounted (/proc apart from a short list, "/").
absl::StatusOr<MountPlan> PlanMount(const oci::Mount& mount, size_t index);

// Options this runtime knows by name, for `features`.
std::vector<std::string> KnownMountOptions();

// MS_SHARED …, with MS_REC for the r-forms: "rslave". 0: not a propagation.
uint64_t PropagationFlag(absl::string_view name);

// "/a/./b/../c" to "/a/c", lexically; never above "/".
std::string CleanPath(absl::string_view path);

}  // namespace gantry::runtime
