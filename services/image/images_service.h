#pragma once

#include "gantry/image/v1/image.grpc.pb.h"
#include "services/image/catalog.h"
#include "services/image/importer.h"
#include "services/image/puller.h"

namespace gantry::image {

// gantry.image.v1.Images. Thread-safe.
class ImagesService final : public v1::Images::Service {
 public:
  ImagesService(Puller& puller, Importer& importer, Catalog& catalog)
      : puller_(puller), importer_(importer), catalog_(catalog) {}

  grpc::Status Pull(grpc::ServerContext* context, const v1::PullRequest* request,
                    grpc::ServerWriter<v1::PullProgress>* writer) override;
  grpc::Status Import(grpc::ServerContext* context, grpc::ServerReader<v1::ImportRequest>* reader,
                      v1::ImportResponse* response) override;
  grpc::Status Inspect(grpc::ServerContext* context, const v1::InspectImageRequest* request,
                       v1::ImageDetails* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListImagesRequest* request,
                    v1::ListImagesResponse* response) override;
  grpc::Status Tag(grpc::ServerContext* context, const v1::TagImageRequest* request,
                   v1::TagImageResponse* response) override;
  grpc::Status Remove(grpc::ServerContext* context, const v1::RemoveImageRequest* request,
                      v1::RemoveImageResponse* response) override;

 private:
  Puller& puller_;
  Importer& importer_;
  Catalog& catalog_;
};

}  // namespace gantry::image
