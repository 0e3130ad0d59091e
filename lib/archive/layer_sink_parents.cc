// How an entry's directory is found, or made when the layer does not list it.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <deque>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/archive/layer_sink.h"
#include "lib/archive/tree.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::archive {
namespace {

constexpr int kMaxLinks = 40;  // As the kernel.

}  // namespace

void LayerSink::ForgetParent() {
  parent_path_.clear();
  parent_.Reset();
}

absl::StatusOr<int> LayerSink::ParentDirectory(const std::string& path) {
  if (parent_.ok() && path == parent_path_) return parent_.get();
  int fd = OpenInTree(root_.get(), path, O_PATH | O_DIRECTORY, true);
  if (fd == -ENOENT || fd == -ENOTDIR) {
    RETURN_IF_ERROR(MakeParents(path));
    fd = OpenInTree(root_.get(), path, O_PATH | O_DIRECTORY, true);
  }
  if (fd < 0) return sys::ErrnoError(-fd, absl::StrCat("open its directory ", Quoted(path)));
  parent_.Reset(fd);
  parent_path_ = path;
  return parent_.get();
}

// Part by part with symlinks read by hand, since a dangling one has to be followed to where its
// target will be made.
absl::Status LayerSink::MakeParents(const std::string& path) {
  std::vector<std::string> done;
  std::deque<std::string> todo = absl::StrSplit(path, '/', absl::SkipEmpty());
  int links = 0;
  while (!todo.empty()) {
    const std::string part = std::move(todo.front());
    todo.pop_front();
    if (part == ".") continue;
    if (part == "..") {
      if (!done.empty()) done.pop_back();
      continue;
    }
    const std::string above = absl::StrJoin(done, "/");
    const int fd = OpenInTree(root_.get(), above, O_PATH | O_DIRECTORY, false);
    if (fd < 0) return sys::ErrnoError(-fd, absl::StrCat("open ", Quoted(above)));
    sys::UniqueFd directory(fd);
    struct stat status = {};
    bool missing = false;
    if (::fstatat(directory.get(), part.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) return sys::ErrnoError(errno, absl::StrCat("look at ", Quoted(part)));
      missing = true;
    }
    const std::string here = JoinPath(above, part);
    if (!missing && S_ISLNK(status.st_mode)) {
      if (++links > kMaxLinks) {
        return absl::InvalidArgumentError(
            absl::StrCat("its directory ", Quoted(path), " goes through too many symlinks"));
      }
      std::string target(4096, '\0');
      const ssize_t length = ::readlinkat(directory.get(), part.c_str(), &target[0], target.size());
      if (length < 0) return sys::ErrnoError(errno, absl::StrCat("read the link ", Quoted(here)));
      target.resize(static_cast<size_t>(length));
      if (absl::StartsWith(target, "/")) done.clear();
      std::vector<std::string> parts = absl::StrSplit(target, '/', absl::SkipEmpty());
      todo.insert(todo.begin(), parts.begin(), parts.end());
      continue;
    }
    if (!missing && whiteouts_ == Whiteouts::kOverlay && IsWhiteoutDevice(status)) {
      if (::unlinkat(directory.get(), part.c_str(), 0) != 0) {
        return sys::ErrnoError(errno, absl::StrCat("replace the whiteout ", Quoted(here)));
      }
      opaque_.insert(here);
      missing = true;
    }
    if (missing) {
      // The umask must not matter: mkdirat, then the mode.
      if (::mkdirat(directory.get(), part.c_str(), 0755) != 0 ||
          ::fchmodat(directory.get(), part.c_str(), 0755, 0) != 0) {
        return sys::ErrnoError(errno, absl::StrCat("make the directory ", Quoted(here)));
      }
      implicit_.insert(here);
    } else if (!S_ISDIR(status.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat("its directory ", Quoted(here), " is not a directory"));
    }
    done.push_back(part);
  }
  return absl::OkStatus();
}

}  // namespace gantry::archive
