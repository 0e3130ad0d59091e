// Containers, images, leases, namespaces, records and sandboxes: containerd's semantics.
#include "services/metadata/objects.h"

#include "containerd/events/events.pb.h"
#include "containerd/services/images/v1/images.pb.h"
#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using ContainersTest = HouseTest;
using ImagesTest = HouseTest;
using LeasesTest = HouseTest;
using NamespacesTest = HouseTest;
using RecordsTest = HouseTest;
using SandboxesTest = HouseTest;

TEST_F(ContainersTest, ACreatedContainerIsThereInItsNamespaceOnly) {
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("web")));

  EXPECT_EQ(house_->containers.Get(caller_, "web")->image(), "busybox");
  EXPECT_THAT(house_->containers.Get({"other", ""}, "web"),
              Fails(absl::StatusCode::kNotFound, "web"));
  EXPECT_THAT(house_->containers.Create(caller_, MakeContainer("web")),
              HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(Topics(), ElementsAre("/containers/create"));
}

TEST_F(ContainersTest, WithoutAMaskTheImmutableFieldsMustBeTheRecordedOnes) {
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("web")));
  Containers::Container other = MakeContainer("web");
  other.mutable_runtime()->set_name("io.containerd.runc.v2");

  EXPECT_THAT(house_->containers.Update(caller_, other, {}),
              Fails(absl::StatusCode::kInvalidArgument, "runtime"));

  Containers::Container changed = MakeContainer("web");
  (*changed.mutable_labels())["a"] = "b";
  changed.set_image("alpine");
  ASSERT_OK(house_->containers.Update(caller_, changed, {}));
  EXPECT_EQ(house_->containers.Get(caller_, "web")->image(), "alpine");
  EXPECT_EQ(house_->containers.Get(caller_, "web")->labels().at("a"), "b");
}

TEST_F(ContainersTest, AMaskReplacesWhatItNamesAndNothingElse) {
  Containers::Container container = MakeContainer("web");
  (*container.mutable_labels())["keep"] = "1";
  (*container.mutable_labels())["drop"] = "1";
  ASSERT_OK(house_->containers.Create(caller_, container));
  Containers::Container changed = MakeContainer("web");
  changed.set_image("alpine");
  (*changed.mutable_labels())["new"] = "2";

  ASSERT_OK(house_->containers.Update(caller_, changed, {"labels.new", "labels.drop"}));

  Containers::Container updated = *house_->containers.Get(caller_, "web");
  EXPECT_EQ(updated.image(), "busybox");
  EXPECT_THAT(updated.labels(), SizeIs(2));
  EXPECT_EQ(updated.labels().at("new"), "2");
  EXPECT_THAT(house_->containers.Update(caller_, changed, {"snapshotter"}),
              Fails(absl::StatusCode::kInvalidArgument, "snapshotter"));
}

TEST_F(ContainersTest, BadRequestsChangeNothing) {
  Containers::Container container = MakeContainer("bad name");
  EXPECT_THAT(house_->containers.Create(caller_, container),
              HasCode(absl::StatusCode::kInvalidArgument));
  container = MakeContainer("web");
  container.clear_spec();
  EXPECT_THAT(house_->containers.Create(caller_, container),
              Fails(absl::StatusCode::kInvalidArgument, "spec"));
  container = MakeContainer("web");
  container.set_snapshot_key("web");
  EXPECT_THAT(house_->containers.Create(caller_, container),
              Fails(absl::StatusCode::kInvalidArgument, "snapshotter"));
  EXPECT_THAT(house_->containers.Delete(caller_, "web"), HasCode(absl::StatusCode::kNotFound));

  EXPECT_THAT(Topics(), IsEmpty());
  EXPECT_THAT(*house_->namespaces.List(""), IsEmpty());
}

TEST_F(ContainersTest, FiltersSelect) {
  Containers::Container container = MakeContainer("one");
  (*container.mutable_labels())["com.example/x"] = "1";
  ASSERT_OK(house_->containers.Create(caller_, container));
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("two")));

  EXPECT_THAT(*house_->containers.List(caller_, {"id==one", "id==three"}), SizeIs(1));
  EXPECT_THAT(*house_->containers.List(caller_, {"labels.\"com.example/x\"==1"}), SizeIs(1));
  EXPECT_THAT(*house_->containers.List(caller_, {"runtime.name~=gantry"}), SizeIs(2));
  EXPECT_THAT(house_->containers.List(caller_, {"id=="}),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(ImagesTest, ImagesAreCreatedOnceUpdatedByMaskAndDeletedByTarget) {
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));
  EXPECT_THAT(house_->images.Create(caller_, MakeImage("busybox", DigestOf(2)), std::nullopt),
              HasCode(absl::StatusCode::kAlreadyExists));

  ASSERT_OK(
      house_->images.Update(caller_, MakeImage("busybox", DigestOf(2)), {"target"}, std::nullopt));
  EXPECT_EQ(house_->images.Get(caller_, "busybox")->target().digest(), DigestOf(2));

  Images::Descriptor stale;
  stale.set_digest(DigestOf(1));
  EXPECT_THAT(house_->images.Delete(caller_, "busybox", &stale),
              HasCode(absl::StatusCode::kNotFound));
  ASSERT_OK(house_->images.Delete(caller_, "busybox", nullptr));
  EXPECT_THAT(Topics(), ElementsAre("/images/create", "/images/update", "/images/delete"));
}

