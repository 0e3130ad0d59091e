#include "services/metadata/containerd_services.h"

#include <utility>

#include "services/metadata/service_call.h"

namespace gantry::metadata {
namespace {

// `sync`: answers after a collection that began after the deletion.
absl::Status CollectIf(bool sync, Collector& collector, const grpc::ServerContext& context) {
  if (!sync) return absl::OkStatus();
  return collector.Collect(DeadlineOf(context)).status();
}

}  // namespace

grpc::Status NamespacesService::Get(grpc::ServerContext*,
                                    const namespaces_v1::GetNamespaceRequest* request,
                                    namespaces_v1::GetNamespaceResponse* response) {
  return rpc::ToGrpcStatus(
      Assign(namespaces_.Get(request->name()), response->mutable_namespace_()));
}

grpc::Status NamespacesService::List(grpc::ServerContext*,
                                     const namespaces_v1::ListNamespacesRequest* request,
                                     namespaces_v1::ListNamespacesResponse* response) {
  return rpc::ToGrpcStatus(
      AssignAll(namespaces_.List(request->filter()), response->mutable_namespaces()));
}

grpc::Status NamespacesService::Create(grpc::ServerContext*,
                                       const namespaces_v1::CreateNamespaceRequest* request,
                                       namespaces_v1::CreateNamespaceResponse* response) {
  return rpc::ToGrpcStatus(
      Assign(namespaces_.Create(request->namespace_()), response->mutable_namespace_()));
}

grpc::Status NamespacesService::Update(grpc::ServerContext*,
                                       const namespaces_v1::UpdateNamespaceRequest* request,
                                       namespaces_v1::UpdateNamespaceResponse* response) {
  return rpc::ToGrpcStatus(
      Assign(namespaces_.Update(request->namespace_(), MaskOf(request->update_mask())),
             response->mutable_namespace_()));
}

grpc::Status NamespacesService::Delete(grpc::ServerContext*,
                                       const namespaces_v1::DeleteNamespaceRequest* request,
                                       google::protobuf::Empty*) {
  return rpc::ToGrpcStatus(namespaces_.Delete(request->name()));
}

grpc::Status ContainersService::Get(grpc::ServerContext* context,
                                    const containers_v1::GetContainerRequest* request,
                                    containers_v1::GetContainerResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(containers_.Get(caller, request->id()), response->mutable_container());
  });
}

grpc::Status ContainersService::List(grpc::ServerContext* context,
                                     const containers_v1::ListContainersRequest* request,
                                     containers_v1::ListContainersResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(containers_.List(caller, ToVector(request->filters())),
                     response->mutable_containers());
  });
}

grpc::Status ContainersService::ListStream(
    grpc::ServerContext* context, const containers_v1::ListContainersRequest* request,
    grpc::ServerWriter<containers_v1::ListContainerMessage>* writer) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<Containers::Container> all,
                     containers_.List(caller, ToVector(request->filters())));
    for (Containers::Container& container : all) {
      containers_v1::ListContainerMessage message;
      *message.mutable_container() = std::move(container);
      if (!writer->Write(message)) return absl::CancelledError("the client went away");
    }
    return absl::OkStatus();
  });
}

grpc::Status ContainersService::Create(grpc::ServerContext* context,
                                       const containers_v1::CreateContainerRequest* request,
                                       containers_v1::CreateContainerResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(containers_.Create(caller, request->container()), response->mutable_container());
  });
}

grpc::Status ContainersService::Update(grpc::ServerContext* context,
                                       const containers_v1::UpdateContainerRequest* request,
                                       containers_v1::UpdateContainerResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(containers_.Update(caller, request->container(), MaskOf(request->update_mask())),
                  response->mutable_container());
  });
}

grpc::Status ContainersService::Delete(grpc::ServerContext* context,
                                       const containers_v1::DeleteContainerRequest* request,
                                       google::protobuf::Empty*) {
  return InNamespace(
      context, [&](const Caller& caller) { return containers_.Delete(caller, request->id()); });
}

grpc::Status ImagesService::Get(grpc::ServerContext* context,
                                const images_v1::GetImageRequest* request,
                                images_v1::GetImageResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(images_.Get(caller, request->name()), response->mutable_image());
  });
}

