// systemd, as far as the systemd cgroup driver needs it: transient units over D-Bus.
//
// The rule of a machine with systemd is that one process writes the cgroup tree. A container's
// cgroup is therefore a scope that systemd makes and hands over (Delegate=yes); what is below it,
// and the limits in its files, are then ours.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/cgroup/systemd_unit.h"
#include "lib/dbus/connection.h"

namespace gantry::cgroup {

// Where a manager may be reached.
struct Endpoint {
  std::string path;
  dbus::Peer peer = dbus::Peer::kBus;
};

// The machine's systemd: $DBUS_SYSTEM_BUS_ADDRESS if set, else its private socket, then the system
// bus. A user's own (`user`): $DBUS_SESSION_BUS_ADDRESS, then the sockets in $XDG_RUNTIME_DIR.
// Addresses that are no paths are left out.
std::vector<Endpoint> SystemdEndpoints(bool user);

// One connection. Everything ends within its timeout. Move-only, single-threaded.
class Systemd {
 public:
  // The first endpoint that answers. Errors: Unavailable — none does: no systemd, or for a user no
  // session; says what to do.
  static absl::StatusOr<Systemd> Connect(const std::vector<Endpoint>& endpoints,
                                         absl::Duration timeout = absl::Seconds(30));
  static absl::StatusOr<Systemd> Connect(bool user) { return Connect(SystemdEndpoints(user)); }

  // Its version, 252. Asked once.
  absl::StatusOr<int> Version();

  // Makes the unit, a scope around `pid` (which must live until others are in it) or a slice, and
  // waits until it is there. A unit of the name that failed earlier is cleared away first. Errors:
  // AlreadyExists — such a unit is active; InvalidArgument — a property; PermissionDenied;
  // FailedPrecondition — the job failed, with its result.
  absl::Status StartUnit(const UnitName& name, pid_t pid, std::vector<UnitProperty> properties);

  // Path of the unit's cgroup from the root of the hierarchy: "/system.slice/web.scope".
  absl::StatusOr<std::string> ControlGroup(const UnitName& name);

  // Until the next boot. Errors: NotFound — the unit is gone; InvalidArgument.
  absl::Status SetProperties(const std::string& unit, std::vector<UnitProperty> properties);

  // Moves a process into the unit's cgroup. systemd can where we may not: from outside of a user's
  // own part of the tree. Errors: PermissionDenied — not the same user's.
  absl::Status AttachProcess(const std::string& unit, pid_t pid);

  // Stops the unit and forgets that it failed; fine when it is gone. Its processes should be dead:
  // systemd would ask them to end, and wait.
  absl::Status StopUnit(const std::string& unit);

 private:
  explicit Systemd(dbus::Connection connection) : connection_(std::move(connection)) {}
  absl::StatusOr<std::vector<dbus::Value>> Call(const char* member,
                                                const std::vector<dbus::Value>& arguments);
  absl::StatusOr<dbus::Value> GetProperty(const std::string& path, const char* interface,
                                          const char* name);
  absl::Status AwaitJob(const std::vector<dbus::Value>& reply, const std::string& unit);

  dbus::Connection connection_;
  int version_ = 0;
};

}  // namespace gantry::cgroup
