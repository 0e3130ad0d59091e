#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace gantry::sys {

// A fresh directory (mode 0700) that is removed with all below it. Move-only.
class TempDir {
 public:
  // Made in `parent`; empty means $TMPDIR or /tmp.
  static absl::StatusOr<TempDir> Create(const std::string& parent = "");

  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&& other) noexcept;
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace gantry::sys
