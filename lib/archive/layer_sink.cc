#include "lib/archive/layer_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/archive/tree.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"

namespace gantry::archive {
namespace {

constexpr char kWhiteoutPrefix[] = ".wh.";
constexpr char kOpaqueName[] = ".wh..wh..opq";
constexpr char kAufsPrefix[] = ".wh..wh.";

absl::Status Errno(const char* attempt, const std::string& path) {
  return sys::ErrnoError(errno, absl::StrCat(attempt, " ", Quoted(path)));
}

std::pair<std::string, std::string> SplitPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

// SECURITY-RULES 26: what a stranger may set. overlayfs reads user.overlay.*, so it stays out.
bool KeepsXattr(const std::string& name) {
  if (name == "security.capability") return true;
  return absl::StartsWith(name, "user.") && !absl::StartsWith(name, "user.overlay.");
}

bool IsZero(absl::string_view bytes) {
  return !bytes.empty() && bytes[0] == 0 &&
         std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

absl::Status CheckOwner(const TarEntry& entry) {
  constexpr int64_t kMaxId = 4294967294;
  if (entry.uid < 0 || entry.uid > kMaxId || entry.gid < 0 || entry.gid > kMaxId) {
    return absl::InvalidArgumentError(
        absl::StrCat("the owner ", entry.uid, ":", entry.gid, " is not from 0 to ", kMaxId));
  }
  return absl::OkStatus();
}

absl::Status SetTimes(int fd, absl::Time modified, const std::string& name) {
  const struct timespec times[2] = {absl::ToTimespec(modified), absl::ToTimespec(modified)};
  if (::futimens(fd, times) != 0) return Errno("set the times of", name);
  return absl::OkStatus();
}

// Owner before mode: a change of owner clears set-id bits. Attributes after it: it clears those
// too.
absl::Status SetAttributes(int fd, const TarEntry& entry, const std::string& name) {
  if (::fchown(fd, static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid)) != 0) {
    return Errno("set the owner of", name);
  }
  if (::fchmod(fd, entry.permissions) != 0) return Errno("set the mode of", name);
  for (const auto& [key, value] : entry.xattrs) {
    if (!KeepsXattr(key)) continue;
    if (::fsetxattr(fd, key.c_str(), value.data(), value.size(), 0) != 0 && errno != ENOTSUP) {
      return Errno("set an extended attribute of", name);
    }
  }
  return absl::OkStatus();
}

template <typename Container>
void EraseBelow(Container& container, const std::string& path) {
  container.erase(path);
  const std::string prefix = path + "/";
  auto first = container.lower_bound(prefix);
  auto last = first;
  const auto key = [](const auto& element) -> const std::string& {
    if constexpr (std::is_same_v<std::decay_t<decltype(element)>, std::string>) {
      return element;
    } else {
      return element.first;
    }
  };
  while (last != container.end() && absl::StartsWith(key(*last), prefix)) ++last;
  container.erase(first, last);
}

}  // namespace

absl::string_view WhiteoutsName(Whiteouts whiteouts) {
  switch (whiteouts) {
    case Whiteouts::kOverlay:
      return "overlay";
    case Whiteouts::kDiscard:
      return "discard";
    case Whiteouts::kRemove:
      return "remove";
    case Whiteouts::kLiteral:
      return "literal";
  }
  return "literal";
}

absl::StatusOr<Whiteouts> ParseWhiteouts(absl::string_view name) {
  for (Whiteouts candidate :
       {Whiteouts::kOverlay, Whiteouts::kDiscard, Whiteouts::kRemove, Whiteouts::kLiteral}) {
    if (name == WhiteoutsName(candidate)) return candidate;
  }
  return absl::InvalidArgumentError(absl::StrCat("no such treatment of whiteouts: '", name, "'"));
}

LayerSink::LayerSink(sys::UniqueFd root, Whiteouts whiteouts, SinkLimits limits)
    : root_(std::move(root)), whiteouts_(whiteouts), limits_(limits) {}

absl::Status LayerSink::Add(const TarEntry& entry, const Data& data) {
  if (++entries_ > limits_.max_entries) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the layer has more than ", limits_.max_entries, " entries (max_layer_entries)"));
  }
  ASSIGN_OR_RETURN(const std::string path, CleanMemberPath(entry.path));
  return Annotate(AddAt(path, entry, data), absl::StrCat("unpack ", Quoted(path)));
}

