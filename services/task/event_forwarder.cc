#include "services/task/event_forwarder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/log/log.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::task {
namespace {

bool MustArrive(const containerd::types::Envelope& envelope) {
  return envelope.topic() == "/tasks/exit" || envelope.topic() == "/tasks/delete";
}

// Metadata said no for ever: sending again would say the same.
bool IsFinal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsUnimplemented(status);
}

}  // namespace

std::string ContainerOf(const containerd::types::Envelope& envelope) {
  for (pb::Reader reader(envelope.event().value()); reader.Next();) {
    if (reader.field() == 1 && reader.type() == pb::WireType::kBytes) return reader.text();
  }
  return "";
}

struct EventForwarder::State : std::enable_shared_from_this<EventForwarder::State> {
  State(LoopThread& loop_thread, Send sender, ForwarderOptions forwarder_options)
      : loop(loop_thread), send(std::move(sender)), options(std::move(forwarder_options)) {
    if (options.metrics == nullptr) return;
    kept_gauge = &options.metrics->GetGauge("gantry_task_events_kept",
                                            "Events of shims that metadata has not taken yet.");
    dropped = &options.metrics->GetCounter("gantry_task_events_dropped_total",
                                           "Events of shims that were given up, never exits.");
  }

  // All below run on the loop's thread.

  void Add(containerd::types::Envelope envelope, std::function<void()> taken, Keep keep) {
    const std::string key = absl::StrCat(envelope.namespace_(), "/", ContainerOf(envelope));
    if (Count() >= options.max_kept && !MustArrive(envelope)) {
      log::Warning("event dropped: metadata does not take events and the queue is full",
                   {{"topic", envelope.topic()}});
      if (dropped != nullptr) dropped->Add();
      if (taken) taken();
      return;
    }
    auto item = std::make_shared<Item>();
    item->envelope = std::move(envelope);
    item->taken = std::move(taken);
    if (item->taken && keep == Keep::kForPatience) {
      item->timer = loop.loop().After(options.patience, [weak = std::weak_ptr<Item>(item)] {
        if (std::shared_ptr<Item> waiting = weak.lock()) Release(*waiting);
      });
    }
    Queue& queue = queues[key];
    queue.items.push_back(std::move(item));
    ChangeCount(1);
    SendNext(key);
  }

  static void Release(Item& item) {
    if (std::function<void()> taken = std::exchange(item.taken, nullptr)) taken();
  }

  void SendNext(const std::string& key) {
    Queue& queue = queues[key];
    if (queue.sending || queue.items.empty()) return;
    queue.sending = true;
    auto answer = [self = shared_from_this(), key](absl::Status status) {
      self->loop.Post([self, key, status = std::move(status)] { self->OnSent(key, status); });
    };
    if (absl::Status failed = FAILPOINT("task.events.before_forward"); !failed.ok()) {
      answer(failed);
      return;
    }
    send(queue.items.front()->envelope, std::move(answer));
  }

  void OnSent(const std::string& key, const absl::Status& status) {
    if (stopped) return;
    Queue& queue = queues[key];
    queue.sending = false;
    if (!status.ok() && !IsFinal(status)) {
      queue.pause = std::clamp(queue.pause * 2, options.first_pause, options.max_pause);
      queue.sending = true;  // Until the timer: order is kept by trying the front again.
      loop.loop().After(queue.pause, [weak = weak_from_this(), key] {
        std::shared_ptr<State> self = weak.lock();
        if (self == nullptr || self->stopped) return;
        self->queues[key].sending = false;
        self->SendNext(key);
      });
      return;
    }
    std::shared_ptr<Item> item = std::move(queue.items.front());
    queue.items.pop_front();
    queue.pause = absl::ZeroDuration();
    if (!status.ok()) {
      log::Error("metadata refused an event",
                 {{"topic", item->envelope.topic()}, {"error", status}});
    }
    loop.loop().Cancel(item->timer);
    Release(*item);
    if (queue.items.empty()) {
      queues.erase(key);
    } else {
      SendNext(key);
    }
    ChangeCount(-1);
  }

  size_t Count() {
    absl::MutexLock lock(&mutex);
    return kept;
  }
  void ChangeCount(int change) {
    absl::MutexLock lock(&mutex);
    kept = static_cast<size_t>(static_cast<int64_t>(kept) + change);
    if (kept_gauge != nullptr) kept_gauge->Set(static_cast<double>(kept));
  }

  LoopThread& loop;
  const Send send;
  const ForwarderOptions options;
  std::map<std::string, Queue> queues;
  bool stopped = false;
  metrics::Gauge* kept_gauge = nullptr;
  metrics::Counter* dropped = nullptr;

  mutable absl::Mutex mutex;
  size_t kept ABSL_GUARDED_BY(mutex) = 0;
};

EventForwarder::EventForwarder(LoopThread& loop, Send send, ForwarderOptions options)
    : state_(std::make_shared<State>(loop, std::move(send), std::move(options))), loop_(loop) {}

EventForwarder::~EventForwarder() {
  loop_.Do([this] { state_->stopped = true; });
}

void EventForwarder::Forward(containerd::types::Envelope envelope, std::function<void()> taken,
                             Keep keep) {
  loop_.Post(
      [state = state_, envelope = std::move(envelope), taken = std::move(taken), keep]() mutable {
        if (!state->stopped) state->Add(std::move(envelope), std::move(taken), keep);
      });
}

bool EventForwarder::Drain(absl::Duration timeout) {
  loop_.Do([] {});  // What was posted before is counted.
  State& state = *state_;
  absl::MutexLock lock(&state.mutex);
  const auto empty = [&state]() ABSL_SHARED_LOCKS_REQUIRED(state.mutex) { return state.kept == 0; };
  return state.mutex.AwaitWithTimeout(absl::Condition(&empty), timeout);
}

size_t EventForwarder::kept() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->kept;
}

}  // namespace gantry::task
