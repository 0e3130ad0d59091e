// What strangers' shims write to their log fifos, copied to our log.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "services/task/loop_thread.h"

namespace gantry::task {

// Thread-safe. Lives on `loop`, which outlives it.
class ShimLogs {
 public:
  explicit ShimLogs(LoopThread& loop) : loop_(loop) {}
  ~ShimLogs();

  // Reads `fifo` from now on; `name` is the log line's field.
  void Add(const std::string& name, sys::UniqueFd fifo);
  void Remove(const std::string& name);

 private:
  struct Source {
    sys::UniqueFd fifo;
    sys::EventLoop::Watch watch = 0;
    std::string rest;  // An unfinished line.
  };
  void Read(const std::string& name);

  LoopThread& loop_;
  std::map<std::string, Source> sources_;  // Only on the loop's thread.
};

}  // namespace gantry::task
