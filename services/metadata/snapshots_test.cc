#include "services/metadata/snapshots.h"

#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

namespace snapshots_v1 = containerd::services::snapshots::v1;

using SnapshotsTest = HouseTest;

TEST_F(SnapshotsTest, LayersAreMadeCommittedAndBuiltUpon) {
  ASSERT_OK(AddLayer("base"));
  absl::StatusOr<Snapshots::Mounts> mounts = Prepare("web", "base");

  ASSERT_OK(mounts);
  EXPECT_THAT(*mounts, SizeIs(1));
  EXPECT_THAT(SnapshotNames(), ElementsAre("base", "web"));
  absl::StatusOr<Snapshots::Info> info = house_->snapshots.Stat(caller_, kSnapshotter, "web");
  ASSERT_OK(info);
  EXPECT_EQ(info->parent(), "base");
  EXPECT_EQ(info->kind(), snapshots_v1::ACTIVE);
  EXPECT_THAT(Topics(), ElementsAre("/snapshot/prepare", "/snapshot/commit", "/snapshot/prepare"));
}

TEST_F(SnapshotsTest, TheSnapshotterSeesItsOwnLabelsAndUniqueKeysOnly) {
  Labels labels;
  labels["containerd.io/snapshot/x"] = "1";
  labels["private"] = "2";
  ASSERT_OK(Prepare("web", "", labels));

  std::vector<std::string> keys = house_->snapshotter.Keys();

  ASSERT_THAT(keys, SizeIs(1));
  EXPECT_THAT(keys[0], ::testing::MatchesRegex("test/[0-9]+/web"));
  EXPECT_THAT(house_->snapshotter.Stat(keys[0])->labels(), SizeIs(1));
  EXPECT_THAT(house_->snapshots.Stat(caller_, kSnapshotter, "web")->labels(), SizeIs(2));
}

TEST_F(SnapshotsTest, NumbersAreNotUsedTwiceAfterARestart) {
  ASSERT_OK(Prepare("web"));
  const std::string before = house_->snapshotter.Keys().at(0);
  ASSERT_OK(house_->snapshots.Remove(caller_, kSnapshotter, "web"));

  Reopen();
  ASSERT_OK(Prepare("web"));

  std::vector<std::string> keys = house_->snapshotter.Keys();
  ASSERT_THAT(keys, SizeIs(2));  // Nobody has swept the first yet.
  EXPECT_NE(keys[0], keys[1]);
}

