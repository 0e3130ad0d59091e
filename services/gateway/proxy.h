// Passes calls through as raw bytes: whatever the message is, unary or a stream, with its metadata,
// deadline, cancellation, trailers and status. One message per direction is in flight, so a slow
// reader slows its own writer and nobody else.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace gantry::gateway {

// Where to send the calls of one process.
struct Backend {
  std::string process;
  std::shared_ptr<grpc::GenericStub> stub;
};

// Serves every method no other service of the server has. Thread-safe.
class Proxy final : public grpc::CallbackGenericService {
 public:
  // `dial` makes the channel of a process; it is asked once per process of the routing table.
  explicit Proxy(const std::function<std::shared_ptr<grpc::Channel>(const std::string&)>& dial);

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  std::map<std::string, Backend, std::less<>> backends_;  // By process.
};

}  // namespace gantry::gateway
