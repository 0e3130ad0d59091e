#include "tests/support/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::testing {
namespace {

constexpr absl::Duration kStopTimeout = absl::Seconds(20);

std::string FromEnvironment(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? "" : value;
}

// What a suite that a failed test left behind may have mounted below its folder.
void UnmountBelow(const std::string& folder) {
  RunShell(absl::StrCat("awk '{print $5}' /proc/self/mountinfo | grep '^", folder,
                        "/' | sort -r | while read m; do umount -l \"$m\"; done; chattr -R -T '",
                        folder, "' 2>/dev/null; true"));
}

}  // namespace

std::string BinDirectory() { return FromEnvironment("GANTRY_BIN"); }
std::string SourceDirectory() { return FromEnvironment("GANTRY_SOURCE"); }

const std::vector<std::string>& Suite::Processes() {
  static const std::vector<std::string>* processes =
      new std::vector<std::string>{"snapshotter", "metadata", "image", "task", "engine", "gateway"};
  return *processes;
}

absl::StatusOr<std::unique_ptr<Suite>> Suite::Start(const std::string& configuration,
                                                    std::vector<std::string> environment) {
  // The metrics address is off unless the test asks: the port belongs to the namespace, not to a
  // suite.
  ASSIGN_OR_RETURN(sys::TempDir root, sys::TempDir::Create("/tmp"));
  std::unique_ptr<Suite> suite(new Suite(std::move(root), std::move(environment)));
  RETURN_IF_ERROR(sys::WriteFileAtomically(absl::StrCat(suite->root(), "/gantry.toml"),
                                           absl::StrCat("version = 1\n", configuration)));
  for (const std::string& process : Processes()) RETURN_IF_ERROR(suite->Launch(process));
  return suite;
}

Suite::~Suite() {
  if (children_.count("engine") != 0) {
    CommandResult all = Ctl({"ps", "-aq"});
    if (all.code == 0 && !all.out.empty()) {
      RunShell(absl::StrCat("xargs ", BinDirectory(), "/gantryctl rm -f -v"),
               {all.out, {absl::StrCat("GANTRY_HOST=", host())}, "", absl::Seconds(60)});
    }
  }
  for (auto process = Processes().rbegin(); process != Processes().rend(); ++process) {
    (void)Stop(*process);
  }
  UnmountBelow(root());
}

std::string Suite::host() const { return absl::StrCat("unix://", run(), "/gantry.sock"); }

CommandResult Suite::Ctl(std::vector<std::string> arguments, CommandOptions options) const {
  arguments.insert(arguments.begin(), absl::StrCat(BinDirectory(), "/gantryctl"));
  options.environment.push_back(absl::StrCat("GANTRY_HOST=", host()));
  return RunCommand(std::move(arguments), options);
}

void Suite::ExpectNoLeaks() const {
  const CommandResult audit = Ctl({"system", "audit"});
  EXPECT_EQ(audit.code, 0) << audit;
}

pid_t Suite::Pid(const std::string& process) const {
  auto found = children_.find(process);
  return found == children_.end() ? 0 : found->second.pid();
}

void Suite::Kill(const std::string& process) { children_.erase(process); }

absl::Status Suite::Launch(const std::string& process) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
  sys::UniqueFd ready(ends[0]);
  sys::UniqueFd ready_child(ends[1]);
  ASSIGN_OR_RETURN(sys::UniqueFd log, sys::Open(absl::StrCat(root(), "/", process, ".log"),
                                                O_WRONLY | O_CREAT | O_APPEND, 0600));
  sys::SpawnOptions options;
  options.argv = {absl::StrCat(BinDirectory(), "/gantry-", process),
                  "--root",
                  root(),
                  "--config",
                  absl::StrCat(root(), "/gantry.toml"),
                  "--ready-fd",
                  "3"};
  options.environment = {absl::StrCat("PATH=", BinDirectory(), ":/usr/sbin:/usr/bin:/sbin:/bin")};
  options.environment.insert(options.environment.end(), environment_.begin(), environment_.end());
  options.descriptors = {{ready_child.get(), 3}, {log.get(), 1}, {log.get(), 2}};
  ASSIGN_OR_RETURN(children_[process], sys::Spawn(options));
  ready_child.Reset();
  ASSIGN_OR_RETURN(std::string said, sys::ReadAll(ready));
  if (said != "READY\n") {
    return absl::UnavailableError(
        absl::StrCat("gantry-", process, " did not get ready: ", Log(process)));
  }
  return absl::OkStatus();
}

absl::StatusOr<sys::ExitStatus> Suite::Stop(const std::string& process) {
  auto found = children_.find(process);
  if (found == children_.end()) return absl::NotFoundError(absl::StrCat(process, " does not run"));
  (void)found->second.Signal(SIGTERM);
  absl::StatusOr<sys::ExitStatus> status = found->second.Wait(kStopTimeout);
  children_.erase(found);
  return status;
}

std::string Suite::Log(const std::string& process) const {
  absl::StatusOr<std::string> log = sys::ReadFile(absl::StrCat(root(), "/", process, ".log"));
  if (!log.ok()) return log.status().ToString();
  constexpr size_t kTail = 4000;
  return log->size() > kTail ? log->substr(log->size() - kTail) : *log;
}

}  // namespace gantry::testing
