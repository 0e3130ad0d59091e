#include "lib/rpc/debug_service.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/version.h"
#include "lib/rpc/status.h"
#include "lib/sys/file.h"

namespace gantry::rpc {

uint64_t ResidentBytes() {
  // Second field: resident pages (proc(5)).
  absl::StatusOr<std::string> statm = sys::ReadFile("/proc/self/statm", 4096);
  if (!statm.ok()) return 0;
  std::vector<absl::string_view> fields = absl::StrSplit(*statm, ' ');
  uint64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) return 0;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

grpc::Status DebugService::Info(grpc::ServerContext*, const debug::v1::InfoRequest*,
                                debug::v1::InfoResponse* response) {
  response->set_process(process_);
  response->set_version(std::string(Version()));
  response->set_commit(std::string(Commit()));
  response->set_build_time(std::string(BuildTime()));
  response->set_pid(::getpid());
  response->mutable_started_at()->set_seconds(absl::ToUnixSeconds(started_));
  response->set_resident_bytes(ResidentBytes());
  return grpc::Status::OK;
}

grpc::Status DebugService::ListFailpoints(grpc::ServerContext*,
                                          const debug::v1::ListFailpointsRequest*,
                                          debug::v1::ListFailpointsResponse* response) {
  for (std::string& name : failpoint::List()) response->add_names(std::move(name));
  return grpc::Status::OK;
}

grpc::Status DebugService::SetFailpoints(grpc::ServerContext*,
                                         const debug::v1::SetFailpointsRequest* request,
                                         debug::v1::SetFailpointsResponse*) {
  return ToGrpcStatus(failpoint::Arm(request->specification()));
}

grpc::Status DebugService::Audit(grpc::ServerContext*, const debug::v1::AuditRequest*,
                                 debug::v1::AuditResponse* response) {
  AuditReport report;
  for (const auto& auditor : auditors_) {
    if (absl::Status status = auditor(report); !status.ok()) return ToGrpcStatus(status);
  }
  for (Finding& finding : report.findings) {
    debug::v1::Finding& out = *response->add_findings();
    out.set_kind(std::move(finding.kind));
    out.set_object(std::move(finding.object));
    out.set_problem(std::move(finding.problem));
    out.set_remedy(std::move(finding.remedy));
  }
  for (const auto& [kind, count] : report.checked) (*response->mutable_checked())[kind] = count;
  return grpc::Status::OK;
}

grpc::Status DebugService::Metrics(grpc::ServerContext*, const debug::v1::MetricsRequest*,
                                   debug::v1::MetricsResponse* response) {
  metrics_.GetGauge("gantry_process_resident_memory_bytes", "Resident memory of this process.")
      .Set(static_cast<double>(ResidentBytes()));
  response->set_text(metrics_.Text());
  return grpc::Status::OK;
}

}  // namespace gantry::rpc
