// Root file systems that need not reach the disk, since they end with their container.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "containerd/types/types.pb.h"

namespace gantry::engine {

// For a container that goes with its run: lets overlay mounts in the list never sync (`volatile`).
// Without it the end of the mount syncs the whole file system below, everybody's writes included:
// tens of milliseconds on a busy machine. What a program syncs within volumes is synced as ever;
// what it syncs within its root file system a reboot would remove anyway, with the container.
//
// The kernel refuses to mount a volatile layer a second time, since it cannot know whether the
// machine went down meanwhile. We do (the container would be gone), so its mark is removed here:
// for a container that is restarted by hand. Lists without an overlay, and kernels before 5.10,
// stay as they are. Errors: the mark cannot be removed.
absl::Status MakeVolatile(std::vector<containerd::types::Mount>& rootfs);

}  // namespace gantry::engine