TEST_F(ImagesTest, EventsHaveBareTypeUrlsOfTheImagesPackage) {
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));

  absl::StatusOr<std::vector<Journal::Entry>> entries = house_->journal.Read(0, 10);

  ASSERT_OK(entries);
  EXPECT_EQ(entries->at(0).envelope.event().type_url(),
            "containerd.services.images.v1.ImageCreate");
  EXPECT_EQ(entries->at(0).envelope.namespace_(), "test");
  containerd::services::images::v1::ImageCreate event;
  ASSERT_TRUE(event.ParseFromString(entries->at(0).envelope.event().value()));
  EXPECT_EQ(event.name(), "busybox");
}

TEST_F(ImagesTest, ATargetNeedsADigestASizeAndAMediaType) {
  Images::Image image = MakeImage("busybox", "sha256:short");
  EXPECT_THAT(house_->images.Create(caller_, image, std::nullopt),
              Fails(absl::StatusCode::kInvalidArgument, "digest"));
  image = MakeImage("busybox", DigestOf(1));
  image.mutable_target()->set_size(0);
  EXPECT_THAT(house_->images.Create(caller_, image, std::nullopt),
              Fails(absl::StatusCode::kInvalidArgument, "size"));
  image = MakeImage("busybox", DigestOf(1));
  image.mutable_target()->clear_media_type();
  EXPECT_THAT(house_->images.Create(caller_, image, std::nullopt),
              Fails(absl::StatusCode::kInvalidArgument, "media_type"));
}

TEST_F(ImagesTest, ASourceDateReplacesTheTimeOfNow) {
  const absl::Time epoch = absl::FromUnixSeconds(1'000'000);

  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), epoch));

  EXPECT_EQ(house_->images.Get(caller_, "busybox")->created_at().seconds(), 1'000'000);
}

