// gantry-engine as a process, among fakes of its peers, killed at every failpoint and started
// again: whatever step it died at, the container is then either there and right, or gone without a
// trace.

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gantry/engine/v1/engine.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/metadata_client.h"
#include "services/engine/testing/fake_suite.h"

namespace gantry::engine {
namespace {

using ::testing::IsEmpty;

// Everything the engine may touch of the machine is private to this program: mounts and networks.
class PrivateMachine : public ::testing::Environment {
 public:
  void SetUp() override {
    if (!gantry::testing::IsRoot()) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS | CLONE_NEWNET), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
};
[[maybe_unused]] auto* const kMachine = ::testing::AddGlobalTestEnvironment(new PrivateMachine);

class EngineCrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    ASSERT_NE(::getenv("GANTRY_BIN"), nullptr);
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
    ASSERT_OK(folder);
    folder_.emplace(*std::move(folder));
    ASSERT_OK(sys::MakeDirectories(Run(), 0700));
    suite_ = std::make_unique<FakeSuite>(Run());
    suite_->AddImage("busybox");
  }
  void TearDown() override {
    engine_.KillAndReap();
    suite_.reset();
    // A killed engine leaves its network namespaces; the directory cannot go before them.
    if (folder_) {
      EXPECT_OK(sys::UnmountTree(folder_->path()));
    }
  }

  std::string Run() const { return absl::StrCat(folder_->path(), "/run"); }

