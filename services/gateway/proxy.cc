#include "services/gateway/proxy.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/request_id.h"
#include "services/gateway/routes.h"

namespace gantry::gateway {
namespace {

using ByteBuffer = grpc::ByteBuffer;

// Headers that belong to one hop; gRPC writes its own.
bool IsHopHeader(absl::string_view name) {
  return absl::StartsWith(name, ":") || absl::StartsWith(name, "grpc-") || name == "user-agent" ||
         name == "content-type" || name == "te" || name == "host";
}

std::string Text(grpc::string_ref text) { return std::string(text.data(), text.size()); }

class Refusal final : public grpc::ServerGenericBidiReactor {
 public:
  explicit Refusal(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

class Call;

// The half that is a client of the backend. Its life: StartCall with two holds, one for each
// direction; OnDone once both are gone and the status is there.
class Upstream final : public grpc::ClientBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  explicit Upstream(Call& call) : call_(call) {}
  void OnReadInitialMetadataDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  Call& call_;
};

// One call on its way through; deletes itself when both halves are done. Thread-safe: gRPC calls
// the reactions of the halves from its own threads.
class Call final : public grpc::ServerGenericBidiReactor {
 public:
  Call(grpc::GenericCallbackServerContext* server, const Backend& backend)
      : server_(server), backend_(backend), upstream_(*this) {
    for (const auto& [name, value] : server->client_metadata()) {
      const std::string key = Text(name);
      if (!IsHopHeader(key)) client_.AddMetadata(key, Text(value));
    }
    // Strangers send none: their calls get one here, for all processes they reach.
    if (server->client_metadata().count(kRequestIdHeader) == 0) {
      client_.AddMetadata(kRequestIdHeader, NewRequestId());
    }
    client_.set_deadline(server->deadline());
    backend_.stub->PrepareBidiStreamingCall(&client_, server->method(), {}, &upstream_);
    upstream_.AddMultipleHolds(2);
    StartRead(&request_);
    upstream_.StartCall();
  }

  // Requests: read here, written upstream, one at a time.
  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    if (!writing_open_) return;  // The backend has answered for good; what comes now is not wanted.
    if (!ok) {
      upstream_.StartWritesDone();
      CloseWriting();
      return;
    }
    write_in_flight_ = true;
    upstream_.StartWrite(&request_);
  }

  void OnUpstreamWriteDone(bool ok) {
    {
      absl::MutexLock lock(&mutex_);
      write_in_flight_ = false;
      if (!ok || answers_ended_) CloseWriting();
      if (!writing_open_) return;
    }
    request_.Clear();
    StartRead(&request_);
  }

  // Answers: read upstream, written here, one at a time.
  void OnUpstreamReadDone(bool ok) {
    if (ok) {
      StartWrite(&answer_);
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      answers_ended_ = true;
      if (!write_in_flight_) CloseWriting();
    }
    upstream_.RemoveHold();
  }

  void OnWriteDone(bool ok) override {
    if (!ok)
      client_.TryCancel();  // Our caller is gone; the read below then fails and ends the call.
    answer_.Clear();
    upstream_.StartRead(&answer_);
  }

  // The first answer is read only now: sending our headers and writing an answer must not overlap.
  void OnUpstreamMetadata(bool ok) {
    if (ok) {
      for (const auto& [name, value] : client_.GetServerInitialMetadata()) {
        const std::string key = Text(name);
        if (!IsHopHeader(key)) server_->AddInitialMetadata(key, Text(value));
      }
      // Sent at once: streams that say nothing for long (Subscribe) are waited for by their
      // headers.
      StartSendInitialMetadata();
    }
    upstream_.StartRead(&answer_);
  }

  void OnUpstreamDone(const grpc::Status& status) {
    for (const auto& [name, value] : client_.GetServerTrailingMetadata()) {
      const std::string key = Text(name);
      if (!IsHopHeader(key)) server_->AddTrailingMetadata(key, Text(value));
    }
    Finish(Explain(status));
    Drop();
  }

  void OnCancel() override { client_.TryCancel(); }
  void OnDone() override { Drop(); }

 private:
  void CloseWriting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(writing_open_, false)) return;
    upstream_.RemoveHold();
  }

  // gRPC's own words for a process that is not there ("failed to connect to all addresses") help
  // nobody.
  grpc::Status Explain(const grpc::Status& status) const {
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
        !absl::StrContains(status.error_message(), "connect")) {
      return status;
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE,
                        absl::StrCat("gantry-", backend_.process, " does not answer: ",
                                     status.error_message(), "; is it running?"));
  }

  void Drop() {
    if (halves_.fetch_sub(1) == 1) delete this;
  }

  grpc::GenericCallbackServerContext* const server_;
  const Backend& backend_;
  grpc::ClientContext client_;
  Upstream upstream_;
  ByteBuffer request_;
  ByteBuffer answer_;
  std::atomic<int> halves_{2};
  absl::Mutex mutex_;
  bool writing_open_ ABSL_GUARDED_BY(mutex_) = true;
  bool write_in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool answers_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

void Upstream::OnReadInitialMetadataDone(bool ok) { call_.OnUpstreamMetadata(ok); }
void Upstream::OnReadDone(bool ok) { call_.OnUpstreamReadDone(ok); }
void Upstream::OnWriteDone(bool ok) { call_.OnUpstreamWriteDone(ok); }
void Upstream::OnDone(const grpc::Status& status) { call_.OnUpstreamDone(status); }

}  // namespace

Proxy::Proxy(const std::function<std::shared_ptr<grpc::Channel>(const std::string&)>& dial) {
  for (const std::string& process : RoutedProcesses()) {
    backends_[process] = {process, std::make_shared<grpc::GenericStub>(dial(process))};
  }
}

grpc::ServerGenericBidiReactor* Proxy::CreateReactor(grpc::GenericCallbackServerContext* context) {
  const absl::string_view service = ServiceOf(context->method());
  auto backend = backends_.find(std::string(ProcessFor(service)));
  if (backend == backends_.end()) {
    const absl::string_view why = WhyUnserved(service);
    return new Refusal(grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                                    absl::StrCat(why.empty() ? "unknown service " : "", service,
                                                 why.empty() ? "" : ": ", why)));
  }
  return new Call(context, backend->second);
}

}  // namespace gantry::gateway
