// A snapshotter that keeps one small file a layer in a directory: it survives the process that uses
// it, as a real one does, and refuses what a real one refuses.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/metadata/snapshotter_backend.h"

namespace gantry::metadata {

// Thread-safe.
class FakeSnapshotter : public SnapshotterBackend {
 public:
  explicit FakeSnapshotter(std::string directory) : directory_(std::move(directory)) {}

  // Called with the name of each operation ("create", "commit", "remove", "list" …) and its key
  // before it works; an error is answered instead.
  std::function<absl::Status(absl::string_view, const std::string&)> before =
      [](absl::string_view, const std::string&) { return absl::OkStatus(); };

  // Layers it provides by itself when asked with containerd.io/snapshot.ref: chain ids.
  std::vector<std::string> targets;

  absl::StatusOr<Mounts> Create(const std::string& key, const std::string& parent,
                                const Labels& labels, Kind kind) override;
  absl::StatusOr<Mounts> GetMounts(const std::string& key) override;
  absl::Status Commit(const std::string& name, const std::string& key, const std::string& parent,
                      const Labels& labels) override;
  absl::Status Remove(const std::string& key) override;
  absl::StatusOr<Info> Stat(const std::string& key) override;
  absl::StatusOr<Info> Update(const Info& info, const std::vector<std::string>& mask) override;
  absl::StatusOr<std::vector<Info>> List(const std::vector<std::string>& filters) override;
  absl::StatusOr<Usage> GetUsage(const std::string& key) override;
  absl::Status Cleanup() override { return absl::UnimplementedError("nothing to clean"); }

  // Keys of all layers, sorted.
  std::vector<std::string> Keys();

 private:
  std::string PathOf(const std::string& key) const;
  absl::StatusOr<Info> Read(const std::string& key) const;
  absl::Status Write(const Info& info) const;
  absl::StatusOr<std::vector<Info>> All() const;

  const std::string directory_;
  absl::Mutex mutex_;
};

}  // namespace gantry::metadata
