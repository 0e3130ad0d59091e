#include "tests/support/command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "lib/sys/process.h"

namespace gantry::testing {
namespace {

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = ::getenv("PATH");
  for (absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    std::string candidate = absl::StrCat(folder, "/", name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return name;
}

std::pair<sys::UniqueFd, sys::UniqueFd> Pipe() {
  int ends[2] = {-1, -1};
  (void)!::pipe2(ends, O_CLOEXEC);
  return {sys::UniqueFd(ends[0]), sys::UniqueFd(ends[1])};
}

// Copies between the pipes until both outputs have ended. False: the deadline came first.
bool Pump(sys::UniqueFd input, absl::string_view bytes, sys::UniqueFd out, sys::UniqueFd err,
          CommandResult& result, absl::Time deadline) {
  ::fcntl(input.get(), F_SETFL, O_NONBLOCK);
  if (bytes.empty()) input.Reset();
  std::array<char, 65536> buffer;
  while (out.ok() || err.ok()) {
    pollfd fds[3] = {{out.get(), POLLIN, 0}, {err.get(), POLLIN, 0}, {input.get(), POLLOUT, 0}};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0) return false;
    if (::poll(fds, 3, static_cast<int>(left)) <= 0) continue;
    const std::pair<sys::UniqueFd*, std::string*> outputs[2] = {{&out, &result.out},
                                                                {&err, &result.err}};
    for (int i = 0; i < 2; ++i) {
      if (fds[i].revents == 0) continue;
      const ssize_t count = ::read(fds[i].fd, buffer.data(), buffer.size());
      if (count > 0) outputs[i].second->append(buffer.data(), static_cast<size_t>(count));
      if (count <= 0) outputs[i].first->Reset();
    }
    if (fds[2].revents != 0) {
      const ssize_t count = ::write(input.get(), bytes.data(), bytes.size());
      if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
      if (count <= 0 || bytes.empty()) input.Reset();
    }
  }
  return true;
}

}  // namespace

CommandResult RunCommand(std::vector<std::string> argv, const CommandOptions& options) {
  CommandResult result;
  auto [in_read, in_write] = Pipe();
  auto [out_read, out_write] = Pipe();
  auto [err_read, err_write] = Pipe();
  sys::SpawnOptions spawn;
  argv[0] = FindProgram(argv[0]);
  spawn.argv = std::move(argv);
  const char* path = ::getenv("PATH");
  spawn.environment = {
      absl::StrCat("PATH=", path == nullptr ? "/usr/bin:/bin:/usr/sbin:/sbin" : path), "HOME=/root",
      "LANG=C.UTF-8"};
  for (const std::string& entry : options.environment) spawn.environment.push_back(entry);
  spawn.working_directory = options.working_directory;
  spawn.descriptors = {{in_read.get(), 0}, {out_write.get(), 1}, {err_write.get(), 2}};
  // A group of its own: on a time-out, what it started goes too.
  spawn.new_process_group = true;
  absl::StatusOr<sys::Child> child = sys::Spawn(spawn);
  if (!child.ok()) {
    result.err = child.status().ToString();
    return result;
  }
  in_read.Reset();
  out_write.Reset();
  err_write.Reset();
  const absl::Time deadline = absl::Now() + options.timeout;
  const bool ended = Pump(std::move(in_write), options.input, std::move(out_read),
                          std::move(err_read), result, deadline);
  absl::StatusOr<sys::ExitStatus> status =
      ended ? child->Wait(deadline - absl::Now())
            : absl::StatusOr<sys::ExitStatus>(absl::DeadlineExceededError("no end of output"));
  if (!status.ok()) {
    ::kill(-child->pid(), SIGKILL);
    absl::StrAppend(&result.err, "\n[test] ", spawn.argv[0], ": ", status.status().ToString());
    return result;
  }
  result.code = status->code;
  return result;
}

CommandResult RunShell(const std::string& script, const CommandOptions& options) {
  return RunCommand({"/bin/sh", "-c", script}, options);
}

std::ostream& operator<<(std::ostream& stream, const CommandResult& result) {
  return stream << "exit " << result.code << "\nstdout: " << result.out
                << "\nstderr: " << result.err;
}

}  // namespace gantry::testing
