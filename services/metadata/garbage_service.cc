#include "services/metadata/garbage_service.h"

#include <deque>
#include <optional>
#include <utility>

#include "services/metadata/service_call.h"

namespace gantry::metadata {
namespace {

constexpr size_t kMaxWaiting = 1'000'000;

}  // namespace

// One stream of garbage. Deletes itself when gRPC is done with it.
class GarbageService::Watch final : public grpc::ServerWriteReactor<v1::GarbageBlob>,
                                    private BlobGarbage::Watcher {
 public:
  Watch(GarbageService& service, const v1::WatchGarbageBlobsRequest& request) : service_(service) {
    StartSendInitialMetadata();
    absl::Status added = service_.blobs_.AddWatcher(this, ToVector(request.known_digests()),
                                                    ToVector(request.known_ingests()));
    if (!added.ok()) End(added);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok && !end_) end_ = absl::CancelledError("the client went away");
    }
    Pump();
  }

  void OnCancel() override { End(absl::CancelledError("the client went away")); }

  void OnDone() override {
    service_.blobs_.RemoveWatcher(this);
    service_.Forget(this);
    delete this;
  }

  void End(absl::Status status) {
    {
      absl::MutexLock lock(&mutex_);
      if (!end_) end_ = std::move(status);
    }
    Pump();
  }

 private:
  void OfferBlob(const std::string& digest) override {
    v1::GarbageBlob garbage;
    garbage.set_digest(digest);
    Offer(std::move(garbage));
  }

  void OfferIngest(const std::string& backend_id) override {
    v1::GarbageBlob garbage;
    garbage.set_ingest(backend_id);
    Offer(std::move(garbage));
  }

  void Offer(v1::GarbageBlob garbage) {
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.size() >= kMaxWaiting && !end_) {
        end_ = absl::ResourceExhaustedError(
            "the watcher does not keep up; watch again with what is known");
      }
      if (!end_) waiting_.push_back(std::move(garbage));
    }
    Pump();
  }

  void Pump() {
    bool write = false;
    grpc::Status finish;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (end_) {
        finished_ = true;
        finish = rpc::ToGrpcStatus(*end_);
      } else if (!waiting_.empty()) {
        message_ = std::move(waiting_.front());
        waiting_.pop_front();
        writing_ = write = true;
      } else {
        return;
      }
    }
    if (write) {
      StartWrite(&message_);
    } else {
      Finish(finish);
    }
  }

  GarbageService& service_;
  v1::GarbageBlob message_;
  absl::Mutex mutex_;
  std::deque<v1::GarbageBlob> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

namespace {

v1::GarbageItem ToItem(const Collected::Item& item) {
  v1::GarbageItem out;
  out.set_namespace_(item.object.namespace_name);
  out.set_kind(KindName(item.object.kind));
  out.set_snapshotter(item.object.snapshotter);
  out.set_key(item.object.key);
  out.set_reason(item.reason);
  out.set_size_bytes(item.object.size_bytes);
  return out;
}

}  // namespace

void GarbageService::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  for (Watch* watch : watches_)
    watch->End(absl::UnavailableError("gantry-metadata is stopping; watch again"));
}

void GarbageService::Forget(Watch* watch) {
  absl::MutexLock lock(&mutex_);
  watches_.erase(watch);
}

grpc::Status GarbageService::Plan(grpc::ServerContext*, const v1::PlanRequest*,
                                  v1::PlanResponse* response) {
  absl::StatusOr<Collected> plan = collector_.Plan();
  if (!plan.ok()) return rpc::ToGrpcStatus(plan.status());
  for (const Collected::Item& item : plan->removed) {
    v1::GarbageItem& out = *response->add_removed() = ToItem(item);
    auto backend = backends_.find(item.object.snapshotter);
    if (item.object.kind != ObjectKind::kSnapshot || backend == backends_.end()) continue;
    // A size that cannot be had does not spoil the plan.
    absl::StatusOr<SnapshotterBackend::Usage> usage =
        backend->second->GetUsage(item.object.backend_key);
    if (usage.ok()) out.set_size_bytes(static_cast<uint64_t>(usage->bytes));
  }
  for (const Collected::Item& item : plan->kept) *response->add_kept() = ToItem(item);
  return grpc::Status::OK;
}

grpc::Status GarbageService::Collect(grpc::ServerContext* context, const v1::CollectRequest*,
                                     v1::CollectResponse* response) {
  absl::StatusOr<std::shared_ptr<const Collected>> collected =
      collector_.Collect(DeadlineOf(*context));
  if (!collected.ok()) return rpc::ToGrpcStatus(collected.status());
  uint64_t freed = 0;
  for (const Collected::Item& item : (*collected)->removed) {
    *response->add_removed() = ToItem(item);
    freed += item.object.size_bytes;
  }
  response->set_freed_bytes(freed);
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<v1::GarbageBlob>* GarbageService::WatchBlobs(
    grpc::CallbackServerContext*, const v1::WatchGarbageBlobsRequest* request) {
  auto* watch = new Watch(*this, *request);
  absl::MutexLock lock(&mutex_);
  watches_.insert(watch);
  if (stopped_) watch->End(absl::UnavailableError("gantry-metadata is stopping; watch again"));
  return watch;
}

grpc::Status GarbageService::ClaimBlob(grpc::ServerContext*, const v1::ClaimBlobRequest* request,
                                       v1::ClaimBlobResponse*) {
  return rpc::ToGrpcStatus(blobs_.Claim(request->digest()));
}

grpc::Status GarbageService::ReleaseBlob(grpc::ServerContext*,
                                         const v1::ReleaseBlobRequest* request,
                                         v1::ReleaseBlobResponse*) {
  blobs_.Release(request->digest(), request->deleted());
  return grpc::Status::OK;
}

}  // namespace gantry::metadata
