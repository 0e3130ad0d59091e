// Writes the entries of a layer below a directory. Names come from strangers: every parent is
// resolved by openat2(2) with the directory as "/", nothing is ever written through a symlink that
// leads out, and no path is walked twice (SECURITY-RULES 25-27).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/archive/tar_reader.h"
#include "lib/sys/unique_fd.h"

namespace gantry::archive {

// What a member `.wh.NAME` does. It speaks about the layers below only, never about its own.
enum class Whiteouts {
  kOverlay,  // The directory is an overlay's upper one, empty at first: a character device 0:0.
  kDiscard,  // The directory is the lowest layer: there is nothing to hide.
  kRemove,   // The directory shows the layers below: what it names is removed.
  kLiteral,  // No layer at all: a member like others.
};

absl::string_view WhiteoutsName(Whiteouts whiteouts);
absl::StatusOr<Whiteouts> ParseWhiteouts(absl::string_view name);

struct SinkLimits {
  uint64_t max_bytes = uint64_t{32} << 30;  // Of file contents.
  uint64_t max_entries = 4 << 20;
};

// Thread-compatible.
class LayerSink {
 public:
  LayerSink(sys::UniqueFd root, Whiteouts whiteouts, SinkLimits limits);

  // Produces the data of a regular file, calling its argument for every piece.
  using Data = std::function<absl::Status(
      const std::function<absl::Status(uint64_t offset, absl::string_view bytes)>&)>;

  // Makes `entry`; what stands in its way from an earlier entry is replaced, save that a directory
  // stays when a directory comes. `data` is called for regular files only.
  // Errors: InvalidArgument — the entry breaks a rule (the message names it); ResourceExhausted —
  // a limit, or the disk is full.
  absl::Status Add(const TarEntry& entry, const Data& data);

  // Gives directories their times, which later entries have disturbed. Call it once, at the end.
  absl::Status Finish();

  // Directories that entries needed but the layer did not list: in a layer above others they must
  // look as they do below, which this class cannot see.
  const std::set<std::string>& implicit_directories() const { return implicit_; }

  // Directories that hide what lies below them, "" for the root. To be marked as opaque by someone
  // with CAP_SYS_ADMIN; overlayfs does not look for the mark on the root of a layer, so there the
  // names below have to be hidden one by one.
  const std::set<std::string>& opaque_directories() const { return opaque_; }

  uint64_t entries() const { return entries_; }
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  absl::Status AddAt(const std::string& path, const TarEntry& entry, const Data& data);
  absl::Status AddRoot(const TarEntry& entry);
  absl::Status AddWhiteout(const std::string& parent, const std::string& name);
  absl::Status AddOpaque(const std::string& parent);
  absl::Status AddFile(int parent, const std::string& name, const TarEntry& entry,
                       const Data& data);
  absl::Status AddDirectory(int parent, const std::string& path, const std::string& name,
                            const TarEntry& entry);
  absl::Status AddHardLink(int parent, const std::string& name, const TarEntry& entry);
  absl::Status AddOther(int parent, const std::string& name, const TarEntry& entry);

  // Removes what has this name so that an entry of another kind can take its place. True when it
  // was an overlay whiteout.
  absl::StatusOr<bool> MakeRoom(int parent, const std::string& name, const std::string& path);
  absl::Status RemoveBelow(const std::string& directory);

  // The directory `path`, made when missing. The descriptor is borrowed until the next call.
  absl::StatusOr<int> ParentDirectory(const std::string& path);
  absl::Status MakeParents(const std::string& path);
  void ForgetParent();

  sys::UniqueFd root_;
  const Whiteouts whiteouts_;
  const SinkLimits limits_;

  std::string parent_path_;
  sys::UniqueFd parent_;  // The last parent: entries come directory by directory.

  std::map<std::string, absl::Time> directory_times_;
  std::set<std::string> implicit_;
  std::set<std::string> opaque_;
  absl::flat_hash_set<std::string> created_;  // kRemove only: what is of this layer.
  uint64_t entries_ = 0;
  uint64_t file_bytes_ = 0;
};

}  // namespace gantry::archive
