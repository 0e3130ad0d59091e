// Volumes: directories that outlive the containers that use them.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/engine/v1/record.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/sys/unique_fd.h"
#include "services/engine/metadata_client.h"

namespace gantry::engine {

// A volume is a record in metadata and the directory <directory>/<name>/_data. The record comes
// first and goes first, so a directory without record is what a crash left of a removal. The
// directory is made when it is needed. Thread-safe.
//
// Removal in three steps: the record; the directory gets a name that never comes again, so that a
// new volume of the old name cannot meet old data; its files are deleted, which may take long.
// Meanwhile Create of the name waits, and while a Hold of it lives it is not removed.
class VolumeStore {
 public:
  // A volume that is about to be used: by a container that is not known to the caller's index yet.
  class Hold {
   public:
    Hold(Hold&& other) noexcept : store_(std::exchange(other.store_, nullptr)) {
      name_ = std::move(other.name_);
    }
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    friend class VolumeStore;
    Hold(VolumeStore* store, std::string name) : store_(store), name_(std::move(name)) {}
    VolumeStore* store_;
    std::string name_;
  };

  VolumeStore(MetadataClient& metadata, std::string directory);

  // Reads all records; removes directories without one. Called once at start.
  absl::Status Load();

  // Makes a volume, durable; answers the one there is. An empty name: a random one, anonymous.
  absl::StatusOr<v1::Volume> Create(const std::string& name,
                                    const std::map<std::string, std::string>& labels);

  // As Create, without labels, for a container to be made.
  absl::StatusOr<Hold> Use(const std::string& name);

  // An anonymous volume whose record is written with its container: the write to add, and after
  // that succeeded, the call that makes the volume known.
  metadata::v1::RecordWrite AnonymousWrite(const std::string& name) const;
  void AddAnonymous(const std::string& name);

  // Its counterpart: the write that removes it. After that succeeded MoveAside comes.
  metadata::v1::RecordWrite RemovalWrite(const std::string& name) const;

  // Removes the record of a volume if `check` (for users the caller knows of) is OK. After that
  // succeeded MoveAside comes. Errors: NotFound; FailedPrecondition — a Hold of it lives.
  absl::Status Remove(const std::string& name, const std::function<absl::Status()>& check);

  // Forgets a volume whose record is gone. The path of what was its directory, to be deleted by the
  // caller; a restart deletes it, too. To be called again when it fails.
  absl::StatusOr<std::string> MoveAside(const std::string& name);

  // By name. List is sorted.
  std::vector<v1::Volume> List() const;
  absl::StatusOr<v1::Volume> Inspect(absl::string_view name) const;

  std::string Mountpoint(absl::string_view name) const;

  // Makes the directory of a volume if it is missing. When it is missing or empty and
  // `image_directory` is open, that directory's content, owner and mode become the volume's, all or
  // nothing.
  absl::Status EnsureDirectory(const std::string& name, const sys::UniqueFd& image_directory);

  // Whether EnsureDirectory would want an image directory.
  bool IsEmpty(const std::string& name) const;

  // For audits: names in `directory`.
  absl::StatusOr<std::vector<std::string>> DirectoriesWithoutRecord() const;
  size_t size() const;

 private:
  v1::Volume ToVolume(const std::string& name, const v1::VolumeRecord& record) const;
  std::string PathOf(absl::string_view name) const;
  absl::StatusOr<Hold> TakeHold(const std::string& name);

  MetadataClient& metadata_;
  const std::string directory_;
  mutable absl::Mutex mutex_;
  std::map<std::string, int> holds_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> removing_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::VolumeRecord> volumes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::engine
