// The ttrpc socket shims hand their events to: containerd.services.events.ttrpc.v1.Events/Forward.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "containerd/types/types.pb.h"
#include "lib/ttrpc/server.h"
#include "services/task/event_forwarder.h"
#include "services/task/loop_thread.h"

namespace gantry::task {

// Serves on the loop's thread. Every event goes to `observe` (which must not block), then to
// `forwarder`. Both outlive the server.
class EventServer {
 public:
  using Observer = std::function<void(const containerd::types::Envelope&)>;

  static absl::StatusOr<std::unique_ptr<EventServer>> Listen(LoopThread& loop,
                                                             const std::string& socket_path,
                                                             EventForwarder& forwarder,
                                                             Observer observe);
  ~EventServer();

 private:
  EventServer(LoopThread& loop, EventForwarder& forwarder, Observer observe);
  void Handle(const ttrpc::Request& request, const ttrpc::Responder& responder);

  LoopThread& loop_;
  EventForwarder& forwarder_;
  const Observer observe_;
  std::unique_ptr<ttrpc::Server> server_;  // Only on the loop's thread.
  // Answers may become due after the server has gone; they look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gantry::task
