#include "services/metadata/backend_sweeper.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"
#include "services/metadata/snapshot_records.h"

namespace gantry::metadata {
namespace {

constexpr char kNumberKey[] = "snapshot_number";
constexpr uint64_t kNumbersAtOnce = 10'000;
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(30);

// Whether metadata could have made this key.
bool IsOurs(absl::string_view key) {
  const std::vector<absl::string_view> parts = absl::StrSplit(key, absl::MaxSplits('/', 2));
  uint64_t number = 0;
  return parts.size() == 3 && absl::SimpleAtoi(parts[1], &number);
}

}  // namespace

BackendSweeper::Protection::Protection(BackendSweeper* sweeper, std::string snapshotter,
                                       std::string key)
    : sweeper_(sweeper), entry_(std::move(snapshotter), std::move(key)) {
  absl::MutexLock lock(&sweeper_->mutex_);
  sweeper_->protected_.insert(entry_);
}

BackendSweeper::Protection::Protection(Protection&& other) noexcept
    : sweeper_(std::exchange(other.sweeper_, nullptr)), entry_(std::move(other.entry_)) {}

BackendSweeper::Protection& BackendSweeper::Protection::operator=(Protection&& other) noexcept {
  std::swap(sweeper_, other.sweeper_);
  std::swap(entry_, other.entry_);
  return *this;
}

BackendSweeper::Protection::~Protection() {
  if (sweeper_ == nullptr) return;
  absl::MutexLock lock(&sweeper_->mutex_);
  sweeper_->protected_.erase(sweeper_->protected_.find(entry_));
}

BackendSweeper::BackendSweeper(Database& database, const Backends& backends)
    : database_(database), backends_(backends) {
  for (const auto& [name, backend] : backends_) repairs_.insert(name);
}

BackendSweeper::~BackendSweeper() { Stop(); }

void BackendSweeper::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void BackendSweeper::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<BackendSweeper::Protection> BackendSweeper::NewKey(const std::string& snapshotter,
                                                                  absl::string_view namespace_name,
                                                                  absl::string_view name) {
  uint64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (next_number_ < number_limit_) number = next_number_++;
  }
  if (number == 0) {
    // A range of numbers is taken durably before the first is used, so none ever comes twice.
    uint64_t first = 0;
    RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
      ASSIGN_OR_RETURN(auto stored, writer.Find(Table::kState, kNumberKey));
      first = stored ? DecodeNumber(*stored) : 1;
      return writer.Put(Table::kState, kNumberKey, EncodeNumber(first + kNumbersAtOnce));
    }));
    number = first;
    absl::MutexLock lock(&mutex_);
    next_number_ = first + 1;
    number_limit_ = first + kNumbersAtOnce;
  }
  return Protection(this, snapshotter, absl::StrCat(namespace_name, "/", number, "/", name));
}

void BackendSweeper::Remove(const std::string& snapshotter, std::vector<std::string> keys) {
  absl::MutexLock lock(&mutex_);
  for (std::string& key : keys) removals_.push_back({snapshotter, std::move(key)});
}

void BackendSweeper::RequestRepair(const std::string& snapshotter) {
  absl::MutexLock lock(&mutex_);
  repairs_.insert(snapshotter);
}

void BackendSweeper::BeginCommit(const std::string& backend_key) {
  absl::MutexLock lock(&mutex_);
  committing_.insert(backend_key);
}

void BackendSweeper::EndCommit(const std::string& backend_key) {
  absl::MutexLock lock(&mutex_);
  committing_.erase(backend_key);
}

bool BackendSweeper::IsProtected(const std::string& snapshotter, const std::string& key) const {
  return protected_.count({snapshotter, key}) > 0;
}

bool BackendSweeper::HasWork() const {
  return stopping_ || !removals_.empty() || !repairs_.empty() || !cleanups_.empty();
}

absl::Status BackendSweeper::WaitIdle(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  // Whoever waits wants an answer now, not after the back-off.
  retry_at_ = absl::InfinitePast();
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (!busy_ && removals_.empty() && refused_.empty() && repairs_.empty() &&
                         failed_repairs_.empty() && cleanups_.empty());
  };
  if (mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline)) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("the snapshotters still have work: ",
                   last_error_.ok() ? "removing layers" : last_error_.message()));
}

