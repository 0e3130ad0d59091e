// Trees of files into archives and back (tar.h).

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "ctl/tar.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

constexpr size_t kChunkBytes = 256 << 10;
constexpr int kMaxDepth = 512;  // Each level holds a descriptor open.

TarEntry EntryFor(const std::string& name, const struct stat& status) {
  TarEntry entry;
  entry.name = name;
  entry.mode = status.st_mode & 07777;
  entry.uid = status.st_uid;
  entry.gid = status.st_gid;
  entry.modified_seconds = status.st_mtim.tv_sec;
  return entry;
}

// Packs one tree. Lives for one PackTree.
class Packer {
 public:
  explicit Packer(const TarSink& sink) : writer_(sink) {}

  absl::Status Pack(int parent, const std::string& file, const std::string& name, int depth,
                    bool follow) {
    struct stat status;
    if (::fstatat(parent, file.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("read '", EscapeForTerminal(name), "'"));
    }
    if (S_ISDIR(status.st_mode)) return PackDirectory(parent, file, name, status, depth, follow);
    if (S_ISREG(status.st_mode)) return PackFile(parent, file, name, follow);
    TarEntry entry = EntryFor(name, status);
    if (S_ISLNK(status.st_mode)) {
      entry.type = TarEntry::Type::kSymlink;
      ASSIGN_OR_RETURN(entry.link, ReadLink(parent, file));
      return writer_.Entry(entry);
    }
    if (S_ISFIFO(status.st_mode)) {
      entry.type = TarEntry::Type::kSpecial;
      return writer_.Entry(entry);
    }
    return absl::OkStatus();  // Sockets and devices make no sense elsewhere.
  }

  absl::Status Finish() { return writer_.Finish(); }
  uint64_t bytes() const { return bytes_; }

 private:
  static absl::StatusOr<std::string> ReadLink(int parent, const std::string& file) {
    char target[PATH_MAX];
    const ssize_t length = ::readlinkat(parent, file.c_str(), target, sizeof target);
    if (length < 0) return sys::ErrnoError(errno, absl::StrCat("read the link '", file, "'"));
    return std::string(target, static_cast<size_t>(length));
  }

