#include "shim/logger_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/process.h"

namespace gantry::shim {
namespace {

constexpr int kReadyMillis = 10'000;
constexpr absl::Duration kPatience = absl::Seconds(5);

absl::Status AwaitReady(const sys::UniqueFd& pipe, const StdioUri& uri) {
  pollfd ready = {pipe.get(), POLLIN, 0};
  int count;
  do {
    count = ::poll(&ready, 1, kReadyMillis);
  } while (count < 0 && errno == EINTR);
  char byte;
  const ssize_t got = count > 0 ? ::read(pipe.get(), &byte, 1) : -1;
  if (got < 0 || (uri.binary_v2 && got != 1)) {
    return absl::UnavailableError(
        absl::StrCat("logger '", uri.path, "' did not say that it is ready"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Pipe> MakePipe(uint32_t uid, uint32_t gid) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
  Pipe pipe{sys::UniqueFd(ends[0]), sys::UniqueFd(ends[1])};
  if ((uid != 0 || gid != 0) && ::fchown(ends[0], uid, gid) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("give a pipe to user ", uid));
  }
  return pipe;
}

absl::StatusOr<std::unique_ptr<LoggerProcess>> LoggerProcess::Start(Reaper& reaper,
                                                                    const StdioUri& uri,
                                                                    const Options& options) {
  RETURN_IF_ERROR(FAILPOINT("shim.io.start_logger"));
  auto logger = std::unique_ptr<LoggerProcess>(new LoggerProcess(reaper));
  sys::UniqueFd ready;
  RETURN_IF_ERROR(logger->Spawn(uri, options, &ready));
  RETURN_IF_ERROR(AwaitReady(ready, uri));
  return logger;
}

absl::Status LoggerProcess::Spawn(const StdioUri& uri, const Options& options,
                                  sys::UniqueFd* ready) {
  ASSIGN_OR_RETURN(Pipe out, MakePipe(options.uid, options.gid));
  ASSIGN_OR_RETURN(Pipe err, MakePipe(options.uid, options.gid));
  ASSIGN_OR_RETURN(Pipe started, MakePipe(options.uid, options.gid));
  sys::SpawnOptions spawn;
  spawn.argv = {uri.path};
  for (const auto& [key, value] : uri.arguments) {
    spawn.argv.push_back(key);
    if (!value.empty()) spawn.argv.push_back(value);
  }
  if (const char* path = ::getenv("PATH"); path != nullptr) {
    spawn.environment.push_back(absl::StrCat("PATH=", path));
  }
  spawn.environment.push_back(absl::StrCat("CONTAINER_ID=", options.container_id));
  spawn.environment.push_back(absl::StrCat("CONTAINER_NAMESPACE=", options.ns));
  spawn.descriptors = {
      {out.read_end.get(), 3}, {err.read_end.get(), 4}, {started.write_end.get(), 5}};
  spawn.new_process_group = true;
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  pid_ = child.pid();
  pidfd_.Reset(::fcntl(child.pidfd().get(), F_DUPFD_CLOEXEC, 3));
  child.Release();  // The reaper's from here on.
  stdout_ = std::move(out.write_end);
  stderr_ = std::move(err.write_end);
  *ready = std::move(started.read_end);
  return absl::OkStatus();
}

LoggerProcess::~LoggerProcess() {
  stdout_.Reset();
  stderr_.Reset();
  if (pid_ > 0) reaper_.EndGently(pid_, std::move(pidfd_), kPatience);
}

}  // namespace gantry::shim
