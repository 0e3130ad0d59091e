#include "services/image/collector.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/image/puller.h"

namespace gantry::image {
namespace {

constexpr absl::Duration kRetryPause = absl::Seconds(1);
constexpr absl::Duration kIngestSweepInterval = absl::Minutes(1);

absl::StatusOr<std::set<std::string>> RecordedDigests(Metadata& metadata) {
  std::set<std::string> recorded;
  ASSIGN_OR_RETURN(const std::vector<std::string> namespaces, metadata.ListNamespaces());
  for (const std::string& name : namespaces) {
    RETURN_IF_ERROR(
        metadata.ListBlobs(Caller{name, ""}, {}, [&recorded](const metadata::v1::Blob& blob) {
          recorded.insert(blob.digest());
          return absl::OkStatus();
        }));
  }
  return recorded;
}

absl::StatusOr<std::set<std::string>> RecordedIngests(Metadata& metadata) {
  std::set<std::string> recorded;
  ASSIGN_OR_RETURN(const auto ingests, metadata.ListIngests(Caller(), true));
  for (const metadata::v1::Ingest& ingest : ingests) recorded.insert(ingest.backend_id());
  return recorded;
}

}  // namespace

void Collector::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Collector::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (stop_watch_) stop_watch_();
  }
  if (thread_.joinable()) thread_.join();
}

// False when it is time to stop.
bool Collector::PauseBeforeRetry() {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kRetryPause);
}

void Collector::Run() {
  bool told = false;
  do {
    absl::Status status = absl::OkStatus();
    if (!repaired_) {
      status = Repair();
      repaired_ = status.ok();
    }
    // Whatever ended the watch may have ended pulls, too.
    if (status.ok()) status = RemoveOrphanedIngests();
    if (status.ok()) {
      absl::StatusOr<std::vector<Digest>> known = blobs_.ListBlobs();
      status = known.status();
      if (known.ok()) {
        status = metadata_.WatchGarbage(
            *known,
            [this](std::function<void()> stop) {
              absl::MutexLock lock(&mutex_);
              stop_watch_ = std::move(stop);
              if (stopping_ && stop_watch_) stop_watch_();
            },
            [this](const Digest& digest) {
              Remove(digest);
              // Where blobs go, ingests may have expired too; metadata does not announce those.
              if (absl::Now() - swept_ingests_ > kIngestSweepInterval) {
                if (absl::Status swept = RemoveOrphanedIngests(); !swept.ok()) {
                  log::Warning("ingests could not be swept", {{"error", swept}});
                }
              }
            });
      }
    }
    // Metadata comes and goes with upgrades: said once, not every second. Cancelled: by Stop.
    if (!status.ok() && !absl::IsCancelled(status) && !told) {
      log::Info("waiting for metadata to say what is garbage", {{"reason", status}});
      told = true;
    }
  } while (PauseBeforeRetry());
}

absl::Status Collector::Repair() { return EndForgottenLeases(); }

// Leases of pulls that a killed process was doing: what they hold may be collected now.
absl::Status Collector::EndForgottenLeases() {
  ASSIGN_OR_RETURN(const std::vector<std::string> namespaces, metadata_.ListNamespaces());
  for (const std::string& name : namespaces) {
    const Caller caller{name, ""};
    ASSIGN_OR_RETURN(const auto leases, metadata_.ListLeases(caller, {}));
    for (const auto& lease : leases) {
      if (lease.labels().count(kPullLeaseLabel) == 0 || OperationLease::IsOurs(lease.id()))
        continue;
      const absl::Status deleted = metadata_.DeleteLease(caller, lease.id(), /*collect=*/true);
      if (!deleted.ok() && !absl::IsNotFound(deleted)) return deleted;
      log::Info("ended the lease of an interrupted pull",
                {{"namespace", name}, {"lease", lease.id()}});
    }
  }
  return absl::OkStatus();
}

absl::Status Collector::RemoveOrphanedIngests() {
  swept_ingests_ = absl::Now();
  // First what is on disk, then what is recorded: an ingest that begins in between is recorded.
  ASSIGN_OR_RETURN(const std::vector<std::string> on_disk, blobs_.ListIngests());
  ASSIGN_OR_RETURN(const std::set<std::string> recorded, RecordedIngests(metadata_));
  for (const std::string& id : on_disk) {
    if (recorded.count(id) > 0) continue;
    const absl::Status removed = blobs_.RemoveIngest(id);
    if (!removed.ok()) log::Warning("an orphaned ingest stays", {{"error", removed}});
  }
  return absl::OkStatus();
}

void Collector::Remove(const Digest& digest) {
  const absl::Status removed = blobs_.RemoveBlob(
      digest, [&] { return metadata_.ClaimBlob(digest); },
      [&] { return metadata_.ReleaseBlob(digest, true); });
  if (removed.ok()) {
    log::Debug("removed a blob", {{"digest", digest.str()}});
    return;
  }
  // Back in use is as good as gone.
  if (absl::IsFailedPrecondition(removed)) return;
  log::Warning("a blob could not be removed; tried again soon",
               {{"digest", digest.str()}, {"error", removed}});
  (void)metadata_.ReleaseBlob(digest, false);
  // The next watch begins after a pause, and is told of this blob again.
  absl::MutexLock lock(&mutex_);
  if (stop_watch_) stop_watch_();
}

absl::Status Collector::Audit(rpc::AuditReport& report) {
  ASSIGN_OR_RETURN(const std::vector<Digest> before, blobs_.ListBlobs());
  ASSIGN_OR_RETURN(const std::set<std::string> recorded, RecordedDigests(metadata_));
  report.checked["blob"] = before.size();
  for (const Digest& digest : before) {
    // Committed or removed while we looked: only what is still there and still unknown counts.
    if (recorded.count(digest.str()) > 0 || !blobs_.BlobSize(digest).ok()) continue;
    report.findings.push_back({"blob", digest.str(), "is on disk, but in no namespace",
                               "restart gantry-image, which asks metadata about it"});
  }
  for (const std::string& text : recorded) {
    absl::StatusOr<Digest> digest = Digest::Parse(text);
    if (digest.ok() && blobs_.BlobSize(*digest).ok()) continue;
    report.findings.push_back(
        {"blob", text, "is recorded, but not on disk", "pull the image again"});
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> ingests, blobs_.ListIngests());
  ASSIGN_OR_RETURN(const std::set<std::string> recorded_ingests, RecordedIngests(metadata_));
  report.checked["ingest"] = ingests.size();
  for (const std::string& id : ingests) {
    if (recorded_ingests.count(id) > 0) continue;
    report.findings.push_back(
        {"ingest", id, "is on disk, but not recorded", "restart gantry-image, which removes it"});
  }
  return absl::OkStatus();
}

}  // namespace gantry::image
