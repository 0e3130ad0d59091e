#include "services/engine/metadata_client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/synchronization/mutex.h"
#include "containerd/events/events.pb.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/engine/peer_call.h"

namespace gantry::engine {
namespace {

namespace containers = ::containerd::services::containers::v1;
namespace snapshots = ::containerd::services::snapshots::v1;
namespace events = ::containerd::services::events::v1;

constexpr absl::string_view kProcess = "metadata";

}  // namespace

// Follows the events of the namespace. One stream after the other: gRPC connects anew and waits
// until metadata is back. Keeps itself alive until the last stream has ended.
class MetadataClient::OomWatch : public std::enable_shared_from_this<OomWatch> {
 public:
  OomWatch(events::Events::Stub& stub, std::string namespace_name,
           std::function<void(const std::string&)> callback)
      : stub_(stub), namespace_(std::move(namespace_name)), callback_(std::move(callback)) {}

  void Start() {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return;
    reader_ = new Reader(shared_from_this());
    reader_->Begin(stub_, namespace_);
  }

  void Stop() {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    if (reader_ != nullptr) reader_->Cancel();
    auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return reader_ == nullptr; };
    mutex_.Await(absl::Condition(&ended));
  }

 private:
  class Reader final : public grpc::ClientReadReactor<::containerd::types::Envelope> {
   public:
    explicit Reader(std::shared_ptr<OomWatch> watch) : watch_(std::move(watch)) {}

    void Begin(events::Events::Stub& stub, const std::string& namespace_name) {
      rpc::PrepareCall(context_, absl::InfiniteDuration(), namespace_name);
      request_.add_filters("topic==/tasks/oom");
      stub.async()->Subscribe(&context_, &request_, this);
      StartRead(&envelope_);
      StartCall();
    }
    void Cancel() { context_.TryCancel(); }

    void OnReadDone(bool ok) override {
      if (!ok) return;
      ::containerd::events::TaskOOM event;
      if (envelope_.namespace_() == watch_->namespace_ && envelope_.event().UnpackTo(&event)) {
        watch_->callback_(event.container_id());
      } else if (envelope_.namespace_() == watch_->namespace_ &&
                 event.ParseFromString(envelope_.event().value())) {
        // containerd's type URLs have no "type.googleapis.com/" in front, which UnpackTo asks for.
        watch_->callback_(event.container_id());
      }
      StartRead(&envelope_);
    }

    void OnDone(const grpc::Status&) override {
      std::shared_ptr<OomWatch> watch = std::move(watch_);
      delete this;
      watch->Ended();
    }

   private:
    std::shared_ptr<OomWatch> watch_;
    grpc::ClientContext context_;
    events::SubscribeRequest request_;
    ::containerd::types::Envelope envelope_;
  };

  void Ended() {
    absl::MutexLock lock(&mutex_);
    reader_ = nullptr;
    if (stopped_) return;
    // wait_for_ready paces this: the next stream begins when there is a connection.
    reader_ = new Reader(shared_from_this());
    reader_->Begin(stub_, namespace_);
  }

  events::Events::Stub& stub_;
  const std::string namespace_;
  const std::function<void(const std::string&)> callback_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Reader* reader_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

MetadataClient::MetadataClient(const std::shared_ptr<grpc::Channel>& channel,
                               const std::shared_ptr<grpc::Channel>& watch_channel,
                               std::string namespace_name)
    : namespace_(std::move(namespace_name)),
      store_(metadata::v1::Store::NewStub(channel)),
      records_(metadata::v1::Records::NewStub(channel)),
      journal_(metadata::v1::Journal::NewStub(channel)),
      snapshots_(snapshots::Snapshots::NewStub(channel)),
      containers_(containers::Containers::NewStub(channel)),
      events_(events::Events::NewStub(watch_channel)) {}

MetadataClient::~MetadataClient() { StopWatching(); }

absl::StatusOr<metadata::v1::CreateContainerResponse> MetadataClient::CreateContainer(
    const metadata::v1::CreateContainerRequest& request) {
  metadata::v1::CreateContainerResponse response;
  int sent = 0;
  const absl::Status status =
      CallTwice(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
        ++sent;
        return store_->CreateContainer(&context, request, &response);
      });
  if (absl::IsAlreadyExists(status) && sent > 1) {
    // The connection broke after the first call was done: the id is random, so this is ours.
    ASSIGN_OR_RETURN(auto mounts, SnapshotMounts(request.container().snapshotter(),
                                                 request.container().snapshot_key()));
    *response.mutable_container() = request.container();
    for (auto& mount : mounts) *response.add_mounts() = std::move(mount);
    return response;
  }
  RETURN_IF_ERROR(status);
  return response;
}