  // Starts the daemon and waits until it serves.
  void Launch(const std::string& failpoints = "") {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    sys::UniqueFd reader(ends[0]), writer(ends[1]);
    absl::StatusOr<sys::UniqueFd> log =
        sys::Open(absl::StrCat(folder_->path(), "/log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ASSERT_OK(log);
    sys::SpawnOptions options;
    options.argv = {absl::StrCat(::getenv("GANTRY_BIN"), "/gantry-engine"), "--root",
                    folder_->path(), "--ready-fd", "3"};
    options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    if (!failpoints.empty()) {
      options.environment.push_back(absl::StrCat("GANTRY_FAILPOINTS=", failpoints));
    }
    options.descriptors = {{writer.get(), 3}, {log->get(), 2}};
    absl::StatusOr<sys::Child> child = sys::Spawn(options);
    ASSERT_OK(child);
    engine_ = *std::move(child);
    writer.Reset();
    pollfd ready = {reader.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 30000), 1) << Log();
    char text[8];
    ASSERT_GT(::read(reader.get(), text, sizeof text), 0) << Log();
    channel_ = rpc::Dial(absl::StrCat(Run(), "/engine.sock"));
    stub_ = v1::Containers::NewStub(channel_);
  }

  std::string Log() const {
    return sys::ReadFile(absl::StrCat(folder_->path(), "/log")).value_or("no log");
  }

  template <typename Call>
  grpc::Status CallEngine(Call call) {
    grpc::ClientContext context;
    rpc::PrepareCall(context, absl::Seconds(20));
    return call(context);
  }

  grpc::Status Create(bool start, bool auto_remove) {
    v1::CreateContainerRequest request;
    request.mutable_config()->set_name("web");
    request.mutable_config()->set_image("busybox");
    request.mutable_config()->set_network("none");
    request.mutable_config()->set_auto_remove(auto_remove);
    // With memory to share every step of a start is taken.
    request.mutable_config()->set_ipc_mode("shareable");
    v1::Mount* mount = request.mutable_config()->add_mounts();
    mount->set_type("volume");
    mount->set_target("/data");
    request.set_start(start);
    v1::CreateContainerResponse response;
    return CallEngine([&](auto& context) { return stub_->Create(&context, request, &response); });
  }

  grpc::Status Start() {
    v1::StartContainerRequest request;
    request.set_container("web");
    v1::StartContainerResponse response;
    return CallEngine([&](auto& context) { return stub_->Start(&context, request, &response); });
  }

  grpc::Status Remove(bool force) {
    v1::RemoveContainerRequest request;
    request.set_container("web");
    request.set_force(force);
    request.set_volumes(true);
    v1::RemoveContainerResponse response;
    return CallEngine([&](auto& context) { return stub_->Remove(&context, request, &response); });
  }

  // STATUS_UNSPECIFIED: there is no such container.
  v1::ContainerState State() {
    v1::InspectContainerRequest request;
    request.set_container("web");
    v1::ContainerDetails details;
    const grpc::Status status =
        CallEngine([&](auto& context) { return stub_->Inspect(&context, request, &details); });
    return status.ok() ? details.state() : v1::ContainerState();
  }

  bool Becomes(v1::ContainerState::Status status) {
    return FakeSuite::Eventually([&] { return State().status() == status; });
  }

  std::vector<std::string> Findings() {
    debug::v1::AuditResponse response;
    const grpc::Status status = CallEngine([&](auto& context) {
      return debug::v1::Debug::NewStub(channel_)->Audit(&context, {}, &response);
    });
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<std::string> findings;
    for (const auto& finding : response.findings()) {
      findings.push_back(
          absl::StrCat(finding.kind(), " ", finding.object(), ": ", finding.problem()));
    }
    return findings;
  }

  void ExpectNoLeaks() {
    EXPECT_TRUE(FakeSuite::Eventually([&] { return Findings().empty(); }))
        << absl::StrJoin(Findings(), "\n");
  }

  void ExpectNothingLeft() {
    EXPECT_TRUE(FakeSuite::Eventually([&] {
      return suite_->ContainerIds().empty() && suite_->Tasks().empty();
    })) << Log();
    EXPECT_THAT(suite_->RecordKeys(kContainerBucket), IsEmpty());
    EXPECT_THAT(suite_->RecordKeys(kNameBucket), IsEmpty());
    EXPECT_THAT(suite_->RecordKeys(kVolumeBucket), IsEmpty());
    EXPECT_THAT(suite_->SnapshotKeys(), IsEmpty());
    ExpectNoLeaks();
  }

  // The armed failpoint has killed it.
  void ExpectKilled() {
    absl::StatusOr<sys::ExitStatus> exit = engine_.Wait(absl::Seconds(20));
    ASSERT_OK(exit);
    EXPECT_EQ(exit->signal, SIGKILL) << Log();
  }

  std::optional<sys::TempDir> folder_;
  std::unique_ptr<FakeSuite> suite_;
  sys::Child engine_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Containers::Stub> stub_;
};

TEST_F(EngineCrashTest, EveryFailpointOfTheEngineIsKnownToATest) {
  Launch();
  debug::v1::ListFailpointsResponse response;
  ASSERT_TRUE(CallEngine([&](auto& context) {
                return debug::v1::Debug::NewStub(channel_)->ListFailpoints(&context, {}, &response);
              }).ok());
  std::vector<std::string> names;
  for (const std::string& name : response.names()) {
    if (absl::StartsWith(name, "engine.")) names.push_back(name);
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAre(
                         "engine.create.after_record", "engine.create.before_record",
                         "engine.exec.after_start", "engine.exec.before_add",
                         "engine.exit.after_record", "engine.exit.after_task_delete",
                         "engine.remove.after_record", "engine.remove.before_record",
                         "engine.remove.before_sweep", "engine.remove.before_task_delete",
                         "engine.shared_memory.after_mount", "engine.snapshot_root.after_mount",
                         "engine.start.after_network", "engine.start.after_task_start",
                         "engine.start.before_task_create", "engine.volume.after_record",
                         "engine.volume.before_remove_directory", "engine.volume.before_rename"));
}

class CreateCrashTest : public EngineCrashTest,
                        public ::testing::WithParamInterface<const char*> {};

TEST_P(CreateCrashTest, ARunWithRmThatWasCutShortIsGoneOrRuns) {
  Launch(absl::StrCat(GetParam(), "=kill"));
  EXPECT_FALSE(Create(true, true).ok());
  ExpectKilled();

  Launch();

  if (std::string(GetParam()) == "engine.start.after_task_start") {
    EXPECT_TRUE(Becomes(v1::ContainerState::RUNNING)) << Log();
    EXPECT_TRUE(Remove(true).ok());
  }
  ExpectNothingLeft();
}

TEST_P(CreateCrashTest, AContainerThatWasCutShortCanBeStartedOrIsNotThere) {
  Launch(absl::StrCat(GetParam(), "=kill"));
  EXPECT_FALSE(Create(true, false).ok());
  ExpectKilled();

  Launch();

  if (std::string(GetParam()) == "engine.create.before_record") {
    EXPECT_EQ(State().status(), v1::ContainerState::STATUS_UNSPECIFIED);
    ExpectNothingLeft();
    return;
  }
  EXPECT_TRUE(Start().ok()) << Log();
  EXPECT_TRUE(Becomes(v1::ContainerState::RUNNING));
  ExpectNoLeaks();
  EXPECT_TRUE(Remove(true).ok());
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(
    Steps, CreateCrashTest,
    ::testing::Values("engine.create.before_record", "engine.create.after_record",
                      "engine.start.after_network", "engine.shared_memory.after_mount",
                      "engine.start.before_task_create", "engine.start.after_task_start"));

class ExitCrashTest : public EngineCrashTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(ExitCrashTest, TheExitCodeSurvives) {
  Launch(absl::StrCat(GetParam(), "=kill"));
  ASSERT_TRUE(Create(true, false).ok());
  suite_->EndTask(suite_->ContainerIds()[0], 42);
  ExpectKilled();

  Launch();

  EXPECT_TRUE(Becomes(v1::ContainerState::EXITED)) << Log();
  EXPECT_EQ(State().exit_code(), 42);
  EXPECT_TRUE(FakeSuite::Eventually([&] { return suite_->Tasks().empty(); }));
  ExpectNoLeaks();
  EXPECT_TRUE(Remove(false).ok());
  ExpectNothingLeft();
}

TEST_P(ExitCrashTest, WhatGoesWithItsEndGoes) {
  Launch(absl::StrCat(GetParam(), "=kill"));
  ASSERT_TRUE(Create(true, true).ok());
  suite_->EndTask(suite_->ContainerIds()[0], 0);
  ExpectKilled();

  Launch();

  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Steps, ExitCrashTest,
                         ::testing::Values("engine.exit.after_record",
                                           "engine.exit.after_task_delete"));

class RemoveCrashTest : public EngineCrashTest,
                        public ::testing::WithParamInterface<const char*> {};

TEST_P(RemoveCrashTest, ARemovalThatWasCutShortIsDoneOrCanBeDoneAgain) {
  Launch(absl::StrCat(GetParam(), "=kill"));
  ASSERT_TRUE(Create(true, false).ok());
  EXPECT_FALSE(Remove(true).ok());
  ExpectKilled();

  Launch();

  if (State().status() != v1::ContainerState::STATUS_UNSPECIFIED) {
    EXPECT_TRUE(Remove(true).ok()) << Log();
  }
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Steps, RemoveCrashTest,
                         ::testing::Values("engine.remove.before_task_delete",
                                           "engine.remove.before_record",
                                           "engine.remove.after_record",
                                           "engine.volume.before_remove_directory"));

TEST_F(EngineCrashTest, AKillInBetweenLosesNoEndAndNoRunningContainer) {
  Launch();
  ASSERT_TRUE(Create(true, false).ok());
  const std::string id = suite_->ContainerIds()[0];
  engine_.KillAndReap();

  Launch();
  EXPECT_EQ(State().status(), v1::ContainerState::RUNNING);
  ExpectNoLeaks();
  engine_.KillAndReap();
  suite_->EndTask(id, 17);

  Launch();
  EXPECT_TRUE(Becomes(v1::ContainerState::EXITED));
  EXPECT_EQ(State().exit_code(), 17);
  ExpectNoLeaks();
}

TEST_F(EngineCrashTest, ATerminatedEngineEndsParkedCallsAndLeavesContainersAlone) {
  Launch();
  ASSERT_TRUE(Create(true, false).ok());
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(20));
  v1::WaitContainerRequest request;
  request.set_container("web");
  v1::WaitContainerResponse response;
  absl::Notification ended;
  stub_->async()->Wait(&context, &request, &response, [&](const grpc::Status&) { ended.Notify(); });
  EXPECT_EQ(State().status(), v1::ContainerState::RUNNING);

  ASSERT_OK(engine_.Signal(SIGTERM));

  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(5)));
  absl::StatusOr<sys::ExitStatus> exit = engine_.Wait(absl::Seconds(8));
  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 0) << Log();
  ASSERT_EQ(suite_->Tasks().size(), 1u);
  EXPECT_TRUE(suite_->Tasks().begin()->second.running);
}

}  // namespace
}  // namespace gantry::engine
