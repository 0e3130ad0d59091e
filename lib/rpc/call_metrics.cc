#include "lib/rpc/call_metrics.h"

#include <pthread.h>

#include <map>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "lib/base/request_id.h"
#include "lib/log/log.h"
#include "lib/rpc/status.h"

namespace gantry::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;

constexpr size_t kMaxMethods = 512;

// The series of one server, found without the registry's own look-up on the hot path. Thread-safe.
class Series {
 public:
  explicit Series(metrics::Registry& registry) : registry_(registry) {}

  void Record(const std::string& method, absl::Duration latency, grpc::StatusCode code) {
    metrics::Histogram* seconds;
    metrics::Counter* total;
    {
      absl::MutexLock lock(&mutex_);
      const std::string& name = NameOf(method);
      metrics::Histogram*& seconds_slot = seconds_[name];
      if (seconds_slot == nullptr) {
        seconds_slot = &registry_.GetHistogram("gantry_rpc_seconds", "Time from request to status.",
                                               {{"method", name}});
      }
      metrics::Counter*& total_slot = total_[{name, code}];
      if (total_slot == nullptr) {
        total_slot = &registry_.GetCounter(
            "gantry_rpc_total", "Calls answered.",
            {{"method", name},
             {"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))}});
      }
      seconds = seconds_slot;
      total = total_slot;
    }
    seconds->Observe(latency);
    total->Add();
  }

 private:
  const std::string& NameOf(const std::string& method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    static const std::string* other = new std::string("other");
    return seconds_.contains(method) || seconds_.size() < kMaxMethods ? method : *other;
  }

  metrics::Registry& registry_;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, metrics::Histogram*> seconds_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::pair<std::string, grpc::StatusCode>, metrics::Counter*> total_
      ABSL_GUARDED_BY(mutex_);
};

// What only a person can mend is worth an error line; the rest is the caller's business.
void LogFailure(const std::string& method, const grpc::Status& status) {
  const log::Fields fields = {
      {"method", method},
      {"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()))},
      {"error", status.error_message()}};
  switch (status.error_code()) {
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::DATA_LOSS:
      log::Error("call failed", fields);
      return;
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::UNAVAILABLE:
      log::Warning("call failed", fields);
      return;
    default:
      log::Debug("call failed", fields);
  }
}

std::string IdOf(const std::multimap<grpc::string_ref, grpc::string_ref>& headers) {
  const auto found = headers.find(kRequestIdHeader);
  if (found == headers.end()) return NewRequestId();
  std::string id(found->second.data(), found->second.size());
  return IsRequestId(id) ? id : NewRequestId();
}

// Whether this thread runs one handler from its beginning to its end. gRPC's threads for the sync
// API do and are named after it; those of the callback API run whatever is ready.
bool OnHandlerThread() {
  thread_local const bool handles = [] {
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    return absl::StartsWith(name, "grpcpp_sync");
  }();
  return handles;
}

class CallInterceptor : public grpc::experimental::Interceptor {
 public:
  CallInterceptor(Series& series, std::string method)
      : series_(series), method_(std::move(method)), start_(absl::Now()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      request_id_ = IdOf(*methods->GetRecvInitialMetadata());
      if (OnHandlerThread()) SetCurrentRequestId(request_id_);
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      series_.Record(method_, absl::Now() - start_, status.error_code());
      if (!status.ok()) {
        ScopedRequestId scope(request_id_);
        LogFailure(method_, status);
      }
      if (OnHandlerThread()) SetCurrentRequestId("");
    }
    methods->Proceed();
  }

 private:
  Series& series_;
  const std::string method_;
  const absl::Time start_;
  std::string request_id_;
};

class CallMetrics : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CallMetrics(metrics::Registry& registry) : series_(registry) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    const char* method = info->method();
    return new CallInterceptor(series_, method == nullptr ? "other" : method);
  }

 private:
  Series series_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewCallMetrics(
    metrics::Registry& registry) {
  return std::make_unique<CallMetrics>(registry);
}

}  // namespace gantry::rpc
