#include "services/engine/engine.h"

#include <signal.h>

#include "absl/strings/match.h"
#include "lib/base/failpoint.h"
#include "lib/oci/spec.h"
#include "lib/sys/file.h"
#include "services/engine/testing/engine_world.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class EngineTest : public EngineWorld {};

TEST_F(EngineTest, CreateIsOneDurableWriteAndStartsNothing) {
  const int before = suite_->durable_writes();

  absl::StatusOr<v1::CreateContainerResponse> made = engine_->Create(Request());

  ASSERT_OK(made);
  EXPECT_EQ(made->id().size(), 64u);
  EXPECT_EQ(made->name(), "web");
  EXPECT_EQ(suite_->durable_writes(), before + 1);
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::CREATED);
  EXPECT_THAT(suite_->RecordKeys(kNameBucket), ElementsAre("web"));
  EXPECT_TRUE(suite_->Tasks().empty());
  EXPECT_THAT(network_->Connected(), IsEmpty());
}

TEST_F(EngineTest, ANamelessContainerGetsANameOfTwoWords) {
  absl::StatusOr<v1::CreateContainerResponse> made = engine_->Create(Request(""));

  ASSERT_OK(made);
  EXPECT_THAT(made->name(), ::testing::MatchesRegex("[a-z]+_[a-z]+"));
}

TEST_F(EngineTest, ANameInUseIsRefusedAndItsHolderNamed) {
  const std::string id = Run();

  EXPECT_THAT(engine_->Create(Request()), Fails(absl::StatusCode::kAlreadyExists, id));
  EXPECT_THAT(suite_->ContainerIds(), ElementsAre(id));
}

TEST_F(EngineTest, AMissingImageSaysWhatScriptsLookFor) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_image("nginx");

  EXPECT_THAT(engine_->Create(request),
              Fails(absl::StatusCode::kNotFound, "Unable to find image 'nginx:latest' locally"));
  // The name is free again.
  EXPECT_OK(engine_->Create(Request()));
}

TEST_F(EngineTest, RunningHasAPidAnAddressAndTimings) {
  v1::CreateContainerRequest request = Request();
  request.set_start(true);

  absl::StatusOr<v1::CreateContainerResponse> response = engine_->Create(request);

  ASSERT_OK(response);
  EXPECT_EQ(response->attach().container_id(), response->id());
  EXPECT_THAT(response->attach().socket_path(), HasSubstr("/shim.sock"));
  std::vector<std::string> steps;
  for (const v1::StepTiming& step : response->timings()) {
    steps.push_back(step.step());
    // What the task service says lies within the engine's own step.
    const bool part = step.step() == "clone" || step.step() == "exec";
    EXPECT_EQ(step.depth(), part ? 1u : 0u) << step.step();
  }
  EXPECT_THAT(steps, ::testing::IsSupersetOf(
                         {"resolve", "create", "network", "task_run", "clone", "exec"}));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::RUNNING);
  EXPECT_GT(StateOf("web").pid(), 0);
  EXPECT_THAT(network_->Connected(), ElementsAre(response->id()));
}

TEST_F(EngineTest, TheSpecJoinsTheNamespaceOfTheEndpoint) {
  const std::string id = Run();

  absl::StatusOr<oci::Spec> spec = oci::ParseSpec(suite_->SpecOf(id));
  ASSERT_OK(spec);
  const oci::Namespace* network = spec->linux_.FindNamespace("network");
  ASSERT_NE(network, nullptr);
  char target[4096] = {};
  ASSERT_GT(::readlink(network->path.c_str(), target, sizeof target - 1), 0);
  EXPECT_STRNE(target, "");
}

TEST_F(EngineTest, TheLogIsWrittenWhereInspectSays) {
  const std::string id = Run();
  v1::InspectContainerRequest request;
  request.set_container(id);

  absl::StatusOr<v1::ContainerDetails> details = engine_->Inspect(request);

  ASSERT_OK(details);
  EXPECT_THAT(suite_->Tasks()[id].stdout_uri,
              HasSubstr(absl::StrCat("gantry-log://", details->log_path(), "?format=json-file")));
  EXPECT_THAT(suite_->Tasks()[id].stdout_uri, HasSubstr("max-size=10485760&max-file=3"));
}