  absl::Status PackFile(int parent, const std::string& file, const std::string& name, bool follow) {
    // The size is taken from the open file: the name may point elsewhere by now.
    sys::UniqueFd fd(::openat(parent, file.c_str(),
                              O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW)));
    struct stat status;
    if (!fd.ok() || ::fstat(fd.get(), &status) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("open '", EscapeForTerminal(name), "'"));
    }
    TarEntry entry = EntryFor(name, status);
    if (status.st_nlink > 1) {
      auto [first, fresh] = links_.emplace(std::make_pair(status.st_dev, status.st_ino), name);
      if (!fresh) {
        entry.type = TarEntry::Type::kHardLink;
        entry.link = first->second;
        return writer_.Entry(entry);
      }
    }
    entry.size_bytes = static_cast<uint64_t>(status.st_size);
    RETURN_IF_ERROR(writer_.Entry(entry));
    std::string chunk;
    for (uint64_t left = entry.size_bytes; left > 0;) {
      chunk.resize(std::min<uint64_t>(left, kChunkBytes));
      const ssize_t count = ::read(fd.get(), chunk.data(), chunk.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return sys::ErrnoError(errno, absl::StrCat("read '", name, "'"));
      // The file shrank: the entry's size is promised already, so the rest is zeros, as in GNU tar.
      if (count == 0) {
        std::fill(chunk.begin(), chunk.end(), '\0');
      } else {
        chunk.resize(static_cast<size_t>(count));
      }
      RETURN_IF_ERROR(writer_.Data(chunk));
      left -= chunk.size();
      bytes_ += chunk.size();
    }
    return writer_.EndData();
  }

  absl::Status PackDirectory(int parent, const std::string& file, const std::string& name,
                             const struct stat& status, int depth, bool follow) {
    if (depth > kMaxDepth) {
      return absl::FailedPreconditionError(absl::StrCat("'", name, "' is nested too deeply"));
    }
    TarEntry entry = EntryFor(absl::StrCat(name, "/"), status);
    entry.type = TarEntry::Type::kDirectory;
    RETURN_IF_ERROR(writer_.Entry(entry));
    sys::UniqueFd directory(::openat(
        parent, file.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)));
    if (!directory.ok()) {
      return sys::ErrnoError(errno, absl::StrCat("open '", EscapeForTerminal(name), "'"));
    }
    ASSIGN_OR_RETURN(std::vector<std::string> names, List(directory));
    for (const std::string& child : names) {
      RETURN_IF_ERROR(
          Pack(directory.get(), child, absl::StrCat(name, "/", child), depth + 1, false));
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<std::vector<std::string>> List(const sys::UniqueFd& directory) {
    DIR* stream = ::fdopendir(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
    if (stream == nullptr) return sys::ErrnoError(errno, "list a directory");
    std::vector<std::string> names;
    while (const dirent* found = ::readdir(stream)) {
      const absl::string_view name = found->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    ::closedir(stream);
    std::sort(names.begin(), names.end());
    return names;
  }

  TarWriter writer_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;  // First name of files with several.
  uint64_t bytes_ = 0;
};

// A name of an archive as components below the directory, with the top replaced.
// Errors: PermissionDenied — it has "..".
absl::StatusOr<std::vector<std::string>> Components(const std::string& name,
                                                    const std::optional<std::string>& top) {
  std::vector<std::string> parts;
  for (absl::string_view part : absl::StrSplit(name, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part == "..") {
      return absl::PermissionDeniedError(
          absl::StrCat("the archive's '", EscapeForTerminal(name),
                       "' leads out of the target; nothing good is in it"));
    }
    parts.emplace_back(part);
  }
  if (!top || parts.empty()) return parts;
  if (top->empty()) {
    parts.erase(parts.begin());
  } else {
    parts.front() = *top;
  }
  return parts;
}

// Unpacks one archive. Lives for one UnpackTree.
class Unpacker {
 public:
  Unpacker(TarReader& reader, sys::UniqueFd root, const UnpackOptions& options)
      : reader_(reader), root_(std::move(root)), options_(options) {}

  absl::StatusOr<UnpackResult> Run() {
    while (true) {
      ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader_.Next());
      if (!entry) break;
      RETURN_IF_ERROR(
          Annotate(Unpack(*entry), absl::StrCat("unpack '", EscapeForTerminal(entry->name), "'")));
    }
    // Innermost first, so that setting times of one does not change another's.
    for (auto it = directories_.rbegin(); it != directories_.rend(); ++it) {
      RETURN_IF_ERROR(FinishDirectory(it->first, it->second));
    }
    RETURN_IF_ERROR(reader_.Drain());
    return std::move(result_);
  }

 private:
  absl::Status Unpack(const TarEntry& entry) {
    ASSIGN_OR_RETURN(std::vector<std::string> parts, Components(entry.name, options_.top));
    if (parts.empty()) return absl::OkStatus();  // The target itself, which is there.
    const std::string file = parts.back();
    const std::string path = absl::StrJoin(parts, "/");
    parts.pop_back();
    ASSIGN_OR_RETURN(sys::UniqueFd parent, OpenParents(parts));
    switch (entry.type) {
      case TarEntry::Type::kDirectory:
        directories_.emplace_back(path, entry);
        return MakeDirectory(parent, file);
      case TarEntry::Type::kFile:
        return MakeFile(parent, file, entry);
      case TarEntry::Type::kSymlink:
        RETURN_IF_ERROR(MakeRoom(parent, file));
        if (::symlinkat(entry.link.c_str(), parent.get(), file.c_str()) != 0) {
          return sys::ErrnoError(errno, "make the link");
        }
        return SetMeta(parent, file, entry, true);
      case TarEntry::Type::kHardLink:
        return MakeHardLink(parent, file, entry);
      case TarEntry::Type::kSpecial:
        result_.skipped.push_back(path);
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // The directory of an entry, made where it is missing. Links in it are followed only beneath the
  // root: the kernel refuses the others (openat2, RESOLVE_BENEATH).
  absl::StatusOr<sys::UniqueFd> OpenParents(const std::vector<std::string>& parts) {
    sys::UniqueFd current(::fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
    if (parts.empty()) return current;
    const std::string path = absl::StrJoin(parts, "/");
    absl::StatusOr<sys::UniqueFd> open = sys::OpenBeneath(root_, path, O_PATH | O_DIRECTORY);
    if (open.ok() || !absl::IsNotFound(open.status())) return open;
    std::string made;
    for (const std::string& part : parts) {
      if (::mkdirat(current.get(), part.c_str(), 0755) != 0 && errno != EEXIST) {
        return sys::ErrnoError(errno, absl::StrCat("make the directory '", part, "'"));
      }
      absl::StrAppend(&made, made.empty() ? "" : "/", part);
      ASSIGN_OR_RETURN(current, sys::OpenBeneath(root_, made, O_PATH | O_DIRECTORY));
    }
    return current;
  }

  static absl::Status MakeDirectory(const sys::UniqueFd& parent, const std::string& file) {
    if (::mkdirat(parent.get(), file.c_str(), 0700) == 0) return absl::OkStatus();
    struct stat status;
    if (errno != EEXIST) return sys::ErrnoError(errno, "make the directory");
    if (::fstatat(parent.get(), file.c_str(), &status, 0) == 0 && S_ISDIR(status.st_mode)) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError("cannot overwrite a file with a directory");
  }

  // Takes away what stands in the place of a file.
  static absl::Status MakeRoom(const sys::UniqueFd& parent, const std::string& file) {
    if (::unlinkat(parent.get(), file.c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
    if (errno == EISDIR) {
      return absl::FailedPreconditionError("cannot overwrite a directory with a file");
    }
    return sys::ErrnoError(errno, "replace the file");
  }

  absl::Status MakeFile(const sys::UniqueFd& parent, const std::string& file,
                        const TarEntry& entry) {
    RETURN_IF_ERROR(MakeRoom(parent, file));
    sys::UniqueFd fd(::openat(parent.get(), file.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.ok()) return sys::ErrnoError(errno, "make the file");
    while (true) {
      ASSIGN_OR_RETURN(absl::string_view bytes, reader_.ReadData());
      if (bytes.empty()) break;
      RETURN_IF_ERROR(sys::WriteAll(fd, bytes));
      result_.bytes += bytes.size();
    }
    return SetMeta(parent, file, entry, false);
  }

  absl::Status MakeHardLink(const sys::UniqueFd& parent, const std::string& file,
                            const TarEntry& entry) {
    ASSIGN_OR_RETURN(std::vector<std::string> target, Components(entry.link, options_.top));
    if (target.empty()) return absl::InvalidArgumentError("the hard link names no file");
    const std::string target_file = target.back();
    target.pop_back();
    ASSIGN_OR_RETURN(sys::UniqueFd directory, OpenParents(target));
    struct stat status;
    if (::fstatat(directory.get(), target_file.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(status.st_mode)) {
      return absl::InvalidArgumentError("the hard link's target is no file of the archive");
    }
    RETURN_IF_ERROR(MakeRoom(parent, file));
    if (::linkat(directory.get(), target_file.c_str(), parent.get(), file.c_str(), 0) != 0) {
      return sys::ErrnoError(errno, "make the hard link");
    }
    return absl::OkStatus();
  }

  uint32_t ModeOf(const TarEntry& entry) const {
    return entry.mode & (options_.keep_owners ? 07777 : 01777);
  }

  absl::Status SetMeta(const sys::UniqueFd& parent, const std::string& file, const TarEntry& entry,
                       bool link) const {
    // Owner before mode: chown clears the set-id bits.
    if (options_.keep_owners &&
        ::fchownat(parent.get(), file.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0) {
      return sys::ErrnoError(errno, "set the owner");
    }
    // The file was just made by us, so no link stands in its place.
    if (!link && ::fchmodat(parent.get(), file.c_str(), ModeOf(entry), 0) != 0) {
      return sys::ErrnoError(errno, "set the mode");
    }
    const timespec times[2] = {{0, UTIME_OMIT}, {entry.modified_seconds, 0}};
    if (::utimensat(parent.get(), file.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
      return sys::ErrnoError(errno, "set the time");
    }
    return absl::OkStatus();
  }

  absl::Status FinishDirectory(const std::string& path, const TarEntry& entry) {
    absl::StatusOr<sys::UniqueFd> directory = sys::OpenBeneath(root_, path, O_RDONLY | O_DIRECTORY);
    if (!directory.ok()) return Annotate(directory.status(), absl::StrCat("finish '", path, "'"));
    if (options_.keep_owners && ::fchown(directory->get(), entry.uid, entry.gid) != 0) {
      return sys::ErrnoError(errno, "set the owner of a directory");
    }
    const timespec times[2] = {{0, UTIME_OMIT}, {entry.modified_seconds, 0}};
    if (::fchmod(directory->get(), ModeOf(entry)) != 0 ||
        ::futimens(directory->get(), times) != 0) {
      return sys::ErrnoError(errno, "set mode and time of a directory");
    }
    return absl::OkStatus();
  }

  TarReader& reader_;
  sys::UniqueFd root_;
  const UnpackOptions& options_;
  std::vector<std::pair<std::string, TarEntry>> directories_;  // Modes are set last, or a
  UnpackResult result_;                                        // read-only one could not be filled.
};

}  // namespace

absl::StatusOr<uint64_t> PackTree(const std::string& path, const PackOptions& options,
                                  const TarSink& sink) {
  Packer packer(sink);
  RETURN_IF_ERROR(packer.Pack(AT_FDCWD, path, options.top, 0, options.follow_link));
  RETURN_IF_ERROR(packer.Finish());
  return packer.bytes();
}

absl::StatusOr<UnpackResult> UnpackTree(TarReader& reader, const std::string& directory,
                                        const UnpackOptions& options) {
  ASSIGN_OR_RETURN(sys::UniqueFd root, sys::OpenPath(directory));
  return Unpacker(reader, std::move(root), options).Run();
}

}  // namespace gantry::ctl
