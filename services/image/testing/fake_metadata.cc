#include "services/image/testing/fake_metadata.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/identifier.h"
#include "lib/rpc/request.h"
#include "lib/sys/file.h"

namespace gantry::image {

namespace containers = containerd::services::containers::v1;
namespace images = containerd::services::images::v1;
namespace leases = containerd::services::leases::v1;
namespace namespaces = containerd::services::namespaces::v1;
namespace snapshots = containerd::services::snapshots::v1;

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

struct FakeMetadata::State {
  State(std::string root, bool knows_rebase) : directory(std::move(root)), rebase(knows_rebase) {}

  const std::string directory;
  const bool rebase;
  absl::Mutex mutex;
  std::map<std::string, FakeNamespace> all ABSL_GUARDED_BY(mutex);
  std::vector<metadata::v1::GarbageBlob> garbage ABSL_GUARDED_BY(mutex);  // Announced, in order.
  std::set<std::string> claimed ABSL_GUARDED_BY(mutex);
  int next_directory ABSL_GUARDED_BY(mutex) = 0;
  bool stopping ABSL_GUARDED_BY(mutex) = false;

  std::vector<std::unique_ptr<grpc::Service>> services;

  bool IsRecorded(const std::string& digest) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    for (const auto& [name, space] : all) {
      if (space.blobs.count(digest) > 0) return true;
    }
    return false;
  }
  bool IsRecordedIngest(const std::string& backend_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    for (const auto& [name, space] : all) {
      for (const auto& [ref, ingest] : space.ingests) {
        if (ingest.backend_id() == backend_id) return true;
      }
    }
    return false;
  }
  void Offer(const std::string& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (!IsRecorded(digest)) garbage.emplace_back().set_digest(digest);
  }
  void Lease(FakeNamespace& space, const ServerContext& context, const std::string& resource)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const std::string lease = rpc::RequestLease(context);
    if (!lease.empty()) space.leases[lease].insert(resource);
  }
  void Collect();
  void CollectIngests(FakeNamespace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
};

namespace {

using State = FakeMetadata::State;

Status NotFound(const std::string& what) {
  return Status(StatusCode::NOT_FOUND, absl::StrCat(what, ": not found"));
}
Status AlreadyExists(const std::string& what) {
  return Status(StatusCode::ALREADY_EXISTS, absl::StrCat(what, ": already exists"));
}

// Every handler: the namespace of the request, under the lock.
#define WITH_NAMESPACE(space)                                                   \
  absl::StatusOr<std::string> namespace_name = rpc::RequestNamespace(*context); \
  if (!namespace_name.ok()) {                                                   \
    return Status(StatusCode::FAILED_PRECONDITION,                              \
                  std::string(namespace_name.status().message()));              \
  }                                                                             \
  absl::MutexLock lock(&state_.mutex);                                          \
  FakeNamespace& space = state_.all[*namespace_name];

class FakeBlobs final : public metadata::v1::Blobs::Service {
 public:
  explicit FakeBlobs(State& state) : state_(state) {}

  Status Get(ServerContext* context, const metadata::v1::GetBlobRequest* request,
             metadata::v1::Blob* response) override {
    WITH_NAMESPACE(space);
    auto found = space.blobs.find(request->digest());
    if (found == space.blobs.end()) return NotFound(request->digest());
    *response = found->second;
    return Status::OK;
  }

  Status List(ServerContext* context, const metadata::v1::ListBlobsRequest*,
              grpc::ServerWriter<metadata::v1::Blob>* writer) override {
    WITH_NAMESPACE(space);
    for (const auto& [digest, blob] : space.blobs) writer->Write(blob);
    return Status::OK;
  }

  Status Update(ServerContext* context, const metadata::v1::UpdateBlobRequest* request,
                metadata::v1::Blob* response) override {
    WITH_NAMESPACE(space);
    auto found = space.blobs.find(request->digest());
    if (found == space.blobs.end()) return NotFound(request->digest());
    if (request->update_paths().empty()) *found->second.mutable_labels() = request->labels();
    for (const std::string& path : request->update_paths()) {
      if (!absl::StartsWith(path, "labels.")) continue;
      const std::string key = path.substr(7);
      auto value = request->labels().find(key);
      if (value != request->labels().end()) (*found->second.mutable_labels())[key] = value->second;
    }
    *response = found->second;
    return Status::OK;
  }

  Status Delete(ServerContext* context, const metadata::v1::DeleteBlobRequest* request,
                metadata::v1::DeleteBlobResponse*) override {
    WITH_NAMESPACE(space);
    if (space.blobs.erase(request->digest()) == 0) return NotFound(request->digest());
    state_.Offer(request->digest());
    return Status::OK;
  }

