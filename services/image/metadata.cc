#include "services/image/metadata.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/images/v1/images.grpc.pb.h"
#include "containerd/services/leases/v1/leases.grpc.pb.h"
#include "containerd/services/namespaces/v1/namespace.grpc.pb.h"
#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::image {
namespace {

namespace containers = containerd::services::containers::v1;
namespace images = containerd::services::images::v1;
namespace leases = containerd::services::leases::v1;
namespace namespaces = containerd::services::namespaces::v1;
namespace snapshots = containerd::services::snapshots::v1;

template <typename Stub, typename Request, typename Response>
absl::Status Unary(Stub& stub,
                   grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Caller& caller, const Request& request, Response* response,
                   absl::Duration timeout = rpc::kShortCall) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, timeout, caller.namespace_name, caller.lease);
  return rpc::FromGrpcStatus((stub.*method)(&context, request, response));
}

void SetLabels(const StringMap& labels, google::protobuf::Map<std::string, std::string>* out) {
  for (const auto& [key, value] : labels) (*out)[key] = value;
}

template <typename Messages>
auto ToVector(const Messages& messages) {
  return std::vector<typename Messages::value_type>(messages.begin(), messages.end());
}

}  // namespace

struct Metadata::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : blobs(metadata::v1::Blobs::NewStub(channel)),
        garbage(metadata::v1::Garbage::NewStub(channel)),
        images(images::Images::NewStub(channel)),
        containers(containers::Containers::NewStub(channel)),
        namespaces(namespaces::Namespaces::NewStub(channel)),
        leases(leases::Leases::NewStub(channel)),
        snapshots(snapshots::Snapshots::NewStub(channel)) {}

  std::unique_ptr<metadata::v1::Blobs::Stub> blobs;
  std::unique_ptr<metadata::v1::Garbage::Stub> garbage;
  std::unique_ptr<images::Images::Stub> images;
  std::unique_ptr<containers::Containers::Stub> containers;
  std::unique_ptr<namespaces::Namespaces::Stub> namespaces;
  std::unique_ptr<leases::Leases::Stub> leases;
  std::unique_ptr<snapshots::Snapshots::Stub> snapshots;
};

Metadata::Metadata(std::shared_ptr<grpc::Channel> channel)
    : stubs_(std::make_unique<Stubs>(channel)) {}
Metadata::~Metadata() = default;

absl::StatusOr<metadata::v1::Blob> Metadata::GetBlob(const Caller& caller, const Digest& digest) {
  metadata::v1::GetBlobRequest request;
  metadata::v1::Blob blob;
  request.set_digest(digest.str());
  RETURN_IF_ERROR(Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::Get, caller, request, &blob));
  return blob;
}

absl::Status Metadata::ListBlobs(
    const Caller& caller, const std::vector<std::string>& filters,
    const std::function<absl::Status(const metadata::v1::Blob&)>& consume) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall, caller.namespace_name, caller.lease);
  metadata::v1::ListBlobsRequest request;
  for (const std::string& filter : filters) request.add_filters(filter);
  auto reader = stubs_->blobs->List(&context, request);
  metadata::v1::Blob blob;
  while (reader->Read(&blob)) {
    if (absl::Status consumed = consume(blob); !consumed.ok()) {
      context.TryCancel();
      (void)reader->Finish();
      return consumed;
    }
  }
  return rpc::FromGrpcStatus(reader->Finish());
}

absl::StatusOr<std::vector<metadata::v1::Blob>> Metadata::ListBlobs(
    const Caller& caller, const std::vector<std::string>& filters) {
  std::vector<metadata::v1::Blob> blobs;
  RETURN_IF_ERROR(ListBlobs(caller, filters, [&blobs](const metadata::v1::Blob& blob) {
    blobs.push_back(blob);
    return absl::OkStatus();
  }));
  return blobs;
}

