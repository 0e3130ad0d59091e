#include "services/task/task_supervisor.h"

#include <signal.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "lib/testing/status_matchers.h"
#include "services/task/task_audit.h"
#include "services/task/testing/supervisor_fixture.h"

namespace gantry::task {
namespace {

namespace v1 = containerd::services::tasks::v1;
using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(TaskSupervisorTest, AWholeLifeWithOurOwnShim) {
  absl::StatusOr<CreatedTask> created = Create("web");
  ASSERT_OK(created);
  EXPECT_EQ(created->pid, 4711u);
  EXPECT_THAT(created->timings, HasSubstr("task.shim="));
  EXPECT_OK(Start("web"));
  EXPECT_EQ(State("web")->status(), containerd::v1::types::RUNNING);
  EXPECT_THAT(supervisor_->Delete("default", "web"),
              Fails(absl::StatusCode::kFailedPrecondition, "running"));

  EXPECT_OK(Kill("web"));
  absl::StatusOr<Exit> waited = WaitForExit("web");
  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");

  ASSERT_OK(waited);
  EXPECT_EQ(waited->code, 128u + SIGTERM);
  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 128u + SIGTERM);
  ExpectNothingLeft("web");
  EXPECT_FALSE(sys::Exists(Path("deleted-web"))) << "our own shim needs no delete command";
  ASSERT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/start web",
                                              "/tasks/exit web 143", "/tasks/delete web"));
  EXPECT_THAT(supervisor_->Delete("default", "web"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_OK(Create("web")) << "the id is free again";
}

TEST_F(TaskSupervisorTest, AWholeLifeWithAStrangersShim) {
  ASSERT_OK(Create("web", "io.containerd.fake.v2"));
  EXPECT_TRUE(sys::Exists(Path("run/default/web/log")));
  EXPECT_TRUE(sys::Exists(Path("run/default/web/work")));
  EXPECT_OK(Start("web"));
  EXPECT_OK(Kill("web"));

  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");

  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 143u);
  ExpectNothingLeft("web");
  EXPECT_TRUE(sys::Exists(Path("deleted-web"))) << "strangers' shims get their delete command";
}

TEST_F(TaskSupervisorTest, AShimThatRefusesBootstrapParamsIsAskedAgain) {
  EXPECT_OK(Create("web", "io.containerd.fake.v2", "{\"fake\":\"refuses-params\"}"));
  EXPECT_OK(Create("web2", "io.containerd.fake.v2", "{\"fake\":\"refuses-params\"}"));
}

TEST_F(TaskSupervisorTest, FailedCreatesSayWhyAndLeaveNothing) {
  EXPECT_THAT(Create("a", kOwnRuntime, "{\"fake\":\"create-fails\"}"),
              Fails(absl::StatusCode::kUnknown, "the fake refuses"));
  ExpectNothingLeft("a");
  EXPECT_THAT(Create("b", kOwnRuntime, "{\"fake\":\"create-dies\"}"),
              HasCode(absl::StatusCode::kUnavailable));
  ExpectNothingLeft("b");
  EXPECT_TRUE(sys::Exists(Path("deleted-b"))) << "what a dead shim left is its delete command's";
  EXPECT_THAT(Create("c", "io.containerd.fake.v2", "{\"fake\":\"start-fails\"}"),
              Fails(absl::StatusCode::kUnknown, "cannot do it"));
  ExpectNothingLeft("c");
  EXPECT_THAT(Create("d", "io.containerd.nobody.v2"),
              Fails(absl::StatusCode::kNotFound, "containerd-shim-nobody-v2"));
  ExpectNothingLeft("d");
  EXPECT_THAT(Create("no/such"), HasCode(absl::StatusCode::kInvalidArgument));
  for (const char* id : {"a", "b", "c", "d"}) EXPECT_EQ(ShimPid(id), 0) << id;
}

TEST_F(TaskSupervisorTest, EveryStepOfCreateMayFail) {
  for (const char* step :
       {"task.bundle.before_make", "task.bundle.after_make", "task.launch.before_start",
        "task.launch.before_spawn", "task.launch.after_spawn", "task.create.before_call",
        "task.create.after_call"}) {
    ASSERT_OK(failpoint::Arm(absl::StrCat(step, "=error")));
    EXPECT_THAT(Create("web"), Fails(absl::StatusCode::kUnavailable, step));
    failpoint::DisarmAll();
    ExpectNothingLeft("web");
    EXPECT_EQ(ShimPid("web"), 0) << step;
  }
  EXPECT_OK(Create("web"));
}

