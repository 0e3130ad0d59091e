#include "lib/sys/temp_dir.h"

#include <errno.h>
#include <stdlib.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::sys {

absl::StatusOr<TempDir> TempDir::Create(const std::string& parent) {
  std::string base = parent;
  if (base.empty()) {
    const char* from_environment = ::getenv("TMPDIR");
    base = from_environment != nullptr ? from_environment : "/tmp";
  }
  std::string path = absl::StrCat(base, "/gantry.XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) {
    return ErrnoError(errno, absl::StrCat("make a temporary directory in '", base, "'"));
  }
  return TempDir(std::move(path));
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, "")) {}

TempDir& TempDir::operator=(TempDir&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TempDir::~TempDir() {
  // A leftover is harmless here and the audit finds it; there is nobody to report to.
  if (!path_.empty()) (void)RemoveTree(path_);
}

}  // namespace gantry::sys
