#include "services/task/event_server.h"

#include <fcntl.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "containerd/services/events/ttrpc/v1/events.pb.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"

namespace gantry::task {
namespace {

// A connection each; descriptors run out before.
constexpr size_t kMaxShims = 100000;
constexpr absl::string_view kService = "containerd.services.events.ttrpc.v1.Events";
constexpr absl::string_view kNamespaceKey = "containerd-namespace-ttrpc";

}  // namespace

absl::StatusOr<std::unique_ptr<EventServer>> EventServer::Listen(LoopThread& loop,
                                                                 const std::string& socket_path,
                                                                 EventForwarder& forwarder,
                                                                 Observer observe) {
  ASSIGN_OR_RETURN(sys::UniqueFd listener, sys::ListenUnix(socket_path));
  if (::fcntl(listener.get(), F_SETFL, O_NONBLOCK) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("listen on '", socket_path, "'"));
  }
  std::unique_ptr<EventServer> server(new EventServer(loop, forwarder, std::move(observe)));
  absl::Status status;
  loop.Do([&] {
    server->server_ = std::make_unique<ttrpc::Server>(
        loop.loop(),
        [raw = server.get()](const ttrpc::Request& request, ttrpc::Responder responder) {
          raw->Handle(request, responder);
        });
    server->server_->SetMaxConnections(kMaxShims);
    status = server->server_->Listen(std::move(listener));
  });
  RETURN_IF_ERROR(status);
  return server;
}

EventServer::EventServer(LoopThread& loop, EventForwarder& forwarder, Observer observe)
    : loop_(loop), forwarder_(forwarder), observe_(std::move(observe)) {}

EventServer::~EventServer() {
  loop_.Do([this] {
    *alive_ = false;
    server_.reset();
  });
}

void EventServer::Handle(const ttrpc::Request& request, const ttrpc::Responder& responder) {
  if (request.service != kService || request.method != "Forward") {
    responder.Reply(absl::UnimplementedError(
        absl::StrCat("method '", request.service, "/", request.method, "' is not served here")));
    return;
  }
  containerd::services::events::ttrpc::v1::ForwardRequest forward;
  if (!forward.ParseFromArray(request.payload.data(), static_cast<int>(request.payload.size())) ||
      forward.envelope().topic().empty()) {
    responder.Reply(absl::InvalidArgumentError("forward: not an event with a topic"));
    return;
  }
  containerd::types::Envelope& envelope = *forward.mutable_envelope();
  if (envelope.namespace_().empty()) {
    for (const auto& [key, value] : request.metadata) {
      if (key == kNamespaceKey) envelope.set_namespace_(std::string(value));
    }
  }
  if (envelope.namespace_().empty()) {
    responder.Reply(absl::FailedPreconditionError("forward: the event names no namespace"));
    return;
  }
  observe_(envelope);
  forwarder_.Forward(std::move(envelope), [responder, alive = alive_] {
    if (*alive) responder.Reply(absl::OkStatus());
  });
}

}  // namespace gantry::task
