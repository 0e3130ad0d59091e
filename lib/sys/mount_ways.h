// The ways of mount.cc for what one mount(2) cannot do. Internal to lib/sys.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lib/sys/mount.h"

namespace gantry::sys::mount_ways {

// For errors: what is mounted where.
std::string Describe(const MountSpec& mount, const std::string& target);

// What MountAll does for each of its mounts.
absl::Status MountOne(const MountSpec& mount, const std::string& target);

// An overlay's options taken apart. `rest`: those that name no layer.
struct OverlayLayers {
  std::vector<std::string> lower;
  std::string upper;
  std::string work;
  std::vector<std::string> rest;
};

OverlayLayers TakeLayers(const std::vector<std::string>& data);

// Layer by layer through the mount API; false when this kernel or these paths do not allow it.
bool MountOverlayByLayer(const OverlayLayers& layers, unsigned long flags,
                         const std::string& source, const std::string& target);

// The working directory belongs to the whole process, so a child that lives for two system calls
// changes its own instead of ours: other threads notice nothing.
absl::Status MountOverlayRelative(OverlayLayers layers, const MountOptions& options,
                                  const MountSpec& mount, const std::string& target);

// `uidmap=` and `gidmap=` speak to us, not to the kernel. A bind is shifted itself. Of an overlay
// the lower directories are, each through a mount of its own in a directory of ours; the overlay
// keeps private copies of them, so that the directory is gone when it is mounted.
absl::Status MountIdMapped(const MountSpec& mount, const MountOptions& options,
                           const std::string& target);

}  // namespace gantry::sys::mount_ways