TEST_F(TaskSupervisorTest, ARunStartsWhatTheCallerKnows) {
  for (const char* runtime : {kOwnRuntime, "io.containerd.fake.v2"}) {
    absl::StatusOr<CreatedTask> run = Run("web", runtime, "{\"hostname\":\"mine\"}");

    ASSERT_OK(run) << runtime;
    EXPECT_OK(run->started);
    EXPECT_EQ(run->pid, 4711u);
    EXPECT_THAT(run->timings, HasSubstr(";>shim.start=1234;task.start="));
    EXPECT_EQ(State("web")->status(), containerd::v1::types::RUNNING);
    EXPECT_EQ(sys::ReadFile(Path("run/default/web/config.json")).value(),
              "{\"hostname\":\"mine\"}");
    EXPECT_THAT(Run("web", runtime), HasCode(absl::StatusCode::kAlreadyExists));
    ASSERT_OK(Kill("web"));
    EXPECT_EQ(WaitForExit("web")->code, 143u);
    EXPECT_OK(supervisor_->Delete("default", "web"));
    ExpectNothingLeft("web");
  }
}

TEST_F(TaskSupervisorTest, ARunThatCannotStartLeavesATaskToDelete) {
  for (const char* runtime : {kOwnRuntime, "io.containerd.fake.v2"}) {
    absl::StatusOr<CreatedTask> run = Run("web", runtime, "{\"fake\":\"refuses-to-run\"}");

    ASSERT_OK(run) << runtime;
    EXPECT_THAT(run->started, Fails(absl::StatusCode::kFailedPrecondition, "no such program"));
    EXPECT_EQ(State("web")->status(), containerd::v1::types::CREATED);
    EXPECT_OK(supervisor_->Delete("default", "web"));
    ExpectNothingLeft("web");
  }
}

TEST_F(TaskSupervisorTest, ARunThatCannotBeCreatedLeavesNothing) {
  EXPECT_THAT(Run("web", kOwnRuntime, "{\"fake\":\"create-fails\"}"),
              Fails(absl::StatusCode::kUnknown, "the fake refuses"));
  ExpectNothingLeft("web");
  ASSERT_OK(failpoint::Arm("task.run.before_start=error"));
  absl::StatusOr<CreatedTask> run = Run("web", "io.containerd.fake.v2");
  ASSERT_OK(run);
  EXPECT_THAT(run->started, Fails(absl::StatusCode::kUnavailable, "task.run.before_start"));
  EXPECT_EQ(State("web")->status(), containerd::v1::types::CREATED);
}

TEST_F(TaskSupervisorTest, WhatADeletedTaskLeftIsSweptByTheNextStart) {
  ASSERT_OK(Create("web"));
  ASSERT_OK(failpoint::Arm("task.bundle.before_sweep=error"));
  EXPECT_OK(supervisor_->Delete("default", "web"));
  workers_->WaitUntilIdle();
  EXPECT_FALSE(sys::Exists(Path("run/default/web")));
  EXPECT_THAT(*sys::ListDirectory(Path("run/.trash")), SizeIs(1));
  EXPECT_THAT(Audit().findings, IsEmpty());
  failpoint::DisarmAll();

  StopProcess();
  StartProcess();

  EXPECT_THAT(*sys::ListDirectory(Path("run/.trash")), IsEmpty());
}

TEST_F(TaskSupervisorTest, ATaskCannotBeCreatedTwice) {
  ASSERT_OK(Create("web"));
  EXPECT_THAT(Create("web"), Fails(absl::StatusCode::kAlreadyExists, "delete it first"));
  EXPECT_THAT(supervisor_->List("default").size(), 1u);
  EXPECT_THAT(supervisor_->List("other").size(), 0u);
}

