// The difference between two directory trees as a layer: what was added or changed, and whiteouts
// for what went.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lib/archive/tar_writer.h"

namespace gantry::archive {

struct DiffOptions {
  // `upper` is an overlay's upper directory: it holds the changes and nothing else, with whiteout
  // devices and opaque marks, and `lower` is not looked at. Not for overlays with redirect_dir or
  // metacopy, whose upper directories do not stand alone.
  bool overlay_upper = false;
  // Times later than this become this one, for reproducible layers.
  std::optional<absl::Time> latest_time;
};

// Writes what makes a tree like `lower` into one like `upper`, sorted by name, ending the archive.
// `lower` may be -1: an empty tree. Both are directory descriptors; symlinks in the trees are never
// followed. Files that change meanwhile are written with the size seen first.
absl::Status WriteDiff(int lower, int upper, const DiffOptions& options, TarWriter& writer);

}  // namespace gantry::archive
