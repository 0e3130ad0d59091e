#include "services/engine/volume_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/container.h"
#include "services/engine/container_config.h"
#include "services/engine/tree_copy.h"

namespace gantry::engine {
namespace {

constexpr uint32_t kFormat = 1;
constexpr absl::Duration kRemovalPatience = absl::Seconds(20);

metadata::v1::RecordWrite Write(const std::string& name, const v1::VolumeRecord& record) {
  metadata::v1::RecordWrite write;
  write.set_bucket(kVolumeBucket);
  write.set_key(name);
  write.set_value(record.SerializeAsString());
  write.set_must_not_exist(true);
  return write;
}

v1::VolumeRecord NewRecord(bool anonymous) {
  v1::VolumeRecord record;
  record.set_version(kFormat);
  *record.mutable_created_at() = ToProto(absl::Now());
  record.set_anonymous(anonymous);
  return record;
}

}  // namespace

VolumeStore::VolumeStore(MetadataClient& metadata, std::string directory)
    : metadata_(metadata), directory_(std::move(directory)) {}

absl::Status VolumeStore::Load() {
  RETURN_IF_ERROR(sys::MakeDirectories(directory_, 0700));
  ASSIGN_OR_RETURN(std::vector<metadata::v1::Record> records, metadata_.ListRecords(kVolumeBucket));
  {
    absl::MutexLock lock(&mutex_);
    for (const metadata::v1::Record& stored : records) {
      v1::VolumeRecord record;
      if (!record.ParseFromString(stored.value()) || record.version() > kFormat) {
        return absl::DataLossError(absl::StrCat("the record of volume '", stored.key(),
                                                "' cannot be read; is this engine too old?"));
      }
      volumes_[stored.key()] = std::move(record);
    }
  }
  ASSIGN_OR_RETURN(std::vector<std::string> strays, DirectoriesWithoutRecord());
  for (const std::string& name : strays) {
    log::Info("finishing the removal of a volume", {{"volume", name}});
    const absl::Status removed = sys::RemoveTree(PathOf(name));
    if (!removed.ok()) {
      log::Warning("a removed volume's directory stays", {{"volume", name}, {"error", removed}});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Volume> VolumeStore::Create(const std::string& name,
                                               const std::map<std::string, std::string>& labels) {
  if (!name.empty()) RETURN_IF_ERROR(CheckName("volume name", name));
  for (const auto& [key, value] : labels) RETURN_IF_ERROR(CheckLabel(key, value));
  const std::string chosen = name.empty() ? RandomHex(32) : name;
  ASSIGN_OR_RETURN(Hold hold, TakeHold(chosen));
  if (absl::StatusOr<v1::Volume> there = Inspect(chosen); there.ok()) return there;
  v1::VolumeRecord record = NewRecord(name.empty());
  record.mutable_labels()->insert(labels.begin(), labels.end());
  metadata::v1::CommitRecordsRequest request;
  *request.add_writes() = Write(chosen, record);
  const absl::Status committed = metadata_.Commit(request);
  // Somebody else made it at the same moment: then it is there, which is what was asked for.
  if (!absl::IsAlreadyExists(committed)) RETURN_IF_ERROR(committed);
  RETURN_IF_ERROR(FAILPOINT("engine.volume.after_record"));
  v1::Volume volume;
  {
    absl::MutexLock lock(&mutex_);
    auto [at, inserted] = volumes_.emplace(chosen, std::move(record));
    volume = ToVolume(chosen, at->second);
  }
  RETURN_IF_ERROR(EnsureDirectory(chosen, sys::UniqueFd()));
  return volume;
}

metadata::v1::RecordWrite VolumeStore::AnonymousWrite(const std::string& name) const {
  return Write(name, NewRecord(true));
}

void VolumeStore::AddAnonymous(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  volumes_.emplace(name, NewRecord(true));
}

metadata::v1::RecordWrite VolumeStore::RemovalWrite(const std::string& name) const {
  metadata::v1::RecordWrite write;
  write.set_bucket(kVolumeBucket);
  write.set_key(name);
  write.set_remove(true);
  return write;
}

absl::Status VolumeStore::Remove(const std::string& name,
                                 const std::function<absl::Status()>& check) {
  {
    absl::MutexLock lock(&mutex_);
    if (volumes_.count(name) == 0 || removing_.count(name) > 0) {
      return absl::NotFoundError(absl::StrCat("get ", name, ": no such volume"));
    }
    if (holds_.count(name) > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("remove ", name, ": volume is in use by a container that is being created"));
    }
    // From here on nobody begins to use it, so whoever uses it is known to `check`.
    removing_.insert(name);
  }
  absl::Status removed = check();
  if (removed.ok()) {
    metadata::v1::CommitRecordsRequest request;
    *request.add_writes() = RemovalWrite(name);
    removed = metadata_.Commit(request);
  }
  if (removed.ok()) return removed;
  absl::MutexLock lock(&mutex_);
  removing_.erase(name);
  return removed;
}

absl::StatusOr<std::string> VolumeStore::MoveAside(const std::string& name) {
  RETURN_IF_ERROR(FAILPOINT("engine.volume.before_remove_directory"));
  // No volume's name begins with a dot.
  const std::string aside = PathOf(absl::StrCat(".removed-", RandomHex(16)));
  absl::MutexLock lock(&mutex_);
  if (::rename(PathOf(name).c_str(), aside.c_str()) != 0 && errno != ENOENT) {
    return sys::ErrnoError(errno, absl::StrCat("move the directory of volume '", name, "' aside"));
  }
  volumes_.erase(name);
  removing_.erase(name);
  return aside;
}

VolumeStore::Hold::~Hold() {
  if (store_ == nullptr) return;
  absl::MutexLock lock(&store_->mutex_);
  if (--store_->holds_[name_] == 0) store_->holds_.erase(name_);
}

absl::StatusOr<VolumeStore::Hold> VolumeStore::TakeHold(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto stays = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return removing_.count(name) == 0;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&stays), kRemovalPatience)) {
    return absl::UnavailableError(
        absl::StrCat("volume '", name, "' is still being removed; try again later"));
  }
  ++holds_[name];
  return Hold(this, name);
}

