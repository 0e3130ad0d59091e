// Pulls: an image from its registry to a record in metadata.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/metrics/registry.h"
#include "services/image/installer.h"
#include "services/image/metadata.h"
#include "services/image/progress.h"
#include "services/image/registry.h"
#include "services/image/registry_session.h"

namespace gantry::image {

// Label of the leases that hold what an unfinished pull has made.
inline constexpr char kPullLeaseLabel[] = "gantry.image/pull";

// A lease for the time of one operation; deleted on destruction. Expires by itself after a day,
// should the process die. Move-only.
class OperationLease {
 public:
  static absl::StatusOr<std::unique_ptr<OperationLease>> Create(Metadata& metadata,
                                                                const std::string& namespace_name);
  ~OperationLease();

  // Whether this process made the lease: those of earlier lives are ended at start.
  static bool IsOurs(const std::string& id);
  const Caller& caller() const { return caller_; }

 private:
  OperationLease(Metadata& metadata, Caller caller)
      : metadata_(metadata), caller_(std::move(caller)) {}
  Metadata& metadata_;
  const Caller caller_;
};

// The image record `name` as a descriptor of metadata's.
containerd::types::Descriptor ToProto(const oci::Descriptor& descriptor);

// Thread-safe.
class Puller {
 public:
  struct Request {
    std::string namespace_name;
    oci::ImageReference reference;
    oci::Platform platform;
    Credentials credentials;
    // How to get at the registry, save reference, credentials and `cancelled`.
    std::optional<RegistrySession> access;
    std::string record_name;  // Empty: the reference.
    StringMap labels;         // Of the record.
  };

  struct Outcome {
    std::string name;
    Digest digest;
    Digest image_id;
    bool up_to_date = false;
  };

  // A pull under way. Callers that want the same share one; it is cancelled when the last has left.
  class Operation {
   public:
    Progress& progress() { return progress_; }
    // After progress() says it is finished.
    const absl::StatusOr<Outcome>& outcome() const { return outcome_; }

   private:
    friend class Puller;
    Progress progress_;
    absl::StatusOr<Outcome> outcome_ = absl::UnknownError("not finished");
    std::atomic<int> watchers_{0};
    std::atomic<bool> cancelled_{false};
  };

  // Takes part in an Operation until destruction.
  class Watch {
   public:
    explicit Watch(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}
    Watch(Watch&&) = default;
    ~Watch() {
      if (operation_ != nullptr && --operation_->watchers_ == 0) operation_->cancelled_ = true;
    }
    Operation& operator*() const { return *operation_; }
    Operation* operator->() const { return operation_.get(); }

   private:
    // Shared with the thread that does the work.
    std::shared_ptr<Operation> operation_;
  };

  Puller(Registry& registry, Installer& installer, Metadata& metadata, metrics::Registry& metrics);
  // Cancels all pulls and waits for them.
  ~Puller();

  Watch Start(const Request& request);

  // Ends all pulls early; those that begin later too.
  void CancelAll();

  // The pull, in the caller's thread.
  absl::StatusOr<Outcome> Pull(const Request& request, Progress& progress,
                               const std::function<bool()>& cancelled);

 private:
  Registry& registry_;
  Installer& installer_;
  Metadata& metadata_;
  metrics::Registry& metrics_;
  absl::Mutex mutex_;
  // Shared with their watchers.
  std::map<std::string, std::shared_ptr<Operation>> operations_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::image