TEST_F(EngineTest, ANamedUserIsResolvedFromTheImage) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_user("www");

  const std::string id = Run(request);

  absl::StatusOr<oci::Spec> spec = oci::ParseSpec(suite_->SpecOf(id));
  ASSERT_OK(spec);
  EXPECT_EQ(spec->process->user.uid, 33u);
  EXPECT_EQ(spec->process->user.gid, 34u);
  EXPECT_THAT(spec->process->user.additional_gids, ElementsAre(40u));
  EXPECT_THAT(spec->process->env, Contains("HOME=/srv"));
  EXPECT_THAT(spec->process->capabilities->effective, IsEmpty());
  EXPECT_THAT(spec->process->capabilities->bounding, Not(IsEmpty()));
}

TEST_F(EngineTest, ASecondContainerOfAnImageNeedsNoSecondWriteForItsUser) {
  v1::CreateContainerRequest request = Request("aa");
  request.mutable_config()->set_user("www");
  request.mutable_config()->set_auto_remove(true);
  Run(request);
  const int before = suite_->durable_writes();

  request.mutable_config()->set_name("bb");
  Run(request);

  EXPECT_EQ(suite_->durable_writes(), before + 1);
}

TEST_F(EngineTest, AnUnknownUserFailsTheStartAndTheContainerStays) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_user("nobody-here");
  request.set_start(true);

  EXPECT_THAT(engine_->Create(request),
              Fails(absl::StatusCode::kNotFound, "unable to find user nobody-here"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::CREATED);
  EXPECT_THAT(StateOf("web").error(), HasSubstr("nobody-here"));
  EXPECT_THAT(network_->Connected(), IsEmpty());
}

TEST_F(EngineTest, AnEndIsKeptWithItsCodeAndTheNetworkGivenBack) {
  const std::string id = Run();

  suite_->EndTask(id, 3);

  ASSERT_TRUE(Settles("web"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::EXITED);
  EXPECT_EQ(StateOf("web").exit_code(), 3);
  EXPECT_TRUE(suite_->Tasks().empty());
  EXPECT_THAT(network_->Connected(), IsEmpty());
  ExpectNoFindings();
}

TEST_F(EngineTest, WaitersLearnTheCodeAndThoseForRemovalWaitOn) {
  const std::string id = Run();
  absl::StatusOr<ContainerPtr> container = engine_->Find(id);
  ASSERT_OK(container);
  absl::Notification ended, removed;
  WaitResult result;
  (*container)->Wait(v1::WaitContainerRequest::NOT_RUNNING, [&](const WaitResult& told) {
    result = told;
    ended.Notify();
  });
  (*container)->Wait(v1::WaitContainerRequest::REMOVED, [&](const WaitResult&) {
    removed.Notify();
  });

  suite_->EndTask(id, 42);

  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_EQ(result.exit_code, 42);
  EXPECT_FALSE(removed.HasBeenNotified());
  ASSERT_TRUE(Settles(id));
  EXPECT_OK(RemoveNow(id));
  EXPECT_TRUE(removed.WaitForNotificationWithTimeout(absl::Seconds(10)));
  ExpectNothingLeft();
}

TEST_F(EngineTest, AutoRemoveLeavesNothingAndWritesTheEndNowhere) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_auto_remove(true);
  const int before = suite_->durable_writes();
  const std::string id = Run(request);

  suite_->EndTask(id, 0);

  ASSERT_TRUE(FakeSuite::Eventually([&] { return !engine_->Find(id).ok(); }));
  // The create (and the user's spec for the first container of this image), and the removal.
  EXPECT_LE(suite_->durable_writes(), before + 3);
  ASSERT_TRUE(FakeSuite::Eventually([&] { return network_->Connected().empty(); }));
  ExpectNothingLeft();
}

