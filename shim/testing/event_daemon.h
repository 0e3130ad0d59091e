// The event service of a daemon, for shims under test.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"

namespace gantry::shim::testing {

// The daemon's event socket: keeps what was forwarded, in order. Thread-safe.
class EventDaemon {
 public:
  struct Seen {
    std::string ns, topic, type_url, payload;
  };
  explicit EventDaemon(std::string path);
  ~EventDaemon();

  void Start();  // Done by the constructor.
  void Stop();   // The socket is gone until Start().
  std::vector<Seen> events() const;
  std::vector<std::string> topics() const;
  // Waits until `count` events with this topic were seen; false after ten seconds.
  bool WaitFor(const std::string& topic, int count = 1) const;
  // The next call is refused with this code, once.
  void RefuseOnce(absl::StatusCode code) { refuse_ = static_cast<int>(code); }

 private:
  void Serve();
  const std::string path_;
  std::atomic<bool> stop_{false};
  std::atomic<int> refuse_{0};
  mutable std::mutex mutex_;
  std::vector<Seen> events_;
  std::thread thread_;
};

}  // namespace gantry::shim::testing
