// Standard streams of one process: from the program's pipes or terminal to where the creator wanted
// them, and back.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/attach/protocol.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/process.h"
#include "lib/sys/unique_fd.h"
#include "shim/attach_hub.h"
#include "shim/log_writer.h"
#include "shim/logger_process.h"
#include "shim/process_input.h"
#include "shim/reaper.h"
#include "shim/stdio_sink.h"
#include "shim/stdio_uri.h"
#include "shim/wire.h"

namespace gantry::shim {

struct ProcessIoOptions {
  std::string ns;
  std::string container_id;
  std::string exec_id;
  Stdio stdio;
  uint32_t uid = 0, gid = 0;  // Owner of the program's pipes.
};

// Life cycle: Open() makes the program's ends; the runtime starts the program on them, or makes a
// terminal whose master goes to SetConsole(); Begin() closes our copies of the ends and copies from
// then on; OnExit() when the program was reaped; the destructor ends all copying.
//
// Reading never stops for a log or a file that cannot be written. It does stop while a fifo is full
// (its reader decides), while output is held for a first client, and for a client with flow
// control.
//
// Single-threaded.
class ProcessIo : private AttachHub::Process {
 public:
  static absl::StatusOr<std::unique_ptr<ProcessIo>> Open(sys::EventLoop& loop, Reaper& reaper,
                                                         const ProcessIoOptions& options);
  ~ProcessIo() override;

  // The program's ends; -1: none of ours (the null device, or a terminal).
  int program_stdin() const { return program_in_.get(); }
  int program_stdout() const { return program_out_.get(); }
  int program_stderr() const { return program_err_.get(); }

  // The terminal's master, before Begin().
  void SetConsole(sys::UniqueFd master);
  absl::Status Begin(int pid);
  // The program runs: from now on an absent first client holds it up for ten seconds at most.
  void OnStarted();

  void CloseStdin() { input_.Close(); }
  absl::Status ResizeTerminal(uint16_t columns, uint16_t rows);

  // The program has ended. What it has written is copied, attached clients get EXIT. Its children
  // may hold the pipes open for longer: `wait_for_eof` says to go on until they end (init: they are
  // about to be killed), else what is there now is all.
  void OnExit(const attach::Exit& exit, bool wait_for_eof);

  // Calls back once when all output is copied and delivered, at once if it is.
  void WhenDrained(std::function<void()> callback);
  bool drained() const;

  // For clients. nullptr: attach was not asked for.
  AttachHub* hub() { return hub_.get(); }
  LogWriter* log() { return log_.has_value() ? &*log_ : nullptr; }

 private:
  struct Stream {
    StreamName name = StreamName::kStdout;
    sys::UniqueFd source;
    sys::EventLoop::Watch watch = 0;
    bool paused = false;
    bool splice = false;
    std::shared_ptr<StdioSink> sink;  // Shared by the streams that have the same path.
    bool open() const { return source.ok(); }
  };

  ProcessIo(sys::EventLoop& loop, Reaper& reaper, const ProcessIoOptions& options);

  absl::Status OpenStreams();
  absl::Status OpenSinks(const StdioUri& out, const StdioUri& err);
  absl::Status OpenHub(const StdioUri& out);
  absl::Status OpenStdin();
  absl::Status StartLogger(const StdioUri& uri);
  absl::Status MakeOutputPipe(Stream& stream, sys::UniqueFd* program_end) const;

  absl::Status WatchStream(Stream& stream);
  void OnReadable(Stream& stream);
  bool CopyOnce(Stream& stream);  // True: call again, there may be more.
  bool SpliceOnce(Stream& stream);
  void Deliver(Stream& stream, absl::string_view bytes);
  void OnSinkRoom(const StdioSink* sink);
  bool MayRead(const Stream& stream) const;
  void UpdateWatches();
  void EndStream(Stream& stream);
  void CheckFinished();

  // AttachHub::Process:
  attach::Accepted Describe() const override;
  void Input(absl::string_view bytes) override { input_.Write(bytes); }
  void CloseInput() override { CloseStdin(); }
  bool InputFull() const override { return input_.full(); }
  void Resize(uint16_t columns, uint16_t rows) override { (void)ResizeTerminal(columns, rows); }
  void HubChanged() override;

  sys::EventLoop& loop_;
  Reaper& reaper_;
  ProcessIoOptions options_;
  int pid_ = 0;

  sys::UniqueFd program_in_, program_out_, program_err_;
  sys::UniqueFd console_;
  Stream out_, err_;

  ProcessInput input_;

  std::optional<LogWriter> log_;
  std::unique_ptr<AttachHub> hub_;
  std::unique_ptr<LoggerProcess> logger_;

  bool begun_ = false;
  bool exited_ = false;
  bool wait_for_eof_ = false;
  bool finished_ = false;  // hub_ was told.
  attach::Exit exit_;
  sys::EventLoop::Timer eof_timer_ = 0;
  std::function<void()> on_drained_;
};

}  // namespace gantry::shim
