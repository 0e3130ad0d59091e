// Where a layer goes, given the mounts a snapshotter answered.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/types/types.pb.h"
#include "lib/archive/layer_sink.h"
#include "lib/sys/mount.h"
#include "lib/sys/unique_fd.h"

namespace gantry::image {

sys::MountSpec ToMountSpec(const containerd::types::Mount& mount);

// The layers of an overlay mount, newest first, from `lowerdir=` options; of a bind mount its
// source.
std::vector<std::string> LayerDirectories(const std::vector<containerd::types::Mount>& mounts,
                                          bool with_upper);

// `upperdir=` of a single overlay mount; empty for anything else.
std::string UpperDirectory(const std::vector<containerd::types::Mount>& mounts);

// A mounted view of a mount list below `scratch`, unmounted and removed on destruction. Move-only.
class ScratchMount {
 public:
  static absl::StatusOr<ScratchMount> Make(const std::vector<containerd::types::Mount>& mounts,
                                           const std::string& scratch);
  ScratchMount(ScratchMount&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  ScratchMount& operator=(ScratchMount&& other) noexcept;
  ~ScratchMount();

  const std::string& path() const { return path_; }

 private:
  explicit ScratchMount(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Unmounts and removes what a killed process left below `scratch`.
absl::Status CleanScratch(const std::string& scratch);

struct MountTarget {
  std::string path;
  sys::UniqueFd directory;
  archive::Whiteouts whiteouts = archive::Whiteouts::kRemove;
  std::unique_ptr<ScratchMount> mount;  // Keeps `directory` mounted.
};

// An overlay is not mounted: the layer goes straight into its upper directory, with overlay's own
// whiteouts; a bind mount is written where it comes from. Anything else is mounted below `scratch`.
absl::StatusOr<MountTarget> OpenMountTarget(const std::vector<containerd::types::Mount>& mounts,
                                            const std::string& scratch);

}  // namespace gantry::image
