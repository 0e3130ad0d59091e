#include "ctl/suite.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

// "the service" of the wire's errors, by its name.
absl::Status Name(absl::string_view process, const absl::Status& status) {
  absl::string_view message = status.message();
  if (!absl::ConsumePrefix(&message, "the service ")) return status;
  return absl::Status(status.code(), absl::StrCat("the Gantry ", process, " service ", message));
}

}  // namespace

absl::StatusOr<std::string> ParseHost(absl::string_view host) {
  if (host.empty()) return std::string(kDefaultRunDirectory);
  absl::string_view path = host;
  if (!absl::ConsumePrefix(&path, "unix://") && absl::StrContains(path, "://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("host '", EscapeForTerminal(host),
                     "' is not supported: use unix:///path/to/gantry.sock or a directory"));
  }
  if (path.empty() || path.front() != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("host '", EscapeForTerminal(host), "' must be an absolute path"));
  }
  if (absl::EndsWith(path, ".sock")) path = path.substr(0, path.rfind('/'));
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return std::string(path);
}

std::string Suite::SocketPath(absl::string_view process) const {
  return absl::StrCat(directory_, "/", process == "gateway" ? "gantry" : process, ".sock");
}

absl::StatusOr<std::unique_ptr<wire::Channel>> Suite::Dial(absl::string_view process) const {
  absl::StatusOr<std::unique_ptr<wire::Channel>> channel =
      wire::Channel::Connect(SocketPath(process));
  if (!channel.ok()) {
    const bool denied = absl::IsPermissionDenied(channel.status());
    return absl::Status(
        denied ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kUnavailable,
        absl::StrCat("Cannot connect to the Gantry ", process, " at unix://", SocketPath(process),
                     denied ? ": permission denied; are you root?" : "; is it running?"));
  }
  (*channel)->AddMetadata("containerd-namespace", namespace_);
  (*channel)->AddMetadata(kRequestIdHeader, request_id_);
  return channel;
}

absl::Status Suite::Call(absl::string_view process, absl::string_view method,
                         const google::protobuf::MessageLite& request,
                         google::protobuf::MessageLite* response, absl::Duration timeout) {
  std::unique_ptr<wire::Channel>& channel = channels_[std::string(process)];
  if (channel == nullptr) {
    ASSIGN_OR_RETURN(channel, Dial(process));
  }
  absl::Status status = Name(process, channel->Unary(method, request, response, timeout));
  // After these the connection may be broken; the next call makes a new one.
  if (absl::IsUnavailable(status) || absl::IsInternal(status) || absl::IsDeadlineExceeded(status)) {
    channel.reset();
  }
  return status;
}

absl::StatusOr<Stream> Suite::Open(absl::string_view process, absl::string_view method,
                                   const google::protobuf::MessageLite* request,
                                   absl::Duration timeout) {
  Stream stream;
  ASSIGN_OR_RETURN(stream.channel, Dial(process));
  ASSIGN_OR_RETURN(stream.call, stream.channel->Open(method, timeout));
  if (request != nullptr) RETURN_IF_ERROR(Name(process, stream.call->Write(*request, true)));
  return stream;
}

}  // namespace gantry::ctl