TEST_F(EngineTest, AFailedTaskCreateIsUndoneAndKept) {
  suite_->FailNext("Tasks.Create", 2, "exec: \"nope\": executable file not found in $PATH");
  v1::CreateContainerRequest request = Request();
  request.set_start(true);

  EXPECT_THAT(engine_->Create(request),
              Fails(absl::StatusCode::kFailedPrecondition, "executable file not found in $PATH"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::CREATED);
  EXPECT_EQ(StateOf("web").exit_code(), 127);
  EXPECT_THAT(network_->Connected(), IsEmpty());
  EXPECT_TRUE(suite_->Tasks().empty());
  ExpectNoFindings();
  EXPECT_OK(RemoveNow("web"));
  ExpectNothingLeft();
}

TEST_F(EngineTest, AFailedStartOfARunWithRmLeavesNothing) {
  suite_->FailNext("Tasks.Start", 2, "permission denied");
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_auto_remove(true);
  request.set_start(true);

  EXPECT_THAT(engine_->Create(request), HasCode(absl::StatusCode::kFailedPrecondition));
  ExpectNothingLeft();
}

TEST_F(EngineTest, AFailedCreateGivesEndpointAndNameBack) {
  suite_->FailNext("Store.CreateContainer", 8, "disk full");
  v1::CreateContainerRequest request = Request();
  request.set_start(true);

  EXPECT_THAT(engine_->Create(request), HasCode(absl::StatusCode::kResourceExhausted));
  ExpectNothingLeft();
  EXPECT_OK(engine_->Create(request));
}

TEST_F(EngineTest, StopSendsTheStopSignalAndAnswersWhenTheEndIsRecorded) {
  const std::string id = Run();

  EXPECT_OK(StopNow("web"));

  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::EXITED);
  EXPECT_EQ(StateOf("web").exit_code(), 143);
  v1::ContainerRecord record;
  ASSERT_TRUE(record.ParseFromString(suite_->RecordValue(kContainerBucket, id)));
  EXPECT_EQ(record.run().exit_code(), 143);
  EXPECT_TRUE(record.run().stopped_by_user());
  EXPECT_OK(StopNow("web")) << "stopping a stopped one is no error";
}

TEST_F(EngineTest, StopKillsWhatIgnoresTheSignal) {
  const std::string id = Run();
  suite_->IgnoreTerm(true);

  EXPECT_OK(StopNow("web"));

  EXPECT_EQ(StateOf("web").exit_code(), 137);
}

TEST_F(EngineTest, TransitionsThatAreNotLegalNameTheState) {
  const std::string id = Run();

  EXPECT_THAT(engine_->Unpause("web"), Fails(absl::StatusCode::kFailedPrecondition, "running"));
  EXPECT_OK(engine_->Pause("web"));
  EXPECT_THAT(engine_->Pause("web"), Fails(absl::StatusCode::kFailedPrecondition, "paused"));
  v1::StartContainerRequest start;
  start.set_container("web");
  EXPECT_THAT(engine_->Start(start), Fails(absl::StatusCode::kFailedPrecondition, "paused"));
  EXPECT_THAT(RemoveNow("web"), Fails(absl::StatusCode::kFailedPrecondition, "paused"));
  EXPECT_OK(StopNow("web"));
  EXPECT_THAT(engine_->Pause("web"), Fails(absl::StatusCode::kFailedPrecondition, "exited"));
  v1::KillContainerRequest kill;
  kill.set_container("web");
  EXPECT_THAT(engine_->Kill(kill), Fails(absl::StatusCode::kFailedPrecondition, "is not running"));
}

TEST_F(EngineTest, StartingARunningOneIsNoError) {
  Run();
  v1::StartContainerRequest start;
  start.set_container("web");

  EXPECT_OK(engine_->Start(start));
}

TEST_F(EngineTest, ForceRemovesARunningOne) {
  const std::string id = Run();

  EXPECT_THAT(RemoveNow("web"),
              Fails(absl::StatusCode::kFailedPrecondition, "cannot remove a running container"));
  EXPECT_OK(RemoveNow("web", true));
  ExpectNothingLeft();
}

