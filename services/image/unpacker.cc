#include "services/image/unpacker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/archive/tree.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/image/worker_report.h"

namespace gantry::image {
namespace {

constexpr int kPipeBytes = 1 << 20;
constexpr int kPollMilliseconds = 500;  // How long a cancelled pull may go unnoticed.
constexpr char kOpaqueXattr[] = "trusted.overlay.opaque";

struct Pipe {
  sys::UniqueFd read;
  sys::UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
  return Pipe{sys::UniqueFd(fds[0]), sys::UniqueFd(fds[1])};
}

// Waits until `fd` has one of `events`. Errors: Cancelled.
absl::Status WaitFor(int fd, short events, const std::function<bool()>& cancelled) {
  for (;;) {
    pollfd poll_fd = {fd, events, 0};
    const int ready = ::poll(&poll_fd, 1, kPollMilliseconds);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return sys::ErrnoError(errno, "wait for the unpack worker");
    if (cancelled && cancelled()) return absl::CancelledError("unpacking was cancelled");
  }
}

absl::Status SetOpaque(int layer, const std::string& path) {
  sys::UniqueFd directory(
      std::max(archive::OpenInTree(layer, path, O_RDONLY | O_DIRECTORY, true), -1));
  if (!directory.ok()) return absl::OkStatus();  // Replaced by a later entry of the layer.
  if (::fsetxattr(directory.get(), kOpaqueXattr, "y", 1, 0) != 0) {
    return sys::ErrnoError(
        errno, absl::StrCat("mark '", EscapeForTerminal(path), "' as opaque for overlayfs"));
  }
  return absl::OkStatus();
}

// Opens the layers below, newest first.
absl::StatusOr<std::vector<sys::UniqueFd>> OpenLayers(const std::vector<std::string>& paths) {
  std::vector<sys::UniqueFd> layers;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(sys::UniqueFd layer, sys::Open(path, O_RDONLY | O_DIRECTORY));
    layers.push_back(std::move(layer));
  }
  return layers;
}

bool IsOpaque(int directory) {
  char value = 0;
  return ::fgetxattr(directory, kOpaqueXattr, &value, 1) == 1 && value == 'y';
}

// The directory `path` as the layers below show it; none when they do not.
sys::UniqueFd FindBelow(const std::vector<sys::UniqueFd>& layers, const std::string& path) {
  for (const sys::UniqueFd& layer : layers) {
    const int fd = archive::OpenInTree(layer.get(), path, O_RDONLY | O_DIRECTORY, false);
    if (fd >= 0) return sys::UniqueFd(fd);
    // Something that is no directory, perhaps a whiteout, hides what lies deeper; so does an opaque
    // or missing-but-whited-out parent.
    if (fd == -ENOTDIR || fd == -ELOOP) return sys::UniqueFd();
    for (size_t slash = path.rfind('/'); slash != std::string::npos;
         slash = slash == 0 ? std::string::npos : path.rfind('/', slash - 1)) {
      sys::UniqueFd parent(std::max(
          archive::OpenInTree(layer.get(), path.substr(0, slash), O_RDONLY | O_DIRECTORY, false),
          -1));
      if (parent.ok() && IsOpaque(parent.get())) return sys::UniqueFd();
    }
  }
  return sys::UniqueFd();
}

absl::Status CopyAttributes(const sys::UniqueFd& from, const sys::UniqueFd& to,
                            const std::string& path) {
  struct stat status = {};
  if (::fstat(from.get(), &status) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at '", EscapeForTerminal(path), "' below"));
  }
  const struct timespec times[2] = {status.st_mtim, status.st_mtim};
  if (::fchown(to.get(), status.st_uid, status.st_gid) != 0 ||
      ::fchmod(to.get(), status.st_mode & 07777) != 0 || ::futimens(to.get(), times) != 0) {
    return sys::ErrnoError(errno,
                           absl::StrCat("copy the attributes of '", EscapeForTerminal(path), "'"));
  }
  return absl::OkStatus();
}

// An opaque root: overlayfs does not know such a thing, so every name below gets a whiteout.
absl::Status HideAllBelow(const sys::UniqueFd& layer, const std::vector<sys::UniqueFd>& layers) {
  for (const sys::UniqueFd& lower : layers) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, archive::ListAt(lower.get(), "."));
    for (const std::string& name : names) {
      struct stat status = {};
      if (::fstatat(layer.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISDIR(status.st_mode)) RETURN_IF_ERROR(SetOpaque(layer.get(), name));
        continue;
      }
      if (::mknodat(layer.get(), name.c_str(), S_IFCHR | 0600, ::makedev(0, 0)) != 0) {
        return sys::ErrnoError(errno, absl::StrCat("hide '", EscapeForTerminal(name), "'"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerUnpack>> Unpacker::Start(
    const sys::UniqueFd& directory, archive::Whiteouts whiteouts,
    std::optional<archive::Compression> compression, const sys::UniqueFd& blob) {
  RETURN_IF_ERROR(FAILPOINT("image.unpack.before_worker"));
  ASSIGN_OR_RETURN(Pipe report, MakePipe());
  Pipe input;
  if (!blob.ok()) {
    ASSIGN_OR_RETURN(input, MakePipe());
    // A bigger pipe means fewer switches between the two; the limit for users does not matter to
    // root.
    (void)::fcntl(input.write.get(), F_SETPIPE_SZ, kPipeBytes);
    if (::fcntl(input.write.get(), F_SETFL, O_NONBLOCK) != 0) {
      return sys::ErrnoError(errno, "make a pipe non-blocking");
    }
  }
  sys::SpawnOptions spawn;
  spawn.argv = {options_.program,
                "--whiteouts",
                std::string(archive::WhiteoutsName(whiteouts)),
                "--compression",
                compression ? std::string(archive::CompressionName(*compression)) : "auto",
                "--max-bytes",
                absl::StrCat(options_.limits.max_bytes),
                "--max-entries",
                absl::StrCat(options_.limits.max_entries),
                "--max-ratio",
                absl::StrCat(options_.max_ratio)};
  spawn.descriptors = {{blob.ok() ? blob.get() : input.read.get(), 0},
                       {directory.get(), 3},
                       {report.write.get(), 4}};
  spawn.new_session = true;
  ASSIGN_OR_RETURN(sys::Child worker, Annotate(sys::Spawn(spawn), "start the unpack worker"));
  return std::unique_ptr<LayerUnpack>(
      new LayerUnpack(std::move(worker), std::move(input.write), std::move(report.read)));
}

absl::Status LayerUnpack::Write(absl::string_view bytes, const std::function<bool()>& cancelled) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(input_.get(), bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitFor(input_.get(), POLLOUT, cancelled));
      continue;
    }
    if (errno != EPIPE) return sys::ErrnoError(errno, "write to the unpack worker");
    // It gave up before the end of the layer and says why.
    absl::StatusOr<archive::UnpackResult> result = Finish(cancelled);
    if (!result.ok()) return result.status();
    return absl::InternalError("the unpack worker stopped reading");
  }
  return absl::OkStatus();
}

absl::StatusOr<archive::UnpackResult> LayerUnpack::Finish(const std::function<bool()>& cancelled) {
  input_.Reset();
  std::string report;
  std::string buffer(64 << 10, '\0');
  for (;;) {
    RETURN_IF_ERROR(WaitFor(report_.get(), POLLIN, cancelled));
    const ssize_t bytes = ::read(report_.get(), &buffer[0], buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return sys::ErrnoError(errno, "read the report of the unpack worker");
    if (bytes == 0) break;
    report.append(buffer, 0, static_cast<size_t>(bytes));
    if (report.size() > kMaxReportBytes) {
      return absl::InternalError("the unpack worker's report is too long");
    }
  }
  ASSIGN_OR_RETURN(const sys::ExitStatus exit, worker_.Wait());
  if (exit.signal != 0) {
    return absl::InternalError(absl::StrCat("the unpack worker was killed by signal ", exit.signal,
                                            exit.signal == 9 ? " (out of memory?)" : ""));
  }
  RETURN_IF_ERROR(FAILPOINT("image.unpack.after_worker"));
  return DecodeReport(report);
}

absl::Status FinishOverlayLayer(const sys::UniqueFd& layer, const archive::UnpackResult& result,
                                const std::vector<std::string>& lower) {
  if (result.opaque_directories.empty() && result.implicit_directories.empty()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<sys::UniqueFd> layers, OpenLayers(lower));
  for (const std::string& path : result.implicit_directories) {
    sys::UniqueFd below = FindBelow(layers, path);
    sys::UniqueFd above(
        std::max(archive::OpenInTree(layer.get(), path, O_RDONLY | O_DIRECTORY, false), -1));
    if (below.ok() && above.ok()) RETURN_IF_ERROR(CopyAttributes(below, above, path));
  }
  for (const std::string& path : result.opaque_directories) {
    if (path.empty()) {
      RETURN_IF_ERROR(HideAllBelow(layer, layers));
    } else {
      RETURN_IF_ERROR(SetOpaque(layer.get(), path));
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::image
