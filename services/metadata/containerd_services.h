// containerd's services over the domain classes: unpack, call, pack (contracts 1 and 3).
#pragma once

#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/images/v1/images.grpc.pb.h"
#include "containerd/services/leases/v1/leases.grpc.pb.h"
#include "containerd/services/namespaces/v1/namespace.grpc.pb.h"
#include "containerd/services/sandbox/v1/sandbox.grpc.pb.h"
#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "services/metadata/collector.h"
#include "services/metadata/containers.h"
#include "services/metadata/images.h"
#include "services/metadata/leases.h"
#include "services/metadata/namespaces.h"
#include "services/metadata/sandboxes.h"
#include "services/metadata/snapshots.h"

namespace gantry::metadata {

namespace containers_v1 = containerd::services::containers::v1;
namespace images_v1 = containerd::services::images::v1;
namespace leases_v1 = containerd::services::leases::v1;
namespace namespaces_v1 = containerd::services::namespaces::v1;
namespace sandbox_v1 = containerd::services::sandbox::v1;
namespace snapshots_v1 = containerd::services::snapshots::v1;

// All are thread-safe; the domain objects are borrowed.

class NamespacesService final : public namespaces_v1::Namespaces::Service {
 public:
  explicit NamespacesService(Namespaces& namespaces) : namespaces_(namespaces) {}
  grpc::Status Get(grpc::ServerContext*, const namespaces_v1::GetNamespaceRequest* request,
                   namespaces_v1::GetNamespaceResponse* response) override;
  grpc::Status List(grpc::ServerContext*, const namespaces_v1::ListNamespacesRequest* request,
                    namespaces_v1::ListNamespacesResponse* response) override;
  grpc::Status Create(grpc::ServerContext*, const namespaces_v1::CreateNamespaceRequest* request,
                      namespaces_v1::CreateNamespaceResponse* response) override;
  grpc::Status Update(grpc::ServerContext*, const namespaces_v1::UpdateNamespaceRequest* request,
                      namespaces_v1::UpdateNamespaceResponse* response) override;
  grpc::Status Delete(grpc::ServerContext*, const namespaces_v1::DeleteNamespaceRequest* request,
                      google::protobuf::Empty*) override;

 private:
  Namespaces& namespaces_;
};

class ContainersService final : public containers_v1::Containers::Service {
 public:
  explicit ContainersService(Containers& containers) : containers_(containers) {}
  grpc::Status Get(grpc::ServerContext* context, const containers_v1::GetContainerRequest* request,
                   containers_v1::GetContainerResponse* response) override;
  grpc::Status List(grpc::ServerContext* context,
                    const containers_v1::ListContainersRequest* request,
                    containers_v1::ListContainersResponse* response) override;
  grpc::Status ListStream(grpc::ServerContext* context,
                          const containers_v1::ListContainersRequest* request,
                          grpc::ServerWriter<containers_v1::ListContainerMessage>* writer) override;
  grpc::Status Create(grpc::ServerContext* context,
                      const containers_v1::CreateContainerRequest* request,
                      containers_v1::CreateContainerResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context,
                      const containers_v1::UpdateContainerRequest* request,
                      containers_v1::UpdateContainerResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context,
                      const containers_v1::DeleteContainerRequest* request,
                      google::protobuf::Empty*) override;

 private:
  Containers& containers_;
};

class ImagesService final : public images_v1::Images::Service {
 public:
  ImagesService(Images& images, Collector& collector) : images_(images), collector_(collector) {}
  grpc::Status Get(grpc::ServerContext* context, const images_v1::GetImageRequest* request,
                   images_v1::GetImageResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const images_v1::ListImagesRequest* request,
                    images_v1::ListImagesResponse* response) override;
  grpc::Status Create(grpc::ServerContext* context, const images_v1::CreateImageRequest* request,
                      images_v1::CreateImageResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context, const images_v1::UpdateImageRequest* request,
                      images_v1::UpdateImageResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const images_v1::DeleteImageRequest* request,
                      google::protobuf::Empty*) override;

