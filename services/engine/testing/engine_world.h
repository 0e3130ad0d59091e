// An engine among fakes, which a test can kill and start again.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "lib/metrics/registry.h"
#include "lib/rpc/channel.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/engine.h"
#include "services/engine/network/testing/fake_network.h"
#include "services/engine/testing/fake_suite.h"

namespace gantry::engine {

class EngineWorld : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
    ASSERT_OK(folder);
    folder_.emplace(*std::move(folder));
    suite_ = std::make_unique<FakeSuite>(folder_->path());
    suite_->AddImage("busybox", {{"etc/passwd",
                                  "root:x:0:0:root:/root:/bin/sh\n"
                                  "www:x:33:34:www:/srv:/bin/sh\n"},
                                 {"etc/group", "root:x:0:\nweb:x:34:\nlogs:x:40:www\n"}});
    StartEngine();
  }

  void TearDown() override {
    engine_.reset();
    suite_.reset();
  }

  // As after a kill -9 of the engine; what only it knew is gone.
  void RestartEngine(const std::string& boot_id = "boot-1") {
    engine_.reset();
    boot_id_ = boot_id;
    StartEngine();
  }

  void StartEngine() {
    EngineOptions options;
    options.state_directory = absl::StrCat(folder_->path(), "/state");
    options.runtime_directory = absl::StrCat(folder_->path(), "/run");
    options.boot_id = boot_id_;
    options.stop_timeout = absl::Milliseconds(200);
    network_ = std::make_unique<network::FakeNetwork>();
    metadata_ = std::make_unique<MetadataClient>(rpc::Dial(suite_->SocketPath("metadata")),
                                                 rpc::Dial(suite_->SocketPath("metadata")),
                                                 options.namespace_name);
    images_ = std::make_unique<ImageClient>(rpc::Dial(suite_->SocketPath("image")),
                                            options.namespace_name);
    tasks_ =
        std::make_unique<TaskClient>(rpc::Dial(suite_->SocketPath("task")),
                                     rpc::Dial(suite_->SocketPath("task")), options.namespace_name);
    registry_ = std::make_unique<metrics::Registry>();
    engine_ =
        std::make_unique<Engine>(options, *metadata_, *images_, *tasks_, *network_, *registry_);
    ASSERT_OK(engine_->Recover());
  }

  static v1::CreateContainerRequest Request(const std::string& name = "web") {
    v1::CreateContainerRequest request;
    request.mutable_config()->set_name(name);
    request.mutable_config()->set_image("busybox");
    return request;
  }

  // Makes and starts a container; its id.
  std::string Run(v1::CreateContainerRequest request = Request()) {
    request.set_start(true);
    absl::StatusOr<v1::CreateContainerResponse> response = engine_->Create(request);
    EXPECT_OK(response);
    return response.ok() ? response->id() : "";
  }

  v1::ContainerState StateOf(const std::string& reference) {
    absl::StatusOr<ContainerPtr> container = engine_->Find(reference);
    return container.ok() ? (*container)->StateProto() : v1::ContainerState();
  }

  bool Becomes(const std::string& reference, v1::ContainerState::Status status) {
    return FakeSuite::Eventually([&] { return StateOf(reference).status() == status; });
  }

  // Ended, recorded, cleaned away.
  bool Settles(const std::string& reference) {
    return FakeSuite::Eventually([&] {
      absl::StatusOr<ContainerPtr> container = engine_->Find(reference);
      return !container.ok() || (!IsLive((*container)->state()) && !(*container)->needs_cleanup() &&
                                 !(*container)->busy());
    });
  }

  absl::Status StopNow(const std::string& reference) {
    v1::StopContainerRequest request;
    request.set_container(reference);
    auto done = std::make_shared<absl::Notification>();
    auto result = std::make_shared<absl::Status>();
    engine_->StopContainer(request, [done, result](const absl::Status& status) {
      *result = status;
      done->Notify();
    });
    if (!done->WaitForNotificationWithTimeout(absl::Seconds(20))) {
      return absl::DeadlineExceededError("the stop did not answer");
    }
    return *result;
  }

  absl::Status RemoveNow(const std::string& reference, bool force = false) {
    v1::RemoveContainerRequest request;
    request.set_container(reference);
    request.set_force(force);
    request.set_volumes(true);
    return engine_->Remove(request);
  }

  // Nothing of any container is anywhere.
  void ExpectNothingLeft() {
    EXPECT_THAT(suite_->RecordKeys(kContainerBucket), ::testing::IsEmpty());
    EXPECT_THAT(suite_->RecordKeys(kNameBucket), ::testing::IsEmpty());
    EXPECT_THAT(suite_->ContainerIds(), ::testing::IsEmpty());
    EXPECT_THAT(suite_->SnapshotKeys(), ::testing::IsEmpty());
    EXPECT_TRUE(suite_->Tasks().empty());
    EXPECT_THAT(network_->Connected(), ::testing::IsEmpty());
    ExpectNoFindings();
  }

  void ExpectNoFindings() {
    rpc::AuditReport report;
    ASSERT_OK(engine_->Audit(report));
    for (const rpc::Finding& finding : report.findings) {
      ADD_FAILURE() << finding.kind << " " << finding.object << ": " << finding.problem;
    }
  }

  std::optional<sys::TempDir> folder_;
  std::string boot_id_ = "boot-1";
  std::unique_ptr<FakeSuite> suite_;
  std::unique_ptr<network::FakeNetwork> network_;
  std::unique_ptr<MetadataClient> metadata_;
  std::unique_ptr<ImageClient> images_;
  std::unique_ptr<TaskClient> tasks_;
  std::unique_ptr<metrics::Registry> registry_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace gantry::engine
