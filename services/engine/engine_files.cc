// Engine: where the files of a container are, running or not.
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "services/engine/engine.h"
#include "services/engine/process_root.h"
#include "services/engine/snapshot_root.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);

// The path without "." and empty parts, with a leading slash. ".." stays: only the kernel knows
// what is above a directory that may be a link.
std::string Lexical(absl::string_view path) {
  std::vector<absl::string_view> parts = absl::StrSplit(path, '/', absl::SkipEmpty());
  parts.erase(std::remove(parts.begin(), parts.end(), "."), parts.end());
  return absl::StrCat("/", absl::StrJoin(parts, "/"));
}

}  // namespace

absl::StatusOr<Engine::FileRoot> Engine::OpenFiles(absl::string_view reference,
                                                   absl::string_view path, bool for_writing) {
  if (path.size() > 4096 || path.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("the path is too long, or has a zero byte");
  }
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(reference));
  FileRoot files;
  files.path = Lexical(path);
  if (IsLive(container->state())) {
    // As the program sees them, its mounts included; what is read-only there stays so.
    ASSIGN_OR_RETURN(files.root, OpenProcessRoot(container->run().pid));
    return files;
  }
  ASSIGN_OR_RETURN(Container::Operation operation, container->Begin("use the files of", kPatience));
  if (IsLive(container->state())) {
    ASSIGN_OR_RETURN(files.root, OpenProcessRoot(container->run().pid));
    return files;
  }
  const v1::MountPoint* mounted = nullptr;
  for (const v1::MountPoint& point : container->definition().mounts()) {
    const bool below = files.path == point.destination() ||
                       absl::StartsWith(files.path, absl::StrCat(point.destination(), "/"));
    if (!below || point.type() == "tmpfs") continue;
    if (mounted == nullptr || point.destination().size() > mounted->destination().size()) {
      mounted = &point;
    }
  }
  struct stat info = {};
  if (mounted != nullptr && mounted->type() == "volume") {
    RETURN_IF_ERROR(volumes_.EnsureDirectory(mounted->name(), sys::UniqueFd()));
  }
  if (mounted != nullptr && ::stat(mounted->source().c_str(), &info) == 0 &&
      S_ISDIR(info.st_mode)) {
    if (for_writing && !mounted->rw()) {
      return absl::FailedPreconditionError(
          absl::StrCat("mounted volume is marked read-only: ", mounted->destination()));
    }
    files.path = Lexical(files.path.substr(mounted->destination().size()));
    ASSIGN_OR_RETURN(files.root, sys::Open(mounted->source(), O_RDONLY | O_DIRECTORY));
  } else {
    if (for_writing && container->config().read_only()) {
      return absl::FailedPreconditionError("container rootfs is marked read-only");
    }
    ASSIGN_OR_RETURN(std::vector<containerd::types::Mount> rootfs, RootfsOf(*container));
    ASSIGN_OR_RETURN(files.root,
                     OpenSnapshotRoot(rootfs, absl::StrCat(options_.runtime_directory, "/mounts"),
                                      !for_writing));
  }
  files.operation.emplace(std::move(operation));
  return files;
}

}  // namespace gantry::engine
