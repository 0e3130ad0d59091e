// Latency and outcome of every call a server answers, and a log line for those that failed.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

#include "lib/metrics/registry.h"

namespace gantry::rpc {

// gantry_rpc_seconds{method} and gantry_rpc_total{method,code}. The number of methods is bounded:
// beyond it they count as "other", so a stranger cannot fill the registry with invented names.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewCallMetrics(
    metrics::Registry& registry);

}  // namespace gantry::rpc
