// A connection to one shim, speaking its version of the task API.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "lib/ttrpc/client.h"
#include "services/task/workers.h"

namespace gantry::task {

// Thread-safe; held by std::shared_ptr, since calls under way need it while a clean-up lets it go.
// The last owner may be one of its own answers: the connection is closed on a worker.
class ShimConnection {
 public:
  // `on_close` runs once, on ttrpc's thread, when the shim ends. `workers` outlives the connection.
  static absl::StatusOr<std::shared_ptr<ShimConnection>> Dial(const std::string& address,
                                                              int version, const std::string& ns,
                                                              Workers& workers,
                                                              std::function<void()> on_close);
  ~ShimConnection();

  // One call of the task service. `answer` runs on ttrpc's thread and must not block.
  void CallAsync(const std::string& method, const google::protobuf::MessageLite& request,
                 absl::Duration timeout, ttrpc::Answer answer);
  void CallAsync(const std::string& method, std::string payload, absl::Duration timeout,
                 ttrpc::Answer answer);
  // Waits for the answer. On UNIMPLEMENTED from a v3 shim the call is repeated as v2, and so are
  // all that follow; the first call of a connection (Create or Connect) is made this way.
  absl::StatusOr<std::string> Call(const std::string& method,
                                   const google::protobuf::MessageLite& request,
                                   absl::Duration timeout);

  bool connected() const { return client_->connected(); }

 private:
  ShimConnection(std::unique_ptr<ttrpc::Client> client, int version, const std::string& ns,
                 Workers& workers);
  const char* service() const;

  std::unique_ptr<ttrpc::Client> client_;
  std::atomic<int> version_;
  // With the id of the request that the calling thread works for.
  ttrpc::Metadata CallMetadata() const;

  const ttrpc::Metadata metadata_;
  Workers& workers_;
};

// Whether a call failed because its connection ended, and not by the shim's own answer.
bool ConnectionWasLost(const absl::Status& status);

}  // namespace gantry::task
