#include "services/engine/snapshot_root.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"

namespace gantry::engine {

std::vector<std::string> LayerDirectories(const std::vector<containerd::types::Mount>& mounts) {
  if (mounts.size() != 1) return {};
  const containerd::types::Mount& mount = mounts[0];
  if (mount.type() == "bind" || mount.type() == "rbind") return {mount.source()};
  if (mount.type() != "overlay") return {};
  std::vector<std::string> layers;
  std::vector<std::string> lower;
  for (const std::string& option : mount.options()) {
    absl::string_view value = option;
    if (absl::ConsumePrefix(&value, "upperdir=")) {
      layers.emplace_back(value);
    } else if (absl::ConsumePrefix(&value, "lowerdir=")) {
      lower = absl::StrSplit(value, ':', absl::SkipEmpty());
    }
  }
  layers.insert(layers.end(), lower.begin(), lower.end());
  return layers;
}

std::map<std::string, std::string> GraphDriverData(
    const std::vector<containerd::types::Mount>& mounts) {
  std::map<std::string, std::string> data;
  if (mounts.size() != 1) return data;
  if (mounts[0].type() == "bind") data["UpperDir"] = mounts[0].source();
  for (const std::string& option : mounts[0].options()) {
    absl::string_view value = option;
    if (absl::ConsumePrefix(&value, "upperdir=")) data["UpperDir"] = std::string(value);
    if (absl::ConsumePrefix(&value, "lowerdir=")) data["LowerDir"] = std::string(value);
    if (absl::ConsumePrefix(&value, "workdir=")) data["WorkDir"] = std::string(value);
  }
  return data;
}

absl::StatusOr<sys::UniqueFd> OpenSnapshotRoot(const std::vector<containerd::types::Mount>& mounts,
                                               const std::string& directory, bool read_only) {
  const std::string target = absl::StrCat(directory, "/", RandomHex(8));
  RETURN_IF_ERROR(sys::MakeDirectories(target, 0700));
  auto remove = absl::MakeCleanup([&] {
    absl::Status unmounted = sys::UnmountTree(target);
    // Out of descriptors, say. Off the tree is enough: it goes with its last user.
    if (!unmounted.ok() && ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
      unmounted = absl::OkStatus();
    }
    if (!unmounted.ok()) log::Warning("a private mount stays", {{"error", unmounted}});
    if (unmounted.ok()) ::rmdir(target.c_str());
  });
  std::vector<sys::MountSpec> specs;
  for (const containerd::types::Mount& mount : mounts) {
    sys::MountSpec& spec = specs.emplace_back();
    spec.type = mount.type();
    spec.source = mount.source();
    spec.target = mount.target();
    spec.options.assign(mount.options().begin(), mount.options().end());
    if (read_only) spec.options.push_back("ro");
  }
  RETURN_IF_ERROR(sys::MountAll(specs, target));
  RETURN_IF_ERROR(FAILPOINT("engine.snapshot_root.after_mount"));
  // Opened for reading, not as O_PATH: such a descriptor keeps a detached mount usable.
  return sys::Open(target, O_RDONLY | O_DIRECTORY);
}

absl::Status SweepSnapshotRoots(const std::string& directory) {
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0700));
  RETURN_IF_ERROR(sys::UnmountTree(directory));
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(directory));
  for (const std::string& name : names) {
    RETURN_IF_ERROR(sys::RemoveTree(absl::StrCat(directory, "/", name)));
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
