// Inside of the installer, shared by its files: one image under way.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/image/installer.h"

namespace gantry::image {

inline constexpr char kUncompressedLabel[] = "containerd.io/uncompressed";

// "containerd-compatible names": ctr and the like use the same, so we lock each other out.
inline std::string LayerRef(const Digest& digest) { return absl::StrCat("layer-", digest.str()); }

struct Installer::Layer {
  size_t index = 0;
  oci::Descriptor descriptor;
  Digest diff_id;
  Digest chain_id;
  Digest parent_chain_id;  // Empty for the lowest.
  archive::Compression compression = archive::Compression::kNone;

  SingleFlight::Turn turn;
  bool exists = false;  // The snapshot is there already.
  std::string snapshot_key;
  MountTarget target;
  archive::UnpackResult unpacked;
  absl::Status status;  // Of its thread; read after `ready`.
  bool ready = false;   // Guarded by the job's mutex.
};

struct Installer::Job {
  explicit Job(const Request& asked) : request(asked) {}

  struct Document {
    std::string ref;
    std::string bytes;
    Digest digest;
    StringMap labels;
  };

  const Request& request;
  oci::Descriptor root;
  oci::Descriptor manifest_descriptor;
  oci::Manifest manifest;
  oci::ImageConfiguration configuration;
  std::vector<Document> documents;
  std::vector<std::unique_ptr<Layer>> layers;
  std::atomic<bool> fetched{false};
  std::atomic<bool> failed{false};

  absl::Mutex mutex;
  size_t next_layer ABSL_GUARDED_BY(mutex) = 0;

  std::function<bool()> Cancelled() {
    return [this] { return failed.load() || (request.cancelled && request.cancelled()); };
  }
};

// One of the few places for layers in work, over all pulls; destruction frees it. Move-only.
class Installer::Slot {
 public:
  // Waits for one. Errors: Cancelled.
  static absl::StatusOr<Slot> Take(Installer& installer, const std::function<bool()>& cancelled) {
    absl::MutexLock lock(&installer.mutex_);
    const auto is_free = [&installer]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(installer.mutex_) {
      return installer.slots_ > 0;
    };
    while (!installer.mutex_.AwaitWithTimeout(absl::Condition(&is_free), kCancelCheck)) {
      if (cancelled()) return absl::CancelledError("the pull was cancelled");
    }
    --installer.slots_;
    return Slot(installer);
  }
  Slot(Slot&& other) noexcept : installer_(std::exchange(other.installer_, nullptr)) {}
  ~Slot() {
    if (installer_ == nullptr) return;
    absl::MutexLock lock(&installer_->mutex_);
    ++installer_->slots_;
  }

 private:
  static constexpr absl::Duration kCancelCheck = absl::Milliseconds(200);

  explicit Slot(Installer& installer) : installer_(&installer) {}
  Installer* installer_;
};

}  // namespace gantry::image
