#include "services/gateway/version_service.h"

#include "absl/strings/str_cat.h"
#include "lib/base/version.h"

namespace gantry::gateway {
namespace {

// nerdctl parses this as semver and changes behaviour below 1.6 and at 2.0; the contract is met
// at 2.1.
constexpr absl::string_view kContainerdVersion = "2.1.0";

}  // namespace

grpc::Status VersionService::Version(grpc::ServerContext*, const google::protobuf::Empty*,
                                     containerd::services::version::v1::VersionResponse* response) {
  response->set_version(absl::StrCat(kContainerdVersion, "+gantry.", gantry::Version()));
  response->set_revision(std::string(Commit()));
  return grpc::Status::OK;
}

}  // namespace gantry::gateway
