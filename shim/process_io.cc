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
#include "lib/sys/file.h"

namespace gantry::shim {
namespace {

// One buffer for all copying of this single-threaded program.
constexpr size_t kCopyBytes = 32 << 10;
char copy_buffer[kCopyBytes];

constexpr size_t kSpliceBytes = 64 << 10;
constexpr size_t kMaxInputBytes = 64 << 10;
// Rounds of reading one stream before others get their turn.
constexpr int kMaxRounds = 8;
constexpr absl::Duration kAttachPatience = absl::Seconds(10);
// How long the pipes of an ended init may stay open in the hands of processes that are being
// killed.
constexpr absl::Duration kEofPatience = absl::Seconds(2);
constexpr int kLoggerReadyMillis = 10'000;
constexpr absl::Duration kLoggerPatience = absl::Seconds(5);

absl::Status SetNonBlocking(const sys::UniqueFd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return sys::ErrnoError(errno, "make a descriptor non-blocking");
  }
  return absl::OkStatus();
}

}  // namespace

ProcessIo::Sink::~Sink() {
  if (loop != nullptr) loop->Remove(watch);
}

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
  *alive_ = false;
  loop_.Cancel(eof_timer_);
  loop_.Remove(out_.watch);
  loop_.Remove(err_.watch);
  loop_.Remove(in_source_watch_);
  loop_.Remove(in_watch_);
  hub_.reset();
  out_.sink.reset();
  err_.sink.reset();
  out_.source.Reset();
  err_.source.Reset();
  // Its pipes are closed now, so it ends by itself, or is made to.
  if (logger_pid_ > 0) reaper_.EndGently(logger_pid_, std::move(logger_pidfd_), kLoggerPatience);
}

absl::Status ProcessIo::MakePipe(sys::UniqueFd* read_end, sys::UniqueFd* write_end) const {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
  read_end->Reset(ends[0]);
  write_end->Reset(ends[1]);
  if ((options_.uid != 0 || options_.gid != 0) &&
      ::fchown(ends[0], options_.uid, options_.gid) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("give a pipe to user ", options_.uid));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ProcessIo::Sink>> ProcessIo::OpenSink(const StdioUri& uri) const {
  auto sink = std::make_shared<Sink>();
  sink->loop = &loop_;
  if (uri.kind == StdioUri::Kind::kFile) {
    const size_t slash = uri.path.rfind('/');
    if (slash > 0) RETURN_IF_ERROR(sys::MakeDirectories(uri.path.substr(0, slash), 0755));
    ASSIGN_OR_RETURN(
        sink->fd,
        sys::Open(uri.path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0644));
    return sink;
  }
  // For reading too: the fifo does not break while its reader is away, nor does opening wait for
  // one.
  ASSIGN_OR_RETURN(sink->fd, sys::Open(uri.path, O_RDWR | O_NOFOLLOW | O_NONBLOCK));
  struct stat info;
  if (::fstat(sink->fd.get(), &info) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at '", uri.path, "'"));
  }
  sink->pipe_like = S_ISFIFO(info.st_mode);
  if (!sink->pipe_like && !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("stdio '", uri.path, "' is neither a fifo nor a file"));
  }
  if (!sink->pipe_like) ::lseek(sink->fd.get(), 0, SEEK_END);
  return sink;
}

