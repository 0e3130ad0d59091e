// Services, shims and inits are killed at random while clients pull, start, exec, stop and remove.
// Whatever a client was told stays true: what was started ends with its own code and a complete
// log, what was removed is gone; no command hangs; and nothing leaks.
//
// The seed is printed; STORM_SEED repeats its choices, STORM_SECONDS makes it longer.

#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <random>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/sys/process.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;

constexpr int kClients = 5;
constexpr int kLines = 200;  // That a job prints.

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = ::getenv(name);
  uint64_t number = 0;
  return text != nullptr && absl::SimpleAtoi(text, &number) ? number : otherwise;
}

// What the clients were told about one container.
struct Promise {
  std::string name;
  std::set<int> codes;        // It may end with; empty: it goes on running.
  bool complete_log = false;  // 1 … kLines.
};

class StormTest : public testing::SuiteTest {
 protected:
  using Random = std::mt19937_64;

  static bool OneIn(Random& random, uint64_t n) { return random() % n == 0; }

  // A command may fail while services die, but it has to end.
  CommandResult Try(std::vector<std::string> words) {
    testing::CommandOptions options;
    options.timeout = absl::Seconds(40);
    const std::string shown = absl::StrCat(words[0], " ", words.back());
    CommandResult result = Ctl(std::move(words), options);
    EXPECT_FALSE(absl::StrContains(result.err, "[test]")) << shown << " hangs\n" << result;
    ++commands_;
    if (result.code != 0) ++failed_;
    return result;
  }

  void Promised(Promise promise) {
    absl::MutexLock lock(&mutex_);
    promises_.push_back(std::move(promise));
  }
  void Gone(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    gone_.push_back(name);
  }

  bool Start(const std::string& name, const std::string& script) {
    return Try({"run", "-d", "--name", name, Image(), "sh", "-c", script}).code == 0;
  }

  // Ends by itself, with a log to be counted.
  void Job(Random& random, const std::string& name) {
    const int code = static_cast<int>(random() % 100);
    const std::string script = absl::StrCat("i=0; while [ $i -lt ", kLines,
                                            " ]; do i=$((i+1)); echo $i; done; exit ", code);
    if (Start(name, script)) Promised({name, {code}, true});
  }

  // Runs until it is stopped, and is removed now and then.
  void Service(Random& random, const std::string& name) {
    if (!Start(name, "trap 'exit 7' TERM; while :; do sleep 0.02; done")) return;
    const CommandResult exec = Try({"exec", name, "echo", "inside"});
    if (exec.code == 0) {
      EXPECT_EQ(exec.out, "inside\n") << exec;
    }
    if (OneIn(random, 4)) return Promised({name, {}, false});
    // After an error nobody knows: it may be stopped, or removed, all the same.
    if (Try({"stop", "-t", "20", name}).code != 0) return;
    if (OneIn(random, 2)) return Promised({name, {7}, false});
    if (Try({"rm", name}).code == 0) Gone(name);
  }

  // SIGKILL to the init of a container or to its parent, the shim; by descriptors, since pids come
  // again.
  static bool KillInitOrShim(int pid, bool kill_shim) {
    absl::StatusOr<sys::UniqueFd> init = sys::OpenPidfd(pid);
    const CommandResult parent =
        testing::RunShell(absl::StrCat("p=$(awk '/^PPid/{print $2}' /proc/", pid,
                                       "/status); grep -q shim /proc/$p/comm && echo $p"));
    int shim_pid = 0;
    if (!init.ok() || !absl::SimpleAtoi(parent.out, &shim_pid)) return false;
    absl::StatusOr<sys::UniqueFd> shim = sys::OpenPidfd(shim_pid);
    if (!shim.ok()) return false;
    return ::syscall(SYS_pidfd_send_signal, kill_shim ? shim->get() : init->get(), SIGKILL, nullptr,
                     0) == 0;
  }

  // Its shim or its init is killed beside everything else.
  void Victim(Random& random, const std::string& name) {
    if (!Start(name, "while :; do sleep 0.02; done")) return;
    const CommandResult asked = Try({"inspect", "-f", "{{.State.Pid}}", name});
    int pid = 0;
    if (asked.code != 0 || !absl::SimpleAtoi(asked.out, &pid) || pid <= 1) return;
    if (KillInitOrShim(pid, OneIn(random, 2))) Promised({name, {137}, false});
  }