  Status BeginIngest(ServerContext* context, const metadata::v1::BeginIngestRequest* request,
                     metadata::v1::BeginIngestResponse* response) override {
    WITH_NAMESPACE(space);
    if (space.blobs.count(request->expected_digest()) > 0) {
      state_.Lease(space, *context, "content/" + request->expected_digest());
      return AlreadyExists(request->expected_digest());
    }
    metadata::v1::Ingest& ingest = space.ingests[request->ref()];
    if (ingest.backend_id().empty()) {
      ingest.set_backend_id(absl::StrCat("i", RandomHex(8)));
      ingest.set_namespace_(*namespace_name);
      ingest.set_ref(request->ref());
      ingest.set_expected_digest(request->expected_digest());
      ingest.set_total_bytes(request->total_bytes());
      ingest.mutable_started_at()->set_seconds(1700000000);
    }
    state_.Lease(space, *context, "ingests/" + request->ref());
    response->set_backend_id(ingest.backend_id());
    response->set_expected_digest(ingest.expected_digest());
    response->set_total_bytes(ingest.total_bytes());
    *response->mutable_started_at() = ingest.started_at();
    response->set_shared(!request->expected_digest().empty() &&
                         state_.claimed.count(request->expected_digest()) == 0 &&
                         state_.IsRecorded(request->expected_digest()));
    return Status::OK;
  }

  Status CommitIngest(ServerContext* context, const metadata::v1::CommitIngestRequest* request,
                      metadata::v1::Blob* response) override {
    WITH_NAMESPACE(space);
    state_.Lease(space, *context, "content/" + request->digest());
    if (space.ingests.erase(request->ref()) == 0) return NotFound(request->ref());
    if (space.blobs.count(request->digest()) > 0) return AlreadyExists(request->digest());
    metadata::v1::Blob& blob = space.blobs[request->digest()];
    blob.set_digest(request->digest());
    blob.set_size_bytes(request->size_bytes());
    *blob.mutable_labels() = request->labels();
    *response = blob;
    return Status::OK;
  }

  Status AbortIngest(ServerContext* context, const metadata::v1::AbortIngestRequest* request,
                     metadata::v1::AbortIngestResponse* response) override {
    WITH_NAMESPACE(space);
    auto found = space.ingests.find(request->ref());
    if (found == space.ingests.end()) return NotFound(request->ref());
    response->set_backend_id(found->second.backend_id());
    state_.garbage.emplace_back().set_ingest(found->second.backend_id());
    space.ingests.erase(found);
    return Status::OK;
  }

