// Real shims and real containers: our own, and Debian's containerd-shim-runc-v2 with runc.
#include <poll.h>
#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "tests/integration/shims_fixture.h"

namespace gantry::task {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

// Only with shims that are started ahead.
class WaitingShimsRootTest : public ShimsRootTest {};

TEST_P(ShimsRootTest, AWholeLife) {
  absl::StatusOr<CreatedTask> created = Create("echo hello; sleep 1000 & wait; exit 3");
  ASSERT_OK(created);
  EXPECT_GT(created->pid, 0u);
  EXPECT_EQ(State(), containerd::v1::types::CREATED);
  ASSERT_OK(Start());
  EXPECT_EQ(State(), containerd::v1::types::RUNNING);
  EXPECT_FALSE(supervisor_->Delete("default", id_).ok()) << "it runs";

  containerd::task::v2::ExecProcessRequest exec;
  exec.set_exec_id("e1");
  exec.mutable_spec()->set_type_url("types.containerd.io/opencontainers/runtime-spec/1/Process");
  exec.mutable_spec()->set_value(
      R"({"user":{"uid":0,"gid":0},"args":["/bin/busybox","sh","-c","exit 5"],"env":[],"cwd":"/"})");
  ASSERT_OK(Call("Exec", exec));
  ASSERT_OK(Start("e1"));
  EXPECT_EQ(WaitForExit("e1")->code, 5u);
  containerd::task::v2::DeleteRequest remove;
  remove.set_exec_id("e1");
  EXPECT_OK(Call("Delete", remove));
  ASSERT_OK(Call("Pause", containerd::task::v2::PauseRequest()));
  EXPECT_EQ(State(), containerd::v1::types::PAUSED);
  ASSERT_OK(Call("Resume", containerd::task::v2::ResumeRequest()));
  EXPECT_EQ(State(), containerd::v1::types::RUNNING);
  ASSERT_OK(Call("Stats", containerd::task::v2::StatsRequest()));
  ASSERT_OK(Call("Pids", containerd::task::v2::PidsRequest()));

  EXPECT_OK(Signal(SIGKILL));
  EXPECT_EQ(WaitForExit()->code, 137u);
  EXPECT_EQ(State(), containerd::v1::types::STOPPED);
  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", id_);
  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 137u);
  EXPECT_EQ(*sys::ReadFile(Path("out")), "hello\n");
  ExpectNothingLeft();
  for (const char* topic : {"/tasks/create", "/tasks/start", "/tasks/exec-added",
                            "/tasks/exec-started", "/tasks/exit", "/tasks/delete"}) {
    EXPECT_THAT(topics(), Contains(topic));
  }
}

TEST_P(ShimsRootTest, ItRunsOnWhileWeAreAway) {
  ASSERT_OK(Create("sleep 1; exit 7"));
  ASSERT_OK(Start());
  StopProcess();

  StartProcess();

  absl::StatusOr<Exit> exit = WaitForExit();
  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 7u);
  EXPECT_EQ(supervisor_->Delete("default", id_)->code, 7u);
  ExpectNothingLeft();
}

TEST_P(ShimsRootTest, AKilledShimTakesItsContainerAlong) {
  absl::StatusOr<CreatedTask> created = Create("sleep 1000");
  ASSERT_OK(created);
  ASSERT_OK(Start());
  absl::StatusOr<sys::UniqueFd> init = sys::OpenPidfd(static_cast<pid_t>(created->pid));
  ASSERT_OK(init);
  const pid_t shim = ShimPid();
  ASSERT_GT(shim, 0);

  ASSERT_EQ(::kill(shim, SIGKILL), 0);

  EXPECT_EQ(WaitForExit()->code, 137u);
  // Readable: it has ended, whether or not the machine's init has reaped it yet.
  pollfd ended = {init->get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 0), 1) << "the exit was told before the container was gone";
  EXPECT_EQ(supervisor_->Delete("default", id_)->code, 137u);
  ExpectNothingLeft();
}

TEST_P(WaitingShimsRootTest, AWaitingShimTakesTheNamesOfItsContainer) {
  const std::vector<ShimLauncher::Waiting> before = launcher_->WaitingShims();
  ASSERT_EQ(before.size(), 2u);

  ASSERT_OK(Create("sleep 1000"));

  EXPECT_EQ(ShimPid(), before[0].pid);
  workers_->WaitUntilIdle();
  EXPECT_EQ(launcher_->WaitingShims().size(), 2u) << "filled up again";
  // One that has died is not used, and nobody notices.
  for (const ShimLauncher::Waiting& waiting : launcher_->WaitingShims()) {
    ASSERT_EQ(::kill(waiting.pid, SIGKILL), 0);
    absl::StatusOr<sys::UniqueFd> dead = sys::OpenPidfd(waiting.pid);
    ASSERT_OK(dead);
    pollfd ended = {dead->get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 10000), 1);
  }
  ASSERT_OK(Signal(SIGKILL));
  ASSERT_OK(WaitForExit());
  ASSERT_OK(supervisor_->Delete("default", id_));
  EXPECT_OK(Create("sleep 1000"));
}

// Waiting shims belong to the process that started them.
TEST_P(WaitingShimsRootTest, TheyEndWithTheirSupervisor) {
  std::vector<sys::UniqueFd> shims;
  for (const ShimLauncher::Waiting& waiting : launcher_->WaitingShims()) {
    shims.push_back(*sys::OpenPidfd(waiting.pid));
  }
  StopProcess();
  for (const sys::UniqueFd& shim : shims) {
    pollfd ended = {shim.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ended, 1, 10000), 1);
  }
  EXPECT_THAT(*sys::ListDirectory(Path("run/.s")), IsEmpty());
}

TEST_P(ShimsRootTest, AFailedCreateCarriesTheRuntimesWordsAndLeavesNothing) {
  ASSERT_OK(sys::Unlink(Path("root/bin/busybox")));

  absl::StatusOr<CreatedTask> created = Create("exit 0");
  // runc and ours find out in Create; a runtime may do so in Start.
  const absl::Status failed = created.ok() ? Start() : created.status();

  EXPECT_THAT(std::string(failed.message()), ::testing::HasSubstr("/bin/busybox"));
  if (created.ok()) {
    EXPECT_OK(supervisor_->Delete("default", id_));
  }
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Own, ShimsRootTest, ::testing::Values("own", "own, started ahead"));
INSTANTIATE_TEST_SUITE_P(Own, WaitingShimsRootTest, ::testing::Values("own, started ahead"));
INSTANTIATE_TEST_SUITE_P(Containerd, ShimsRootTest,
                         ::testing::Values("/usr/bin/containerd-shim-runc-v2"));

}  // namespace
}  // namespace gantry::task