TEST_F(EngineTest, AFailedRemovalMakesItDeadAndCanBeTriedAgain) {
  ASSERT_OK(engine_->Create(Request()));
  suite_->FailNext("Store.DeleteContainer", 13, "snapshot is busy");

  EXPECT_THAT(RemoveNow("web"), Fails(absl::StatusCode::kInternal, "snapshot is busy"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::DEAD);
  EXPECT_THAT(StateOf("web").error(), HasSubstr("snapshot is busy"));
  v1::StartContainerRequest start;
  start.set_container("web");
  EXPECT_THAT(engine_->Start(start), Fails(absl::StatusCode::kFailedPrecondition, "dead"));
  EXPECT_OK(RemoveNow("web"));
  ExpectNothingLeft();
}

TEST_F(EngineTest, ARemovalWithRmThatFailedIsTriedAgain) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_auto_remove(true);
  const std::string id = Run(request);
  suite_->FailNext("Store.DeleteContainer", 14, "away");

  suite_->EndTask(id, 0);

  EXPECT_TRUE(FakeSuite::Eventually([&] { return !engine_->Find(id).ok(); }));
  ExpectNothingLeft();
}

TEST_F(EngineTest, ARestartKeepsAContainerMadeWithRm) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_auto_remove(true);
  const std::string id = Run(request);
  v1::RestartContainerRequest restart;
  restart.set_container("web");
  absl::Notification done;
  absl::Status status;

  engine_->Restart(restart, [&](const absl::Status& told) {
    status = told;
    done.Notify();
  });

  ASSERT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_OK(status);
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::RUNNING);
  suite_->EndTask(id, 0);
  EXPECT_TRUE(FakeSuite::Eventually([&] { return !engine_->Find(id).ok(); }));
}

TEST_F(EngineTest, RenameMovesTheNameInOneWrite) {
  ASSERT_OK(engine_->Create(Request("web")));
  ASSERT_OK(engine_->Create(Request("db")));

  EXPECT_THAT(engine_->Rename("web", "db"), HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_OK(engine_->Rename("web", "www"));
  EXPECT_THAT(suite_->RecordKeys(kNameBucket), ElementsAre("db", "www"));
  EXPECT_THAT(engine_->Find("web"), Fails(absl::StatusCode::kNotFound, "No such container: web"));
  RestartEngine();
  EXPECT_OK(engine_->Find("www"));
}

TEST_F(EngineTest, PrefixesFindOneContainerAndTwoAreNamed) {
  const std::string first = Run(Request("aa"));
  const std::string second = Run(Request("bb"));

  EXPECT_OK(engine_->Find(first.substr(0, 12)));
  EXPECT_THAT(engine_->Find(""), HasCode(absl::StatusCode::kNotFound));
  // Some hex digit begins both ids, or none does: then there is nothing to be ambiguous about.
  if (first[0] == second[0]) {
    EXPECT_THAT(engine_->Find(first.substr(0, 1)),
                Fails(absl::StatusCode::kFailedPrecondition, second.substr(0, 12)));
  }
}

// --- Restart policies ---

TEST_F(EngineTest, OnFailureRestartsUntilTheLimit) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->mutable_restart()->set_name("on-failure");
  request.mutable_config()->mutable_restart()->set_maximum_retries(1);
  const std::string id = Run(request);

  suite_->EndTask(id, 1);
  ASSERT_TRUE(FakeSuite::Eventually([&] {
    return StateOf("web").restart_count() == 1 &&
           StateOf("web").status() == v1::ContainerState::RUNNING;
  }));
  suite_->EndTask(id, 2);

  ASSERT_TRUE(Settles("web"));
  EXPECT_TRUE(Becomes("web", v1::ContainerState::EXITED));
  EXPECT_EQ(StateOf("web").exit_code(), 2);
  EXPECT_EQ(StateOf("web").restart_count(), 1u);
}

TEST_F(EngineTest, OnFailureLeavesASuccessAlone) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->mutable_restart()->set_name("on-failure");
  const std::string id = Run(request);

  suite_->EndTask(id, 0);

  ASSERT_TRUE(Settles("web"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::EXITED);
}

TEST_F(EngineTest, AStopEndsARestartLoop) {
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->mutable_restart()->set_name("always");
  const std::string id = Run(request);
  suite_->EndTask(id, 1);
  ASSERT_TRUE(FakeSuite::Eventually([&] { return StateOf("web").restart_count() >= 1; }));

  EXPECT_OK(StopNow("web"));

  ASSERT_TRUE(Settles("web"));
  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::EXITED);
  EXPECT_OK(RemoveNow("web"));
  ExpectNothingLeft();
}

