#include "shim/process_io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "shim/copy_buffer.h"

namespace gantry::shim {
namespace {

constexpr size_t kSpliceBytes = 64 << 10;
// Rounds of reading one stream before others get their turn.
constexpr int kMaxRounds = 8;
constexpr absl::Duration kAttachPatience = absl::Seconds(10);
// How long the pipes of an ended init may stay open in the hands of processes that are being
// killed.
constexpr absl::Duration kEofPatience = absl::Seconds(2);
}  // namespace

ProcessIo::ProcessIo(sys::EventLoop& loop, Reaper& reaper, const ProcessIoOptions& options)
    : loop_(loop), reaper_(reaper), options_(options), input_(loop, options.stdio.terminal, [this] {
        if (hub_ != nullptr) hub_->InputDrained();
      }) {}

absl::StatusOr<std::unique_ptr<ProcessIo>> ProcessIo::Open(sys::EventLoop& loop, Reaper& reaper,
                                                           const ProcessIoOptions& options) {
  RETURN_IF_ERROR(FAILPOINT("shim.io.open"));
  auto io = std::unique_ptr<ProcessIo>(new ProcessIo(loop, reaper, options));
  io->out_.name = StreamName::kStdout;
  io->err_.name = StreamName::kStderr;
  RETURN_IF_ERROR(io->OpenStreams());
  RETURN_IF_ERROR(io->OpenStdin());
  return io;
}

ProcessIo::~ProcessIo() {
  loop_.Cancel(eof_timer_);
  loop_.Remove(out_.watch);
  loop_.Remove(err_.watch);
  hub_.reset();
  // A logger ends by itself once its pipes are closed.
  out_.sink.reset();
  err_.sink.reset();
}

absl::Status ProcessIo::MakeOutputPipe(Stream& stream, sys::UniqueFd* program_end) const {
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe(options_.uid, options_.gid));
  stream.source = std::move(pipe.read_end);
  *program_end = std::move(pipe.write_end);
  return absl::OkStatus();
}