absl::StatusOr<metadata::v1::Blob> Metadata::UpdateBlob(const Caller& caller, const Digest& digest,
                                                        const StringMap& labels,
                                                        const std::vector<std::string>& paths) {
  metadata::v1::UpdateBlobRequest request;
  metadata::v1::Blob blob;
  request.set_digest(digest.str());
  SetLabels(labels, request.mutable_labels());
  for (const std::string& path : paths) request.add_update_paths(path);
  RETURN_IF_ERROR(
      Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::Update, caller, request, &blob));
  return blob;
}

absl::Status Metadata::DeleteBlob(const Caller& caller, const Digest& digest) {
  metadata::v1::DeleteBlobRequest request;
  metadata::v1::DeleteBlobResponse response;
  request.set_digest(digest.str());
  return Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::Delete, caller, request, &response);
}

absl::StatusOr<metadata::v1::BeginIngestResponse> Metadata::BeginIngest(const Caller& caller,
                                                                        const std::string& ref,
                                                                        const std::string& expected,
                                                                        uint64_t total_bytes) {
  metadata::v1::BeginIngestRequest request;
  metadata::v1::BeginIngestResponse response;
  request.set_ref(ref);
  request.set_expected_digest(expected);
  request.set_total_bytes(total_bytes);
  RETURN_IF_ERROR(
      Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::BeginIngest, caller, request, &response));
  return response;
}

absl::StatusOr<metadata::v1::Blob> Metadata::CommitIngest(const Caller& caller,
                                                          const std::string& ref,
                                                          const Digest& digest, uint64_t size_bytes,
                                                          const StringMap& labels) {
  metadata::v1::CommitIngestRequest request;
  metadata::v1::Blob blob;
  request.set_ref(ref);
  request.set_digest(digest.str());
  request.set_size_bytes(size_bytes);
  SetLabels(labels, request.mutable_labels());
  RETURN_IF_ERROR(
      Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::CommitIngest, caller, request, &blob));
  return blob;
}

absl::StatusOr<std::string> Metadata::AbortIngest(const Caller& caller, const std::string& ref) {
  metadata::v1::AbortIngestRequest request;
  metadata::v1::AbortIngestResponse response;
  request.set_ref(ref);
  RETURN_IF_ERROR(
      Unary(*stubs_->blobs, &metadata::v1::Blobs::Stub::AbortIngest, caller, request, &response));
  return response.backend_id();
}

absl::StatusOr<std::vector<metadata::v1::Ingest>> Metadata::ListIngests(const Caller& caller,
                                                                        bool all_namespaces) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, caller.namespace_name, caller.lease);
  metadata::v1::ListIngestsRequest request;
  request.set_all_namespaces(all_namespaces);
  auto reader = stubs_->blobs->ListIngests(&context, request);
  std::vector<metadata::v1::Ingest> ingests;
  metadata::v1::Ingest ingest;
  while (reader->Read(&ingest)) ingests.push_back(ingest);
  RETURN_IF_ERROR(rpc::FromGrpcStatus(reader->Finish()));
  return ingests;
}

absl::StatusOr<images::Image> Metadata::GetImage(const Caller& caller, const std::string& name) {
  images::GetImageRequest request;
  images::GetImageResponse response;
  request.set_name(name);
  RETURN_IF_ERROR(Unary(*stubs_->images, &images::Images::Stub::Get, caller, request, &response));
  return std::move(*response.mutable_image());
}

absl::StatusOr<std::vector<images::Image>> Metadata::ListImages(const Caller& caller) {
  images::ListImagesRequest request;
  images::ListImagesResponse response;
  RETURN_IF_ERROR(Unary(*stubs_->images, &images::Images::Stub::List, caller, request, &response));
  return ToVector(response.images());
}

