// What the engine tells the journal, and the images it protects.
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/engine/testing/engine_world.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class EngineEventsTest : public EngineWorld {
 protected:
  // "create", "start" … of containers, once `last` was told.
  std::vector<std::string> ActionsUntil(const std::string& last) {
    std::vector<std::string> actions;
    EXPECT_TRUE(FakeSuite::Eventually([&] {
      actions.clear();
      for (const v1::Event& event : suite_->Events()) {
        if (event.type() == "container") actions.push_back(event.action());
      }
      return !actions.empty() && actions.back() == last;
    })) << absl::StrJoin(actions, " ");
    return actions;
  }

  v1::Event LastEvent(const std::string& action) {
    v1::Event found;
    for (const v1::Event& event : suite_->Events()) {
      if (event.action() == action) found = event;
    }
    return found;
  }

  absl::Status RemoveContainer(const std::string& name) {
    v1::RemoveContainerRequest request;
    request.set_container(name);
    return engine_->Remove(request);
  }

  absl::StatusOr<v1::RemoveImageResponse> RemoveImage(const std::string& reference,
                                                      bool force = false) {
    v1::RemoveImageRequest request;
    request.set_reference(reference);
    request.set_force(force);
    return engine_->RemoveImage(request);
  }
};

TEST_F(EngineEventsTest, ALifeIsToldInOrderWithNameImageAndLabels) {
  v1::CreateContainerRequest request = Request();
  (*request.mutable_config()->mutable_labels())["tier"] = "front";
  const std::string id = Run(request);
  suite_->EndTask(id, 3);
  ASSERT_TRUE(Becomes("web", v1::ContainerState::EXITED));
  ASSERT_OK(RemoveContainer("web"));

  EXPECT_THAT(ActionsUntil("destroy"), ElementsAre("create", "start", "die", "destroy"));

  const v1::Event died = LastEvent("die");
  EXPECT_EQ(died.id(), id);
  EXPECT_EQ(died.attributes().at("exitCode"), "3");
  // Of a container that is gone by now.
  EXPECT_EQ(died.attributes().at("name"), "web");
  EXPECT_EQ(died.attributes().at("image"), "busybox");
  EXPECT_EQ(LastEvent("destroy").attributes().at("tier"), "front");
}

TEST_F(EngineEventsTest, WhatALabelCallsItselfDoesNotHideTheName) {
  v1::CreateContainerRequest request = Request();
  (*request.mutable_config()->mutable_labels())["name"] = "someone else";
  ASSERT_OK(engine_->Create(request));

  ActionsUntil("create");

  EXPECT_EQ(LastEvent("create").attributes().at("name"), "web");
}

TEST_F(EngineEventsTest, EventsWaitForAMetadataThatIsAway) {
  suite_->FailNext("Journal.Append", 13, "the disk is on fire");
  ASSERT_OK(engine_->Create(Request()));

  EXPECT_THAT(ActionsUntil("create"), ElementsAre("create"));
}

TEST_F(EngineEventsTest, AStopWritesWhatIsQueued) {
  ASSERT_OK(engine_->Create(Request()));
  engine_->Stop();

  EXPECT_EQ(LastEvent("create").attributes().at("name"), "web");
}

TEST_F(EngineEventsTest, AnImageOfARunningContainerIsNotRemoved) {
  const std::string id = Run();

  EXPECT_THAT(RemoveImage("busybox"),
              Fails(absl::StatusCode::kFailedPrecondition,
                    absl::StrCat("(must force) - container ", id.substr(0, 12))));
  EXPECT_OK(engine_->Create(Request("second"))) << "the image is still there";

  // By force its name goes, and nothing else.
  absl::StatusOr<v1::RemoveImageResponse> removed = RemoveImage("busybox", true);
  ASSERT_OK(removed);
  EXPECT_EQ(removed->deleted_size(), 0);
  EXPECT_EQ(removed->untagged_size(), 1);
}

TEST_F(EngineEventsTest, AnImageOfAStoppedContainerGoesByForceOnly) {
  ASSERT_OK(engine_->Create(Request()));

  EXPECT_THAT(RemoveImage("busybox"), Fails(absl::StatusCode::kFailedPrecondition, "conflict:"));

  absl::StatusOr<v1::RemoveImageResponse> removed = RemoveImage("busybox", true);
  ASSERT_OK(removed);
  EXPECT_EQ(removed->deleted_size(), 1);
}

TEST_F(EngineEventsTest, AnImageOfAnotherPlatformIsAsGoodAsMissing) {
  image::v1::ImageDetails& image = suite_->AddImage("foreign");
  image.set_os("linux");
  image.set_architecture("arm64");
  v1::CreateContainerRequest request = Request();
  request.mutable_config()->set_image("foreign");
  request.mutable_config()->set_platform("linux/amd64");

  EXPECT_THAT(engine_->Create(request),
              Fails(absl::StatusCode::kNotFound, "Unable to find image 'foreign' locally"));
  request.mutable_config()->set_platform("linux/arm64");
  EXPECT_OK(engine_->Create(request));
  request.mutable_config()->set_platform("plan9/");
  EXPECT_THAT(engine_->Create(request), Fails(absl::StatusCode::kInvalidArgument, "plan9"));
}

TEST_F(EngineEventsTest, OnlyShareableSharedMemoryIsJoined) {
  Run();
  v1::CreateContainerRequest joiner = Request("joiner");
  joiner.mutable_config()->set_ipc_mode("container:web");

  EXPECT_THAT(engine_->Create(joiner),
              Fails(absl::StatusCode::kFailedPrecondition, "non-shareable IPC"));
}

TEST_F(EngineEventsTest, WhoSharesANetworkSharesItsHostName) {
  const std::string id = Run();
  v1::CreateContainerRequest request = Request("joiner");
  request.mutable_config()->set_network("container:web");
  ASSERT_OK(engine_->Create(request));
  v1::InspectContainerRequest inspect;
  inspect.set_container("joiner");

  EXPECT_EQ(engine_->Inspect(inspect)->config().hostname(), id.substr(0, 12));
}

}  // namespace
}  // namespace gantry::engine
