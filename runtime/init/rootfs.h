// Builds the container's file system in its mount namespace, from the new process. All paths inside
// it are resolved from one descriptor of its root, in that root; nothing is walked twice
// (rootfs_path.h).
//
//   rootfs.cc          the order: attach, populate, enter
//   rootfs_mount.cc    the mounts
//   rootfs_devices.cc  device nodes, /dev's links, the console
//   rootfs_cover.cc    masked and read-only paths, sysctls
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/init/mount_plan.h"

namespace gantry::runtime {

struct RootfsPlan {
  std::string path;    // Absolute, on the host.
  sys::UniqueFd tree;  // A detached clone of it, made by the creator in a user namespace's case.
  const oci::Spec* spec = nullptr;
  std::vector<MountPlan> mounts;
  std::vector<cgroup::Directory> cgroups;
  cgroup::Mode cgroup_mode = cgroup::Mode::kV1;
  bool own_cgroup_namespace = false;
  bool user_namespace = false;
  bool no_pivot = false;
};

// Single-threaded, used once: Attach, Populate, (hooks), Cover, Enter.
class Rootfs {
 public:
  explicit Rootfs(RootfsPlan& plan) : plan_(plan) {}

  // Stops propagation to the host and puts the root's own mount in place.
  absl::Status Attach();
  // Mounts, device nodes, links.
  absl::Status Populate();
  // The plan's mounts alone, into the root of a container that runs.
  absl::Status MountAll(sys::UniqueFd root);
  // The terminal's slave on /dev/console. After Populate.
  absl::Status MountConsole(const sys::UniqueFd& slave);
  // Masked and read-only paths, and the root itself read-only.
  absl::Status Cover();
  // sysctls, through the container's own /proc. After Populate.
  absl::Status WriteSysctls();
  // pivot_root, and the old root is gone.
  absl::Status Enter();

  const sys::UniqueFd& root() const { return root_; }

 private:
  absl::Status MountPlanned(MountPlan& mount);
  absl::Status MountOne(MountPlan& mount);
  absl::Status MountCgroups(const MountPlan& mount, const sys::UniqueFd& target);
  absl::StatusOr<sys::UniqueFd> MakeSource(MountPlan& mount, const sys::UniqueFd& target);
  absl::Status MakeDevices();
  absl::Status MakeDevice(const oci::Device& device);
  absl::Status BindHostDevice(const oci::Device& device, const sys::UniqueFd& directory,
                              const std::string& name);
  absl::Status MakeDeviceLinks();
  absl::Status Mask(const std::string& path);
  absl::Status MakeReadOnly(const std::string& path);

  RootfsPlan& plan_;
  sys::UniqueFd root_;
  sys::UniqueFd proc_;      // Our own procfs instance, if the container mounts one.
  sys::UniqueFd empty_;     // An attached empty read-only tmpfs that masks are cloned from.
  bool fresh_dev_ = false;  // /dev is a tmpfs of this container's own.
};

}  // namespace gantry::runtime
