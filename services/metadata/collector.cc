#include "services/metadata/collector.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/metadata/blobs.h"
#include "services/metadata/images.h"
#include "services/metadata/leases.h"
#include "services/metadata/objects.h"
#include "services/metadata/snapshot_records.h"

namespace gantry::metadata {
namespace {

constexpr int kPauseFactor = 50;
constexpr absl::Duration kLongestPause = absl::Seconds(10);
constexpr absl::Duration kLongestWithoutRun =
    absl::Minutes(10);  // New leases may expire sooner than known ones.
constexpr absl::Duration kRetryPause = absl::Seconds(5);

absl::Status SweepSnapshot(Writer& writer, const GraphObject& object) {
  const SnapshotPlace place{object.namespace_name, object.snapshotter, object.key};
  ASSIGN_OR_RETURN(auto stored, FindSnapshot(writer, place));
  if (!stored) return absl::OkStatus();
  RETURN_IF_ERROR(EraseSnapshot(writer, place, *stored));
  containerd::events::SnapshotRemove event;
  event.set_key(place.key);
  event.set_snapshotter(place.snapshotter);
  return PublishEvent(writer, place.namespace_name, "/snapshot/remove", event);
}

bool IsRemovable(ObjectKind kind) {
  return kind != ObjectKind::kContainer && kind != ObjectKind::kSandbox;
}

}  // namespace

Collector::Collector(Database& database, BackendSweeper& sweeper, BlobGarbage& blobs, Clock clock)
    : database_(database),
      sweeper_(sweeper),
      blobs_(blobs),
      clock_(std::move(clock)),
      last_(std::make_shared<const Collected>()) {}

Collector::~Collector() { Stop(); }

void Collector::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void Collector::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Collector::MarkDirty() {
  absl::MutexLock lock(&mutex_);
  dirty_ = true;
}

absl::StatusOr<std::shared_ptr<const Collected>> Collector::Collect(absl::Time deadline) {
  absl::StatusOr<std::shared_ptr<const Collected>> result;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t mine = ++requested_;
    auto done = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_ >= mine || stopping_; };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&done), deadline)) {
      return absl::DeadlineExceededError(
          "collect garbage: the run takes longer than the caller waits");
    }
    if (done_ < mine) return absl::UnavailableError("collect garbage: gantry-metadata is stopping");
    result = last_;
  }
  RETURN_IF_ERROR(result.status());
  if (absl::Status idle = sweeper_.WaitIdle(std::min(deadline, absl::Now() + absl::Seconds(10)));
      !idle.ok()) {
    log::Warning("collected layers are not removed yet", {{"error", idle}});
  }
  return result;
}

void Collector::Loop() {
  while (true) {
    uint64_t serves = 0;
    {
      absl::MutexLock lock(&mutex_);
      auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || requested_ > done_ || (dirty_ && not_before_ == absl::InfinitePast());
      };
      absl::Time wake = std::min(next_expiry_, absl::Now() + kLongestWithoutRun);
      while (!mutex_.AwaitWithDeadline(
          absl::Condition(&wanted),
          std::min(wake, not_before_ == absl::InfinitePast() ? wake : not_before_))) {
        // The pause is over, or something expired.
        not_before_ = absl::InfinitePast();
        if (absl::Now() >= wake) break;
      }
      if (stopping_) return;
      serves = requested_;
      dirty_ = false;
    }
    const absl::Time begin = absl::Now();
    absl::Time next_expiry = absl::InfiniteFuture();
    absl::StatusOr<Collected> collected = Run(&next_expiry);
    const absl::Duration length = absl::Now() - begin;
    if (collected.ok()) {
      on_run_(length, *collected);
    } else {
      log::Error("collect garbage", {{"error", collected.status()}});
    }
    absl::MutexLock lock(&mutex_);
    done_ = serves;
    next_expiry_ = next_expiry;
    not_before_ = absl::Now() + std::min(length * kPauseFactor, kLongestPause);
    if (collected.ok()) {
      last_ = std::make_shared<const Collected>(*std::move(collected));
    } else {
      last_ = collected.status();
      dirty_ = true;
      not_before_ = absl::Now() + kRetryPause;
    }
  }
}

