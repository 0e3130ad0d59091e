// Standard input of one process: from a fifo, a file or attached clients to its pipe or terminal.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"

namespace gantry::shim {

// What comes is queued, up to a limit that pushes back, until the program reads it. The fifo's
// write end is held, too, until Close(): a client that goes away does not end the input
// (contracts/containerd 3.12). Single-threaded.
class ProcessInput {
 public:
  // `on_room`: the queue was full() and is not any more.
  ProcessInput(sys::EventLoop& loop, bool terminal, std::function<void()> on_room)
      : loop_(loop), terminal_(terminal), on_room_(std::move(on_room)) {}
  ~ProcessInput();
  ProcessInput(const ProcessInput&) = delete;
  ProcessInput& operator=(const ProcessInput&) = delete;

  // A fifo or a regular file to read from.
  absl::Status OpenSource(const std::string& path);
  bool has_source() const { return source_.ok(); }

  // The non-blocking end that the program reads the other side of.
  void SetTarget(sys::UniqueFd target);
  bool has_target() const { return target_.ok(); }

  // The program exists; what the source has is read from now on.
  void Begin();
  void Write(absl::string_view bytes);
  bool full() const;

  // The end of input once everything queued is through. A fifo's comes when its other writers have
  // closed it, too; a terminal has none.
  void Close();
  bool closing() const { return closing_; }
  // The program has ended; what is queued is thrown away.
  void Drop();

 private:
  void WatchSource();
  void OnReadable();
  void Flush();

  sys::EventLoop& loop_;
  const bool terminal_;
  const std::function<void()> on_room_;
  bool begun_ = false;
  sys::UniqueFd source_;
  sys::UniqueFd source_hold_;  // Its write end, ours until Close.
  sys::EventLoop::Watch source_watch_ = 0;
  sys::UniqueFd target_;
  sys::EventLoop::Watch target_watch_ = 0;
  std::string queue_;
  bool closing_ = false;  // Close `target_` when the queue is empty.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gantry::shim