absl::StatusOr<VolumeStore::Hold> VolumeStore::Use(const std::string& name) {
  RETURN_IF_ERROR(CheckName("volume name", name));
  ASSIGN_OR_RETURN(Hold hold, TakeHold(name));
  RETURN_IF_ERROR(Create(name, {}).status());
  return hold;
}

std::vector<v1::Volume> VolumeStore::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Volume> all;
  for (const auto& [name, record] : volumes_) {
    if (removing_.count(name) == 0) all.push_back(ToVolume(name, record));
  }
  return all;
}

absl::StatusOr<v1::Volume> VolumeStore::Inspect(absl::string_view name) const {
  absl::MutexLock lock(&mutex_);
  auto found = volumes_.find(std::string(name));
  if (found == volumes_.end() || removing_.count(found->first) > 0) {
    return absl::NotFoundError(absl::StrCat("get ", name, ": no such volume"));
  }
  return ToVolume(found->first, found->second);
}

std::string VolumeStore::Mountpoint(absl::string_view name) const {
  return absl::StrCat(PathOf(name), "/_data");
}

std::string VolumeStore::PathOf(absl::string_view name) const {
  return absl::StrCat(directory_, "/", name);
}

bool VolumeStore::IsEmpty(const std::string& name) const {
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(Mountpoint(name));
  return !names.ok() || names->empty();
}

absl::Status VolumeStore::EnsureDirectory(const std::string& name,
                                          const sys::UniqueFd& image_directory) {
  const std::string target = Mountpoint(name);
  if (!image_directory.ok()) {
    RETURN_IF_ERROR(sys::MakeDirectories(PathOf(name), 0701));
    return sys::MakeDirectories(target, 0755);
  }
  if (!IsEmpty(name)) return absl::OkStatus();
  RETURN_IF_ERROR(sys::MakeDirectories(PathOf(name), 0701));
  const std::string fresh = absl::StrCat(PathOf(name), "/new.", RandomHex(8));
  RETURN_IF_ERROR(sys::MakeDirectories(fresh, 0700));
  absl::Status copied;
  {
    ASSIGN_OR_RETURN(sys::UniqueFd to, sys::Open(fresh, O_RDONLY | O_DIRECTORY));
    copied = CopyTree(image_directory, to);
  }
  if (copied.ok()) copied = FAILPOINT("engine.volume.before_rename");
  // Replaces nothing or an empty directory; fails when another container was faster.
  if (copied.ok() && ::rename(fresh.c_str(), target.c_str()) == 0) return absl::OkStatus();
  if (copied.ok() && errno != ENOTEMPTY && errno != EEXIST) {
    copied = sys::ErrnoError(errno, absl::StrCat("fill volume '", name, "'"));
  }
  const absl::Status removed = sys::RemoveTree(fresh);
  return FirstError(copied, removed);
}

absl::StatusOr<std::vector<std::string>> VolumeStore::DirectoriesWithoutRecord() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(directory_));
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> strays;
  for (std::string& name : names) {
    if (volumes_.count(name) == 0) strays.push_back(std::move(name));
  }
  return strays;
}

size_t VolumeStore::size() const {
  absl::MutexLock lock(&mutex_);
  return volumes_.size();
}

v1::Volume VolumeStore::ToVolume(const std::string& name, const v1::VolumeRecord& record) const {
  v1::Volume volume;
  volume.set_name(name);
  volume.set_driver("local");
  volume.set_mountpoint(Mountpoint(name));
  *volume.mutable_created_at() = record.created_at();
  *volume.mutable_labels() = record.labels();
  volume.set_anonymous(record.anonymous());
  return volume;
}

}  // namespace gantry::engine
