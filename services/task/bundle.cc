#include "services/task/bundle.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/sys/directory.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"

namespace gantry::task {

absl::Status Bundle::Make(absl::string_view config_json) const {
  RETURN_IF_ERROR(FAILPOINT("task.bundle.before_make"));
  RETURN_IF_ERROR(sys::MakeDirectories(path_.substr(0, path_.rfind('/')), 0700));
  RETURN_IF_ERROR(sys::MakeDirectory(path_, 0700));
  RETURN_IF_ERROR(sys::MakeDirectory(rootfs(), 0711));
  RETURN_IF_ERROR(sys::WriteFileAtomically(File("config.json"), config_json));
  return FAILPOINT("task.bundle.after_make");
}

absl::Status Bundle::WriteBootstrap(const Bootstrap& bootstrap) const {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("version", bootstrap.version);
  writer.Member("address", bootstrap.address);
  writer.Member("protocol", "ttrpc");
  writer.EndObject();
  RETURN_IF_ERROR(sys::WriteFileAtomically(File("shim-binary-path"), bootstrap.binary));
  return sys::WriteFileAtomically(File("bootstrap.json"), writer.Take());
}

absl::StatusOr<Bootstrap> Bundle::ReadBootstrap() const {
  Bootstrap bootstrap;
  absl::StatusOr<std::string> binary = sys::ReadFile(File("shim-binary-path"), 4096);
  if (binary.ok()) bootstrap.binary = *binary;
  absl::StatusOr<std::string> text = sys::ReadFile(File("bootstrap.json"), 64 << 10);
  if (text.ok()) {
    ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(*text));
    RETURN_IF_ERROR(document.root().Required("address", &bootstrap.address));
    RETURN_IF_ERROR(document.root().Optional("version", &bootstrap.version));
    return bootstrap;
  }
  if (!absl::IsNotFound(text.status())) return text.status();
  ASSIGN_OR_RETURN(bootstrap.address, sys::ReadFile(File("address"), 4096));
  bootstrap.address = std::string(absl::StripAsciiWhitespace(bootstrap.address));
  return bootstrap;
}

absl::Status Bundle::FreeRootfs() const {
  RETURN_IF_ERROR(FAILPOINT("task.bundle.before_remove"));
  // A file system still mounted on rootfs must not be walked into: its files are a snapshot's.
  // rmdir tells an empty directory from a mount point without a look at the mount table.
  const absl::Status rootfs_gone = sys::RemoveEmptyDirectory(rootfs());
  if (!rootfs_gone.ok() && !absl::IsNotFound(rootfs_gone)) {
    RETURN_IF_ERROR(Annotate(sys::UnmountTree(path_), absl::StrCat("remove bundle '", path_, "'")));
    ASSIGN_OR_RETURN(std::vector<std::string> mounted, sys::MountPointsBelow(path_));
    if (!mounted.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("remove bundle '", path_, "': '",
                                                        mounted[0], "' stays mounted; unmount it"));
    }
  }
  return absl::OkStatus();
}

// Fails while the namespace has other bundles, as it should.
void Bundle::LeaveNamespace() const {
  (void)sys::RemoveEmptyDirectory(path_.substr(0, path_.rfind('/')));
}

absl::Status Bundle::Remove() const {
  RETURN_IF_ERROR(FreeRootfs());
  RETURN_IF_ERROR(sys::RemoveTree(path_));
  LeaveNamespace();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Bundle::Discard(const std::string& trash) const {
  RETURN_IF_ERROR(FreeRootfs());
  const std::string place = absl::StrCat(trash, "/", RandomHex(8));
  const auto move = [&] { return ::rename(path_.c_str(), place.c_str()) == 0; };
  bool moved = move();
  if (!moved && errno == ENOENT) {
    if (!sys::Exists(path_)) return std::string();
    RETURN_IF_ERROR(sys::MakeDirectories(trash, 0700));
    moved = move();
  }
  if (!moved) {
    return sys::ErrnoError(errno, absl::StrCat("move bundle '", path_, "' to '", place, "'"));
  }
  LeaveNamespace();
  RETURN_IF_ERROR(FAILPOINT("task.bundle.after_discard"));
  return place;
}

absl::StatusOr<std::vector<BundleName>> ListBundles(const std::string& root) {
  std::vector<BundleName> bundles;
  ASSIGN_OR_RETURN(const std::vector<std::string> namespaces, sys::ListDirectory(root));
  for (const std::string& ns : namespaces) {
    if (absl::StartsWith(ns, ".")) continue;
    absl::StatusOr<std::vector<std::string>> ids = sys::ListDirectory(absl::StrCat(root, "/", ns));
    if (!ids.ok()) continue;  // Not a directory, or removed this moment.
    for (const std::string& id : *ids) bundles.push_back({ns, id});
  }
  return bundles;
}

}  // namespace gantry::task
