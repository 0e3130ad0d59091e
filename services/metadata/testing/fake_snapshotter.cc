#include "services/metadata/testing/fake_snapshotter.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::metadata {
namespace {

namespace snapshots_v1 = containerd::services::snapshots::v1;

SnapshotterBackend::Mounts MountsOf(const std::string& key) {
  containerd::types::Mount mount;
  mount.set_type("bind");
  mount.set_source(absl::StrCat("/layers/", key));
  mount.add_options("rbind");
  return {mount};
}

}  // namespace

std::string FakeSnapshotter::PathOf(const std::string& key) const {
  return absl::StrCat(directory_, "/", absl::BytesToHexString(key));
}

absl::StatusOr<FakeSnapshotter::Info> FakeSnapshotter::Read(const std::string& key) const {
  if (!sys::Exists(PathOf(key))) return absl::NotFoundError(absl::StrCat("layer ", key));
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(PathOf(key)));
  Info info;
  if (!info.ParseFromString(bytes)) return absl::DataLossError(key);
  return info;
}

absl::Status FakeSnapshotter::Write(const Info& info) const {
  return sys::WriteFileAtomically(PathOf(info.name()), info.SerializeAsString());
}

absl::StatusOr<std::vector<FakeSnapshotter::Info>> FakeSnapshotter::All() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(directory_));
  std::vector<Info> infos;
  for (const std::string& name : names) {
    absl::StatusOr<Info> info = Read(absl::HexStringToBytes(name));
    if (info.ok()) infos.push_back(*std::move(info));
  }
  return infos;
}

absl::StatusOr<FakeSnapshotter::Mounts> FakeSnapshotter::Create(const std::string& key,
                                                                const std::string& parent,
                                                                const Labels& labels, Kind kind) {
  RETURN_IF_ERROR(before("create", key));
  absl::MutexLock lock(&mutex_);
  if (Read(key).ok()) return absl::AlreadyExistsError(key);
  if (!parent.empty()) {
    ASSIGN_OR_RETURN(Info base, Read(parent));
    if (base.kind() != snapshots_v1::COMMITTED) return absl::InvalidArgumentError("parent");
  }
  Info info;
  info.set_name(key);
  info.set_parent(parent);
  info.set_kind(kind);
  *info.mutable_labels() = labels;
  const std::string target = LabelOr(labels, kLabelSnapshotRef);
  if (std::find(targets.begin(), targets.end(), target) != targets.end()) {
    info.set_name(absl::StrCat(key, "-provided"));
    info.set_kind(snapshots_v1::COMMITTED);
    RETURN_IF_ERROR(Write(info));
    return absl::AlreadyExistsError(target);
  }
  RETURN_IF_ERROR(Write(info));
  return MountsOf(key);
}

absl::StatusOr<FakeSnapshotter::Mounts> FakeSnapshotter::GetMounts(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(Info info, Read(key));
  return MountsOf(info.name());
}

absl::Status FakeSnapshotter::Commit(const std::string& name, const std::string& key,
                                     const std::string& parent, const Labels& labels) {
  RETURN_IF_ERROR(before("commit", key));
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(Info info, Read(key));
  if (info.kind() != snapshots_v1::ACTIVE) return absl::FailedPreconditionError(key);
  if (Read(name).ok()) return absl::AlreadyExistsError(name);
  info.set_name(name);
  info.set_kind(snapshots_v1::COMMITTED);
  if (!parent.empty()) info.set_parent(parent);
  *info.mutable_labels() = labels;
  RETURN_IF_ERROR(Write(info));
  return sys::Unlink(PathOf(key));
}

absl::Status FakeSnapshotter::Remove(const std::string& key) {
  RETURN_IF_ERROR(before("remove", key));
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(Read(key).status());
  ASSIGN_OR_RETURN(std::vector<Info> all, All());
  for (const Info& info : all) {
    if (info.parent() == key)
      return absl::FailedPreconditionError(absl::StrCat(key, " has children"));
  }
  return sys::Unlink(PathOf(key));
}

absl::StatusOr<FakeSnapshotter::Info> FakeSnapshotter::Stat(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  return Read(key);
}

absl::StatusOr<FakeSnapshotter::Info> FakeSnapshotter::Update(const Info& info,
                                                              const std::vector<std::string>&) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(Info present, Read(info.name()));
  *present.mutable_labels() = info.labels();
  RETURN_IF_ERROR(Write(present));
  return present;
}

absl::StatusOr<std::vector<FakeSnapshotter::Info>> FakeSnapshotter::List(
    const std::vector<std::string>&) {
  RETURN_IF_ERROR(before("list", ""));
  absl::MutexLock lock(&mutex_);
  return All();
}

absl::StatusOr<FakeSnapshotter::Usage> FakeSnapshotter::GetUsage(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(Read(key).status());
  return Usage{4096, 1};
}

std::vector<std::string> FakeSnapshotter::Keys() {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> keys;
  absl::StatusOr<std::vector<Info>> all = All();
  if (!all.ok()) return keys;
  for (const Info& info : *all) keys.push_back(info.name());
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace gantry::metadata
