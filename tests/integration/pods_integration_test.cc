// Pods: containers that share one shim under our own supervisor.
#include <poll.h>
#include <signal.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "tests/integration/shims_fixture.h"

namespace gantry::task {
namespace {

using ::testing::IsEmpty;

// Several containers in one pod, with our own shim.
class PodsRootTest : public ShimsRootTest {
 protected:
  void SetUp() override {
    ShimsRootTest::SetUp();
    annotations_ = R"("io.kubernetes.cri.sandbox-id":"pod")";
  }
  void TearDown() override {
    for (const std::string& id : {a_, b_, c_}) {
      id_ = id;
      if (Signal(SIGKILL).ok()) WaitForExit().status().IgnoreError();
      supervisor_->Delete("default", id_).status().IgnoreError();
    }
    ShimsRootTest::TearDown();
  }
  void Begin(const std::string& id) {
    id_ = id;
    ASSERT_OK(Create("sleep 1000"));
    ASSERT_OK(Start());
  }
  absl::StatusOr<Exit> End(const std::string& id) {
    id_ = id;
    RETURN_IF_ERROR(Signal(SIGKILL));
    RETURN_IF_ERROR(WaitForExit().status());
    return supervisor_->Delete("default", id_);
  }
  // The shim is init's parent.
  pid_t ShimOf(const std::string& id) {
    id_ = id;
    containerd::task::v2::StateResponse state;
    const absl::StatusOr<std::string> payload = Call("State", containerd::task::v2::StateRequest());
    if (!payload.ok() || !state.ParseFromString(*payload)) return -1;
    const std::string stat =
        sys::ReadFile(absl::StrCat("/proc/", state.pid(), "/stat")).value_or(") ? 0 ");
    return std::stoi(stat.substr(stat.rfind(')') + 4));
  }
  static bool WaitUntilGone(const sys::UniqueFd& pidfd) {
    pollfd ended = {pidfd.get(), POLLIN, 0};
    return ::poll(&ended, 1, 20'000) == 1;
  }

  const std::string a_ = absl::StrCat("a", ::getpid());
  const std::string b_ = absl::StrCat("b", ::getpid());
  const std::string c_ = absl::StrCat("c", ::getpid());
};

TEST_P(PodsRootTest, OneShimForAllOfAPod) {
  Begin(a_);
  Begin(b_);
  annotations_ = R"("io.kubernetes.cri.sandbox-id":"another")";
  Begin(c_);
  const pid_t shim = ShimOf(a_);
  EXPECT_EQ(ShimOf(b_), shim);
  EXPECT_NE(ShimOf(c_), shim);
  const sys::UniqueFd pidfd = *sys::OpenPidfd(shim);

  // The first one, whose names the shim bears, goes first.
  EXPECT_EQ(End(a_)->code, 137u);
  EXPECT_EQ(ShimOf(b_), shim);
  rpc::AuditReport report;
  ASSERT_OK(AuditTasks(*supervisor_,
                       {.bundle_root = Path("run"),
                        .socket_directory = Path("run/.s"),
                        .gateway_socket = Path("gantry.sock")},
                       report));
  EXPECT_THAT(report.findings, IsEmpty());
  annotations_ = R"("io.kubernetes.cri.sandbox-id":"pod")";
  Begin(a_);
  EXPECT_EQ(ShimOf(a_), shim) << "who comes later joins, too";

  EXPECT_OK(End(a_));
  EXPECT_OK(End(b_));
  EXPECT_TRUE(WaitUntilGone(pidfd)) << "the shim outlived its pod";
  EXPECT_OK(End(c_));
  ExpectNothingLeft();
}

// Only with our own: a stranger finds its group in its own time.
class PodAtOnceRootTest : public PodsRootTest {};

TEST_P(PodAtOnceRootTest, HasOneShim) {
  constexpr int kCount = 6;
  SetRecord("sleep 1000");
  std::vector<std::thread> threads;
  std::vector<absl::StatusOr<CreatedTask>> created(kCount, absl::UnknownError(""));
  for (int i = 0; i < kCount; ++i) {
    threads.emplace_back([&, i] { created[i] = CreateNamed(absl::StrCat(a_, "-", i)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kCount; ++i) {
    ASSERT_OK(created[i]);
    EXPECT_EQ(created[i]->shim_address, created[0]->shim_address);
  }
  for (int i = 0; i < kCount; ++i) {
    EXPECT_OK(supervisor_->Delete("default", absl::StrCat(a_, "-", i)));
  }
  ExpectNothingLeft();
}

TEST_P(PodsRootTest, APodIsFoundAgainAfterARestart) {
  Begin(a_);
  Begin(b_);
  const pid_t shim = ShimOf(a_);
  StopProcess();

  StartProcess();

  EXPECT_EQ(ShimOf(b_), shim);
  Begin(c_);
  EXPECT_EQ(ShimOf(c_), shim);
  const sys::UniqueFd pidfd = *sys::OpenPidfd(shim);
  EXPECT_EQ(End(a_)->code, 137u);
  EXPECT_EQ(ShimOf(b_), shim);
  EXPECT_OK(End(c_));
  EXPECT_OK(End(b_));
  EXPECT_TRUE(WaitUntilGone(pidfd));
  ExpectNothingLeft();
}

TEST_P(PodsRootTest, AKilledShimTakesItsPodAlong) {
  Begin(a_);
  Begin(b_);
  ASSERT_EQ(::kill(ShimOf(a_), SIGKILL), 0);
  for (const std::string& id : {a_, b_}) {
    id_ = id;
    EXPECT_EQ(WaitForExit()->code, 137u);
    EXPECT_EQ(supervisor_->Delete("default", id)->code, 137u);
  }
  ExpectNothingLeft();
  Begin(a_);  // A new one is started for who comes after.
  EXPECT_OK(End(a_));
}

TEST_P(PodsRootTest, AFailedCreateLeavesTheOthersAlone) {
  Begin(a_);
  const pid_t shim = ShimOf(a_);
  for (const char* step : {"task.create.before_call", "task.create.after_call"}) {
    ASSERT_OK(failpoint::Arm(absl::StrCat(step, "=error")));
    id_ = b_;
    EXPECT_FALSE(Create("sleep 1000").ok()) << step;
    failpoint::DisarmAll();
    EXPECT_EQ(ShimOf(a_), shim) << step;
    id_ = b_;
    ASSERT_OK(Create("sleep 1000")) << step;
    EXPECT_OK(supervisor_->Delete("default", b_));
  }
  EXPECT_OK(End(a_));
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Own, PodsRootTest, ::testing::Values("own", "own, started ahead"));
INSTANTIATE_TEST_SUITE_P(Own, PodAtOnceRootTest, ::testing::Values("own", "own, started ahead"));
// Which finds its pod's shim by itself.
INSTANTIATE_TEST_SUITE_P(Containerd, PodsRootTest,
                         ::testing::Values("/usr/bin/containerd-shim-runc-v2"));

}  // namespace
}  // namespace gantry::task
