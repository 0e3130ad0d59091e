// The new container's cgroup: by the cgroupfs driver a directory that we make, by the systemd
// driver a unit that systemd makes.
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "runtime/create/creation.h"
#include "runtime/id_maps.h"

namespace gantry::runtime {
namespace {

bool AsksForLimits(const oci::Resources& resources) {
  oci::Resources rest = resources;
  rest.devices.clear();
  return oci::WriteResources(rest) != "{}";
}

// Whether the container sees its cgroup tree and may write to it.
bool HasWritableCgroupMount(const oci::Spec& spec) {
  return std::any_of(spec.mounts.begin(), spec.mounts.end(), [](const oci::Mount& mount) {
    const auto& options = mount.options;
    return mount.type == "cgroup" && mount.destination == "/sys/fs/cgroup" &&
           std::find(options.begin(), options.end(), "ro") == options.end();
  });
}

// The id outside of the container's id; nothing when it is not mapped.
std::optional<uint32_t> HostId(const std::vector<oci::IdMapping>& mappings, uint32_t id) {
  for (const oci::IdMapping& one : mappings) {
    if (id >= one.container_id && id - one.container_id < one.size) {
      return one.host_id + (id - one.container_id);
    }
  }
  return {};
}

}  // namespace

// Names the cgroup for the first record, so that a creation that dies leaves nothing unnamed.
absl::Status Creation::PlanCgroup() {
  if (options_.cgroup_manager == CgroupManager::kDisabled) return absl::OkStatus();
  ASSIGN_OR_RETURN(layout_, cgroup::Layout::Detect());
  std::string path = spec().linux_.cgroups_path;
  if (options_.cgroup_manager == CgroupManager::kSystemd) {
    record_.systemd_user = ::geteuid() != 0 || InUserNamespace();
    ASSIGN_OR_RETURN(unit_name_, cgroup::ParseUnitPath(path, options_.id, record_.systemd_user));
    record_.systemd_unit = unit_name_.unit;
    const std::string parent = cgroup::ExpandSlice(unit_name_.slice);
    path = unit_name_.is_slice() ? cgroup::ExpandSlice(unit_name_.unit)
                                 : absl::StrCat(parent, "/", unit_name_.unit);
  } else if (path.empty()) {
    path = absl::StrCat("/gantry/", options_.id);
  }
  ASSIGN_OR_RETURN(cgroup_, cgroup::Cgroup::Plan(layout_, path));
  record_.cgroup_mode = cgroup_.mode();
  // Where a user's own systemd is in the tree, only it knows.
  if (!record_.systemd_user) record_.cgroups = cgroup_.directories();
  return absl::OkStatus();
}

absl::Status Creation::StartUnit() {
  const oci::Resources none;
  const auto& resources = spec().linux_.resources;
  const bool devices = !record_.rootless && !record_.systemd_user;
  ASSIGN_OR_RETURN(NewUnit unit,
                   NewUnit::Start(unit_name_, record_.systemd_user, layout_,
                                  resources ? *resources : none, spec().annotations, devices));
  unit_started_ = true;
  cgroup_ = unit.cgroup();
  new_unit_.emplace(std::move(unit));
  const auto same = [](const cgroup::Directory& a, const cgroup::Directory& b) {
    return a.path == b.path;
  };
  const auto& directories = cgroup_.directories();
  if (std::equal(directories.begin(), directories.end(), record_.cgroups.begin(),
                 record_.cgroups.end(), same)) {
    return absl::OkStatus();
  }
  record_.cgroups = directories;
  return SaveRecord(directory_, record_);
}

absl::Status Creation::MakeCgroup() {
  if (!record_.systemd_unit.empty()) RETURN_IF_ERROR(StartUnit());
  absl::Status status = cgroup_.Create();
  if (status.ok() || !record_.systemd_unit.empty() || !(record_.rootless || InUserNamespace())) {
    return status;
  }
  // Nothing was delegated to this user. Fine, unless limits depend on it.
  const auto& resources = spec().linux_.resources;
  if (resources && AsksForLimits(*resources)) {
    return Annotate(status, "rootless containers need a delegated cgroup for resource limits");
  }
  cgroup_ = cgroup::Cgroup();
  record_.cgroups.clear();
  return absl::OkStatus();
}

absl::Status Creation::PrepareCgroup() {
  if (cgroup_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_cgroup"));
  RETURN_IF_ERROR(MakeCgroup());
  if (cgroup_.empty()) return absl::OkStatus();
  if (const auto& resources = spec().linux_.resources) {
    RETURN_IF_ERROR(cgroup_.Apply(*resources, record_.rootless || InUserNamespace()));
  }
  return OwnCgroup();
}

// The rules of the specification ("cgroup ownership"): a container with a cgroup namespace of its
// own and a writable view of its tree gets it for the user that its program runs as. cgroup v2
// only: delegating v1 is not safe.
absl::Status Creation::OwnCgroup() {
  if (cgroup_.mode() != cgroup::Mode::kV2 || !plan_.new_cgroup_namespace ||
      !HasWritableCgroupMount(spec())) {
    return absl::OkStatus();
  }
  const uint32_t uid = spec().process->user.uid;
  const oci::Namespace* user = spec().linux_.FindNamespace("user");
  if (user != nullptr && !user->path.empty()) return absl::OkStatus();  // Its maps are not ours.
  const std::optional<uint32_t> host_uid =
      user == nullptr ? uid : HostId(spec().linux_.uid_mappings, uid);
  if (!host_uid || *host_uid == ::geteuid()) return absl::OkStatus();
  return cgroup_.Delegate(*host_uid);
}

void Creation::UndoCgroup() {
  // The init is gone by now; nobody else in there is ours to end.
  new_unit_.reset();
  if (unit_started_) (void)runtime::StopUnit(record_);
  if (unit_started_ || cgroup_.made()) (void)cgroup_.Remove();
}

}  // namespace gantry::runtime