void BackendSweeper::Loop() {
  while (true) {
    Removal removal;
    std::string repair, cleanup;
    {
      absl::MutexLock lock(&mutex_);
      auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return HasWork() || (retry_at_ == absl::InfinitePast() &&
                             (!refused_.empty() || !failed_repairs_.empty()));
      };
      busy_ = false;
      mutex_.AwaitWithDeadline(absl::Condition(&has_work), retry_at_);
      if (stopping_) return;
      busy_ = true;
      if (!removals_.empty()) {
        removal = std::move(removals_.front());
        removals_.pop_front();
      } else if (!repairs_.empty()) {
        repair = *repairs_.begin();
        repairs_.erase(repairs_.begin());
      } else if (!cleanups_.empty()) {
        cleanup = *cleanups_.begin();
        cleanups_.erase(cleanups_.begin());
      } else {
        removals_.swap(refused_);
        repairs_.swap(failed_repairs_);
        retry_at_ = absl::InfiniteFuture();
        continue;
      }
    }
    if (!removal.key.empty()) RemoveOne(removal);
    if (!cleanup.empty()) {
      // UNIMPLEMENTED says there is nothing to clean; other errors come again with the next
      // removal.
      if (absl::Status done = backends_.at(cleanup)->Cleanup();
          !done.ok() && !absl::IsUnimplemented(done)) {
        log::Debug("clean up after removed layers", {{"snapshotter", cleanup}, {"error", done}});
      }
    }
    if (!repair.empty()) {
      absl::Status repaired = Repair(repair);
      absl::MutexLock lock(&mutex_);
      if (repaired.ok()) continue;
      last_error_ = repaired;
      failed_repairs_.insert(repair);
      retry_at_ = absl::Now() + backoff_;
      backoff_ = std::min(backoff_ * 2, kLongestBackoff);
    }
  }
}

void BackendSweeper::RemoveOne(const Removal& removal) {
  auto backend = backends_.find(removal.snapshotter);
  if (backend == backends_.end()) return;
  absl::Status removed = FAILPOINT("metadata.sweeper.before_remove");
  if (removed.ok()) removed = backend->second->Remove(removal.key);
  absl::MutexLock lock(&mutex_);
  if (removed.ok() || absl::IsNotFound(removed)) {
    if (removed.ok()) cleanups_.insert(removal.snapshotter);
    backoff_ = kFirstBackoff;
    return;
  }
  // Mounted still, with children that come later in the list, or the snapshotter is away.
  last_error_ = Annotate(
      removed, absl::StrCat("remove layer '", removal.key, "' from '", removal.snapshotter, "'"));
  refused_.push_back(removal);
  retry_at_ = std::min(retry_at_, absl::Now() + backoff_);
  backoff_ = std::min(backoff_ * 2, kLongestBackoff);
}

absl::StatusOr<BackendSweeper::Comparison> BackendSweeper::Compare(const std::string& snapshotter) {
  // Records that were there before the list was made must have their layer in it.
  std::map<std::string, std::string> recorded_before;
  {
    ASSIGN_OR_RETURN(Reader reader, database_.Read());
    ASSIGN_OR_RETURN(recorded_before, RecordedLayers(reader, snapshotter));
  }
  ASSIGN_OR_RETURN(std::vector<SnapshotterBackend::Info> infos,
                   backends_.at(snapshotter)->List({}));

  Comparison comparison;
  std::vector<std::string> candidates;
  {
    absl::MutexLock lock(&mutex_);
    for (const SnapshotterBackend::Info& info : infos) {
      comparison.present.insert(info.name());
      if (!IsOurs(info.name())) {
        comparison.foreign.push_back(info.name());
      } else if (!IsProtected(snapshotter, info.name())) {
        candidates.push_back(info.name());
      }
    }
  }
  // Layers that were not protected after the list either had their record by now, or never get one.
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto recorded_after, RecordedLayers(reader, snapshotter));
  ASSIGN_OR_RETURN(std::set<std::string> expected, CommittingLayers(reader, snapshotter));
  std::map<std::string, std::string> parents;
  for (const SnapshotterBackend::Info& info : infos) parents[info.name()] = info.parent();
  for (const std::string& key : candidates) {
    if (recorded_after.count(key) == 0 && expected.count(key) == 0)
      comparison.unknown.push_back(key);
  }
  // Children before their parents.
  auto depth = [&](const std::string& key) {
    int steps = 0;
    for (auto at = parents.find(key); at != parents.end() && !at->second.empty() && steps < 1000;
         ++steps) {
      at = parents.find(at->second);
    }
    return steps;
  };
  std::stable_sort(comparison.unknown.begin(), comparison.unknown.end(),
                   [&](const std::string& a, const std::string& b) { return depth(a) > depth(b); });
  comparison.recorded = recorded_before.size();
  for (const auto& [backend_key, record_key] : recorded_before) {
    auto now = recorded_after.find(backend_key);
    if (now == recorded_after.end() || expected.count(backend_key) > 0) continue;
    if (comparison.present.count(backend_key) == 0) comparison.missing.push_back(record_key);
  }
  return comparison;
}