absl::Status Metadata::PutImage(const Caller& caller, const std::string& name,
                                const containerd::types::Descriptor& target,
                                const StringMap& labels) {
  images::CreateImageRequest create;
  images::CreateImageResponse created;
  create.mutable_image()->set_name(name);
  *create.mutable_image()->mutable_target() = target;
  SetLabels(labels, create.mutable_image()->mutable_labels());
  const absl::Status status =
      Unary(*stubs_->images, &images::Images::Stub::Create, caller, create, &created);
  if (!absl::IsAlreadyExists(status)) return status;
  images::UpdateImageRequest update;
  images::UpdateImageResponse updated;
  *update.mutable_image() = create.image();
  update.mutable_update_mask()->add_paths("target");
  for (const auto& [key, value] : labels) {
    update.mutable_update_mask()->add_paths("labels." + key);
  }
  return Unary(*stubs_->images, &images::Images::Stub::Update, caller, update, &updated);
}

absl::Status Metadata::DeleteImage(const Caller& caller, const std::string& name, bool sync) {
  images::DeleteImageRequest request;
  google::protobuf::Empty response;
  request.set_name(name);
  request.set_sync(sync);
  return Unary(*stubs_->images, &images::Images::Stub::Delete, caller, request, &response,
               sync ? rpc::kLongCall : rpc::kShortCall);
}

absl::StatusOr<std::vector<containers::Container>> Metadata::ListContainers(const Caller& caller) {
  containers::ListContainersRequest request;
  containers::ListContainersResponse response;
  RETURN_IF_ERROR(
      Unary(*stubs_->containers, &containers::Containers::Stub::List, caller, request, &response));
  return ToVector(response.containers());
}

absl::StatusOr<std::vector<std::string>> Metadata::ListNamespaces() {
  namespaces::ListNamespacesRequest request;
  namespaces::ListNamespacesResponse response;
  RETURN_IF_ERROR(Unary(*stubs_->namespaces, &namespaces::Namespaces::Stub::List, Caller(), request,
                        &response));
  std::vector<std::string> names;
  for (const auto& entry : response.namespaces()) names.push_back(entry.name());
  return names;
}

absl::StatusOr<std::string> Metadata::CreateLease(const Caller& caller, const std::string& id,
                                                  const StringMap& labels) {
  leases::CreateRequest request;
  leases::CreateResponse response;
  request.set_id(id);
  SetLabels(labels, request.mutable_labels());
  RETURN_IF_ERROR(
      Unary(*stubs_->leases, &leases::Leases::Stub::Create, caller, request, &response));
  return response.lease().id();
}

absl::Status Metadata::DeleteLease(const Caller& caller, const std::string& id, bool collect) {
  leases::DeleteRequest request;
  google::protobuf::Empty response;
  request.set_id(id);
  request.set_sync(collect);
  return Unary(*stubs_->leases, &leases::Leases::Stub::Delete, caller, request, &response);
}

absl::StatusOr<std::vector<leases::Lease>> Metadata::ListLeases(
    const Caller& caller, const std::vector<std::string>& filters) {
  leases::ListRequest request;
  leases::ListResponse response;
  for (const std::string& filter : filters) request.add_filters(filter);
  RETURN_IF_ERROR(Unary(*stubs_->leases, &leases::Leases::Stub::List, caller, request, &response));
  return ToVector(response.leases());
}

absl::Status Metadata::AddToLease(const Caller& caller, const std::string& type,
                                  const std::string& id) {
  leases::AddResourceRequest request;
  google::protobuf::Empty response;
  request.set_id(caller.lease);
  request.mutable_resource()->set_type(type);
  request.mutable_resource()->set_id(id);
  return Unary(*stubs_->leases, &leases::Leases::Stub::AddResource, caller, request, &response);
}

absl::StatusOr<Metadata::Mounts> Metadata::PrepareSnapshot(const Caller& caller,
                                                           const std::string& snapshotter,
                                                           const std::string& key,
                                                           const std::string& parent,
                                                           const StringMap& labels) {
  snapshots::PrepareSnapshotRequest request;
  snapshots::PrepareSnapshotResponse response;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  request.set_parent(parent);
  SetLabels(labels, request.mutable_labels());
  RETURN_IF_ERROR(Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::Prepare, caller, request,
                        &response, rpc::kLongCall));
  return ToVector(response.mounts());
}