// The program writes into the logger's pipes itself; with a terminal we write.
absl::Status ProcessIo::StartLogger(const StdioUri& uri) {
  RETURN_IF_ERROR(FAILPOINT("shim.io.start_logger"));
  sys::UniqueFd out_read, out_write, err_read, err_write, ready_read, ready_write;
  RETURN_IF_ERROR(MakePipe(&out_read, &out_write));
  RETURN_IF_ERROR(MakePipe(&err_read, &err_write));
  RETURN_IF_ERROR(MakePipe(&ready_read, &ready_write));
  sys::SpawnOptions spawn;
  spawn.argv = {uri.path};
  for (const auto& [key, value] : uri.arguments) {
    spawn.argv.push_back(key);
    if (!value.empty()) spawn.argv.push_back(value);
  }
  if (const char* path = ::getenv("PATH"); path != nullptr) {
    spawn.environment.push_back(absl::StrCat("PATH=", path));
  }
  spawn.environment.push_back(absl::StrCat("CONTAINER_ID=", options_.container_id));
  spawn.environment.push_back(absl::StrCat("CONTAINER_NAMESPACE=", options_.ns));
  spawn.descriptors = {{out_read.get(), 3}, {err_read.get(), 4}, {ready_write.get(), 5}};
  spawn.new_process_group = true;
  ASSIGN_OR_RETURN(sys::Child logger, sys::Spawn(spawn));
  logger_pid_ = logger.pid();
  logger_pidfd_.Reset(::fcntl(logger.pidfd().get(), F_DUPFD_CLOEXEC, 3));
  logger.Release();  // The reaper's from here on.
  ready_write.Reset();
  pollfd ready = {ready_read.get(), POLLIN, 0};
  int count;
  do {
    count = ::poll(&ready, 1, kLoggerReadyMillis);
  } while (count < 0 && errno == EINTR);
  char byte;
  const ssize_t got = count > 0 ? ::read(ready_read.get(), &byte, 1) : -1;
  if (got < 0 || (uri.binary_v2 && got != 1)) {
    return absl::UnavailableError(
        absl::StrCat("logger '", uri.path, "' did not say that it is ready"));
  }
  if (options_.terminal) {
    auto sink = std::make_shared<Sink>();
    sink->loop = &loop_;
    sink->fd = std::move(out_write);
    sink->pipe_like = true;
    RETURN_IF_ERROR(SetNonBlocking(sink->fd));
    out_.sink = std::move(sink);
  } else {
    program_out_ = std::move(out_write);
    program_err_ = std::move(err_write);
  }
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenStreams() {
  ASSIGN_OR_RETURN(const StdioUri out, ParseStdioUri(options_.stdout_uri));
  ASSIGN_OR_RETURN(const StdioUri err, ParseStdioUri(options_.stderr_uri));
  if (out.kind == StdioUri::Kind::kBinary) return StartLogger(out);
  if (out.kind == StdioUri::Kind::kLog) {
    if (out.keep_log) {
      ASSIGN_OR_RETURN(log_, LogWriter::Open(out.log));
    }
    if (out.attach != AttachMode::kNo) {
      AttachHub::Process& process = *this;  // The base is private, out of make_unique's reach.
      hub_ = std::make_unique<AttachHub>(loop_, process);
      if (out.attach == AttachMode::kWait) hub_->Hold();
    }
  } else {
    if (out.kind != StdioUri::Kind::kNull) {
      ASSIGN_OR_RETURN(out_.sink, OpenSink(out));
    }
    if (err.kind == StdioUri::Kind::kBinary || err.kind == StdioUri::Kind::kLog) {
      return absl::InvalidArgumentError(
          "stdio: a logger or gantry-log for stderr needs the same for stdout");
    }
    if (err.kind != StdioUri::Kind::kNull && !options_.terminal) {
      if (err.kind == out.kind && err.path == out.path) {
        err_.sink = out_.sink;
      } else {
        ASSIGN_OR_RETURN(err_.sink, OpenSink(err));
      }
    }
  }
  if (options_.terminal) return absl::OkStatus();
  const bool both = out.kind == StdioUri::Kind::kLog;
  if (both || out_.sink) RETURN_IF_ERROR(MakePipe(&out_.source, &program_out_));
  if (both || err_.sink) RETURN_IF_ERROR(MakePipe(&err_.source, &program_err_));
  return absl::OkStatus();
}

absl::Status ProcessIo::OpenStdin() {
  ASSIGN_OR_RETURN(const StdioUri in, ParseStdioUri(options_.stdin_uri));
  ASSIGN_OR_RETURN(const StdioUri out, ParseStdioUri(options_.stdout_uri));
  const bool attached = out.kind == StdioUri::Kind::kLog && out.open_stdin;
  if (in.kind == StdioUri::Kind::kFifo) {
    ASSIGN_OR_RETURN(in_source_, sys::Open(in.path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    struct stat info;
    if (::fstat(in_source_.get(), &info) == 0 && S_ISFIFO(info.st_mode)) {
      ASSIGN_OR_RETURN(in_source_hold_, sys::Open(in.path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW));
    }
  } else if (in.kind != StdioUri::Kind::kNull) {
    return absl::InvalidArgumentError(
        absl::StrCat("stdin '", options_.stdin_uri, "': only a fifo can be read"));
  }
  if (options_.terminal || (!attached && !in_source_.ok())) return absl::OkStatus();
  RETURN_IF_ERROR(MakePipe(&program_in_, &in_));
  return SetNonBlocking(in_);
}

void ProcessIo::SetConsole(sys::UniqueFd master) { console_ = std::move(master); }

absl::Status ProcessIo::Begin(int pid) {
  pid_ = pid;
  begun_ = true;
  program_in_.Reset();
  program_out_.Reset();
  program_err_.Reset();
  if (console_.ok()) {
    RETURN_IF_ERROR(SetNonBlocking(console_));
    // Each direction is watched and closed by itself. Output is read even when nobody wants it.
    out_.source.Reset(::fcntl(console_.get(), F_DUPFD_CLOEXEC, 3));
    in_.Reset(::fcntl(console_.get(), F_DUPFD_CLOEXEC, 3));
    FlushInput();
  }
  for (Stream* stream : {&out_, &err_}) {
    if (!stream->open()) continue;
    stream->splice = !console_.ok() && stream->sink != nullptr && stream->sink->pipe_like;
    RETURN_IF_ERROR(SetNonBlocking(stream->source));
    RETURN_IF_ERROR(WatchStream(*stream));
  }
  WatchInput();
  return absl::OkStatus();
}

// A regular file is always ready and cannot be watched: it is read round by round.
void ProcessIo::WatchInput() {
  if (!in_source_.ok() || in_source_watch_ != 0) return;
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(in_source_.get(), EPOLLIN, [this](uint32_t) { OnInputReadable(); });
  if (watch.ok()) {
    in_source_watch_ = *watch;
    return;
  }
  loop_.Post([this, alive = alive_] {
    if (*alive && in_source_.ok()) OnInputReadable();
  });
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
  if (stream.sink != nullptr && (stream.sink->watch != 0 || !stream.sink->left.empty()))
    return false;
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
  const ssize_t moved = ::splice(stream.source.get(), nullptr, stream.sink->fd.get(), nullptr,
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
  if (::ioctl(stream.source.get(), FIONREAD, &waiting) == 0 && waiting > 0) WaitForSink(stream);
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
  if (stream.sink == nullptr) return;
  while (!bytes.empty()) {
    const ssize_t count = ::write(stream.sink->fd.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN && stream.sink->pipe_like) {
      stream.sink->left.assign(bytes.data(), bytes.size());
      WaitForSink(stream);
      return;
    }
    // A file on a full disk loses this output; the program must not wait for it (containerd 12462).
    if (count <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void ProcessIo::WaitForSink(Stream& stream) {
  if (stream.sink->watch != 0) return;
  Sink* const sink = stream.sink.get();
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(sink->fd.get(), EPOLLOUT, [this, sink](uint32_t) { OnSinkWritable(sink); });
  if (watch.ok()) sink->watch = *watch;
}

void ProcessIo::OnSinkWritable(Sink* sink) {
  while (!sink->left.empty()) {
    const ssize_t count = ::write(sink->fd.get(), sink->left.data(), sink->left.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      sink->left.clear();
      break;
    }
    sink->left.erase(0, static_cast<size_t>(count));
  }
  std::string().swap(sink->left);
  loop_.Remove(std::exchange(sink->watch, 0));
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
  if (stream.sink != nullptr && stream.sink->left.empty()) stream.sink.reset();
}

void ProcessIo::OnExit(const attach::Exit& exit, bool wait_for_eof) {
  exited_ = true;
  exit_ = exit;
  wait_for_eof_ = wait_for_eof;
  loop_.Remove(std::exchange(in_source_watch_, 0));
  loop_.Remove(std::exchange(in_watch_, 0));
  in_source_.Reset();
  in_source_hold_.Reset();
  in_.Reset();
  in_queue_.clear();
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
    if (stream->sink != nullptr && !stream->open() && stream->sink->left.empty())
      stream->sink.reset();
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
    return !stream.open() && (stream.sink == nullptr || stream.sink->left.empty());
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

void ProcessIo::CloseStdin() {
  in_source_hold_.Reset();
  if (in_source_.ok()) return;  // Its end comes when the other writers have closed it, too.
  // A terminal has no end of input; its reader is told by a hang-up when it goes away.
  if (options_.terminal) return;
  in_closing_ = true;
  FlushInput();
}

void ProcessIo::OnInputReadable() {
  if (InputFull()) {
    loop_.Remove(std::exchange(in_source_watch_, 0));
    return;
  }
  const ssize_t got = ::read(in_source_.get(), copy_buffer, sizeof copy_buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) {
    Input(absl::string_view(copy_buffer, static_cast<size_t>(got)));
    if (!InputFull()) WatchInput();
    return;
  }
  loop_.Remove(std::exchange(in_source_watch_, 0));
  in_source_.Reset();
  CloseStdin();
}

void ProcessIo::Input(absl::string_view bytes) {
  if (!in_.ok() && begun_) return;  // The program has closed it, or has none.
  in_queue_.append(bytes.data(), bytes.size());
  FlushInput();
}

bool ProcessIo::InputFull() const { return in_queue_.size() >= kMaxInputBytes; }

void ProcessIo::FlushInput() {
  if (!in_.ok()) return;  // A terminal that is not there yet.
  const bool was_full = InputFull();
  size_t sent = 0;
  while (sent < in_queue_.size()) {
    const ssize_t count = ::write(in_.get(), in_queue_.data() + sent, in_queue_.size() - sent);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) {
      // The program does not read any more: what comes is thrown away.
      sent = in_queue_.size();
      in_closing_ = true;
      break;
    }
    sent += static_cast<size_t>(count);
  }
  if (sent == in_queue_.size()) {
    std::string().swap(in_queue_);
  } else {
    in_queue_.erase(0, sent);
  }
  if (in_queue_.empty()) {
    loop_.Remove(std::exchange(in_watch_, 0));
    if (in_closing_ && !options_.terminal) in_.Reset();
  } else if (in_watch_ == 0) {
    absl::StatusOr<sys::EventLoop::Watch> watch =
        loop_.Add(in_.get(), EPOLLOUT, [this](uint32_t) { FlushInput(); });
    if (watch.ok()) in_watch_ = *watch;
  }
  if (was_full && !InputFull()) {
    if (hub_ != nullptr) hub_->InputDrained();
    WatchInput();
  }
}

attach::Accepted ProcessIo::Describe() const {
  attach::Accepted accepted;
  accepted.terminal = options_.terminal;
  accepted.stdin_open = !exited_ && !in_closing_ && (in_.ok() || (options_.terminal && !begun_));
  accepted.pid = pid_;
  return accepted;
}

}  // namespace gantry::shim