// Who asked for the task may have died; whoever deletes it now must not be overtaken by it.
TEST_F(TaskSupervisorTest, ADeleteWaitsForACreateUnderWay) {
  for (const char* outcome : {"delay(200)", "delay(200);task.create.after_call=error"}) {
    absl::Notification asked;
    containers_.NotifyNext(&asked);
    ASSERT_OK(failpoint::Arm(absl::StrCat("task.create.before_call=", outcome)));
    std::thread creating([this] { (void)Create("web"); });
    asked.WaitForNotification();

    const absl::Status deleted = supervisor_->Delete("default", "web").status();

    EXPECT_TRUE(deleted.ok() || absl::IsNotFound(deleted)) << deleted;
    EXPECT_THAT(supervisor_->List("default"), IsEmpty());
    creating.join();
    EXPECT_THAT(supervisor_->List("default"), IsEmpty());
    EXPECT_EQ(ShimPid("web"), 0);
    failpoint::DisarmAll();
  }
}

TEST_F(TaskSupervisorTest, AKilledShimLeavesAStoppedTaskWith137) {
  ASSERT_OK(Create("web"));
  ASSERT_OK(Start("web"));
  const pid_t pid = ShimPid("web");
  ASSERT_GT(pid, 0);

  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  absl::StatusOr<Exit> exit = WaitForExit("web");

  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 137u);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit web 137"));
  EXPECT_TRUE(sys::Exists(Path("deleted-web"))) << "the container was cleaned up";
  absl::StatusOr<containerd::task::v2::StateResponse> state = State("web");
  ASSERT_OK(state);
  EXPECT_EQ(state->status(), containerd::v1::types::STOPPED);
  EXPECT_EQ(state->exit_status(), 137u);
  EXPECT_THAT(Kill("web"), HasCode(absl::StatusCode::kNotFound));
  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");
  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 137u);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  ExpectNothingLeft("web");
}

TEST_F(TaskSupervisorTest, TheExitRecordOfADeadShimIsBelieved) {
  ASSERT_OK(Create("web"));
  ASSERT_OK(Start("web"));
  ASSERT_OK(WriteExitFile(Path("run/default/web/exit"),
                          {.pid = 4711, .code = 3, .at = absl::FromUnixSeconds(1000)}));
  ASSERT_EQ(::kill(ShimPid("web"), SIGKILL), 0);

  absl::StatusOr<Exit> exit = WaitForExit("web");

  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 3u);
  EXPECT_EQ(exit->at, absl::FromUnixSeconds(1000));
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit web 3"));
}

TEST_F(TaskSupervisorTest, AfterARestartTasksAreFoundAgain) {
  ASSERT_OK(Create("runs"));
  ASSERT_OK(Start("runs"));
  ASSERT_OK(Create("stranger", "io.containerd.fake.v2"));
  ASSERT_OK(Start("stranger"));
  ASSERT_OK(Create("dies"));
  ASSERT_OK(Start("dies"));
  ASSERT_OK(Create("ends"));
  ASSERT_OK(Start("ends"));
  const pid_t dying = ShimPid("dies");
  StopProcess();
  ASSERT_EQ(::kill(dying, SIGKILL), 0);
  ASSERT_OK(
      WriteExitFile(Path("run/default/dies/exit"), {.pid = 4711, .code = 5, .at = absl::Now()}));
  ASSERT_OK(sys::MakeDirectories(Path("run/default/never-started/rootfs")));
  ASSERT_OK(sys::ListenUnix(Path("run/.s/stale")));

  StartProcess();

  EXPECT_EQ(State("runs")->status(), containerd::v1::types::RUNNING);
  EXPECT_EQ(State("stranger")->status(), containerd::v1::types::RUNNING);
  EXPECT_EQ(State("dies")->status(), containerd::v1::types::STOPPED);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit dies 5"));
  EXPECT_FALSE(sys::Exists(Path("run/default/never-started")));
  EXPECT_FALSE(sys::Exists(Path("run/.s/stale")));
  for (const char* id : {"runs", "stranger", "ends"}) {
    EXPECT_OK(Kill(id)) << id;
    EXPECT_EQ(WaitForExit(id)->code, 143u) << id;
    EXPECT_OK(supervisor_->Delete("default", id)) << id;
  }
  EXPECT_EQ(supervisor_->Delete("default", "dies")->code, 5u);
  EXPECT_THAT(supervisor_->List(""), IsEmpty());
}