TEST(RestartDelayTest, DoublesUpToAMinuteAndResetsAfterASoundRun) {
  auto container = std::make_shared<Container>(v1::ContainerRecord());

  EXPECT_EQ(container->NextRestartDelay(absl::ZeroDuration()), absl::Milliseconds(100));
  EXPECT_EQ(container->NextRestartDelay(absl::ZeroDuration()), absl::Milliseconds(200));
  for (int i = 0; i < 20; ++i) container->NextRestartDelay(absl::ZeroDuration());
  EXPECT_EQ(container->NextRestartDelay(absl::ZeroDuration()), absl::Minutes(1));
  EXPECT_EQ(container->NextRestartDelay(absl::Seconds(11)), absl::Milliseconds(100));
}

// --- Restarts of the engine, of other processes, of the machine ---

TEST_F(EngineTest, ARestartedEngineAdoptsWhatRuns) {
  const std::string id = Run();
  ASSERT_TRUE(FakeSuite::Eventually(
      [&] { return absl::StrContains(suite_->RecordValue(kContainerBucket, id), "boot-1"); }));

  RestartEngine();

  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::RUNNING);
  EXPECT_GT(StateOf("web").pid(), 0);
  EXPECT_THAT(network_->Connected(), ElementsAre(id));
  suite_->EndTask(id, 7);
  ASSERT_TRUE(Settles("web"));
  EXPECT_EQ(StateOf("web").exit_code(), 7);
  ExpectNoFindings();
}

TEST_F(EngineTest, AnEndDuringTheEnginesAbsenceIsReportedWithItsCode) {
  const std::string id = Run();
  engine_.reset();
  suite_->EndTask(id, 9);

  StartEngine();

  ASSERT_TRUE(Settles("web"));
  EXPECT_TRUE(Becomes("web", v1::ContainerState::EXITED));
  EXPECT_EQ(StateOf("web").exit_code(), 9);
  ExpectNoFindings();
}

TEST_F(EngineTest, PausedStaysPausedOverARestart) {
  Run();
  ASSERT_OK(engine_->Pause("web"));

  RestartEngine();

  EXPECT_EQ(StateOf("web").status(), v1::ContainerState::PAUSED);
  EXPECT_OK(engine_->Unpause("web"));
}

TEST_F(EngineTest, AWaitSurvivesARestartOfTheTaskService) {
  const std::string id = Run();

  suite_->StopServer("task");
  suite_->EndTask(id, 5);
  suite_->StartServer("task");

  ASSERT_TRUE(Settles("web"));
  EXPECT_TRUE(Becomes("web", v1::ContainerState::EXITED));
  EXPECT_EQ(StateOf("web").exit_code(), 5);
}

TEST_F(EngineTest, AfterARebootWhatRanHasEndedWith255) {
  const std::string id = Run();
  ASSERT_TRUE(FakeSuite::Eventually(
      [&] { return absl::StrContains(suite_->RecordValue(kContainerBucket, id), "boot-1"); }));
  engine_.reset();
  suite_->LoseTask(id);

  RestartEngine("boot-2");

  EXPECT_TRUE(Becomes("web", v1::ContainerState::EXITED));
  EXPECT_EQ(StateOf("web").exit_code(), 255);
}

TEST_F(EngineTest, AfterARebootThePolicyDecides) {
  std::map<std::string, std::string> ids;
  for (const char* policy : {"always", "unless-stopped", "no"}) {
    v1::CreateContainerRequest request = Request(absl::StrCat("c-", policy));
    request.mutable_config()->mutable_restart()->set_name(policy);
    ids[policy] = Run(request);
  }
  v1::CreateContainerRequest stopped = Request("stopped");
  stopped.mutable_config()->mutable_restart()->set_name("unless-stopped");
  const std::string stopped_id = Run(stopped);
  ASSERT_OK(StopNow("stopped"));
  for (const auto& [policy, id] : ids) {
    ASSERT_TRUE(FakeSuite::Eventually([&, id = id] {
      return absl::StrContains(suite_->RecordValue(kContainerBucket, id), "boot-1");
    }));
  }
  engine_.reset();
  for (const auto& [policy, id] : ids) suite_->LoseTask(id);

  RestartEngine("boot-2");

  EXPECT_TRUE(Becomes("c-always", v1::ContainerState::RUNNING));
  EXPECT_TRUE(Becomes("c-unless-stopped", v1::ContainerState::RUNNING));
  EXPECT_TRUE(Becomes("c-no", v1::ContainerState::EXITED));
  EXPECT_EQ(StateOf("stopped").status(), v1::ContainerState::EXITED);
}

