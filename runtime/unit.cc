#include "runtime/unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <iterator>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/kernel.h"

namespace gantry::runtime {
namespace {

using Properties = std::vector<cgroup::UnitProperty>;

absl::StatusOr<NewProcess> StartHolder() {
  int raw_pidfd = -1;
  const pid_t pid = kernel::Clone(0, &raw_pidfd, SIGCHLD);
  if (pid < 0) return sys::ErrnoError(errno, "clone the process that holds the systemd scope");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    kernel::CloseRange(0, ~0u, 0);
    for (;;) ::pause();
  }
  return NewProcess(pid, sys::UniqueFd(raw_pidfd));
}

void Extend(Properties& properties, Properties more) {
  properties.insert(properties.end(), std::make_move_iterator(more.begin()),
                    std::make_move_iterator(more.end()));
}

Properties ForDevices(const oci::Resources& resources) {
  absl::StatusOr<std::string> drivers = sys::ReadFile("/proc/devices");
  return cgroup::DeviceProperties(resources.devices, drivers.ok() ? *drivers : "");
}

}  // namespace

absl::StatusOr<NewUnit> NewUnit::Start(const cgroup::UnitName& name, bool user,
                                       const cgroup::Layout& layout,
                                       const oci::Resources& resources,
                                       const oci::StringMap& annotations, bool devices) {
  ASSIGN_OR_RETURN(Properties asked, cgroup::AnnotationProperties(annotations));
  ASSIGN_OR_RETURN(cgroup::Systemd systemd, cgroup::Systemd::Connect(user));
  ASSIGN_OR_RETURN(const int version, systemd.Version());
  ASSIGN_OR_RETURN(Properties properties, cgroup::LimitProperties(layout.mode, resources, version));
  if (devices) Extend(properties, ForDevices(resources));
  Extend(properties, std::move(asked));
  ASSIGN_OR_RETURN(NewProcess holder, StartHolder());
  NewUnit unit(std::move(holder));
  const absl::Status started = systemd.StartUnit(name, unit.holder_.pid(), std::move(properties));
  if (absl::IsAlreadyExists(started)) return started;
  // From here on the unit is ours, even if only half of it was made.
  absl::Cleanup stop = [&] { (void)systemd.StopUnit(name.unit); };
  RETURN_IF_ERROR(started);
  ASSIGN_OR_RETURN(const std::string path, systemd.ControlGroup(name));
  ASSIGN_OR_RETURN(unit.cgroup_, cgroup::Cgroup::Plan(layout, path));
  std::move(stop).Cancel();
  return unit;
}

bool CanAttachToUnit(const Record& record, int clone_error) {
  return record.systemd_user && clone_error == EACCES;
}

absl::Status AttachToUnit(const Record& record, pid_t pid) {
  ASSIGN_OR_RETURN(cgroup::Systemd systemd, cgroup::Systemd::Connect(record.systemd_user));
  return systemd.AttachProcess(record.systemd_unit, pid);
}

absl::Status UpdateUnit(const Record& record, const oci::Resources& resources) {
  if (record.systemd_unit.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(cgroup::Systemd systemd, cgroup::Systemd::Connect(record.systemd_user));
  ASSIGN_OR_RETURN(const int version, systemd.Version());
  ASSIGN_OR_RETURN(Properties properties,
                   cgroup::LimitProperties(record.cgroup_mode, resources, version));
  if (!record.rootless && !record.systemd_user) Extend(properties, ForDevices(resources));
  return systemd.SetProperties(record.systemd_unit, std::move(properties));
}

absl::Status StopUnit(const Record& record) {
  if (record.systemd_unit.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(cgroup::Systemd systemd, cgroup::Systemd::Connect(record.systemd_user));
  return systemd.StopUnit(record.systemd_unit);
}

}  // namespace gantry::runtime
