#include "services/image/collector.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/image/puller.h"

namespace gantry::image {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(10);
// Then everything is looked at anew.
constexpr absl::Duration kLongestWatch = absl::Minutes(10);

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
bool Collector::Pause(absl::Duration length) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), length);
}

void Collector::Run() {
  absl::Duration pause = kFirstPause;
  bool told = false;
  do {
    const absl::Status status = Watch();
    if (status.ok()) {
      pause = kFirstPause;
      told = false;
      continue;  // To the pause.
    }
    pause = std::min(pause * 2, kLongestPause);
    // Said once, not at every attempt. Cancelled: by Stop.
    if (!absl::IsCancelled(status) && !told) {
      log::Warning("garbage cannot be collected; trying again", {{"error", status}});
      told = true;
    }
  } while (Pause(pause));
}

// OK when it is worth watching again at once: calls wait for a peer that is away.
absl::Status Collector::Watch() {
  if (!leases_ended_) RETURN_IF_ERROR(EndForgottenLeases());
  leases_ended_ = true;
  postponed_ = absl::OkStatus();
  Metadata::GarbageWatch watch;
  ASSIGN_OR_RETURN(watch.known_blobs, blobs_.ListBlobs());
  ASSIGN_OR_RETURN(watch.known_ingests, blobs_.ListIngests());
  watch.on_blob = [this](const Digest& digest) { RemoveBlob(digest); };
  watch.on_ingest = [this](const std::string& backend_id) { RemoveIngest(backend_id); };
  watch.on_stop = [this](std::function<void()> stop) {
    absl::MutexLock lock(&mutex_);
    stop_watch_ = std::move(stop);
    if (stopping_ && stop_watch_) stop_watch_();
  };
  const absl::Status ended = metadata_.WatchGarbage(watch, kLongestWatch);
  RETURN_IF_ERROR(postponed_);
  if (!absl::IsUnavailable(ended)) return ended;
  log::Info("the watch of garbage broke; watching again", {{"reason", ended}});
  return absl::OkStatus();
}

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

void Collector::RemoveBlob(const Digest& digest) {
  const absl::Status removed = blobs_.RemoveBlob(
      digest, [&] { return metadata_.ClaimBlob(digest); },
      [&] { return metadata_.ReleaseBlob(digest, true); });
  if (removed.ok()) {
    log::Debug("removed a blob", {{"digest", digest.str()}});
    return;
  }
  // Back in use is as good as gone.
  if (absl::IsFailedPrecondition(removed)) return;
  (void)metadata_.ReleaseBlob(digest, false);
  Postpone("blob", digest.str(), removed);
}

void Collector::RemoveIngest(const std::string& backend_id) {
  const absl::Status removed = blobs_.DropIngest(backend_id);
  if (removed.ok()) {
    log::Debug("removed an ingest", {{"ingest", backend_id}});
  } else {
    Postpone("ingest", backend_id, removed);
  }
}

// The next watch begins after a pause, and is told of this again.
void Collector::Postpone(absl::string_view what, const std::string& name, const absl::Status& why) {
  if (postponed_.ok()) postponed_ = Annotate(why, absl::StrCat("remove ", what, " '", name, "'"));
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
  // Committed or removed while we looked: only what is still there counts.
  ASSIGN_OR_RETURN(const std::vector<std::string> after, blobs_.ListIngests());
  const std::set<std::string> still(after.begin(), after.end());
  report.checked["ingest"] = ingests.size();
  for (const std::string& id : ingests) {
    if (recorded_ingests.count(id) > 0 || still.count(id) == 0) continue;
    report.findings.push_back(
        {"ingest", id, "is on disk, but not recorded", "restart gantry-image, which removes it"});
  }
  return absl::OkStatus();
}

}  // namespace gantry::image