// The program writes into the logger's pipes itself; with a terminal we write.
absl::Status ProcessIo::StartLogger(const StdioUri& uri) {
  ASSIGN_OR_RETURN(
      logger_, LoggerProcess::Start(
                   reaper_, uri, {options_.ns, options_.container_id, options_.uid, options_.gid}));
  if (!options_.stdio.terminal) {
    program_out_ = logger_->TakeStdout();
    program_err_ = logger_->TakeStderr();
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(out_.sink, StdioSink::FromPipe(loop_, logger_->TakeStdout()));
  out_.sink->OnRoom([this, sink = out_.sink.get()] { OnSinkRoom(sink); });
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenHub(const StdioUri& out) {
  if (out.keep_log) {
    ASSIGN_OR_RETURN(log_, LogWriter::Open(out.log));
  }
  if (out.attach == AttachMode::kNo) return absl::OkStatus();
  AttachHub::Process& process = *this;  // The base is private, out of make_unique's reach.
  hub_ = std::make_unique<AttachHub>(loop_, process);
  if (out.attach == AttachMode::kWait) hub_->Hold();
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenSinks(const StdioUri& out, const StdioUri& err) {
  if (err.kind == StdioUri::Kind::kBinary || err.kind == StdioUri::Kind::kLog) {
    return absl::InvalidArgumentError(
        "stdio: a logger or gantry-log for stderr needs the same for stdout");
  }
  if (out.kind != StdioUri::Kind::kNull) {
    ASSIGN_OR_RETURN(out_.sink, StdioSink::Open(loop_, out));
  }
  if (err.kind != StdioUri::Kind::kNull && !options_.stdio.terminal) {
    if (err.kind == out.kind && err.path == out.path) {
      err_.sink = out_.sink;
    } else {
      ASSIGN_OR_RETURN(err_.sink, StdioSink::Open(loop_, err));
    }
  }
  for (const Stream* stream : {&out_, &err_}) {
    if (stream->sink == nullptr) continue;
    stream->sink->OnRoom([this, sink = stream->sink.get()] { OnSinkRoom(sink); });
  }
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenStreams() {
  ASSIGN_OR_RETURN(const StdioUri out, ParseStdioUri(options_.stdio.out));
  ASSIGN_OR_RETURN(const StdioUri err, ParseStdioUri(options_.stdio.err));
  if (out.kind == StdioUri::Kind::kBinary) return StartLogger(out);
  const bool both = out.kind == StdioUri::Kind::kLog;
  RETURN_IF_ERROR(both ? OpenHub(out) : OpenSinks(out, err));
  if (options_.stdio.terminal) return absl::OkStatus();
  if (both || out_.sink) RETURN_IF_ERROR(MakeOutputPipe(out_, &program_out_));
  if (both || err_.sink) RETURN_IF_ERROR(MakeOutputPipe(err_, &program_err_));
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenStdin() {
  ASSIGN_OR_RETURN(const StdioUri in, ParseStdioUri(options_.stdio.in));
  ASSIGN_OR_RETURN(const StdioUri out, ParseStdioUri(options_.stdio.out));
  const bool attached = out.kind == StdioUri::Kind::kLog && out.open_stdin;
  if (in.kind == StdioUri::Kind::kFifo) {
    RETURN_IF_ERROR(input_.OpenSource(in.path));
  } else if (in.kind != StdioUri::Kind::kNull) {
    return absl::InvalidArgumentError(
        absl::StrCat("stdin '", options_.stdio.in, "': only a fifo can be read"));
  }
  if (options_.stdio.terminal || (!attached && !input_.has_source())) return absl::OkStatus();
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe(options_.uid, options_.gid));
  RETURN_IF_ERROR(sys::SetNonBlocking(pipe.write_end));
  program_in_ = std::move(pipe.read_end);
  input_.SetTarget(std::move(pipe.write_end));
  return absl::OkStatus();
}

void ProcessIo::SetConsole(sys::UniqueFd master) { console_ = std::move(master); }

absl::Status ProcessIo::Begin(int pid) {
  pid_ = pid;
  begun_ = true;
  program_in_.Reset();
  program_out_.Reset();
  program_err_.Reset();
  if (console_.ok()) {
    RETURN_IF_ERROR(sys::SetNonBlocking(console_));
    // Each direction is watched and closed by itself. Output is read even when nobody wants it.
    out_.source.Reset(::fcntl(console_.get(), F_DUPFD_CLOEXEC, 3));
    input_.SetTarget(sys::UniqueFd(::fcntl(console_.get(), F_DUPFD_CLOEXEC, 3)));
  }
  for (Stream* stream : {&out_, &err_}) {
    if (!stream->open()) continue;
    stream->splice = !console_.ok() && stream->sink != nullptr && stream->sink->pipe_like();
    RETURN_IF_ERROR(sys::SetNonBlocking(stream->source));
    RETURN_IF_ERROR(WatchStream(*stream));
  }
  input_.Begin();
  return absl::OkStatus();
}

void ProcessIo::OnStarted() {
  if (hub_ != nullptr) hub_->StartWaiting(kAttachPatience);
}

absl::Status ProcessIo::WatchStream(Stream& stream) {
  Stream* const raw = &stream;
  ASSIGN_OR_RETURN(stream.watch, loop_.Add(stream.source.get(), EPOLLIN,
                                           [this, raw](uint32_t) { OnReadable(*raw); }));
  return absl::OkStatus();
}

bool ProcessIo::MayRead(const Stream& stream) const {
  if (stream.sink != nullptr && stream.sink->full()) return false;
  return hub_ == nullptr || !hub_->blocked();
}

void ProcessIo::OnReadable(Stream& stream) {
  for (int round = 0; round < kMaxRounds && stream.open() && MayRead(stream); ++round) {
    if (!(stream.splice ? SpliceOnce(stream) : CopyOnce(stream))) break;
  }
  UpdateWatches();
  CheckFinished();
}

bool ProcessIo::SpliceOnce(Stream& stream) {
  const ssize_t moved = ::splice(stream.source.get(), nullptr, stream.sink->fd(), nullptr,
                                 kSpliceBytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (moved > 0) return true;
  if (moved == 0) {
    EndStream(stream);
    return false;
  }
  if (errno == EINTR) return true;
  if (errno != EAGAIN) {
    stream.splice =
        false;  // A reader of our own fifo cannot be gone; copy what the kernel will not.
    return true;
  }
  // Either there is nothing, or no room for it.
  int waiting = 0;
  if (::ioctl(stream.source.get(), FIONREAD, &waiting) == 0 && waiting > 0)
    stream.sink->WaitForRoom();
  return false;
}

bool ProcessIo::CopyOnce(Stream& stream) {
  const ssize_t got = ::read(stream.source.get(), copy_buffer, sizeof copy_buffer);
  if (got > 0) {
    Deliver(stream, absl::string_view(copy_buffer, static_cast<size_t>(got)));
    return true;
  }
  if (got < 0 && errno == EINTR) return true;
  if (got < 0 && errno == EAGAIN) return false;
  EndStream(stream);  // The end; a terminal says it with EIO.
  return false;
}

void ProcessIo::Deliver(Stream& stream, absl::string_view bytes) {
  if (log_.has_value()) log_->Write(stream.name, bytes);
  if (hub_ != nullptr) hub_->Output(stream.name, bytes);
  if (stream.sink != nullptr) stream.sink->Write(bytes);
}

void ProcessIo::OnSinkRoom(const StdioSink* sink) {
  for (Stream* stream : {&out_, &err_}) {
    if (stream->sink.get() == sink && stream->open()) OnReadable(*stream);
  }
  UpdateWatches();
  CheckFinished();
}

void ProcessIo::UpdateWatches() {
  for (Stream* stream : {&out_, &err_}) {
    if (!stream->open() || stream->watch == 0) continue;
    const bool pause = !MayRead(*stream);
    if (pause == stream->paused) continue;
    // Removed, not masked: a hang-up would be reported again and again to a paused stream.
    if (pause) {
      loop_.Remove(std::exchange(stream->watch, 0));
    }
    stream->paused = pause;
  }
  for (Stream* stream : {&out_, &err_}) {
    if (!stream->open() || stream->watch != 0 || !begun_) continue;
    if (!MayRead(*stream)) continue;
    stream->paused = false;
    (void)WatchStream(*stream);
  }
}

void ProcessIo::HubChanged() {
  UpdateWatches();
  CheckFinished();
}

void ProcessIo::EndStream(Stream& stream) {
  loop_.Remove(std::exchange(stream.watch, 0));
  stream.source.Reset();
  if (log_.has_value()) log_->Flush(stream.name);
  // Closing the last write end is the end of output for the reader of a fifo; what a full one has
  // not taken yet goes first.
  if (stream.sink != nullptr && stream.sink->drained()) stream.sink.reset();
}

void ProcessIo::OnExit(const attach::Exit& exit, bool wait_for_eof) {
  exited_ = true;
  exit_ = exit;
  wait_for_eof_ = wait_for_eof;
  input_.Drop();
  if (wait_for_eof_) {
    eof_timer_ = loop_.After(kEofPatience, [this] {
      eof_timer_ = 0;
      wait_for_eof_ = false;
      CheckFinished();
    });
  }
  for (Stream* stream : {&out_, &err_}) {
    if (stream->open()) OnReadable(*stream);
  }
  CheckFinished();
}

void ProcessIo::CheckFinished() {
  if (!exited_) return;
  for (Stream* stream : {&out_, &err_}) {
    if (stream->sink != nullptr && !stream->open() && stream->sink->drained()) stream->sink.reset();
    if (!stream->open() || wait_for_eof_ || !MayRead(*stream)) continue;
    // What is in the pipe now was written before the program ended; what its children write later
    // is not waited for.
    int waiting = 0;
    if (::ioctl(stream->source.get(), FIONREAD, &waiting) == 0 && waiting > 0) continue;
    EndStream(*stream);
  }
  if (out_.open() || err_.open()) return;
  console_.Reset();
  if (hub_ != nullptr && !finished_) {
    finished_ = true;
    hub_->Finish(exit_);
  }
  finished_ = true;
  if (drained() && on_drained_) {
    loop_.Cancel(std::exchange(eof_timer_, 0));
    // Later: the callback may destroy this object.
    loop_.Post(std::move(on_drained_));
    on_drained_ = nullptr;
  }
}

bool ProcessIo::drained() const {
  const auto empty = [](const Stream& stream) {
    return !stream.open() && (stream.sink == nullptr || stream.sink->drained());
  };
  return empty(out_) && empty(err_) && (hub_ == nullptr || hub_->idle());
}

void ProcessIo::WhenDrained(std::function<void()> callback) {
  on_drained_ = std::move(callback);
  CheckFinished();
}

absl::Status ProcessIo::ResizeTerminal(uint16_t columns, uint16_t rows) {
  if (!console_.ok()) return absl::OkStatus();
  winsize size = {};
  size.ws_col = columns;
  size.ws_row = rows;
  if (::ioctl(console_.get(), TIOCSWINSZ, &size) != 0) {
    return sys::ErrnoError(errno, "resize the terminal");
  }
  return absl::OkStatus();
}

attach::Accepted ProcessIo::Describe() const {
  attach::Accepted accepted;
  accepted.terminal = options_.stdio.terminal;
  accepted.stdin_open = !exited_ && !input_.closing() &&
                        (input_.has_target() || (options_.stdio.terminal && !begun_));
  accepted.pid = pid_;
  return accepted;
}

}  // namespace gantry::shim