  void Foreground() {
    const CommandResult run = Try({"run", "--rm", Image(), "echo", "hello"});
    if (run.code == 0) {
      EXPECT_EQ(run.out, "hello\n") << run;
    }
  }

  void PullAndRemove() {
    const std::string image = absl::StrCat(registry_->address(), "/second:latest");
    (void)Try({"pull", "-q", image});
    (void)Try({"rmi", image});
  }

  void Client(int number, uint64_t seed) {
    Random random(seed + static_cast<uint64_t>(number));
    for (int round = 0; absl::Now() < end_; ++round) {
      const std::string name = absl::StrCat("c", number, "-", round);
      switch (random() % 8) {
        case 0:
        case 1:
        case 2:
          Job(random, name);
          break;
        case 3:
        case 4:
          Service(random, name);
          break;
        case 5:
          Victim(random, name);
          break;
        case 6:
          Foreground();
          break;
        default:
          PullAndRemove();
      }
    }
  }

  // Kills a random service, and starts it again as systemd does.
  void KillServices(uint64_t seed) {
    Random random(seed);
    const std::vector<std::string>& services = testing::Suite::Processes();
    while (!stop_.WaitForNotificationWithTimeout(absl::Milliseconds(100 + random() % 700))) {
      const std::string& service = services[random() % services.size()];
      suite_->Kill(service);
      ASSERT_OK(suite_->Launch(service));
      ++kills_;
    }
  }

  void Check(const Promise& promise) {
    if (promise.codes.empty()) {
      EXPECT_EQ(Inspect(promise.name, "{{.State.Status}}"), "running") << promise.name;
      EXPECT_EQ(Ctl({"exec", promise.name, "echo", "alive"}).out, "alive\n") << promise.name;
      return;
    }
    const CommandResult waited = Ctl({"wait", promise.name});
    int code = -1;
    EXPECT_TRUE(absl::SimpleAtoi(waited.out, &code)) << promise.name << "\n" << waited;
    EXPECT_EQ(promise.codes.count(code), 1u) << promise.name << " ended with " << code;
    EXPECT_EQ(Inspect(promise.name, "{{.State.Status}}"), "exited") << promise.name;
    if (!promise.complete_log) return;
    const std::vector<std::string> lines = Lines(Ctl({"logs", promise.name}).out);
    EXPECT_EQ(lines.size(), static_cast<size_t>(kLines)) << promise.name;
    for (size_t i = 0; i < lines.size(); ++i) {
      ASSERT_EQ(lines[i], absl::StrCat(i + 1)) << promise.name;
    }
  }

  absl::Time end_;
  absl::Notification stop_;
  std::atomic<int> commands_{0}, failed_{0}, kills_{0};
  absl::Mutex mutex_;
  std::vector<Promise> promises_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> gone_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(StormTest, WhatWasPromisedStaysTrue) {
  const uint64_t seed = FromEnvironment("STORM_SEED", std::random_device()());
  std::cout << "STORM_SEED=" << seed << std::endl;
  ASSERT_OK(registry_->Push("second", 2, 1));
  end_ = absl::Now() + absl::Seconds(FromEnvironment("STORM_SECONDS", 15));

  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) clients.emplace_back([this, i, seed] { Client(i, seed); });
  std::thread killer([this, seed] { KillServices(seed + kClients); });
  for (std::thread& client : clients) client.join();
  stop_.Notify();
  killer.join();

  absl::MutexLock lock(&mutex_);
  std::cout << kills_ << " kills, " << commands_ << " commands, " << failed_ << " of them failed; "
            << promises_.size() << " promises, " << gone_.size() << " removed\n";
  EXPECT_GT(promises_.size(), 5u) << "hardly anything worked";
  for (const Promise& promise : promises_) Check(promise);
  for (const std::string& name : gone_) {
    EXPECT_THAT(Ctl({"inspect", name}).err, ::testing::HasSubstr("No such")) << name;
  }
  for (const std::string& name : Lines(Ctl({"ps", "-a", "--format", "{{.Names}}"}).out)) {
    const CommandResult removed = Ctl({"rm", "-f", "-v", name});
    EXPECT_EQ(removed.code, 0) << removed;
  }
  EXPECT_TRUE(BecomesClean(*suite_));
}

}  // namespace
}  // namespace gantry
