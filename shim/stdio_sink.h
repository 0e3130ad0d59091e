// Where a program's output goes besides log and clients: a fifo, a file, the pipe of a logger.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "shim/stdio_uri.h"

namespace gantry::shim {

// Fifos and pipes push back: while one is full(), nothing may be written to it. Files never do.
// Closed by its destructor, which is the end of output for the reader of a fifo. Single-threaded.
class StdioSink {
 public:
  // A fifo is opened for reading, too: it does not break while its reader is away, nor does opening
  // wait for one. A file is made with its directories (0644, 0755) and appended to.
  // Errors: InvalidArgument — neither a fifo nor a file.
  static absl::StatusOr<std::unique_ptr<StdioSink>> Open(sys::EventLoop& loop, const StdioUri& uri);
  // The write end of a pipe, made non-blocking.
  static absl::StatusOr<std::unique_ptr<StdioSink>> FromPipe(sys::EventLoop& loop,
                                                             sys::UniqueFd fd);
  ~StdioSink();
  StdioSink(const StdioSink&) = delete;
  StdioSink& operator=(const StdioSink&) = delete;

  // Called when a full one takes bytes again; may destroy the sink.
  void OnRoom(std::function<void()> on_room) { on_room_ = std::move(on_room); }

  // What a full fifo does not take is kept. A file that cannot be written loses the bytes: the
  // program must not wait for it (containerd 12462).
  void Write(absl::string_view bytes);
  // For who splices into fd() and found no room.
  void WaitForRoom();

  bool full() const { return watch_ != 0 || !left_.empty(); }
  bool drained() const { return left_.empty(); }
  bool pipe_like() const { return pipe_like_; }
  int fd() const { return fd_.get(); }

 private:
  explicit StdioSink(sys::EventLoop& loop) : loop_(loop) {}
  // How many of `bytes` the descriptor took; sets `*failed` when it will never take the rest.
  size_t WriteSome(absl::string_view bytes, bool* failed);
  void OnWritable();

  sys::EventLoop& loop_;
  sys::UniqueFd fd_;
  bool pipe_like_ = false;
  sys::EventLoop::Watch watch_ = 0;
  std::string left_;  // Read from the program, not yet taken.
  std::function<void()> on_room_;
};

}  // namespace gantry::shim