 private:
  Images& images_;
  Collector& collector_;
};

class LeasesService final : public leases_v1::Leases::Service {
 public:
  LeasesService(Leases& leases, Collector& collector) : leases_(leases), collector_(collector) {}
  grpc::Status Create(grpc::ServerContext* context, const leases_v1::CreateRequest* request,
                      leases_v1::CreateResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const leases_v1::DeleteRequest* request,
                      google::protobuf::Empty*) override;
  grpc::Status List(grpc::ServerContext* context, const leases_v1::ListRequest* request,
                    leases_v1::ListResponse* response) override;
  grpc::Status AddResource(grpc::ServerContext* context,
                           const leases_v1::AddResourceRequest* request,
                           google::protobuf::Empty*) override;
  grpc::Status DeleteResource(grpc::ServerContext* context,
                              const leases_v1::DeleteResourceRequest* request,
                              google::protobuf::Empty*) override;
  grpc::Status ListResources(grpc::ServerContext* context,
                             const leases_v1::ListResourcesRequest* request,
                             leases_v1::ListResourcesResponse* response) override;

 private:
  Leases& leases_;
  Collector& collector_;
};

class SandboxStoreService final : public sandbox_v1::Store::Service {
 public:
  explicit SandboxStoreService(Sandboxes& sandboxes) : sandboxes_(sandboxes) {}
  grpc::Status Create(grpc::ServerContext* context, const sandbox_v1::StoreCreateRequest* request,
                      sandbox_v1::StoreCreateResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context, const sandbox_v1::StoreUpdateRequest* request,
                      sandbox_v1::StoreUpdateResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const sandbox_v1::StoreDeleteRequest* request,
                      sandbox_v1::StoreDeleteResponse*) override;
  grpc::Status List(grpc::ServerContext* context, const sandbox_v1::StoreListRequest* request,
                    sandbox_v1::StoreListResponse* response) override;
  grpc::Status Get(grpc::ServerContext* context, const sandbox_v1::StoreGetRequest* request,
                   sandbox_v1::StoreGetResponse* response) override;

 private:
  Sandboxes& sandboxes_;
};

class SnapshotsService final : public snapshots_v1::Snapshots::Service {
 public:
  explicit SnapshotsService(Snapshots& snapshots) : snapshots_(snapshots) {}
  grpc::Status Prepare(grpc::ServerContext* context,
                       const snapshots_v1::PrepareSnapshotRequest* request,
                       snapshots_v1::PrepareSnapshotResponse* response) override;
  grpc::Status View(grpc::ServerContext* context, const snapshots_v1::ViewSnapshotRequest* request,
                    snapshots_v1::ViewSnapshotResponse* response) override;
  grpc::Status Mounts(grpc::ServerContext* context, const snapshots_v1::MountsRequest* request,
                      snapshots_v1::MountsResponse* response) override;
  grpc::Status Commit(grpc::ServerContext* context,
                      const snapshots_v1::CommitSnapshotRequest* request,
                      google::protobuf::Empty*) override;
  grpc::Status Remove(grpc::ServerContext* context,
                      const snapshots_v1::RemoveSnapshotRequest* request,
                      google::protobuf::Empty*) override;
  grpc::Status Stat(grpc::ServerContext* context, const snapshots_v1::StatSnapshotRequest* request,
                    snapshots_v1::StatSnapshotResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context,
                      const snapshots_v1::UpdateSnapshotRequest* request,
                      snapshots_v1::UpdateSnapshotResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const snapshots_v1::ListSnapshotsRequest* request,
                    grpc::ServerWriter<snapshots_v1::ListSnapshotsResponse>* writer) override;
  grpc::Status Usage(grpc::ServerContext* context, const snapshots_v1::UsageRequest* request,
                     snapshots_v1::UsageResponse* response) override;
  grpc::Status Cleanup(grpc::ServerContext* context, const snapshots_v1::CleanupRequest* request,
                       google::protobuf::Empty*) override;

 private:
  Snapshots& snapshots_;
};

}  // namespace gantry::metadata