absl::Status MetadataClient::DeleteContainer(const metadata::v1::DeleteContainerRequest& request) {
  metadata::v1::DeleteContainerResponse response;
  return CallTwice(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    return store_->DeleteContainer(&context, request, &response);
  });
}

absl::StatusOr<std::vector<metadata::v1::Record>> MetadataClient::ListRecords(
    const std::string& bucket) {
  metadata::v1::ListRecordsRequest request;
  request.set_bucket(bucket);
  std::vector<metadata::v1::Record> records;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
        records.clear();
        auto reader = records_->List(&context, request);
        metadata::v1::Record record;
        while (reader->Read(&record)) records.push_back(std::move(record));
        return reader->Finish();
      }));
  return records;
}

absl::Status MetadataClient::Commit(const metadata::v1::CommitRecordsRequest& request) {
  bool repeatable = true;
  for (const auto& write : request.writes()) {
    repeatable &= !write.must_not_exist() && write.expected_revision() == 0;
  }
  metadata::v1::CommitRecordsResponse response;
  auto send = [&](grpc::ClientContext& context) {
    return records_->Commit(&context, request, &response);
  };
  return repeatable ? CallTwice(kProcess, rpc::kShortCall, namespace_, send)
                    : CallOnce(kProcess, rpc::kShortCall, namespace_, send);
}

absl::StatusOr<std::vector<containerd::types::Mount>> MetadataClient::SnapshotMounts(
    const std::string& snapshotter, const std::string& key) {
  snapshots::MountsRequest request;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  snapshots::MountsResponse response;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
        return snapshots_->Mounts(&context, request, &response);
      }));
  return std::vector<containerd::types::Mount>(response.mounts().begin(), response.mounts().end());
}

absl::StatusOr<uint64_t> MetadataClient::SnapshotUsage(const std::string& snapshotter,
                                                       const std::string& key) {
  snapshots::UsageRequest request;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  snapshots::UsageResponse response;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
        return snapshots_->Usage(&context, request, &response);
      }));
  return static_cast<uint64_t>(response.size());
}

absl::Status MetadataClient::UpdateSpec(const std::string& id, const std::string& spec_json) {
  containers::UpdateContainerRequest request;
  request.mutable_container()->set_id(id);
  request.mutable_container()->mutable_spec()->set_type_url(kSpecTypeUrl);
  request.mutable_container()->mutable_spec()->set_value(spec_json);
  request.mutable_update_mask()->add_paths("spec");
  containers::UpdateContainerResponse response;
  return CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
    return containers_->Update(&context, request, &response);
  });
}

absl::Status MetadataClient::AppendEvents(
    const std::vector<containerd::types::Envelope>& envelopes) {
  metadata::v1::AppendJournalRequest request;
  for (const containerd::types::Envelope& envelope : envelopes) *request.add_envelopes() = envelope;
  metadata::v1::AppendJournalResponse response;
  return CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
    return journal_->Append(&context, request, &response);
  });
}

absl::StatusOr<std::vector<std::string>> MetadataClient::ListContainerIds() {
  containers::ListContainersRequest request;
  std::vector<std::string> ids;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
        ids.clear();
        auto reader = containers_->ListStream(&context, request);
        containers::ListContainerMessage message;
        while (reader->Read(&message)) ids.push_back(message.container().id());
        return reader->Finish();
      }));
  return ids;
}

void MetadataClient::WatchOom(std::function<void(const std::string&)> callback) {
  watch_ = std::make_shared<OomWatch>(*events_, namespace_, std::move(callback));
  watch_->Start();
}

void MetadataClient::StopWatching() {
  if (watch_ != nullptr) watch_->Stop();
  watch_ = nullptr;
}

}  // namespace gantry::engine