TEST_F(TaskSupervisorTest, AnExitIsPublishedOnceEvenOverRestarts) {
  ASSERT_OK(Create("web"));
  ASSERT_EQ(::kill(ShimPid("web"), SIGKILL), 0);
  ASSERT_TRUE(metadata_.WaitFor("/tasks/exit web 137"));
  // The mark that it was delivered is written after that.
  for (int i = 0; i < 1000 && !sys::Exists(Path("run/default/web/shim-ended")); ++i) {
    workers_->WaitUntilIdle();
    loop_->Do([] {});
  }
  StopProcess();

  StartProcess();

  EXPECT_EQ(State("web")->exit_status(), 137u);
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/exit web 137"));
}

TEST_F(TaskSupervisorTest, WhileMetadataIsAwayShimsGoOnAndNoExitIsLost) {
  metadata_.Answer(absl::UnavailableError("away"));
  ASSERT_OK(Create("web"));
  EXPECT_OK(Start("web"));
  EXPECT_OK(Kill("web"));
  EXPECT_EQ(WaitForExit("web")->code, 143u);
  EXPECT_OK(supervisor_->Delete("default", "web"));

  metadata_.Answer(absl::OkStatus());

  ASSERT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/start web",
                                              "/tasks/exit web 143", "/tasks/delete web"));
}

TEST_F(TaskSupervisorTest, AStuckShimHoldsUpNobodyElse) {
  ASSERT_OK(Create("stuck", kOwnRuntime, "{\"fake\":\"hangs\"}"));
  ASSERT_OK(Create("web"));
  containerd::task::v2::StateRequest request;
  request.set_id("stuck");
  std::atomic<int> late{0};
  for (int i = 0; i < 500; ++i) {
    supervisor_->Call("default", "stuck", "State", request, absl::Milliseconds(300),
                      [&](absl::StatusOr<std::string> answer) {
                        EXPECT_THAT(answer, HasCode(absl::StatusCode::kDeadlineExceeded));
                        ++late;
                      });
  }

  EXPECT_OK(State("web"));

  const absl::Time deadline = absl::Now() + kSoon;
  while (late < 500 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(late, 500);
}

TEST_F(TaskSupervisorTest, WaitsCanBeCancelledAndEndWithTheProcess) {
  ASSERT_OK(Create("web"));
  bool cancelled_was_called = false;
  const uint64_t ticket = supervisor_->Wait(
      "default", "web", "", [&](absl::StatusOr<Exit>) { cancelled_was_called = true; });
  ASSERT_NE(ticket, 0u);
  supervisor_->CancelWait("default", "web", "", ticket);
  absl::Notification stopped;
  supervisor_->Wait("default", "web", "", [&](absl::StatusOr<Exit> exit) {
    EXPECT_THAT(exit, HasCode(absl::StatusCode::kUnavailable));
    stopped.Notify();
  });

  supervisor_->PrepareToStop();

  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kSoon));
  EXPECT_FALSE(cancelled_was_called);
}

TEST_F(TaskSupervisorTest, TheAuditSeesWhatIsLeftAndNothingElse) {
  ASSERT_OK(Create("web"));
  rpc::AuditReport clean = Audit();
  EXPECT_THAT(clean.findings, IsEmpty());
  EXPECT_EQ(clean.checked["bundle"], 1u);
  EXPECT_EQ(clean.checked["shim"], 1u);
  EXPECT_EQ(clean.checked["socket"], 1u);

  ASSERT_OK(sys::MakeDirectories(Path("run/default/left")));
  ASSERT_OK(sys::ListenUnix(Path("run/.s/left")));
  rpc::AuditReport dirty = Audit();

  EXPECT_EQ(dirty.findings.size(), 2u);
  ASSERT_OK(sys::RemoveTree(Path("run/default/left")));
}

TEST_F(TaskSupervisorTest, ManyTasksComeAndGoSideBySide) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 10; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 5; ++i) {
        const std::string id = absl::StrCat("c", t, "-", i);
        EXPECT_OK(Create(id));
        EXPECT_OK(Start(id));
        EXPECT_OK(Kill(id));
        EXPECT_EQ(WaitForExit(id)->code, 143u);
        EXPECT_OK(supervisor_->Delete("default", id));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_THAT(supervisor_->List(""), IsEmpty());
  EXPECT_THAT(*sys::ListDirectory(Path("run/.s")), IsEmpty());
  ASSERT_TRUE(forwarder_->Drain(kSoon));
}

}  // namespace
}  // namespace gantry::task