absl::StatusOr<Metadata::Mounts> Metadata::ViewSnapshot(const Caller& caller,
                                                        const std::string& snapshotter,
                                                        const std::string& key,
                                                        const std::string& parent) {
  snapshots::ViewSnapshotRequest request;
  snapshots::ViewSnapshotResponse response;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  request.set_parent(parent);
  RETURN_IF_ERROR(Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::View, caller, request,
                        &response, rpc::kLongCall));
  return ToVector(response.mounts());
}

absl::Status Metadata::CommitSnapshot(const Caller& caller, const std::string& snapshotter,
                                      const std::string& name, const std::string& key,
                                      const std::string& parent, const StringMap& labels) {
  snapshots::CommitSnapshotRequest request;
  google::protobuf::Empty response;
  request.set_snapshotter(snapshotter);
  request.set_name(name);
  request.set_key(key);
  request.set_parent(parent);
  SetLabels(labels, request.mutable_labels());
  return Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::Commit, caller, request, &response,
               rpc::kLongCall);
}

absl::Status Metadata::RemoveSnapshot(const Caller& caller, const std::string& snapshotter,
                                      const std::string& key) {
  snapshots::RemoveSnapshotRequest request;
  google::protobuf::Empty response;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  return Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::Remove, caller, request, &response,
               rpc::kLongCall);
}

absl::StatusOr<snapshots::Info> Metadata::StatSnapshot(const Caller& caller,
                                                       const std::string& snapshotter,
                                                       const std::string& key) {
  snapshots::StatSnapshotRequest request;
  snapshots::StatSnapshotResponse response;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  RETURN_IF_ERROR(
      Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::Stat, caller, request, &response));
  return std::move(*response.mutable_info());
}

absl::StatusOr<uint64_t> Metadata::SnapshotBytes(const Caller& caller,
                                                 const std::string& snapshotter,
                                                 const std::string& key) {
  snapshots::UsageRequest request;
  snapshots::UsageResponse response;
  request.set_snapshotter(snapshotter);
  request.set_key(key);
  RETURN_IF_ERROR(Unary(*stubs_->snapshots, &snapshots::Snapshots::Stub::Usage, caller, request,
                        &response, rpc::kLongCall));
  return static_cast<uint64_t>(response.size());
}

absl::Status Metadata::WatchGarbage(const GarbageWatch& watch, absl::Duration length) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, length);
  metadata::v1::WatchGarbageBlobsRequest request;
  for (const Digest& digest : watch.known_blobs) request.add_known_digests(digest.str());
  for (const std::string& id : watch.known_ingests) request.add_known_ingests(id);
  auto reader = stubs_->garbage->WatchBlobs(&context, request);
  watch.on_stop([&context] { context.TryCancel(); });
  metadata::v1::GarbageBlob garbage;
  while (reader->Read(&garbage)) {
    if (!garbage.ingest().empty()) watch.on_ingest(garbage.ingest());
    absl::StatusOr<Digest> digest = Digest::Parse(garbage.digest());
    if (digest.ok()) watch.on_blob(*digest);
  }
  const absl::Status finished = rpc::FromGrpcStatus(reader->Finish());
  watch.on_stop(nullptr);
  return absl::IsDeadlineExceeded(finished) ? absl::OkStatus() : finished;
}

absl::Status Metadata::ClaimBlob(const Digest& digest) {
  metadata::v1::ClaimBlobRequest request;
  metadata::v1::ClaimBlobResponse response;
  request.set_digest(digest.str());
  return Unary(*stubs_->garbage, &metadata::v1::Garbage::Stub::ClaimBlob, Caller(), request,
               &response);
}

absl::Status Metadata::ReleaseBlob(const Digest& digest, bool deleted) {
  metadata::v1::ReleaseBlobRequest request;
  metadata::v1::ReleaseBlobResponse response;
  request.set_digest(digest.str());
  request.set_deleted(deleted);
  return Unary(*stubs_->garbage, &metadata::v1::Garbage::Stub::ReleaseBlob, Caller(), request,
               &response);
}

}  // namespace gantry::image
