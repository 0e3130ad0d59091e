// Tar archives, written: the POSIX pax format, with extended headers only where the old fields do
// not suffice, so that equal trees give equal bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/archive/tar_reader.h"

namespace gantry::archive {

// Thread-compatible.
class TarWriter {
 public:
  using Output = std::function<absl::Status(absl::string_view bytes)>;
  explicit TarWriter(Output output) : output_(std::move(output)) {}

  // Writes the header of `entry`; directories get a '/' at the end. For a regular file exactly
  // `size_bytes` of data must follow.
  absl::Status Add(const TarEntry& entry);
  absl::Status WriteData(absl::string_view bytes);

  // Writes a regular file whole.
  absl::Status AddFile(const TarEntry& entry, absl::string_view bytes);

  // Ends the archive.
  absl::Status Finish();

 private:
  absl::Status PadEntry();

  Output output_;
  uint64_t data_left_ = 0;
  uint64_t padding_ = 0;
};

}  // namespace gantry::archive