TEST_F(SnapshotsTest, ErrorsNameWhatIsMissingOrTaken) {
  ASSERT_OK(Prepare("web"));

  EXPECT_THAT(Prepare("web"), Fails(absl::StatusCode::kAlreadyExists, "web"));
  EXPECT_THAT(Prepare("db", "no-such-layer"), Fails(absl::StatusCode::kNotFound, "no-such-layer"));
  EXPECT_THAT(house_->snapshots.Create(caller_, {"zfs", "db", "", {}}),
              Fails(absl::StatusCode::kInvalidArgument, "zfs"));
  EXPECT_THAT(Commit("x", "no-such-key"), Fails(absl::StatusCode::kNotFound, "no-such-key"));
  EXPECT_THAT(house_->snapshots.Remove(caller_, kSnapshotter, "gone"),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(SnapshotsTest, AParentCannotBeRemovedUnderItsChildren) {
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(Prepare("web", "base"));

  EXPECT_THAT(house_->snapshots.Remove(caller_, kSnapshotter, "base"),
              HasCode(absl::StatusCode::kFailedPrecondition));

  house_->sweeper.Start();
  ASSERT_OK(house_->snapshots.Remove(caller_, kSnapshotter, "web"));
  ASSERT_OK(house_->snapshots.Remove(caller_, kSnapshotter, "base"));
  ASSERT_OK(WaitIdle());
  EXPECT_THAT(house_->snapshotter.Keys(), IsEmpty());
}

TEST_F(SnapshotsTest, ACommitToATakenNameKeepsTheActiveSnapshot) {
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(Prepare("work"));

  EXPECT_THAT(Commit("base", "work"), HasCode(absl::StatusCode::kAlreadyExists));

  EXPECT_OK(house_->snapshots.GetMounts(caller_, kSnapshotter, "work"));
}

TEST_F(SnapshotsTest, OfTwoCommitsToOneNameOneWinsAndTheOtherKeepsItsWork) {
  ASSERT_OK(Prepare("one"));
  ASSERT_OK(Prepare("two"));
  absl::Notification committing, go_on;
  house_->snapshotter.before = [&](absl::string_view operation, const std::string&) {
    if (operation == "commit" && !committing.HasBeenNotified()) {
      committing.Notify();
      go_on.WaitForNotification();
    }
    return absl::OkStatus();
  };
  absl::Status first, second;

  std::thread slow([&] { first = Commit("chain", "one"); });
  committing.WaitForNotification();
  std::thread waiting([&] { second = Commit("chain", "two"); });
  go_on.Notify();
  slow.join();
  waiting.join();

  EXPECT_OK(first);
  EXPECT_THAT(second, HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(SnapshotNames(), ElementsAre("chain", "two"));
}

TEST_F(SnapshotsTest, NobodyWaitsWhileASnapshotterHangs) {
  absl::Notification hanging, go_on;
  house_->snapshotter.before = [&](absl::string_view operation, const std::string& key) {
    if (operation == "create" && absl::EndsWith(key, "/slow")) {
      hanging.Notify();
      go_on.WaitForNotification();
    }
    return absl::OkStatus();
  };
  std::thread slow([&] { EXPECT_OK(Prepare("slow")); });
  hanging.WaitForNotification();

  EXPECT_OK(Prepare("quick"));
  EXPECT_OK(house_->containers.Create(caller_, MakeContainer("web")));
  EXPECT_OK(house_->collector.Plan());

  go_on.Notify();
  slow.join();
}

TEST_F(SnapshotsTest, TheSweeperLeavesALayerAloneThatIsJustBeingRecorded) {
  house_->sweeper.Start();
  ASSERT_OK(WaitIdle());
  ASSERT_OK(failpoint::Arm("metadata.snapshots.after_create=delay(300)"));
  std::thread preparing([&] { EXPECT_OK(Prepare("web")); });
  while (house_->snapshotter.Keys().empty()) std::this_thread::yield();

  house_->sweeper.RequestRepair(kSnapshotter);
  ASSERT_OK(WaitIdle());
  preparing.join();

  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(1));
  EXPECT_OK(house_->snapshots.Stat(caller_, kSnapshotter, "web"));
}

TEST_F(SnapshotsTest, ATargetTheSnapshotterProvidesIsRecordedLeasedAndAlreadyThere) {
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));
  caller_.lease = "pull";
  house_->snapshotter.targets = {"chain"};
  Labels labels;
  labels[kLabelSnapshotRef] = "chain";

  EXPECT_THAT(Prepare("extract", "", labels), Fails(absl::StatusCode::kAlreadyExists, "chain"));

  EXPECT_EQ(house_->snapshots.Stat(caller_, kSnapshotter, "chain")->kind(),
            snapshots_v1::COMMITTED);
  EXPECT_THAT(*house_->leases.ListResources(caller_, "pull"), SizeIs(1));
  EXPECT_THAT(Prepare("again", "", labels), Fails(absl::StatusCode::kAlreadyExists, "chain"));
  EXPECT_THAT(Prepare("on-it", "chain"), ::gantry::testing::IsOk());
}

TEST_F(SnapshotsTest, ASnapshotterThatIsAwayLeavesNothingBehind) {
  house_->snapshotter.before = [](absl::string_view operation, const std::string&) {
    return operation == "create" ? absl::UnavailableError("away") : absl::OkStatus();
  };

  EXPECT_THAT(Prepare("web"), Fails(absl::StatusCode::kUnavailable, "away"));

  house_->sweeper.Start();
  ASSERT_OK(WaitIdle());
  EXPECT_THAT(SnapshotNames(), IsEmpty());
  ExpectNoFindings();
}

TEST_F(SnapshotsTest, ACommitWhoseAnswerWasLostIsSettledByTheSnapshottersWord) {
  ASSERT_OK(Prepare("work"));
  ASSERT_OK(failpoint::Arm("metadata.snapshots.after_commit=error"));
  EXPECT_THAT(Commit("chain", "work"), HasCode(absl::StatusCode::kUnavailable));
  failpoint::DisarmAll();

  house_->sweeper.Start();
  ASSERT_OK(WaitIdle());

  EXPECT_THAT(SnapshotNames(), ElementsAre("chain"));
  ExpectNoFindings();
}

