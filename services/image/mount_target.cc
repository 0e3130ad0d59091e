#include "services/image/mount_target.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"

namespace gantry::image {
namespace {

std::string Option(const containerd::types::Mount& mount, absl::string_view prefix) {
  for (const std::string& option : mount.options()) {
    if (absl::StartsWith(option, prefix)) return option.substr(prefix.size());
  }
  return "";
}

bool IsBind(const containerd::types::Mount& mount) {
  return mount.type() == "bind" ||
         std::any_of(mount.options().begin(), mount.options().end(), [](const std::string& option) {
           return option == "bind" || option == "rbind";
         });
}

bool IsReadOnly(const containerd::types::Mount& mount) {
  return std::find(mount.options().begin(), mount.options().end(), "ro") != mount.options().end();
}

}  // namespace

sys::MountSpec ToMountSpec(const containerd::types::Mount& mount) {
  sys::MountSpec spec;
  spec.type = mount.type();
  spec.source = mount.source();
  spec.target = mount.target();
  spec.options.assign(mount.options().begin(), mount.options().end());
  return spec;
}

std::string UpperDirectory(const std::vector<containerd::types::Mount>& mounts) {
  if (mounts.size() != 1 || mounts[0].type() != "overlay" || !mounts[0].target().empty()) return "";
  return Option(mounts[0], "upperdir=");
}

std::vector<std::string> LayerDirectories(const std::vector<containerd::types::Mount>& mounts,
                                          bool with_upper) {
  std::vector<std::string> layers;
  if (mounts.size() != 1) return layers;
  if (mounts[0].type() == "overlay") {
    const std::string upper = Option(mounts[0], "upperdir=");
    if (with_upper && !upper.empty()) layers.push_back(upper);
    for (const std::string& option : mounts[0].options()) {
      if (absl::StartsWith(option, "lowerdir=")) {
        for (absl::string_view path : absl::StrSplit(option.substr(9), ':', absl::SkipEmpty())) {
          layers.emplace_back(path);
        }
      } else if (absl::StartsWith(option, "lowerdir+=")) {
        layers.push_back(option.substr(10));
      }
    }
  } else if (IsBind(mounts[0])) {
    layers.push_back(mounts[0].source());
  }
  return layers;
}

absl::StatusOr<ScratchMount> ScratchMount::Make(const std::vector<containerd::types::Mount>& mounts,
                                                const std::string& scratch) {
  const std::string path = absl::StrCat(scratch, "/", RandomHex(8));
  RETURN_IF_ERROR(sys::MakeDirectories(path));
  ScratchMount made(path);
  std::vector<sys::MountSpec> specs;
  for (const containerd::types::Mount& mount : mounts) specs.push_back(ToMountSpec(mount));
  RETURN_IF_ERROR(sys::MountAll(specs, path));
  return made;
}

ScratchMount& ScratchMount::operator=(ScratchMount&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

ScratchMount::~ScratchMount() {
  if (path_.empty()) return;
  absl::Status status = sys::UnmountTree(path_);
  if (status.ok()) status = sys::RemoveTree(path_);
  if (!status.ok()) {
    log::Warning("a scratch mount stays until the next start",
                 {{"path", path_}, {"error", status}});
  }
}

absl::Status CleanScratch(const std::string& scratch) {
  RETURN_IF_ERROR(sys::MakeDirectories(scratch));
  RETURN_IF_ERROR(sys::UnmountTree(scratch));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, sys::ListDirectory(scratch));
  for (const std::string& name : names) {
    RETURN_IF_ERROR(sys::RemoveTree(absl::StrCat(scratch, "/", name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<MountTarget> OpenMountTarget(const std::vector<containerd::types::Mount>& mounts,
                                            const std::string& scratch) {
  if (mounts.empty()) return absl::InvalidArgumentError("there are no mounts to write to");
  MountTarget target;
  if (const std::string upper = UpperDirectory(mounts); !upper.empty()) {
    target.path = upper;
    target.whiteouts = archive::Whiteouts::kOverlay;
  } else if (mounts.size() == 1 && IsBind(mounts[0]) && mounts[0].target().empty()) {
    if (IsReadOnly(mounts[0])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the mount of '", mounts[0].source(), "' is read-only"));
    }
    target.path = mounts[0].source();
  } else {
    ASSIGN_OR_RETURN(ScratchMount mount, ScratchMount::Make(mounts, scratch));
    target.mount = std::make_unique<ScratchMount>(std::move(mount));
    target.path = target.mount->path();
  }
  ASSIGN_OR_RETURN(target.directory, sys::Open(target.path, O_RDONLY | O_DIRECTORY));
  return target;
}

}  // namespace gantry::image