TEST_F(LeasesTest, ALeaseHoldsResourcesUntilItIsDeleted) {
  ASSERT_OK(house_->leases.Create(caller_, "pull-1_", {}));
  Leases::Resource resource;
  resource.set_type("snapshots/overlayfs");
  resource.set_id("chain");

  ASSERT_OK(house_->leases.AddResource(caller_, "pull-1_", resource));
  EXPECT_THAT(*house_->leases.ListResources(caller_, "pull-1_"), SizeIs(1));
  ASSERT_OK(house_->leases.DeleteResource(caller_, "pull-1_", resource));
  EXPECT_THAT(*house_->leases.ListResources(caller_, "pull-1_"), IsEmpty());

  resource.set_type("sandwiches");
  EXPECT_THAT(house_->leases.AddResource(caller_, "pull-1_", resource),
              Fails(absl::StatusCode::kInvalidArgument, "sandwiches"));
  ASSERT_OK(house_->leases.Delete(caller_, "pull-1_"));
  EXPECT_THAT(house_->leases.ListResources(caller_, "pull-1_"),
              HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(house_->leases.Delete(caller_, "pull-1_"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(LeasesTest, AnEmptyIdIsChosenByTheStore) {
  EXPECT_FALSE(house_->leases.Create(caller_, "", {})->id().empty());
}

TEST_F(LeasesTest, WorkUnderALeaseThatIsGoneFails) {
  EXPECT_THAT(AddBlob({"test", "gone"}, DigestOf(1)), Fails(absl::StatusCode::kNotFound, "gone"));
}

TEST_F(NamespacesTest, TheFirstWriteMakesANamespaceAndWhatIsInItKeepsIt) {
  EXPECT_THAT(house_->namespaces.Delete("test"), HasCode(absl::StatusCode::kNotFound));
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));
  EXPECT_THAT(*house_->namespaces.List(""), SizeIs(1));

  EXPECT_THAT(house_->namespaces.Delete("test"),
              Fails(absl::StatusCode::kFailedPrecondition, "images"));

  ASSERT_OK(house_->images.Delete(caller_, "busybox", nullptr));
  ASSERT_OK(house_->leases.Create(caller_, "l", {}));
  ASSERT_OK(house_->namespaces.Delete("test"));
  EXPECT_THAT(*house_->leases.List(caller_, {}), IsEmpty());
}

TEST_F(NamespacesTest, AnUnknownNamespaceHasNoLabels) {
  absl::StatusOr<Namespaces::Namespace> found = house_->namespaces.Get("nobody");

  ASSERT_OK(found);
  EXPECT_EQ(found->name(), "nobody");
  EXPECT_THAT(found->labels(), IsEmpty());
}

TEST_F(NamespacesTest, LabelsAreSetSinglyAndRemovedByAnEmptyValue) {
  Namespaces::Namespace wanted;
  wanted.set_name("n");
  (*wanted.mutable_labels())["a"] = "1";
  (*wanted.mutable_labels())["b"] = "2";
  ASSERT_OK(house_->namespaces.Create(wanted));
  (*wanted.mutable_labels())["a"] = "";
  (*wanted.mutable_labels())["b"] = "3";

  ASSERT_OK(house_->namespaces.Update(wanted, {"labels.a"}));

  EXPECT_THAT(house_->namespaces.Get("n")->labels(), SizeIs(1));
  EXPECT_EQ(house_->namespaces.Get("n")->labels().at("b"), "2");
}

Records::Writes MakeWrites(std::vector<v1::RecordWrite> writes) {
  return {writes.begin(), writes.end()};
}

v1::RecordWrite MakeWrite(const std::string& key, const std::string& value) {
  v1::RecordWrite write;
  write.set_bucket("engine.container");
  write.set_key(key);
  write.set_value(value);
  return write;
}

TEST_F(RecordsTest, RevisionsGrowAndGuardWrites) {
  ASSERT_THAT(*house_->records.Commit(caller_, MakeWrites({MakeWrite("web", "1")})),
              ElementsAre(1));
  ASSERT_THAT(*house_->records.Commit(caller_, MakeWrites({MakeWrite("web", "2")})),
              ElementsAre(2));
  v1::RecordWrite stale = MakeWrite("web", "3");
  stale.set_expected_revision(1);
  v1::RecordWrite reserve = MakeWrite("web", "3");
  reserve.set_must_not_exist(true);

  EXPECT_THAT(house_->records.Commit(caller_, MakeWrites({stale})),
              Fails(absl::StatusCode::kFailedPrecondition, "'web' in bucket 'engine.container'"));
  EXPECT_THAT(house_->records.Commit(caller_, MakeWrites({reserve})),
              Fails(absl::StatusCode::kAlreadyExists, "'web'"));
  EXPECT_EQ(house_->records.Get(caller_, "engine.container", "web")->value(), "2");
}

TEST_F(RecordsTest, AllWritesOfACommitAreDoneOrNone) {
  v1::RecordWrite guarded = MakeWrite("b", "1");
  guarded.set_expected_revision(7);

  EXPECT_THAT(house_->records.Commit(caller_, MakeWrites({MakeWrite("a", "1"), guarded})),
              HasCode(absl::StatusCode::kFailedPrecondition));

  EXPECT_THAT(house_->records.Get(caller_, "engine.container", "a"),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(RecordsTest, ListsPageByPage) {
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(house_->records.Commit(caller_, MakeWrites({MakeWrite(absl::StrCat("a", i), "v")})));
  }
  ASSERT_OK(house_->records.Commit(caller_, MakeWrites({MakeWrite("b", "v")})));

  std::vector<v1::Record> first = *house_->records.List(caller_, "engine.container", "a", "", 6);
  std::vector<v1::Record> second =
      *house_->records.List(caller_, "engine.container", "a", first.back().key(), 6);

  EXPECT_THAT(first, SizeIs(6));
  EXPECT_THAT(second, SizeIs(4));
  EXPECT_EQ(second.front().key(), "a6");
}

TEST_F(SandboxesTest, SandboxesAreStoredUpdatedAndRemoved) {
  Sandboxes::Sandbox sandbox;
  sandbox.set_sandbox_id("pod");
  sandbox.mutable_runtime()->set_name("io.containerd.gantry.v2");
  ASSERT_OK(house_->sandboxes.Create(caller_, sandbox));
  EXPECT_THAT(house_->sandboxes.Create(caller_, sandbox),
              HasCode(absl::StatusCode::kAlreadyExists));

  (*sandbox.mutable_labels())["a"] = "b";
  ASSERT_OK(house_->sandboxes.Update(caller_, sandbox, {"labels.a"}));
  EXPECT_THAT(*house_->sandboxes.List(caller_, {"labels.a==b"}), SizeIs(1));
  sandbox.mutable_runtime()->set_name("other");
  EXPECT_THAT(house_->sandboxes.Update(caller_, sandbox, {}),
              HasCode(absl::StatusCode::kInvalidArgument));

  ASSERT_OK(house_->sandboxes.Delete(caller_, "pod"));
  EXPECT_THAT(house_->sandboxes.Get(caller_, "pod"), HasCode(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace gantry::metadata
