#include "services/image/images_service.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/oci/image_reference.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::image {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
constexpr absl::Duration kCancelCheck = absl::Milliseconds(500);
constexpr size_t kMaxReferenceBytes = 1024;

absl::Status CheckReference(absl::string_view reference) {
  if (reference.empty() || reference.size() > kMaxReferenceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("reference: must have 1 to ", kMaxReferenceBytes, " bytes"));
  }
  return absl::OkStatus();
}

// Sends what changed since the last message, at most ten times a second.
class ProgressWriter {
 public:
  ProgressWriter(grpc::ServerContext* context, grpc::ServerWriter<v1::PullProgress>* writer)
      : context_(context), writer_(writer) {}

  bool Send(const v1::PullProgress& message) { return writer_->Write(message); }

  // True when the pull is over and everything was sent. Errors: Cancelled — the client has gone.
  absl::Status Follow(Progress& progress) {
    uint64_t version = 0;
    std::vector<LayerState> layers;
    for (;;) {
      const bool finished = progress.Wait(&version, kCancelCheck, &layers);
      if (context_->IsCancelled()) return absl::CancelledError("the client has gone");
      v1::PullProgress message;
      for (size_t i = 0; i < layers.size(); ++i) {
        if (i < sent_.size() && sent_[i] == layers[i]) continue;
        v1::LayerProgress* out = message.add_layers();
        out->set_digest(layers[i].digest);
        out->set_state(static_cast<v1::LayerProgress::State>(layers[i].phase));
        out->set_done_bytes(layers[i].done_bytes);
        out->set_total_bytes(layers[i].total_bytes);
      }
      sent_ = layers;
      if (message.layers_size() > 0 && !Send(message)) {
        return absl::CancelledError("the client has gone");
      }
      if (finished) return absl::OkStatus();
      (void)progress.WaitFinished(kProgressInterval);
    }
  }

 private:
  grpc::ServerContext* context_;
  grpc::ServerWriter<v1::PullProgress>* writer_;
  std::vector<LayerState> sent_;
};

}  // namespace

grpc::Status ImagesService::Pull(grpc::ServerContext* context, const v1::PullRequest* request,
                                 grpc::ServerWriter<v1::PullProgress>* writer) {
  const auto run = [&]() -> absl::Status {
    Puller::Request pull;
    ASSIGN_OR_RETURN(pull.namespace_name, rpc::RequestNamespace(*context));
    RETURN_IF_ERROR(CheckReference(request->reference()));
    ASSIGN_OR_RETURN(pull.reference, oci::ImageReference::Parse(request->reference()));
    ASSIGN_OR_RETURN(pull.platform, oci::ParsePlatform(request->platform()));
    pull.credentials.username = request->username();
    pull.credentials.password = request->password();

    ProgressWriter progress(context, writer);
    v1::PullProgress first;
    first.set_name(pull.reference.str());
    const std::string& repository = pull.reference.repository();
    first.set_status(absl::StrCat(pull.reference.target(), ": Pulling from ", repository));
    if (!progress.Send(first)) return absl::CancelledError("the client has gone");

    Puller::Watch watch = puller_.Start(pull);
    RETURN_IF_ERROR(progress.Follow(watch->progress()));
    RETURN_IF_ERROR(watch->outcome().status());
    const Puller::Outcome& outcome = *watch->outcome();
    v1::PullProgress last;
    v1::PullDone* done = last.mutable_done();
    done->set_name(outcome.name);
    done->set_digest(outcome.digest.str());
    done->set_image_id(outcome.image_id.str());
    done->set_up_to_date(outcome.up_to_date);
    progress.Send(last);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ImagesService::Import(grpc::ServerContext* context,
                                   grpc::ServerReader<v1::ImportRequest>* reader,
                                   v1::ImportResponse* response) {
  const auto run = [&]() -> absl::Status {
    Importer::Request request;
    ASSIGN_OR_RETURN(request.namespace_name, rpc::RequestNamespace(*context));
    v1::ImportRequest chunk;
    if (!reader->Read(&chunk)) return absl::InvalidArgumentError("the archive is empty");
    ASSIGN_OR_RETURN(request.platform, oci::ParsePlatform(chunk.platform()));
    bool first = true;
    const auto next = [&]() -> absl::StatusOr<absl::string_view> {
      // The first chunk has been read for its platform; empty ones say nothing.
      while (first || reader->Read(&chunk)) {
        first = false;
        if (!chunk.data().empty()) return absl::string_view(chunk.data());
      }
      return absl::string_view();
    };
    ASSIGN_OR_RETURN(const std::vector<std::string> names,
                     importer_.Import(request, next, [context] { return context->IsCancelled(); }));
    for (const std::string& name : names) response->add_names(name);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ImagesService::Inspect(grpc::ServerContext* context,
                                    const v1::InspectImageRequest* request,
                                    v1::ImageDetails* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string namespace_name, rpc::RequestNamespace(*context));
    RETURN_IF_ERROR(CheckReference(request->reference()));
    ASSIGN_OR_RETURN(*response, catalog_.Inspect(namespace_name, request->reference()));
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ImagesService::List(grpc::ServerContext* context, const v1::ListImagesRequest* request,
                                 v1::ListImagesResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string namespace_name, rpc::RequestNamespace(*context));
    if (request->pattern().size() > kMaxReferenceBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("pattern: must have at most ", kMaxReferenceBytes, " bytes"));
    }
    ASSIGN_OR_RETURN(std::vector<v1::ImageDetails> images,
                     catalog_.List(namespace_name, request->pattern()));
    for (v1::ImageDetails& image : images) *response->add_images() = std::move(image);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ImagesService::Tag(grpc::ServerContext* context, const v1::TagImageRequest* request,
                                v1::TagImageResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string namespace_name, rpc::RequestNamespace(*context));
    RETURN_IF_ERROR(CheckReference(request->source()));
    RETURN_IF_ERROR(CheckReference(request->target()));
    ASSIGN_OR_RETURN(const std::string name,
                     catalog_.Tag(namespace_name, request->source(), request->target()));
    response->set_name(name);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ImagesService::Remove(grpc::ServerContext* context,
                                   const v1::RemoveImageRequest* request,
                                   v1::RemoveImageResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string namespace_name, rpc::RequestNamespace(*context));
    RETURN_IF_ERROR(CheckReference(request->reference()));
    ASSIGN_OR_RETURN(*response, catalog_.Remove(namespace_name, request->reference(),
                                                request->force(), request->keep_image()));
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

}  // namespace gantry::image