TEST_F(EngineTest, AnOomKillIsKept) {
  const std::string id = Run();

  suite_->PublishOom(id);

  ASSERT_TRUE(FakeSuite::Eventually([&] { return StateOf("web").oom_killed(); }));
  suite_->EndTask(id, 137);
  ASSERT_TRUE(Settles("web"));
  EXPECT_TRUE(StateOf("web").oom_killed());
}

// --- Exec ---

TEST_F(EngineTest, AnExecRunsEndsAndIsCleanedAway) {
  const std::string id = Run();
  v1::ExecRequest request;
  request.set_container("web");
  request.add_command("true");

  absl::StatusOr<v1::ExecResponse> exec = engine_->Exec(request);

  ASSERT_OK(exec);
  EXPECT_EQ(exec->attach().exec_id(), exec->exec_id());
  absl::StatusOr<ContainerPtr> container = engine_->Find(id);
  ASSERT_OK(container);
  EXPECT_THAT((*container)->execs().Running(), ElementsAre(exec->exec_id()));
  absl::Notification ended;
  int32_t code = -1;
  (*container)->execs().Wait(exec->exec_id(), [&](absl::StatusOr<int32_t> told) {
    code = told.value_or(-2);
    ended.Notify();
  });
  suite_->EndExec(id, exec->exec_id(), 4);
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_EQ(code, 4);
  EXPECT_THAT((*container)->execs().Running(), IsEmpty());
  EXPECT_TRUE(FakeSuite::Eventually([&] { return suite_->Tasks()[id].execs.empty(); }));
}

TEST_F(EngineTest, AnExecThatCannotRunLeavesNothing) {
  const std::string id = Run();
  v1::ExecRequest request;
  request.set_container("web");
  request.add_command("nope");
  suite_->FailNext("Tasks.Start", 5, "exec: \"nope\": executable file not found in $PATH");

  EXPECT_THAT(engine_->Exec(request),
              Fails(absl::StatusCode::kFailedPrecondition, "executable file not found in $PATH"));
  EXPECT_TRUE(suite_->Tasks()[id].execs.empty());
}

TEST_F(EngineTest, ExecInAStoppedOrPausedContainerIsRefused) {
  Run();
  v1::ExecRequest request;
  request.set_container("web");
  request.add_command("true");
  ASSERT_OK(engine_->Pause("web"));
  EXPECT_THAT(engine_->Exec(request), Fails(absl::StatusCode::kFailedPrecondition, "paused"));
  ASSERT_OK(StopNow("web"));
  EXPECT_THAT(engine_->Exec(request),
              Fails(absl::StatusCode::kFailedPrecondition, "is not running"));
}

// --- Volumes ---

TEST_F(EngineTest, AnonymousVolumesGoWithTheContainerAndNamedOnesStay) {
  v1::CreateContainerRequest request = Request();
  v1::Mount* named = request.mutable_config()->add_mounts();
  named->set_type("volume");
  named->set_source("data");
  named->set_target("/data");
  v1::Mount* anonymous = request.mutable_config()->add_mounts();
  anonymous->set_type("volume");
  anonymous->set_target("/cache");
  const std::string id = Run(request);
  EXPECT_THAT(suite_->RecordKeys(kVolumeBucket), SizeIs(2));
  EXPECT_THAT(engine_->RemoveVolume("data"),
              Fails(absl::StatusCode::kFailedPrecondition, "in use - [web]"));

  ASSERT_OK(RemoveNow("web", true));

  EXPECT_THAT(suite_->RecordKeys(kVolumeBucket), ElementsAre("data"));
  ExpectNoFindings();
  EXPECT_OK(engine_->RemoveVolume("data"));
  ExpectNoFindings();
}

