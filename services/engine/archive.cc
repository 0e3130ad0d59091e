#include "services/engine/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/archive/layer_sink.h"
#include "lib/archive/tar_reader.h"
#include "lib/archive/tar_writer.h"
#include "lib/archive/tree.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/container.h"

namespace gantry::engine {
namespace {

constexpr size_t kChunkBytes = 256 << 10;
constexpr int kMaxDepth = 256;

std::string CleanPath(absl::string_view path) {
  while (absl::ConsumeSuffix(&path, "/") || absl::ConsumeSuffix(&path, "/.")) {
  }
  return std::string(path);
}

std::string LastPart(const std::string& clean) {
  const size_t slash = clean.rfind('/');
  return slash == std::string::npos ? clean : clean.substr(slash + 1);
}

std::string ReadLink(const sys::UniqueFd& link) {
  char target[PATH_MAX];
  // An empty path: the link that this O_PATH descriptor is.
  const ssize_t size = ::readlinkat(link.get(), "", target, sizeof target);
  return size < 0 ? std::string() : std::string(target, static_cast<size_t>(size));
}

// Collects small writes into chunks of a good size.
class ChunkWriter {
 public:
  explicit ChunkWriter(const std::function<absl::Status(const v1::ArchiveChunk&)>& emit)
      : emit_(emit) {}

  absl::Status Write(absl::string_view bytes) {
    while (!bytes.empty()) {
      const size_t take = std::min(bytes.size(), kChunkBytes - buffer_.size());
      buffer_.append(bytes.data(), take);
      bytes.remove_prefix(take);
      if (buffer_.size() == kChunkBytes) RETURN_IF_ERROR(Flush());
    }
    return absl::OkStatus();
  }

  absl::Status Flush() {
    if (buffer_.empty()) return absl::OkStatus();
    v1::ArchiveChunk chunk;
    chunk.set_data(std::move(buffer_));
    buffer_.clear();
    return emit_(chunk);
  }

 private:
  const std::function<absl::Status(const v1::ArchiveChunk&)>& emit_;
  std::string buffer_;
};

// Writes one tree into a tar. Everything is held by an O_PATH descriptor before it is looked at,
// and only the descriptor is used from then on: a running container may swap names as it likes.
class TreeSender {
 public:
  explicit TreeSender(archive::TarWriter& tar) : tar_(tar) {}

  // `path` is what the file is called in the archive.
  absl::Status Add(const sys::UniqueFd& file, const std::string& path, int depth) {
    if (depth > kMaxDepth) {
      return absl::ResourceExhaustedError("the tree has more than 256 levels");
    }
    struct stat info = {};
    if (::fstat(file.get(), &info) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("stat '", path, "'"));
    }
    archive::TarEntry entry;
    entry.path = path;
    entry.permissions = info.st_mode & 07777;
    entry.uid = info.st_uid;
    entry.gid = info.st_gid;
    entry.modified = absl::TimeFromTimespec(info.st_mtim);
    if (S_ISDIR(info.st_mode)) return AddDirectory(file, std::move(entry), depth);
    if (S_ISREG(info.st_mode)) return AddFile(file, std::move(entry), info);
    if (S_ISLNK(info.st_mode)) {
      entry.type = archive::EntryType::kSymlink;
      entry.link_target = ReadLink(file);
    } else if (S_ISFIFO(info.st_mode)) {
      entry.type = archive::EntryType::kFifo;
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      entry.type = S_ISCHR(info.st_mode) ? archive::EntryType::kCharacterDevice
                                         : archive::EntryType::kBlockDevice;
      entry.device_major = major(info.st_rdev);
      entry.device_minor = minor(info.st_rdev);
    } else {
      return absl::OkStatus();  // A socket means nothing in an archive.
    }
    return tar_.Add(entry);
  }

 private:
  absl::Status AddDirectory(const sys::UniqueFd& directory, archive::TarEntry entry, int depth) {
    const std::string path = entry.path;
    entry.type = archive::EntryType::kDirectory;
    RETURN_IF_ERROR(tar_.Add(entry));
    ASSIGN_OR_RETURN(std::vector<std::string> names, archive::ListAt(directory.get(), "."));
    for (const std::string& name : names) {
      absl::StatusOr<sys::UniqueFd> child = sys::OpenAt(directory, name, O_PATH | O_NOFOLLOW);
      if (absl::IsNotFound(child.status())) continue;  // Gone since its directory was read.
      RETURN_IF_ERROR(child.status());
      RETURN_IF_ERROR(Add(*child, absl::StrCat(path, "/", name), depth + 1));
    }
    return absl::OkStatus();
  }