absl::Status LayerSink::AddAt(const std::string& path, const TarEntry& entry, const Data& data) {
  RETURN_IF_ERROR(CheckOwner(entry));
  if (path.empty()) return AddRoot(entry);
  auto [parent_path, name] = SplitPath(path);
  if (whiteouts_ != Whiteouts::kLiteral && absl::StartsWith(name, kWhiteoutPrefix)) {
    if (name == kOpaqueName) return AddOpaque(parent_path);
    if (absl::StartsWith(name, kAufsPrefix)) return absl::OkStatus();  // aufs' own book-keeping.
    return AddWhiteout(parent_path, name.substr(sizeof(kWhiteoutPrefix) - 1));
  }
  ASSIGN_OR_RETURN(const int parent, ParentDirectory(parent_path));
  if (whiteouts_ == Whiteouts::kRemove) {
    for (size_t slash = 0; (slash = path.find('/', slash + 1)) != std::string::npos;) {
      created_.insert(path.substr(0, slash));
    }
    created_.insert(path);
  }
  switch (entry.type) {
    case EntryType::kDirectory:
      return AddDirectory(parent, path, name, entry);
    case EntryType::kHardLink:
      return AddHardLink(parent, path, entry);
    case EntryType::kRegular: {
      absl::Status made = AddFile(parent, name, entry, data);
      if (!absl::IsAlreadyExists(made)) return made;
      ASSIGN_OR_RETURN(bool whiteout, MakeRoom(parent, name, path));
      (void)whiteout;
      ASSIGN_OR_RETURN(const int again, ParentDirectory(parent_path));
      return AddFile(again, name, entry, data);
    }
    default: {
      absl::Status made = AddOther(parent, name, entry);
      if (!absl::IsAlreadyExists(made)) return made;
      ASSIGN_OR_RETURN(bool whiteout, MakeRoom(parent, name, path));
      (void)whiteout;
      ASSIGN_OR_RETURN(const int again, ParentDirectory(parent_path));
      return AddOther(again, name, entry);
    }
  }
}

absl::Status LayerSink::AddRoot(const TarEntry& entry) {
  if (entry.type != EntryType::kDirectory) {
    return absl::InvalidArgumentError("the entry of the root is not a directory");
  }
  const int fd = OpenInTree(root_.get(), "", O_RDONLY | O_DIRECTORY, false);
  if (fd < 0) return sys::ErrnoError(-fd, "open the root of the layer");
  sys::UniqueFd root(fd);
  directory_times_[""] = entry.modified;
  return SetAttributes(root.get(), entry, "");
}

absl::Status LayerSink::AddFile(int parent, const std::string& name, const TarEntry& entry,
                                const Data& data) {
  if (entry.size_bytes > limits_.max_bytes || file_bytes_ > limits_.max_bytes - entry.size_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the layer has more than ", limits_.max_bytes,
                                                     " bytes of files (max_layer_bytes)"));
  }
  sys::UniqueFd file(OpenChildAt(parent, name, O_WRONLY | O_CREAT | O_EXCL, 0600));
  if (!file.ok()) {
    if (errno == EEXIST) return absl::AlreadyExistsError("");
    return sys::ErrnoError(errno, "create the file");
  }
  uint64_t end = 0;
  RETURN_IF_ERROR(data([&](uint64_t offset, absl::string_view bytes) -> absl::Status {
    if (offset > entry.size_bytes || bytes.size() > entry.size_bytes - offset) {
      return absl::InvalidArgumentError("the entry has more data than its header says");
    }
    // The file is new: what is not written reads as zeros and takes no disk.
    if (IsZero(bytes)) return absl::OkStatus();
    while (!bytes.empty()) {
      const ssize_t written =
          ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return sys::ErrnoError(errno, "write the file");
      offset += static_cast<uint64_t>(written);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    end = std::max(end, offset);
    return absl::OkStatus();
  }));
  file_bytes_ += entry.size_bytes;
  if (end < entry.size_bytes &&
      ::ftruncate(file.get(), static_cast<off_t>(entry.size_bytes)) != 0) {
    return sys::ErrnoError(errno, "extend the sparse file");
  }
  RETURN_IF_ERROR(SetAttributes(file.get(), entry, name));
  return SetTimes(file.get(), entry.modified, name);
}

absl::Status LayerSink::AddDirectory(int parent, const std::string& path, const std::string& name,
                                     const TarEntry& entry) {
  if (::mkdirat(parent, name.c_str(), 0700) != 0) {
    if (errno != EEXIST) return sys::ErrnoError(errno, "make the directory");
    struct stat status = {};
    if (::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      return sys::ErrnoError(errno, "look at what is there");
    }
    if (!S_ISDIR(status.st_mode)) {
      ASSIGN_OR_RETURN(const bool was_whiteout, MakeRoom(parent, name, path));
      ASSIGN_OR_RETURN(parent, ParentDirectory(SplitPath(path).first));
      if (::mkdirat(parent, name.c_str(), 0700) != 0) {
        return sys::ErrnoError(errno, "make the directory");
      }
      if (was_whiteout) opaque_.insert(path);
    }
  }
  sys::UniqueFd directory(OpenChildAt(parent, name, O_RDONLY | O_DIRECTORY));
  if (!directory.ok()) return sys::ErrnoError(errno, "open the directory");
  implicit_.erase(path);
  directory_times_[path] = entry.modified;
  return SetAttributes(directory.get(), entry, name);
}

