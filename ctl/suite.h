// The suite a command talks to: which sockets, which namespace, and typed calls to its processes.
#pragma once

#include <google/protobuf/message_lite.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ctl/wire/channel.h"
#include "lib/base/request_id.h"

namespace gantry::ctl {

inline constexpr char kDefaultRunDirectory[] = "/run/gantry";
inline constexpr char kDefaultNamespace[] = "gantry";

// How long answers may take; what streams or waits for a container has no limit.
inline constexpr absl::Duration kQuickCall = absl::Seconds(30);
inline constexpr absl::Duration kSlowCall = absl::Minutes(5);

// The directory of sockets that a host names: "unix:///run/gantry/gantry.sock",
// "unix:///run/gantry", or either without the scheme; empty: the default. Errors: InvalidArgument —
// another scheme, or a relative path.
absl::StatusOr<std::string> ParseHost(absl::string_view host);

// A call that streams, and the connection it has to itself.
struct Stream {
  std::unique_ptr<wire::Channel> channel;
  std::unique_ptr<wire::Call> call;  // Declared last: it ends before its channel.
};

// Thread-compatible. Processes are "engine", "image", "metadata", "task", "snapshotter", "gateway".
class Suite {
 public:
  Suite(std::string directory, std::string namespace_name)
      : directory_(std::move(directory)), namespace_(std::move(namespace_name)) {}

  // One request, one answer. Errors: the service's; Unavailable — "Cannot connect to the Gantry
  // engine at unix://…; is it running?".
  absl::Status Call(absl::string_view process, absl::string_view method,
                    const google::protobuf::MessageLite& request,
                    google::protobuf::MessageLite* response, absl::Duration timeout = kQuickCall);

  // Opens a streaming call on a connection of its own and sends `request` (unless it is null, when
  // the caller sends). Errors as Call.
  absl::StatusOr<Stream> Open(absl::string_view process, absl::string_view method,
                              const google::protobuf::MessageLite* request,
                              absl::Duration timeout = absl::InfiniteDuration());

  std::string SocketPath(absl::string_view process) const;
  const std::string& directory() const { return directory_; }
  const std::string& namespace_name() const { return namespace_; }
  // Goes with every call of this command, and stands in the log lines it leads to.
  const std::string& request_id() const { return request_id_; }

 private:
  absl::StatusOr<std::unique_ptr<wire::Channel>> Dial(absl::string_view process) const;

  std::string directory_;
  std::string namespace_;
  std::string request_id_ = NewRequestId();
  std::map<std::string, std::unique_ptr<wire::Channel>> channels_;
};

}  // namespace gantry::ctl
