#include "shim/testing/event_daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#include <utility>

#include "absl/time/clock.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/minipb.h"
#include "lib/ttrpc/server.h"
#include "shim/wire.h"

namespace gantry::shim::testing {

EventDaemon::EventDaemon(std::string path) : path_(std::move(path)) { Start(); }

EventDaemon::~EventDaemon() { Stop(); }

void EventDaemon::Start() {
  stop_ = false;
  std::atomic<bool> ready{false};
  thread_ = std::thread([this, &ready] {
    auto loop = sys::EventLoop::Create().value();
    ttrpc::Server server(*loop, [this](const ttrpc::Request& request,
                                       const ttrpc::Responder& responder) {
      if (const int code = refuse_.exchange(0); code != 0) {
        responder.Reply(absl::Status(static_cast<absl::StatusCode>(code), "refused by the test"));
        return;
      }
      Seen seen;
      pb::Reader outer(request.payload);
      while (outer.Next()) {
        pb::Reader envelope(outer.bytes());
        while (envelope.Next()) {
          if (envelope.field() == 2) seen.ns = envelope.text();
          if (envelope.field() == 3) seen.topic = envelope.text();
          if (envelope.field() == 4) {
            const Any any = ParseAny(envelope.bytes()).value();
            seen.type_url = any.type_url;
            seen.payload = any.value;
          }
        }
      }
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        events_.push_back(std::move(seen));
      }
      responder.Reply(absl::OkStatus());
    });
    sys::UniqueFd listener = sys::ListenUnix(path_).value();
    ::fcntl(listener.get(), F_SETFL, O_NONBLOCK);
    if (!server.Listen(std::move(listener)).ok()) abort();
    ready = true;
    while (!stop_) (void)loop->RunOnce(absl::Milliseconds(5));
  });
  while (!ready) std::this_thread::yield();
}

void EventDaemon::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  (void)sys::Unlink(path_);
}

std::vector<EventDaemon::Seen> EventDaemon::events() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return events_;
}

std::vector<std::string> EventDaemon::topics() const {
  std::vector<std::string> topics;
  for (const Seen& seen : events()) topics.push_back(seen.topic);
  return topics;
}

bool EventDaemon::WaitFor(const std::string& topic, int count) const {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  for (;;) {
    int found = 0;
    for (const std::string& seen : topics()) found += seen == topic;
    if (found >= count) return true;
    if (absl::Now() > deadline) return false;
    ::poll(nullptr, 0, 2);
  }
}

}  // namespace gantry::shim::testing
