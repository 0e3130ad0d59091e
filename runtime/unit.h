// The systemd unit that a container's cgroup is, where the systemd driver made it.
#pragma once

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/systemd.h"
#include "lib/oci/spec.h"
#include "runtime/new_process.h"
#include "runtime/record.h"

namespace gantry::runtime {

// A unit while its container is created. A scope needs a process from its first moment: one that
// does nothing holds it until init is born inside, and dies with this object. So a new container
// joins a systemd scope the same way as any other cgroup, with all limits in force. Move-only.
class NewUnit {
 public:
  // Starts the unit with the limits as its properties. Errors: as cgroup::Systemd; what was started
  // is stopped again.
  static absl::StatusOr<NewUnit> Start(const cgroup::UnitName& name, bool user,
                                       const cgroup::Layout& layout,
                                       const oci::Resources& resources,
                                       const oci::StringMap& annotations, bool devices);

  // The unit's directories in every hierarchy; systemd made those that it uses itself.
  const cgroup::Cgroup& cgroup() const { return cgroup_; }

 private:
  explicit NewUnit(NewProcess holder) : holder_(std::move(holder)) {}
  NewProcess holder_;
  cgroup::Cgroup cgroup_;
};

// Where we may not clone into the unit's cgroup ourselves (a user in a login session, whose part of
// the tree is not the user's), systemd moves the new process there.
bool CanAttachToUnit(const Record& record, int clone_error);
absl::Status AttachToUnit(const Record& record, pid_t pid);

// Hands changed limits to systemd before they are written to the files; nothing to do for a
// container that has no unit.
absl::Status UpdateUnit(const Record& record, const oci::Resources& resources);

// Stops the unit, whose processes are dead, and makes systemd forget it; fine when it is gone, or
// when there never was one.
absl::Status StopUnit(const Record& record);

}  // namespace gantry::runtime