  Status ListIngests(ServerContext* context, const metadata::v1::ListIngestsRequest* request,
                     grpc::ServerWriter<metadata::v1::Ingest>* writer) override {
    absl::MutexLock lock(&state_.mutex);
    absl::StatusOr<std::string> wanted = rpc::RequestNamespace(*context);
    for (const auto& [name, space] : state_.all) {
      if (!request->all_namespaces() && (!wanted.ok() || name != *wanted)) continue;
      for (const auto& [ref, ingest] : space.ingests) writer->Write(ingest);
    }
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeGarbage final : public metadata::v1::Garbage::Service {
 public:
  explicit FakeGarbage(State& state) : state_(state) {}

  Status WatchBlobs(ServerContext* context, const metadata::v1::WatchGarbageBlobsRequest* request,
                    grpc::ServerWriter<metadata::v1::GarbageBlob>* writer) override {
    size_t next = 0;
    std::vector<metadata::v1::GarbageBlob> fresh;
    {
      absl::MutexLock lock(&state_.mutex);
      next = state_.garbage.size();
      for (const std::string& digest : request->known_digests()) {
        if (!state_.IsRecorded(digest)) fresh.emplace_back().set_digest(digest);
      }
      for (const std::string& id : request->known_ingests()) {
        if (!state_.IsRecordedIngest(id)) fresh.emplace_back().set_ingest(id);
      }
    }
    for (;;) {
      for (const metadata::v1::GarbageBlob& garbage : fresh) writer->Write(garbage);
      {
        absl::MutexLock lock(&state_.mutex);
        const auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mutex) {
          return state_.stopping || next < state_.garbage.size();
        };
        state_.mutex.AwaitWithTimeout(absl::Condition(&ready), absl::Milliseconds(50));
        if (state_.stopping || context->IsCancelled()) return Status::OK;
        fresh.assign(state_.garbage.begin() + static_cast<long>(next), state_.garbage.end());
        next = state_.garbage.size();
      }
    }
  }

  Status ClaimBlob(ServerContext*, const metadata::v1::ClaimBlobRequest* request,
                   metadata::v1::ClaimBlobResponse*) override {
    absl::MutexLock lock(&state_.mutex);
    if (state_.IsRecorded(request->digest())) {
      return Status(StatusCode::FAILED_PRECONDITION, "in use again");
    }
    state_.claimed.insert(request->digest());
    return Status::OK;
  }

  Status ReleaseBlob(ServerContext*, const metadata::v1::ReleaseBlobRequest* request,
                     metadata::v1::ReleaseBlobResponse*) override {
    absl::MutexLock lock(&state_.mutex);
    state_.claimed.erase(request->digest());
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeImages final : public images::Images::Service {
 public:
  explicit FakeImages(State& state) : state_(state) {}

  Status Get(ServerContext* context, const images::GetImageRequest* request,
             images::GetImageResponse* response) override {
    WITH_NAMESPACE(space);
    auto found = space.images.find(request->name());
    if (found == space.images.end()) return NotFound(request->name());
    *response->mutable_image() = found->second;
    return Status::OK;
  }
  Status List(ServerContext* context, const images::ListImagesRequest*,
              images::ListImagesResponse* response) override {
    WITH_NAMESPACE(space);
    for (const auto& [name, image] : space.images) *response->add_images() = image;
    return Status::OK;
  }
  Status Create(ServerContext* context, const images::CreateImageRequest* request,
                images::CreateImageResponse*) override {
    WITH_NAMESPACE(space);
    if (!space.images.try_emplace(request->image().name(), request->image()).second) {
      return AlreadyExists(request->image().name());
    }
    return Status::OK;
  }
  Status Update(ServerContext* context, const images::UpdateImageRequest* request,
                images::UpdateImageResponse*) override {
    WITH_NAMESPACE(space);
    auto found = space.images.find(request->image().name());
    if (found == space.images.end()) return NotFound(request->image().name());
    *found->second.mutable_target() = request->image().target();
    return Status::OK;
  }
  Status Delete(ServerContext* context, const images::DeleteImageRequest* request,
                google::protobuf::Empty*) override {
    WITH_NAMESPACE(space);
    if (space.images.erase(request->name()) == 0) return NotFound(request->name());
    if (request->sync()) state_.Collect();
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeContainers final : public containers::Containers::Service {
 public:
  explicit FakeContainers(State& state) : state_(state) {}
  Status List(ServerContext* context, const containers::ListContainersRequest*,
              containers::ListContainersResponse* response) override {
    WITH_NAMESPACE(space);
    for (const auto& container : space.containers) *response->add_containers() = container;
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeNamespaces final : public namespaces::Namespaces::Service {
 public:
  explicit FakeNamespaces(State& state) : state_(state) {}
  Status List(ServerContext*, const namespaces::ListNamespacesRequest*,
              namespaces::ListNamespacesResponse* response) override {
    absl::MutexLock lock(&state_.mutex);
    for (const auto& [name, space] : state_.all) response->add_namespaces()->set_name(name);
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeLeases final : public leases::Leases::Service {
 public:
  explicit FakeLeases(State& state) : state_(state) {}

  Status Create(ServerContext* context, const leases::CreateRequest* request,
                leases::CreateResponse* response) override {
    WITH_NAMESPACE(space);
    if (!space.leases.try_emplace(request->id()).second) return AlreadyExists(request->id());
    space.lease_labels[request->id()].insert(request->labels().begin(), request->labels().end());
    response->mutable_lease()->set_id(request->id());
    return Status::OK;
  }
  Status Delete(ServerContext* context, const leases::DeleteRequest* request,
                google::protobuf::Empty*) override {
    WITH_NAMESPACE(space);
    space.lease_labels.erase(request->id());
    if (space.leases.erase(request->id()) == 0) return NotFound(request->id());
    return Status::OK;
  }
  Status List(ServerContext* context, const leases::ListRequest*,
              leases::ListResponse* response) override {
    WITH_NAMESPACE(space);
    for (const auto& [id, resources] : space.leases) {
      leases::Lease* lease = response->add_leases();
      lease->set_id(id);
      for (const auto& [key, value] : space.lease_labels[id])
        (*lease->mutable_labels())[key] = value;
    }
    return Status::OK;
  }
  Status AddResource(ServerContext* context, const leases::AddResourceRequest* request,
                     google::protobuf::Empty*) override {
    WITH_NAMESPACE(space);
    auto found = space.leases.find(request->id());
    if (found == space.leases.end()) return NotFound(request->id());
    found->second.insert(absl::StrCat(request->resource().type(), "/", request->resource().id()));
    return Status::OK;
  }

 private:
  State& state_;
};

class FakeSnapshots final : public snapshots::Snapshots::Service {
 public:
  explicit FakeSnapshots(State& state) : state_(state) {}

  Status Prepare(ServerContext* context, const snapshots::PrepareSnapshotRequest* request,
                 snapshots::PrepareSnapshotResponse* response) override {
    WITH_NAMESPACE(space);
    return Make(space, request->key(), request->parent(), false, response->mutable_mounts());
  }
  Status View(ServerContext* context, const snapshots::ViewSnapshotRequest* request,
              snapshots::ViewSnapshotResponse* response) override {
    WITH_NAMESPACE(space);
    return Make(space, request->key(), request->parent(), true, response->mutable_mounts());
  }
  Status Commit(ServerContext* context, const snapshots::CommitSnapshotRequest* request,
                google::protobuf::Empty*) override {
    WITH_NAMESPACE(space);
    auto found = space.snapshots.find(request->key());
    if (found == space.snapshots.end()) return NotFound(request->key());
    if (space.snapshots.count(request->name()) > 0) return AlreadyExists(request->name());
    FakeSnapshot snapshot = found->second;
    snapshot.committed = true;
    if (state_.rebase && !request->parent().empty()) {
      if (space.snapshots.count(request->parent()) == 0) return NotFound(request->parent());
      snapshot.parent = request->parent();
    }
    space.snapshots.erase(found);
    space.snapshots[request->name()] = snapshot;
    state_.Lease(space, *context, "snapshots/overlayfs/" + request->name());
    return Status::OK;
  }
  Status Remove(ServerContext* context, const snapshots::RemoveSnapshotRequest* request,
                google::protobuf::Empty*) override {
    WITH_NAMESPACE(space);
    auto found = space.snapshots.find(request->key());
    if (found == space.snapshots.end()) return NotFound(request->key());
    if (!found->second.view) (void)sys::RemoveTree(found->second.directory);
    space.snapshots.erase(found);
    return Status::OK;
  }
  Status Stat(ServerContext* context, const snapshots::StatSnapshotRequest* request,
              snapshots::StatSnapshotResponse* response) override {
    WITH_NAMESPACE(space);
    auto found = space.snapshots.find(request->key());
    if (found == space.snapshots.end()) return NotFound(request->key());
    response->mutable_info()->set_name(request->key());
    response->mutable_info()->set_parent(found->second.parent);
    return Status::OK;
  }
  Status Usage(ServerContext* context, const snapshots::UsageRequest* request,
               snapshots::UsageResponse* response) override {
    WITH_NAMESPACE(space);
    auto found = space.snapshots.find(request->key());
    if (found == space.snapshots.end()) return NotFound(request->key());
    response->set_size(1000);
    return Status::OK;
  }

 private:
  Status Make(FakeNamespace& space, const std::string& key, const std::string& parent, bool view,
              google::protobuf::RepeatedPtrField<containerd::types::Mount>* mounts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mutex) {
    if (space.snapshots.count(key) > 0) return AlreadyExists(key);
    std::vector<std::string> lower;
    for (std::string at = parent; !at.empty();) {
      auto found = space.snapshots.find(at);
      if (found == space.snapshots.end() || !found->second.committed) return NotFound(at);
      lower.push_back(found->second.directory);
      at = found->second.parent;
    }
    FakeSnapshot& snapshot = space.snapshots[key];
    snapshot.parent = parent;
    snapshot.view = view;
    containerd::types::Mount* mount = mounts->Add();
    if (!view) {
      snapshot.directory = absl::StrCat(state_.directory, "/", ++state_.next_directory, "/fs");
      (void)sys::MakeDirectories(snapshot.directory);
    }
    if (lower.empty() || (view && lower.size() == 1)) {
      mount->set_type("bind");
      mount->set_source(view ? lower.at(0) : snapshot.directory);
      mount->add_options(view ? "ro" : "rw");
      mount->add_options("rbind");
      return Status::OK;
    }
    mount->set_type("overlay");
    mount->set_source("overlay");
    mount->add_options("index=off");
    if (!view) {
      const std::string work = absl::StrCat(state_.directory, "/", state_.next_directory, "/work");
      (void)sys::MakeDirectories(work);
      mount->add_options("workdir=" + work);
      mount->add_options("upperdir=" + snapshot.directory);
    }
    mount->add_options("lowerdir=" + absl::StrJoin(lower, ":"));
    return Status::OK;
  }

  State& state_;
};

}  // namespace

void FakeMetadata::State::Collect() {
  for (auto& [name, space] : all) {
    std::set<std::string> live_blobs, live_snapshots;
    std::vector<std::string> todo;
    for (const auto& [image_name, image] : space.images) todo.push_back(image.target().digest());
    for (const auto& [lease, resources] : space.leases) {
      for (const std::string& resource : resources) {
        if (absl::StartsWith(resource, "content/")) todo.push_back(resource.substr(8));
        if (absl::StartsWith(resource, "snapshots/overlayfs/")) {
          live_snapshots.insert(resource.substr(20));
        }
      }
    }
    while (!todo.empty()) {
      const std::string digest = todo.back();
      todo.pop_back();
      auto blob = space.blobs.find(digest);
      if (blob == space.blobs.end() || !live_blobs.insert(digest).second) continue;
      for (const auto& [key, value] : blob->second.labels()) {
        if (absl::StartsWith(key, "containerd.io/gc.ref.content")) todo.push_back(value);
        if (key == "containerd.io/gc.ref.snapshot.overlayfs") {
          for (std::string at = value; !at.empty() && space.snapshots.count(at) > 0;
               at = space.snapshots[at].parent) {
            live_snapshots.insert(at);
          }
        }
      }
    }
    for (auto blob = space.blobs.begin(); blob != space.blobs.end();) {
      if (live_blobs.count(blob->first) > 0) {
        ++blob;
        continue;
      }
      const std::string digest = blob->first;
      blob = space.blobs.erase(blob);
      Offer(digest);
    }
    CollectIngests(space);
    for (auto snapshot = space.snapshots.begin(); snapshot != space.snapshots.end();) {
      if (live_snapshots.count(snapshot->first) > 0) {
        ++snapshot;
        continue;
      }
      if (!snapshot->second.view) (void)sys::RemoveTree(snapshot->second.directory);
      snapshot = space.snapshots.erase(snapshot);
    }
  }
}

// Those that no lease holds.
void FakeMetadata::State::CollectIngests(FakeNamespace& space) {
  for (auto ingest = space.ingests.begin(); ingest != space.ingests.end();) {
    bool held = false;
    for (const auto& [lease, resources] : space.leases) {
      held = held || resources.count("ingests/" + ingest->first) > 0;
    }
    if (held) {
      ++ingest;
      continue;
    }
    const metadata::v1::Ingest gone = ingest->second;
    ingest = space.ingests.erase(ingest);
    garbage.emplace_back().set_ingest(gone.backend_id());
    if (!gone.expected_digest().empty()) Offer(gone.expected_digest());
  }
}

FakeMetadata::FakeMetadata(std::string directory, bool rebase)
    : state_(std::make_unique<State>(std::move(directory), rebase)) {
  auto& services = state_->services;
  services.push_back(std::make_unique<FakeBlobs>(*state_));
  services.push_back(std::make_unique<FakeGarbage>(*state_));
  services.push_back(std::make_unique<FakeImages>(*state_));
  services.push_back(std::make_unique<FakeContainers>(*state_));
  services.push_back(std::make_unique<FakeNamespaces>(*state_));
  services.push_back(std::make_unique<FakeLeases>(*state_));
  services.push_back(std::make_unique<FakeSnapshots>(*state_));
  grpc::ServerBuilder builder;
  for (const auto& service : services) builder.RegisterService(service.get());
  server_ = builder.BuildAndStart();
}

FakeMetadata::~FakeMetadata() {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->stopping = true;
  }
  server_->Shutdown();
}

std::shared_ptr<grpc::Channel> FakeMetadata::channel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

FakeNamespace FakeMetadata::Get(const std::string& name) {
  absl::MutexLock lock(&state_->mutex);
  return state_->all[name];
}

void FakeMetadata::AddContainer(const std::string& name, const std::string& id,
                                const std::string& image) {
  absl::MutexLock lock(&state_->mutex);
  containers::Container container;
  container.set_id(id);
  container.set_image(image);
  state_->all[name].containers.push_back(container);
}

std::vector<std::string> FakeMetadata::Layers(const std::string& name, const std::string& key) {
  absl::MutexLock lock(&state_->mutex);
  std::vector<std::string> layers;
  FakeNamespace& space = state_->all[name];
  for (std::string at = key; !at.empty() && space.snapshots.count(at) > 0;
       at = space.snapshots[at].parent) {
    layers.push_back(space.snapshots[at].directory);
  }
  return layers;
}

void FakeMetadata::Collect() {
  absl::MutexLock lock(&state_->mutex);
  state_->Collect();
}

}  // namespace gantry::image