absl::StatusOr<Collected> Collector::Plan() const {
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(ReferenceGraph graph, ReferenceGraph::Build(reader, clock_()));
  Collected plan;
  for (size_t object : graph.Garbage()) {
    if (!IsRemovable(graph.objects()[object].kind)) continue;
    plan.removed.push_back({graph.objects()[object], graph.objects()[object].why_garbage});
  }
  for (size_t i = 0; i < graph.objects().size(); ++i) {
    if (graph.IsKept(i)) plan.kept.push_back({graph.objects()[i], graph.PathFromRoot(i)});
  }
  return plan;
}

absl::Status Collector::Sweep(Writer& writer, const ReferenceGraph& graph,
                              Collected& collected) const {
  collected.removed.clear();
  for (size_t number : graph.Garbage()) {
    const GraphObject& object = graph.objects()[number];
    const Caller caller{object.namespace_name, ""};
    switch (object.kind) {
      case ObjectKind::kSnapshot:
        RETURN_IF_ERROR(SweepSnapshot(writer, object));
        break;
      case ObjectKind::kContent:
        RETURN_IF_ERROR(Blobs::DeleteBlobIn(writer, object.namespace_name, object.key).status());
        break;
      case ObjectKind::kImage:
        RETURN_IF_ERROR(Images::DeleteIn(writer, caller, object.key));
        break;
      case ObjectKind::kIngest:
        RETURN_IF_ERROR(
            writer.Delete(Table::kIngests, JoinKey({object.namespace_name, object.key})).status());
        break;
      case ObjectKind::kLease:
        RETURN_IF_ERROR(Leases::DeleteIn(writer, caller, object.key).status());
        break;
      case ObjectKind::kContainer:
      case ObjectKind::kSandbox:
        continue;  // Always roots.
    }
    collected.removed.push_back({object, object.why_garbage});
  }
  return absl::OkStatus();
}

absl::StatusOr<Collected> Collector::Run(absl::Time* next_expiry) {
  RETURN_IF_ERROR(FAILPOINT("metadata.collector.before_mark"));
  const uint64_t generation = database_.graph_generation();
  Collected collected;
  std::optional<ReferenceGraph> graph;
  {
    ASSIGN_OR_RETURN(Reader reader, database_.Read());
    ASSIGN_OR_RETURN(graph, ReferenceGraph::Build(reader, clock_()));
  }
  *next_expiry = graph->next_expiry();
  if (graph->Garbage().empty()) return collected;

  RETURN_IF_ERROR(FAILPOINT("metadata.collector.before_sweep"));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    if (!writer.GraphChangedSince(generation)) return Sweep(writer, *graph, collected);
    ASSIGN_OR_RETURN(ReferenceGraph current, ReferenceGraph::Build(writer, clock_()));
    *next_expiry = current.next_expiry();
    return Sweep(writer, current, collected);
  }));
  // The records are gone: whatever comes now, the backends have to hear of it.
  absl::Status hit = FAILPOINT("metadata.collector.after_sweep");
  std::map<std::string, std::vector<std::string>> layers;
  std::vector<std::string> digests, ingests;
  for (const Collected::Item& item : collected.removed) {
    if (item.object.kind == ObjectKind::kSnapshot)
      layers[item.object.snapshotter].push_back(item.object.backend_key);
    if (item.object.kind == ObjectKind::kContent) digests.push_back(item.object.key);
    if (item.object.kind != ObjectKind::kIngest) continue;
    ingests.push_back(item.object.backend_key);
    // Its bytes may be in place already.
    if (!item.object.expected_digest.empty()) digests.push_back(item.object.expected_digest);
  }
  for (auto& [snapshotter, keys] : layers) sweeper_.Remove(snapshotter, std::move(keys));
  if (!digests.empty() || !ingests.empty()) blobs_.Offer(digests, ingests);
  RETURN_IF_ERROR(hit);
  return collected;
}

}  // namespace gantry::metadata