  absl::Status AddFile(const sys::UniqueFd& path_only, archive::TarEntry entry,
                       const struct stat& info) {
    if (info.st_nlink > 1) {
      auto [at, first] = links_.emplace(std::make_pair(info.st_dev, info.st_ino), entry.path);
      if (!first) {
        entry.type = archive::EntryType::kHardLink;
        entry.link_target = at->second;
        return tar_.Add(entry);
      }
    }
    // Our own descriptor, known to be a regular file: opening it again leads nowhere else.
    ASSIGN_OR_RETURN(sys::UniqueFd file,
                     sys::Open(absl::StrCat("/proc/self/fd/", path_only.get()), O_RDONLY));
    char capability[256];
    const ssize_t size =
        ::fgetxattr(file.get(), "security.capability", capability, sizeof capability);
    if (size > 0) {
      entry.xattrs.emplace_back("security.capability",
                                std::string(capability, static_cast<size_t>(size)));
    }
    entry.size_bytes = static_cast<uint64_t>(info.st_size);
    RETURN_IF_ERROR(tar_.Add(entry));
    // Exactly as many bytes as announced, whatever a running program does to the file meanwhile.
    uint64_t left = entry.size_bytes;
    std::string buffer(std::min<uint64_t>(kChunkBytes, left), '\0');
    bool ended = false;
    while (left > 0) {
      size_t have = std::min<uint64_t>(left, buffer.size());
      if (!ended) {
        const ssize_t got = ::read(file.get(), buffer.data(), have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sys::ErrnoError(errno, absl::StrCat("read '", entry.path, "'"));
        ended = got == 0;
        if (ended) buffer.assign(buffer.size(), '\0');
        if (got > 0) have = static_cast<size_t>(got);
      }
      RETURN_IF_ERROR(tar_.WriteData(absl::string_view(buffer.data(), have)));
      left -= have;
    }
    return absl::OkStatus();
  }

  archive::TarWriter& tar_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
};

absl::Status NotFound(absl::string_view path) {
  return absl::NotFoundError(absl::StrCat("Could not find the file ", path, " in container"));
}

}  // namespace

absl::Status SendArchive(const sys::UniqueFd& root, const std::string& path,
                         const v1::GetArchiveRequest& request,
                         const std::function<absl::Status(const v1::ArchiveChunk&)>& emit) {
  const std::string clean = CleanPath(path);
  absl::StatusOr<sys::UniqueFd> file = sys::OpenInRoot(
      root, clean.empty() ? "." : clean, O_PATH | (request.follow_link() ? 0 : O_NOFOLLOW));
  if (absl::IsNotFound(file.status())) return NotFound(request.path());
  RETURN_IF_ERROR(file.status());
  struct stat info = {};
  if (::fstat(file->get(), &info) != 0) return sys::ErrnoError(errno, "stat the file to copy");

  std::string name = LastPart(CleanPath(request.path()));
  v1::ArchiveChunk chunk;
  v1::PathStat& stat = *chunk.mutable_stat();
  stat.set_name(name.empty() ? "/" : name);
  stat.set_size_bytes(static_cast<uint64_t>(info.st_size));
  stat.set_mode(info.st_mode);
  *stat.mutable_modified_at() = ToProto(absl::TimeFromTimespec(info.st_mtim));
  stat.set_directory(S_ISDIR(info.st_mode));
  if (S_ISLNK(info.st_mode)) stat.set_link_target(ReadLink(*file));
  RETURN_IF_ERROR(emit(chunk));
  if (request.stat_only()) return absl::OkStatus();

  if (name.empty()) name = ".";
  ChunkWriter chunks(emit);
  archive::TarWriter tar([&](absl::string_view bytes) { return chunks.Write(bytes); });
  RETURN_IF_ERROR(TreeSender(tar).Add(*file, name, 0));
  RETURN_IF_ERROR(tar.Finish());
  return chunks.Flush();
}

absl::Status ReceiveArchive(const sys::UniqueFd& root, const std::string& path, bool keep_owner,
                            const std::function<absl::StatusOr<absl::string_view>()>& next) {
  const std::string clean = CleanPath(path);
  absl::StatusOr<sys::UniqueFd> directory =
      sys::OpenInRoot(root, clean.empty() ? "." : clean, O_RDONLY | O_DIRECTORY);
  if (absl::IsNotFound(directory.status())) return NotFound(path);
  RETURN_IF_ERROR(directory.status());
  struct stat info = {};
  if (::fstat(directory->get(), &info) != 0) return sys::ErrnoError(errno, "stat the directory");

  archive::TarReader tar(next);
  archive::LayerSink sink(*std::move(directory), archive::Whiteouts::kLiteral,
                          archive::SinkLimits());
  archive::TarEntry entry;
  while (true) {
    ASSIGN_OR_RETURN(bool more, tar.Next(&entry));
    if (!more) break;
    if (!keep_owner) {
      entry.uid = 0;
      entry.gid = 0;
    }
    // The directory itself is not ours to change.
    if (entry.type == archive::EntryType::kDirectory) {
      ASSIGN_OR_RETURN(std::string member, archive::CleanMemberPath(entry.path));
      if (member.empty()) continue;
    }
    RETURN_IF_ERROR(sink.Add(entry, [&](const auto& consume) { return tar.ReadData(consume); }));
  }
  return sink.Finish();
}

}  // namespace gantry::engine