absl::Status LayerSink::AddHardLink(int parent, const std::string& path, const TarEntry& entry) {
  ASSIGN_OR_RETURN(const std::string target, CleanMemberPath(entry.link_target));
  if (target == path) return absl::OkStatus();
  const auto [target_parent_path, target_name] = SplitPath(target);
  const auto [parent_path, name] = SplitPath(path);
  const int fd = OpenInTree(root_.get(), target_parent_path, O_PATH | O_DIRECTORY, true);
  if (fd < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is a hard link to ", Quoted(target), ", which is not there"));
  }
  sys::UniqueFd target_parent(fd);
  struct stat status = {};
  if (::fstatat(target_parent.get(), target_name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is a hard link to ", Quoted(target), ", which is not there"));
  }
  // Rule 25 says regular files. Symlinks are let through too: store-optimised images (Nix) link
  // them, and linkat(2) without AT_SYMLINK_FOLLOW gives the link itself a second name, nothing
  // else.
  if (!S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is a hard link to ", Quoted(target), ", which is not a file"));
  }
  if (::linkat(target_parent.get(), target_name.c_str(), parent, name.c_str(), 0) == 0) {
    return absl::OkStatus();
  }
  if (errno != EEXIST) return sys::ErrnoError(errno, "make the hard link");
  struct stat existing = {};
  if (::fstatat(parent, name.c_str(), &existing, AT_SYMLINK_NOFOLLOW) == 0 &&
      existing.st_ino == status.st_ino && existing.st_dev == status.st_dev) {
    return absl::OkStatus();  // The same file under both names: removing one would lose it.
  }
  ASSIGN_OR_RETURN(bool whiteout, MakeRoom(parent, name, path));
  (void)whiteout;
  ASSIGN_OR_RETURN(parent, ParentDirectory(parent_path));
  if (::linkat(target_parent.get(), target_name.c_str(), parent, name.c_str(), 0) != 0) {
    return sys::ErrnoError(errno, "make the hard link");
  }
  return absl::OkStatus();
}

absl::Status LayerSink::AddOther(int parent, const std::string& name, const TarEntry& entry) {
  const dev_t device = ::makedev(entry.device_major, entry.device_minor);
  int result = 0;
  switch (entry.type) {
    case EntryType::kSymlink:
      if (entry.link_target.empty()) {
        return absl::InvalidArgumentError("a symlink needs a target");
      }
      result = ::symlinkat(entry.link_target.c_str(), parent, name.c_str());
      break;
    case EntryType::kCharacterDevice:
      result = ::mknodat(parent, name.c_str(), S_IFCHR | 0600, device);
      break;
    case EntryType::kBlockDevice:
      result = ::mknodat(parent, name.c_str(), S_IFBLK | 0600, device);
      break;
    case EntryType::kFifo:
      result = ::mknodat(parent, name.c_str(), S_IFIFO | 0600, 0);
      break;
    default:
      return absl::InternalError("an entry type without a treatment");
  }
  if (result != 0) {
    if (errno == EEXIST) return absl::AlreadyExistsError("");
    return sys::ErrnoError(errno, "create it");
  }
  if (::fchownat(parent, name.c_str(), static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid),
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return sys::ErrnoError(errno, "set the owner");
  }
  // Not for symlinks: they have no mode, and fchmodat would follow them.
  if (entry.type != EntryType::kSymlink &&
      ::fchmodat(parent, name.c_str(), entry.permissions, 0) != 0) {
    return sys::ErrnoError(errno, "set the mode");
  }
  const struct timespec times[2] = {absl::ToTimespec(entry.modified),
                                    absl::ToTimespec(entry.modified)};
  if (::utimensat(parent, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return sys::ErrnoError(errno, "set the times");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> LayerSink::MakeRoom(int parent, const std::string& name,
                                         const std::string& path) {
  struct stat status = {};
  if (::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return sys::ErrnoError(errno, "look at what is in the way");
  }
  if (!S_ISDIR(status.st_mode)) {
    if (::unlinkat(parent, name.c_str(), 0) != 0) {
      return sys::ErrnoError(errno, "remove what is in the way");
    }
    // A removed symlink may have been part of how the parent was reached.
    if (S_ISLNK(status.st_mode)) ForgetParent();
    return whiteouts_ == Whiteouts::kOverlay && IsWhiteoutDevice(status);
  }
  RETURN_IF_ERROR(RemoveAt(parent, name));
  ForgetParent();
  EraseBelow(directory_times_, path);
  EraseBelow(implicit_, path);
  EraseBelow(opaque_, path);
  return false;
}

absl::Status LayerSink::Finish() {
  ForgetParent();
  for (const auto& [path, modified] : directory_times_) {
    // The directory may have become something else, or be reached through a symlink by now; then it
    // has been given its attributes under another name.
    sys::UniqueFd directory(
        std::max(OpenInTree(root_.get(), path, O_RDONLY | O_DIRECTORY, false), -1));
    if (directory.ok()) RETURN_IF_ERROR(SetTimes(directory.get(), modified, path));
  }
  directory_times_.clear();
  return absl::OkStatus();
}

}  // namespace gantry::archive
