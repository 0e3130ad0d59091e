// Channels to the suite's unix sockets.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace gantry::rpc {

inline constexpr int kMaxMessageBytes = 16 << 20;  // Go clients send content chunks of up to 8 MiB.

// A channel to the unix socket at `path`. Connects on first use and reconnects by itself (at most 1
// s between attempts), so callers may hold it while the peer restarts.
std::shared_ptr<grpc::Channel> Dial(const std::string& path);

}  // namespace gantry::rpc