TEST_F(EngineTest, AVolumeOfAnOldNameMeetsNoOldData) {
  ASSERT_OK(engine_->volumes().Create("data", {}));
  const std::string file = engine_->volumes().Mountpoint("data") + "/old";
  ASSERT_OK(sys::WriteFileAtomically(file, "secret"));
  // The first attempt to move the directory away fails; the answer does not depend on it.
  ASSERT_OK(failpoint::Arm("engine.volume.before_remove_directory=error@1"));
  ASSERT_OK(engine_->RemoveVolume("data"));
  EXPECT_THAT(engine_->RemoveVolume("data"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(engine_->volumes().List(), IsEmpty());

  ASSERT_OK(engine_->volumes().Create("data", {}));  // Waits for the second attempt.

  EXPECT_FALSE(sys::Exists(file));
  EXPECT_TRUE(sys::Exists(engine_->volumes().Mountpoint("data")));
  failpoint::DisarmAll();
}

TEST_F(EngineTest, AVolumeOfAContainerThatIsBeingMadeIsNotRemoved) {
  {
    absl::StatusOr<VolumeStore::Hold> hold = engine_->volumes().Use("data");
    ASSERT_OK(hold);
    EXPECT_THAT(engine_->RemoveVolume("data"),
                Fails(absl::StatusCode::kFailedPrecondition, "being created"));
  }
  EXPECT_OK(engine_->RemoveVolume("data"));
  EXPECT_THAT(suite_->RecordKeys(kVolumeBucket), IsEmpty());
}

TEST_F(EngineTest, ListFiltersAndHidesWhatDoesNotRun) {
  Run(Request("up"));
  ASSERT_OK(engine_->Create(Request("down")));
  v1::ListContainersRequest request;

  EXPECT_EQ(engine_->List(request)->containers_size(), 1);
  request.set_all(true);
  EXPECT_EQ(engine_->List(request)->containers_size(), 2);
  request.add_filters("status=created");
  ASSERT_EQ(engine_->List(request)->containers_size(), 1);
  EXPECT_EQ(engine_->List(request)->containers(0).name(), "down");
  request.add_filters("colour=red");
  EXPECT_THAT(engine_->List(request), Fails(absl::StatusCode::kInvalidArgument, "colour"));
}

TEST_F(EngineTest, AnImageIsLookedUpAgainOnlyWhenItsNameMeansAnother) {
  ASSERT_OK(engine_->Create(Request("first")));
  ASSERT_OK(engine_->Create(Request("second")));
  EXPECT_EQ(suite_->image_inspections(), 1);

  const std::string chain = suite_->AddImage("busybox").chain_id();
  ASSERT_OK(engine_->Create(Request("third")));

  EXPECT_EQ(suite_->image_inspections(), 2);
  EXPECT_EQ((*engine_->Find("third"))->definition().snapshot_parent(), chain);
  EXPECT_THAT(suite_->ContainerIds(), ::testing::SizeIs(3));
}

TEST_F(EngineTest, ARunThatIsRemovedWithItsEndNeverSyncsItsRoot) {
  v1::CreateContainerRequest request = Request("gone");
  request.mutable_config()->set_auto_remove(true);
  const std::string gone = Run(request);
  const std::string stays = Run(Request("stays"));

  EXPECT_THAT(suite_->RootfsOf(gone), Contains("volatile"));
  EXPECT_THAT(suite_->RootfsOf(stays), Not(Contains("volatile")));
}

TEST_F(EngineTest, TheRemovalTellsItsSteps) {
  v1::CreateContainerRequest request = Request("gone");
  request.mutable_config()->set_auto_remove(true);
  const std::string id = Run(request);
  absl::Notification removed;
  std::vector<std::string> steps;
  (*engine_->Find(id))->Wait(v1::WaitContainerRequest::REMOVED, [&](const WaitResult& result) {
    for (const v1::StepTiming& step : result.timings) steps.push_back(step.step());
    removed.Notify();
  });

  suite_->EndTask(id, 0);

  ASSERT_TRUE(removed.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_THAT(steps, ElementsAre("exit_notice", "task_delete", "network_release", "record_delete"));
}

}  // namespace
}  // namespace gantry::engine
