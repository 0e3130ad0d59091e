#include "services/engine/shared_memory.h"

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"

namespace gantry::engine {

absl::Status MountSharedMemory(const std::string& directory, uint64_t bytes) {
  RETURN_IF_ERROR(UnmountSharedMemory(directory));
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0700));
  sys::MountSpec spec;
  spec.type = "tmpfs";
  spec.source = "shm";
  spec.options = {"nosuid", "nodev", "noexec", "mode=1777", absl::StrCat("size=", bytes)};
  RETURN_IF_ERROR(sys::MountAll({spec}, directory));
  return FAILPOINT("engine.shared_memory.after_mount");
}

absl::Status UnmountSharedMemory(const std::string& directory) {
  if (!sys::Exists(directory)) return absl::OkStatus();
  return sys::UnmountTree(directory);
}

}  // namespace gantry::engine
