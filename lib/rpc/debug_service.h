// gantry.debug.v1.Debug of one process.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "lib/metrics/registry.h"
#include "lib/rpc/audit.h"

namespace gantry::rpc {

// Thread-safe once serving; auditors are added before.
class DebugService final : public debug::v1::Debug::Service {
 public:
  DebugService(std::string process, metrics::Registry& metrics)
      : process_(std::move(process)), metrics_(metrics), started_(absl::Now()) {}

  void AddAuditor(std::function<absl::Status(AuditReport&)> auditor) {
    auditors_.push_back(std::move(auditor));
  }

  grpc::Status Info(grpc::ServerContext*, const debug::v1::InfoRequest*,
                    debug::v1::InfoResponse* response) override;
  grpc::Status ListFailpoints(grpc::ServerContext*, const debug::v1::ListFailpointsRequest*,
                              debug::v1::ListFailpointsResponse* response) override;
  grpc::Status SetFailpoints(grpc::ServerContext*, const debug::v1::SetFailpointsRequest* request,
                             debug::v1::SetFailpointsResponse*) override;
  grpc::Status Audit(grpc::ServerContext*, const debug::v1::AuditRequest*,
                     debug::v1::AuditResponse* response) override;
  grpc::Status Metrics(grpc::ServerContext*, const debug::v1::MetricsRequest*,
                       debug::v1::MetricsResponse* response) override;

 private:
  const std::string process_;
  metrics::Registry& metrics_;
  const absl::Time started_;
  std::vector<std::function<absl::Status(AuditReport&)>> auditors_;
};

// VmRSS of this process in bytes; 0 when it cannot be read.
uint64_t ResidentBytes();

}  // namespace gantry::rpc
