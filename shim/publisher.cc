#include "shim/publisher.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/log/log.h"
#include "lib/ttrpc/minipb.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(5);
constexpr absl::Duration kTimeout = absl::Seconds(5);
constexpr int kMaxRefusals = 5;
constexpr char kService[] = "containerd.services.events.ttrpc.v1.Events";

bool IsPrecious(absl::string_view topic) {
  return topic == "/tasks/exit" || topic == "/tasks/delete" || topic == "/tasks/start" ||
         topic == "/tasks/create" || topic == "/tasks/oom" || topic == "/tasks/exec-started";
}

bool IsFinal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsPermissionDenied(status);
}

}  // namespace

Publisher::~Publisher() { loop_.Cancel(retry_); }

void Publisher::Publish(absl::string_view topic, absl::string_view type_url,
                        absl::string_view payload) {
  if (address_.empty()) return;
  Event event;
  event.precious = IsPrecious(topic);
  pb::Writer writer(&event.request);
  writer.Message(1, [&](pb::Writer& envelope) {
    WriteTimestamp(envelope, 1, absl::Now());
    envelope.String(2, ns_);
    envelope.String(3, topic);
    WriteAny(envelope, 4, type_url, payload);
  });
  queue_.push_back(std::move(event));
  if (queue_.size() > kMaxQueued) {
    // Never the first: it may be on its way.
    const auto cheap = std::find_if(queue_.begin() + 1, queue_.end(),
                                    [](const Event& queued) { return !queued.precious; });
    if (cheap != queue_.end()) {
      queue_.erase(cheap);
      ++dropped_;
    }
  }
  if (retry_ == 0) SendNext();
}

void Publisher::Kick() {
  if (retry_ == 0) return;
  loop_.Cancel(std::exchange(retry_, 0));
  pause_ = absl::ZeroDuration();
  // Not within the call that brought the news: it is to be answered first.
  loop_.Post([this] { SendNext(); });
}

void Publisher::SendNext() {
  if (sending_ || queue_.empty()) return;
  if (!FAILPOINT("shim.publish.send").ok()) {
    RetryLater();
    return;
  }
  if (client_ == nullptr) {
    absl::StatusOr<std::unique_ptr<ttrpc::LoopClient>> client =
        ttrpc::LoopClient::Connect(loop_, address_, [this] {
          // Its destruction waits until it has returned from here.
          loop_.Post([gone = std::shared_ptr<ttrpc::LoopClient>(std::move(client_))] {});
        });
    if (!client.ok()) {
      RetryLater();
      return;
    }
    client_ = *std::move(client);
  }
  sending_ = true;
  client_->Call(kService, "Forward", queue_.front().request, {{"containerd-namespace-ttrpc", ns_}},
                kTimeout, [this](absl::StatusOr<std::string> answer) {
                  // From the loop, so that a refusal at once does not recurse.
                  loop_.Post([this, status = answer.status()] { OnAnswer(status); });
                });
}

void Publisher::OnAnswer(const absl::Status& status) {
  sending_ = false;
  Event& event = queue_.front();
  if (!status.ok() && !absl::IsUnavailable(status)) ++event.refusals;
  const bool give_up =
      !status.ok() && (IsFinal(status) || (!event.precious && event.refusals >= kMaxRefusals));
  if (give_up) {
    log::Warning("the daemon refused an event", {{"status", status}});
    ++dropped_;
  }
  if (status.ok() || give_up) {
    pause_ = absl::ZeroDuration();
    queue_.pop_front();
    if (queue_.empty()) {
      queue_.shrink_to_fit();
      if (on_empty_) on_empty_();
    } else {
      SendNext();
    }
    return;
  }
  RetryLater();
}

void Publisher::RetryLater() {
  if (retry_ != 0) return;
  pause_ = std::clamp(pause_ * 2, kFirstPause, kLongestPause);
  retry_ = loop_.After(pause_, [this] {
    retry_ = 0;
    SendNext();
  });
}

}  // namespace gantry::shim