TEST_F(SnapshotsTest, RecordsWithoutTheirLayerAreDroppedButNotAllAtOnce) {
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(Prepare("web", "base"));
  for (const std::string& key : house_->snapshotter.Keys()) {
    if (absl::EndsWith(key, "/web")) {
      ASSERT_OK(house_->snapshotter.Remove(key));
    }
  }
  house_->sweeper.Start();
  ASSERT_OK(WaitIdle());
  EXPECT_THAT(SnapshotNames(), ElementsAre("base"));

  ASSERT_OK(Prepare("db", "base"));
  const std::string layers = directory_.path() + "/layers";
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(layers);
  ASSERT_OK(names);
  for (const std::string& name : *names) ASSERT_OK(sys::Unlink(layers + "/" + name));
  house_->sweeper.RequestRepair(kSnapshotter);
  ASSERT_OK(WaitIdle());

  rpc::AuditReport report;
  ASSERT_OK(house_->sweeper.Audit(report));
  EXPECT_THAT(report.findings, SizeIs(2));
}

// Dies at each failpoint in the middle of a container's life; a restart finds everything in order.
struct CrashCase {
  const char* failpoint;
  // What must be recorded after the restart, if anything is certain.
  std::set<std::string> must_be, must_not_be;
};

void PrintTo(const CrashCase& crash, std::ostream* out) { *out << crash.failpoint; }

class SnapshotsCrashTest : public HouseTest, public ::testing::WithParamInterface<CrashCase> {};

TEST_P(SnapshotsCrashTest, ARestartPutsRecordsAndLayersInOrder) {
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(Prepare("old", "base"));
  house_.reset();

  const pid_t child = ::fork();
  if (child == 0) {
    absl::StatusOr<std::unique_ptr<MetadataHouse>> house =
        MetadataHouse::Open(directory_.path(), Options());
    if (!house.ok() || !failpoint::Arm(absl::StrCat(GetParam().failpoint, "=kill")).ok())
      ::_exit(1);
    house_ = *std::move(house);
    house_->sweeper.Start();
    v1::CreateContainerRequest create;
    *create.mutable_container() = MakeContainer("web", "web");
    create.set_snapshot_parent("base");
    if (!house_->bundles.CreateContainer(caller_, create).ok()) ::_exit(2);
    if (!Prepare("work", "base").ok() || !Commit("layer", "work").ok()) ::_exit(3);
    v1::DeleteContainerRequest remove;
    remove.set_id("web");
    remove.set_remove_snapshot(true);
    if (!house_->bundles.DeleteContainer(caller_, remove).ok()) ::_exit(4);
    if (!house_->snapshots.Remove(caller_, kSnapshotter, "old").ok()) ::_exit(5);
    (void)WaitIdle();
    ::_exit(6);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);

  Reopen();
  house_->sweeper.Start();
  ASSERT_OK(WaitIdle());

  std::vector<std::string> names = SnapshotNames();
  std::set<std::string> present(names.begin(), names.end());
  for (const std::string& name : GetParam().must_be) EXPECT_EQ(present.count(name), 1u) << name;
  for (const std::string& name : GetParam().must_not_be) EXPECT_EQ(present.count(name), 0u) << name;
  EXPECT_EQ(house_->containers.Get(caller_, "web").ok(), present.count("web") == 1);
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(present.size()));
  ExpectNoFindings();
}

