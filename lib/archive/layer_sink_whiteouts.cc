// What whiteouts and opaque marks of a layer do.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/archive/layer_sink.h"
#include "lib/archive/tree.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::archive {

absl::Status LayerSink::AddWhiteout(const std::string& parent_path, const std::string& name) {
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError("a whiteout must name something in its directory");
  }
  if (whiteouts_ == Whiteouts::kDiscard) return absl::OkStatus();
  const std::string path = JoinPath(parent_path, name);
  ASSIGN_OR_RETURN(const int parent, ParentDirectory(parent_path));
  struct stat status = {};
  const bool exists = ::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (!exists && errno != ENOENT) return sys::ErrnoError(errno, "look at what it hides");
  if (whiteouts_ == Whiteouts::kRemove) {
    if (!exists) return absl::OkStatus();
    if (created_.contains(path))
      return S_ISDIR(status.st_mode) ? RemoveBelow(path) : absl::OkStatus();
    const absl::Status removed = RemoveAt(parent, name);
    ForgetParent();
    return removed;
  }
  if (exists) {
    // Of this very layer, so it stays; a directory shows nothing of those below.
    if (S_ISDIR(status.st_mode)) opaque_.insert(path);
    return absl::OkStatus();
  }
  if (::mknodat(parent, name.c_str(), S_IFCHR | 0600, ::makedev(0, 0)) != 0) {
    return sys::ErrnoError(errno, "make the whiteout");
  }
  return absl::OkStatus();
}

absl::Status LayerSink::AddOpaque(const std::string& parent_path) {
  switch (whiteouts_) {
    case Whiteouts::kDiscard:
    case Whiteouts::kLiteral:
      return absl::OkStatus();
    case Whiteouts::kRemove:
      return RemoveBelow(parent_path);
    case Whiteouts::kOverlay: {
      ASSIGN_OR_RETURN(const int parent, ParentDirectory(parent_path));
      (void)parent;
      opaque_.insert(parent_path);
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

absl::Status LayerSink::RemoveBelow(const std::string& directory) {
  const int fd = OpenInTree(root_.get(), directory, O_RDONLY | O_DIRECTORY, false);
  if (fd == -ENOENT) return absl::OkStatus();
  if (fd < 0) return sys::ErrnoError(-fd, "open the opaque directory");
  sys::UniqueFd opened(fd);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListAt(opened.get(), "."));
  for (const std::string& name : names) {
    const std::string path = JoinPath(directory, name);
    if (!created_.contains(path)) {
      RETURN_IF_ERROR(RemoveAt(opened.get(), name));
      continue;
    }
    struct stat status = {};
    if (::fstatat(opened.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(status.st_mode)) {
      RETURN_IF_ERROR(RemoveBelow(path));
    }
  }
  ForgetParent();
  return absl::OkStatus();
}

}  // namespace gantry::archive
