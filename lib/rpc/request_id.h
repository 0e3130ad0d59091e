// The request id at the edge of a process (lib/base/request_id.h tells what it is).
//
// Handlers of the sync API have their thread for themselves: the interceptor gives it the caller's
// id, so that log lines and further calls (PrepareCall) carry it by themselves. Handlers of the
// callback API share threads, and say so: `ScopedRequestId scope(RequestId(*context));`.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

namespace gantry::rpc {

// The id the caller sent; a new one when it sent none, or nothing that could be one.
std::string RequestId(const grpc::ServerContextBase& context);

}  // namespace gantry::rpc
