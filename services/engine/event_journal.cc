#include "services/engine/event_journal.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/engine/container.h"

namespace gantry::engine {
namespace {

constexpr char kTypeUrl[] = "gantry.engine.v1.Event";
// Long enough to gather the events of one action into one write, too short for a person to notice.
constexpr absl::Duration kGather = absl::Milliseconds(20);
constexpr absl::Duration kRetry = absl::Seconds(1);
constexpr size_t kMostQueued = 10000;
constexpr size_t kMostAtOnce = 500;
constexpr size_t kMostBytesAtOnce = 1 << 20;
constexpr size_t kMostEventBytes = 64 << 10;

// "/gantry/container/exec_start": a topic's words have no spaces and colons.
std::string Topic(const v1::Event& event) {
  return absl::StrCat("/gantry/", event.type(), "/",
                      event.action().substr(0, event.action().find(':')));
}

}  // namespace

void EventJournal::Add(v1::Event event, absl::Time at) {
  if (event.ByteSizeLong() > kMostEventBytes) {
    const auto name = event.attributes().find("name");
    const std::string kept = name == event.attributes().end() ? "" : name->second;
    event.clear_attributes();
    (*event.mutable_attributes())["name"] = kept;
  }
  containerd::types::Envelope envelope;
  *envelope.mutable_timestamp() = ToProto(at);
  envelope.set_namespace_(namespace_);
  envelope.set_topic(Topic(event));
  envelope.mutable_event()->set_type_url(kTypeUrl);
  envelope.mutable_event()->set_value(event.SerializeAsString());
  absl::MutexLock lock(&mutex_);
  if (queue_.size() >= kMostQueued) {
    queue_.pop_front();
    ++dropped_;
  }
  queue_.push_back(std::move(envelope));
  ScheduleWrite(kGather);
}

void EventJournal::ScheduleWrite(absl::Duration delay) {
  if (std::exchange(scheduled_, true)) return;
  executor_.RunAfter(delay, [this] { Write(); });
}

std::vector<containerd::types::Envelope> EventJournal::NextBatch(uint64_t* dropped) const {
  absl::MutexLock lock(&mutex_);
  *dropped = dropped_;
  std::vector<containerd::types::Envelope> batch;
  size_t bytes = 0;
  for (const containerd::types::Envelope& envelope : queue_) {
    bytes += envelope.ByteSizeLong();
    if (!batch.empty() && (batch.size() == kMostAtOnce || bytes > kMostBytesAtOnce)) break;
    batch.push_back(envelope);
  }
  return batch;
}

// At most one Write runs at a time: scheduled_ stays set until it is done.
void EventJournal::Write() {
  uint64_t dropped_before = 0;
  const std::vector<containerd::types::Envelope> batch = NextBatch(&dropped_before);
  const absl::Status written = metadata_.AppendEvents(batch);
  // What is refused as it is would be refused for ever.
  const bool done =
      written.ok() || absl::IsInvalidArgument(written) || absl::IsUnimplemented(written);
  if (!written.ok()) {
    log::Warning(done ? "events are lost" : "events are not written, trying again",
                 {{"events", batch.size()}, {"error", written}});
  }
  absl::MutexLock lock(&mutex_);
  // Some of the batch may have given way meanwhile.
  const size_t gone =
      static_cast<size_t>(std::min<uint64_t>(dropped_ - dropped_before, batch.size()));
  if (done)
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(batch.size() - gone));
  scheduled_ = false;
  if (!queue_.empty()) ScheduleWrite(done ? absl::ZeroDuration() : kRetry);
}

void EventJournal::Flush() {
  uint64_t dropped = 0;
  const std::vector<containerd::types::Envelope> batch = NextBatch(&dropped);
  if (batch.empty()) return;
  const absl::Status written = metadata_.AppendEvents(batch);
  if (!written.ok()) {
    log::Warning("the last events are lost", {{"events", batch.size()}, {"error", written}});
  }
}

}  // namespace gantry::engine
