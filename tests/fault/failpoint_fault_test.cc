// A whole life with every failpoint of every process: whatever it does there, the caller gets an
// error or an answer, the next container works, and nothing leaks. ctest runs it once per process.
// FAILPOINT=name in the environment: only that one.

#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/sys/process.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;

// Starts a process of the suite anew as soon as it dies, as systemd does. Nothing else may start or
// end that process meanwhile.
class Restarter {
 public:
  Restarter(testing::Suite& suite, std::string process)
      : suite_(suite), process_(std::move(process)), stop_(::eventfd(0, EFD_CLOEXEC)) {
    thread_ = std::thread([this] { Loop(); });
  }

  ~Restarter() {
    const uint64_t one = 1;
    EXPECT_EQ(::write(stop_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    thread_.join();
  }

 private:
  void Loop() {
    for (;;) {
      absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(suite_.Pid(process_));
      ASSERT_OK(pidfd);
      pollfd ready[2] = {{pidfd->get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      while (::poll(ready, 2, -1) < 0) ASSERT_EQ(errno, EINTR);
      if (ready[0].revents == 0) return;
      suite_.Kill(process_);  // Reaps it.
      ASSERT_OK(suite_.Launch(process_));
    }
  }

  testing::Suite& suite_;
  const std::string process_;
  const sys::UniqueFd stop_;
  std::thread thread_;
};

class FailpointTest : public testing::SuiteTest, public ::testing::WithParamInterface<std::string> {
 protected:
  // The names of the process's own: gantryd, one binary, lists those of all daemons.
  static std::vector<std::string> Failpoints(const std::string& process) {
    const std::map<std::string, std::vector<std::string>> components = {
        {"snapshotter", {"snapshotter."}},
        {"metadata", {"metadata."}},
        {"image", {"image.", "sys."}},
        {"task", {"task."}},
        {"engine", {"engine.", "network.", "netlink.", "sys."}}};
    const CommandResult list =
        testing::RunCommand({testing::BinDirectory() + "/gantry-" + process, "--list-failpoints"});
    EXPECT_EQ(list.code, 0) << list;
    std::vector<std::string> names;
    const char* only = ::getenv("FAILPOINT");
    for (const std::string& name : Lines(list.out)) {
      if (only != nullptr && name != only) continue;
      for (const std::string& prefix : components.at(process)) {
        if (absl::StartsWith(name, prefix)) names.push_back(name);
      }
    }
    return names;
  }

  // Ends a fault with the commands under it, but after two seconds at most: a stop waits for a
  // clean-up that goes on failing as long as it may.
  class Disarmer {
   public:
    Disarmer(const std::string& process, const std::string& name)
        : off_("$CTL system failpoints set " + process + " " + name + "=off") {
      thread_ = std::thread([this] {
        (void)done_.WaitForNotificationWithTimeout(absl::Seconds(2));
        EXPECT_TRUE(Eventually(off_)) << off_;
      });
    }
    ~Disarmer() {
      done_.Notify();
      thread_.join();
    }

   private:
    const std::string off_;
    absl::Notification done_;
    std::thread thread_;
  };

  // Pull, run, exec, stop, remove: passes every step there is. Its errors are allowed here.
  void LiveOnce() {
    testing::CommandOptions options;
    options.timeout = absl::Seconds(40);
    (void)Ctl({"pull", "-q", registry_->address() + "/second:latest"}, options);
    (void)Ctl({"run", "-d", "--name", "victim", "-v", "vol:/data", "-p", "8089:80", Image(),
               "sleep", "600"},
              options);
    (void)Ctl({"exec", "victim", "true"}, options);
    (void)Ctl({"stop", "-t", "0", "victim"}, options);
    (void)Ctl({"rm", "-f", "-v", "victim"}, options);
    (void)Ctl({"volume", "rm", "vol"}, options);
    (void)Ctl({"rmi", registry_->address() + "/second:latest"}, options);
  }

  // Every failpoint of the process in turn does `action`, in a suite that lives on.
  void WalkThrough(const std::string& action) {
    const std::string& process = GetParam();
    ASSERT_OK(registry_->Push("second", 1, 1));
    const std::vector<std::string> names = Failpoints(process);
    ASSERT_FALSE(names.empty());
    // Some errors end a process on purpose (a failed fsync), and some deaths come late, when
    // something in the background passes: it is started anew whenever that is.
    Restarter restarter(*suite_, process);
    for (const std::string& name : names) {
      const absl::Time began = absl::Now();
      const std::string what = name + "=" + action;
      const std::string set = "$CTL system failpoints set " + process + " '" + what + "'";
      ASSERT_TRUE(Eventually(set)) << what;
      {
        const Disarmer disarmer(process, name);
        LiveOnce();
      }
      ExpectHealthy(what);
      std::cout << what << ": " << absl::Trunc(absl::Now() - began, absl::Milliseconds(1)) << "\n";
      if (HasFailure()) return;
    }
  }

  // After the fault: all clean-up commands work, and a container runs.
  void ExpectHealthy(const std::string& what) {
    for (const std::string& name : Lines(Ctl({"ps", "-a", "--format", "{{.Names}}"}).out)) {
      const CommandResult removed = Ctl({"rm", "-f", "-v", name});
      EXPECT_EQ(removed.code, 0) << what << "\n" << removed;
    }
    const CommandResult volume = Ctl({"volume", "rm", "-f", "vol"});
    EXPECT_EQ(volume.code, 0) << what << "\n" << volume;
    const CommandResult image = Ctl({"rmi", "-f", registry_->address() + "/second:latest"});
    EXPECT_TRUE(image.code == 0 || absl::StrContains(image.err, "No such image")) << what << "\n"
                                                                                  << image;
    const CommandResult run = Run({}, {"echo", "fine"});
    EXPECT_EQ(run.out, "fine\n") << what << "\n" << run;
    EXPECT_TRUE(BecomesClean(*suite_)) << what;
  }
};

TEST_P(FailpointTest, ErrorsLeaveNothing) { WalkThrough("error"); }

TEST_P(FailpointTest, DeathsLeaveNothing) { WalkThrough("kill@1"); }

INSTANTIATE_TEST_SUITE_P(EachService, FailpointTest,
                         ::testing::Values("snapshotter", "metadata", "image", "task", "engine"),
                         [](const auto& parameter) { return parameter.param; });

}  // namespace
}  // namespace gantry