INSTANTIATE_TEST_SUITE_P(
    Failpoints, SnapshotsCrashTest,
    ::testing::Values(
        CrashCase{"metadata.snapshots.before_create", {"base", "old"}, {"web"}},
        CrashCase{"metadata.snapshots.after_create", {"base", "old"}, {"web"}},
        CrashCase{"metadata.bundles.before_create", {"base", "old"}, {"web"}},
        CrashCase{"metadata.snapshots.before_commit", {"base", "old", "web", "work"}, {"layer"}},
        CrashCase{"metadata.snapshots.after_commit", {"base", "old", "web", "layer"}, {"work"}},
        CrashCase{"metadata.bundles.after_delete", {"base", "old", "layer"}, {"web", "work"}},
        CrashCase{"metadata.snapshots.after_remove", {"base", "layer"}, {"web", "work", "old"}},
        CrashCase{"metadata.sweeper.before_remove", {"base", "layer"}, {"web", "work"}}),
    [](const auto& info) {
      std::string name = info.param.failpoint;
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

using BundlesTest = HouseTest;

TEST_F(BundlesTest, AContainerItsSnapshotAndItsRecordsComeAndGoTogether) {
  house_->sweeper.Start();
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(WaitIdle());
  v1::CreateContainerRequest create;
  *create.mutable_container() = MakeContainer("web", "web");
  create.set_snapshot_parent("base");
  v1::RecordWrite& record = *create.add_records();
  record.set_bucket("engine.container");
  record.set_key("web");
  record.set_value("state");
  const uint64_t commits = house_->database->statistics().commits;

  absl::StatusOr<v1::CreateContainerResponse> created =
      house_->bundles.CreateContainer(caller_, create);

  ASSERT_OK(created);
  EXPECT_EQ(house_->database->statistics().commits, commits + 1);
  EXPECT_THAT(created->mounts(), SizeIs(1));
  EXPECT_THAT(created->revisions(), ElementsAre(1));
  EXPECT_THAT(SnapshotNames(), ElementsAre("base", "web"));

  v1::DeleteContainerRequest remove;
  remove.set_id("web");
  remove.set_remove_snapshot(true);
  v1::RecordWrite& removal = *remove.add_records();
  removal.set_bucket("engine.container");
  removal.set_key("web");
  removal.set_remove(true);
  ASSERT_OK(house_->bundles.DeleteContainer(caller_, remove));
  ASSERT_OK(house_->bundles.DeleteContainer(caller_, remove));  // Safe to repeat.
  ASSERT_OK(WaitIdle());
  EXPECT_THAT(SnapshotNames(), ElementsAre("base"));
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(1));
  EXPECT_THAT(house_->records.Get(caller_, "engine.container", "web"),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(BundlesTest, AReservedNameThatIsTakenLeavesNothing) {
  house_->sweeper.Start();
  v1::CreateContainerRequest create;
  *create.mutable_container() = MakeContainer("web", "web");
  v1::RecordWrite& record = *create.add_records();
  record.set_bucket("engine.name");
  record.set_key("happy_hopper");
  record.set_must_not_exist(true);
  ASSERT_OK(house_->bundles.CreateContainer(caller_, create));
  *create.mutable_container() = MakeContainer("db", "db");

  EXPECT_THAT(house_->bundles.CreateContainer(caller_, create),
              Fails(absl::StatusCode::kAlreadyExists, "happy_hopper"));

  ASSERT_OK(WaitIdle());
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(1));
  EXPECT_THAT(house_->containers.Get(caller_, "db"), HasCode(absl::StatusCode::kNotFound));
  ExpectNoFindings();
}

TEST_F(BundlesTest, AnImageThatMeansSomethingElseByNowLeavesNothing) {
  house_->sweeper.Start();
  Images::Image image;
  image.set_name("busybox:latest");
  image.mutable_target()->set_media_type("application/vnd.oci.image.manifest.v1+json");
  image.mutable_target()->set_digest("sha256:" + std::string(64, 'a'));
  image.mutable_target()->set_size(10);
  ASSERT_OK(house_->images.Create(caller_, image, std::nullopt));
  v1::CreateContainerRequest create;
  *create.mutable_container() = MakeContainer("web", "web");
  create.mutable_expected_image()->set_name(image.name());
  create.mutable_expected_image()->set_digest("sha256:" + std::string(64, 'b'));

  EXPECT_THAT(house_->bundles.CreateContainer(caller_, create),
              Fails(absl::StatusCode::kAborted, "another target"));
  create.mutable_expected_image()->set_name("gone:latest");
  EXPECT_THAT(house_->bundles.CreateContainer(caller_, create),
              Fails(absl::StatusCode::kAborted, "is gone"));

  ASSERT_OK(WaitIdle());
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(0));
  create.mutable_expected_image()->set_name(image.name());
  create.mutable_expected_image()->set_digest(image.target().digest());
  EXPECT_OK(house_->bundles.CreateContainer(caller_, create));
}

}  // namespace
}  // namespace gantry::metadata