absl::Status BackendSweeper::Repair(const std::string& snapshotter) {
  RETURN_IF_ERROR(FAILPOINT("metadata.sweeper.before_repair"));
  ASSIGN_OR_RETURN(Comparison comparison, Compare(snapshotter));
  RETURN_IF_ERROR(SettleCommits(snapshotter, comparison.present));
  if (!comparison.unknown.empty()) {
    log::Info("removing layers without a record",
              {{"snapshotter", snapshotter}, {"layers", comparison.unknown.size()}});
    Remove(snapshotter, comparison.unknown);
  }
  return DropBrokenRecords(snapshotter, comparison);
}

// Commits whose outcome nobody recorded: the snapshotter knows it.
absl::Status BackendSweeper::SettleCommits(const std::string& snapshotter,
                                           const std::set<std::string>& present) {
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(std::vector<OpenCommit> commits, OpenCommits(reader, snapshotter));
  for (const OpenCommit& commit : commits) {
    {
      absl::MutexLock lock(&mutex_);
      if (committing_.count(commit.stored.backend_key()) > 0) continue;
    }
    const bool done = present.count(commit.stored.committed().backend_key()) > 0;
    log::Info("settling a commit that was interrupted",
              {{"snapshotter", snapshotter}, {"snapshot", commit.stored.key()}, {"done", done}});
    RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
      if (!done) return AbandonCommit(writer, commit);
      absl::Status finished = FinishCommit(writer, commit);
      // Its name was taken meanwhile: the layer is unknown from here on and goes with the next
      // repair.
      if (absl::IsAlreadyExists(finished)) return AbandonCommit(writer, commit);
      return finished;
    }));
  }
  return absl::OkStatus();
}

// A record whose layer is gone (lost power before the snapshotter's data were on disk) would make
// every later pull believe the layer is there. It is dropped, unless nothing of what is recorded is
// there: then the snapshotter looks at the wrong directory and forgetting everything would make it
// worse.
absl::Status BackendSweeper::DropBrokenRecords(const std::string& snapshotter,
                                               const Comparison& comparison) {
  if (comparison.missing.empty()) return absl::OkStatus();
  if (comparison.missing.size() == comparison.recorded && comparison.recorded > 1) {
    log::Error("no recorded layer is in the snapshotter; is its state directory the right one?",
               {{"snapshotter", snapshotter}, {"records", comparison.recorded}});
    return absl::OkStatus();
  }
  log::Warning("dropping records whose layers are gone",
               {{"snapshotter", snapshotter}, {"records", comparison.missing.size()}});
  return database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    // Leaves first; a record that still has children stays, and the audit reports it.
    bool dropped = true;
    std::vector<std::string> left = comparison.missing;
    while (dropped) {
      dropped = false;
      for (auto key = left.begin(); key != left.end();) {
        ASSIGN_OR_RETURN(bool gone, DropRecord(writer, *key));
        dropped = dropped || gone;
        key = gone ? left.erase(key) : std::next(key);
      }
    }
    return absl::OkStatus();
  });
}

absl::Status BackendSweeper::Audit(rpc::AuditReport& report) {
  RETURN_IF_ERROR(WaitIdle(absl::Now() + absl::Seconds(10)));
  for (const auto& [snapshotter, backend] : backends_) {
    ASSIGN_OR_RETURN(Comparison comparison, Compare(snapshotter));
    report.checked["snapshot record"] += comparison.recorded;
    report.checked["snapshot layer"] += comparison.present.size();
    for (const std::string& key : comparison.unknown) {
      report.findings.push_back({"snapshot", absl::StrCat(snapshotter, ": ", key),
                                 "a layer without a record",
                                 "restart gantry-metadata, which removes it"});
    }
    for (const std::string& key : comparison.foreign) {
      report.findings.push_back({"snapshot", absl::StrCat(snapshotter, ": ", key),
                                 "a layer that gantry-metadata never asked for",
                                 "remove it through the snapshotter's own socket"});
    }
    for (const std::string& key : comparison.missing) {
      report.findings.push_back({"snapshot", absl::StrCat(snapshotter, ": ", ReadableKey(key)),
                                 "a record without its layer",
                                 "remove the snapshot and pull its image again"});
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::metadata