grpc::Status ImagesService::List(grpc::ServerContext* context,
                                 const images_v1::ListImagesRequest* request,
                                 images_v1::ListImagesResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(images_.List(caller, ToVector(request->filters())),
                     response->mutable_images());
  });
}

grpc::Status ImagesService::Create(grpc::ServerContext* context,
                                   const images_v1::CreateImageRequest* request,
                                   images_v1::CreateImageResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(images_.Create(
                      caller, request->image(),
                      OptionalTime(request->has_source_date_epoch(), request->source_date_epoch())),
                  response->mutable_image());
  });
}

grpc::Status ImagesService::Update(grpc::ServerContext* context,
                                   const images_v1::UpdateImageRequest* request,
                                   images_v1::UpdateImageResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(images_.Update(
                      caller, request->image(), MaskOf(request->update_mask()),
                      OptionalTime(request->has_source_date_epoch(), request->source_date_epoch())),
                  response->mutable_image());
  });
}

grpc::Status ImagesService::Delete(grpc::ServerContext* context,
                                   const images_v1::DeleteImageRequest* request,
                                   google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    RETURN_IF_ERROR(images_.Delete(caller, request->name(),
                                   request->has_target() ? &request->target() : nullptr));
    return CollectIf(request->sync(), collector_, *context);
  });
}

grpc::Status LeasesService::Create(grpc::ServerContext* context,
                                   const leases_v1::CreateRequest* request,
                                   leases_v1::CreateResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(leases_.Create(caller, request->id(), request->labels()),
                  response->mutable_lease());
  });
}

grpc::Status LeasesService::Delete(grpc::ServerContext* context,
                                   const leases_v1::DeleteRequest* request,
                                   google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    RETURN_IF_ERROR(leases_.Delete(caller, request->id()));
    return CollectIf(request->sync(), collector_, *context);
  });
}

grpc::Status LeasesService::List(grpc::ServerContext* context,
                                 const leases_v1::ListRequest* request,
                                 leases_v1::ListResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(leases_.List(caller, ToVector(request->filters())),
                     response->mutable_leases());
  });
}

grpc::Status LeasesService::AddResource(grpc::ServerContext* context,
                                        const leases_v1::AddResourceRequest* request,
                                        google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) {
    return leases_.AddResource(caller, request->id(), request->resource());
  });
}

grpc::Status LeasesService::DeleteResource(grpc::ServerContext* context,
                                           const leases_v1::DeleteResourceRequest* request,
                                           google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) {
    return leases_.DeleteResource(caller, request->id(), request->resource());
  });
}

grpc::Status LeasesService::ListResources(grpc::ServerContext* context,
                                          const leases_v1::ListResourcesRequest* request,
                                          leases_v1::ListResourcesResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(leases_.ListResources(caller, request->id()), response->mutable_resources());
  });
}

grpc::Status SandboxStoreService::Create(grpc::ServerContext* context,
                                         const sandbox_v1::StoreCreateRequest* request,
                                         sandbox_v1::StoreCreateResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(sandboxes_.Create(caller, request->sandbox()), response->mutable_sandbox());
  });
}

grpc::Status SandboxStoreService::Update(grpc::ServerContext* context,
                                         const sandbox_v1::StoreUpdateRequest* request,
                                         sandbox_v1::StoreUpdateResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(sandboxes_.Update(caller, request->sandbox(), ToVector(request->fields())),
                  response->mutable_sandbox());
  });
}

grpc::Status SandboxStoreService::Delete(grpc::ServerContext* context,
                                         const sandbox_v1::StoreDeleteRequest* request,
                                         sandbox_v1::StoreDeleteResponse*) {
  return InNamespace(context, [&](const Caller& caller) {
    return sandboxes_.Delete(caller, request->sandbox_id());
  });
}

grpc::Status SandboxStoreService::List(grpc::ServerContext* context,
                                       const sandbox_v1::StoreListRequest* request,
                                       sandbox_v1::StoreListResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(sandboxes_.List(caller, ToVector(request->filters())),
                     response->mutable_list());
  });
}

grpc::Status SandboxStoreService::Get(grpc::ServerContext* context,
                                      const sandbox_v1::StoreGetRequest* request,
                                      sandbox_v1::StoreGetResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(sandboxes_.Get(caller, request->sandbox_id()), response->mutable_sandbox());
  });
}

}  // namespace gantry::metadata
