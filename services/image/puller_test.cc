#include "services/image/puller.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#include <atomic>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/archive/tree.h"
#include "lib/base/failpoint.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/fake_registry.h"
#include "services/image/testing/image_process.h"

namespace gantry::image {
namespace {

using archive::Compression;
using archive::TarBuilder;
using testing::Fails;
using testing::HasCode;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string BigTar(const std::string& name, size_t size) {
  std::string bytes;
  uint32_t state = 7;
  while (bytes.size() < size) {
    state = state * 1664525 + 1013904223;
    bytes.push_back(static_cast<char>(state >> 24));
  }
  return TarBuilder().File(name, bytes).Take();
}

class PullerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots");
    Restart();
  }
  void TearDown() override { failpoint::DisarmAll(); }

  // A new process on the same state, as after a crash.
  void Restart() {
    process_.reset();
    process_ = std::make_unique<ImageProcess>(*fake_, temp_.path());
  }

  std::string Image(const std::string& name) { return absl::StrCat(registry_.host(), "/", name); }

  // The committed layers of an image, newest first.
  std::vector<std::string> Layers(const std::string& reference) {
    absl::StatusOr<v1::ImageDetails> image = process_->catalog.Inspect("n", reference);
    EXPECT_OK(image);
    return image.ok() ? fake_->Layers("n", image->chain_id()) : std::vector<std::string>();
  }

  // After a failed pull: no image, no snapshot, no lease, no ingest but those worth resuming.
  void ExpectNothingLeft(size_t ingests = 0) {
    const FakeNamespace space = fake_->Get("n");
    EXPECT_THAT(space.images, IsEmpty());
    EXPECT_THAT(space.snapshots, IsEmpty());
    EXPECT_THAT(space.leases, IsEmpty());
    EXPECT_THAT(space.ingests, SizeIs(ingests));
    EXPECT_THAT(*process_->blobs->ListIngests(), SizeIs(ingests));
    EXPECT_THAT(*sys::ListDirectory(temp_.path() + "/scratch"), IsEmpty());
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  FakeRegistry registry_;
  std::unique_ptr<FakeMetadata> fake_;
  std::unique_ptr<ImageProcess> process_;
};

TEST_F(PullerTest, FetchesAndUnpacksLayersOfEveryCompression) {
  registry_.AddImage("a/b", "v1",
                     {{TarBuilder().Directory("etc").File("etc/x", "1").Take()},
                      {TarBuilder().Directory("etc").File("etc/x", "2").Take(), Compression::kZstd},
                      {BigTar("big", 3 << 20), Compression::kNone}},
                     R"({"Env":["A=b"],"Cmd":["sh"]})");

  absl::StatusOr<Puller::Outcome> outcome = process_->Pull(Image("a/b:v1"));

  ASSERT_OK(outcome);
  EXPECT_EQ(outcome->name, Image("a/b:v1"));
  EXPECT_FALSE(outcome->up_to_date);
  const std::vector<std::string> layers = Layers(Image("a/b:v1"));
  ASSERT_THAT(layers, SizeIs(3));
  EXPECT_EQ(*sys::ReadFile(layers[2] + "/etc/x"), "1");
  EXPECT_EQ(*sys::ReadFile(layers[1] + "/etc/x"), "2");
  EXPECT_TRUE(sys::Exists(layers[0] + "/big"));
  const FakeNamespace space = fake_->Get("n");
  EXPECT_THAT(space.leases, IsEmpty());
  EXPECT_THAT(space.ingests, IsEmpty());
  EXPECT_THAT(space.images, SizeIs(1));
}

TEST_F(PullerTest, LabelsKeepEverythingAliveThroughGarbageCollection) {
  registry_.AddImage("a", "v1",
                     {{TarBuilder().File("x", "1").Take()}, {TarBuilder().File("y", "2").Take()}});
  ASSERT_OK(process_->Pull(Image("a:v1")));
  const FakeNamespace before = fake_->Get("n");

  fake_->Collect();

  EXPECT_EQ(fake_->Get("n").blobs.size(), before.blobs.size());
  EXPECT_EQ(fake_->Get("n").blobs.size(), 4u);
  EXPECT_EQ(fake_->Get("n").snapshots.size(), 2u);
}

TEST_F(PullerTest, AnIndexLeadsToTheImageOfThePlatform) {
  const std::string arm = registry_.AddImage("a", "arm", {{TarBuilder().File("arm", "1").Take()}});
  const std::string amd = registry_.AddImage("a", "amd", {{TarBuilder().File("amd", "1").Take()}});
  const auto entry = [this](const std::string& digest, const char* architecture) {
    size_t size = 0;
    for (const FakeRequest& ignored : registry_.requests()) (void)ignored;
    Registry::Session session{*oci::ImageReference::Parse(Image("a:arm")), {}, nullptr};
    size = process_->registry.FetchDocument(session, digest)->bytes.size();
    return absl::StrCat(R"({"mediaType":")", oci::kMediaTypeManifest, R"(","digest":")", digest,
                        R"(","size":)", size, R"(,"platform":{"os":"linux","architecture":")",
                        architecture, R"("}})");
  };
  const std::string index = absl::StrCat(R"({"schemaVersion":2,"manifests":[)", entry(arm, "arm64"),
                                         ",", entry(amd, "amd64"), "]}");
  const std::string digest = registry_.AddManifest("a", "multi", index, oci::kMediaTypeIndex);

  absl::StatusOr<Puller::Outcome> outcome = process_->Pull(Image("a:multi"));

  ASSERT_OK(outcome);
  EXPECT_EQ(outcome->digest.str(), digest);
  EXPECT_TRUE(sys::Exists(Layers(Image("a:multi"))[0] + "/amd"));
  fake_->Collect();
  EXPECT_EQ(fake_->Get("n").blobs.size(), 4u);  // Index, manifest, configuration, layer.
}

TEST_F(PullerTest, DockersTypesAndForeignLayersComeFromTheRegistryItself) {
  const std::string tar = TarBuilder().File("x", "1").Take();
  const std::string foreign = archive::CompressAll(Compression::kGzip, tar);
  registry_.AddImage("a", "oci", {{tar}});
  Registry::Session session{*oci::ImageReference::Parse(Image("a:oci")), {}, nullptr};
  oci::Manifest manifest =
      *oci::ParseManifest(process_->registry.FetchDocument(session, "oci")->bytes);
  const std::string text = absl::StrCat(
      R"({"schemaVersion":2,"mediaType":")", oci::kMediaTypeDockerManifest,
      R"(","config":{"mediaType":")", oci::kMediaTypeDockerConfig, R"(","digest":")",
      manifest.config.digest.str(), R"(","size":)", manifest.config.size_bytes,
      R"(},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",)",
      R"("digest":")", registry_.AddBlob(foreign), R"(","size":)", foreign.size(),
      R"(,"urls":["http://198.51.100.9/evil"]}]})");
  const std::string digest =
      registry_.AddManifest("a", "docker", text, oci::kMediaTypeDockerManifest);
  const std::string list = absl::StrCat(
      R"({"schemaVersion":2,"mediaType":")", oci::kMediaTypeDockerList,
      R"(","manifests":[{"mediaType":")", oci::kMediaTypeDockerManifest, R"(","digest":")", digest,
      R"(","size":)", text.size(), R"(,"platform":{"os":"linux","architecture":"amd64"}}]})");
  registry_.AddManifest("a", "list", list, oci::kMediaTypeDockerList);

  ASSERT_OK(process_->Pull(Image("a:list")));

  EXPECT_EQ(*sys::ReadFile(Layers(Image("a:list"))[0] + "/x"), "1");
}

TEST_F(PullerTest, OfTwoWaitersForALayerOneMayLeave) {
  const std::string tar = BigTar("x", 1 << 20);
  registry_.AddImage("a", "v1", {{tar, Compression::kNone}});
  registry_.AddImage("b", "v1", {{tar, Compression::kNone}});
  absl::Notification downloading;
  std::atomic<bool> leave{false};
  const std::string digest = archive::Sha256Of(tar).str();
  registry_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (absl::StrContains(request.path, "/v2/b/manifests")) leave = true;  // The second has come.
    if (!absl::StrContains(request.path, digest) || downloading.HasBeenNotified()) return false;
    answer->body = tar;
    answer->cut_after = 1000;
    answer->stall = true;
    downloading.Notify();
    return true;
  });

  absl::Status first;
  std::thread leaver([&] {
    Progress progress;
    const Puller::Request request{
        "n", *oci::ImageReference::Parse(Image("a:v1")), *oci::ParsePlatform("linux/amd64"), {}};
    first = process_->puller.Pull(request, progress, [&leave] { return leave.load(); }).status();
  });
  downloading.WaitForNotification();
  const absl::Status second = process_->Pull(Image("b:v1")).status();
  leaver.join();

  EXPECT_THAT(first, HasCode(absl::StatusCode::kCancelled));
  EXPECT_OK(second);
}

TEST_F(PullerTest, ASecondPullFetchesNothing) {
  registry_.AddImage("a", "v1", {{TarBuilder().File("x", "1").Take()}});
  ASSERT_OK(process_->Pull(Image("a:v1")));
  const size_t blobs_before = registry_.CountRequests("/blobs/");

  absl::StatusOr<Puller::Outcome> again = process_->Pull(Image("a:v1"));

  ASSERT_OK(again);
  EXPECT_TRUE(again->up_to_date);
  EXPECT_EQ(registry_.CountRequests("/blobs/"), blobs_before);
}

TEST_F(PullerTest, AnotherNamespaceSharesTheBytes) {
  registry_.AddImage("a", "v1", {{TarBuilder().File("x", "1").Take()}});
  ASSERT_OK(process_->Pull(Image("a:v1"), "n"));
  const size_t layers_before = registry_.CountRequests("/blobs/");

  ASSERT_OK(process_->Pull(Image("a:v1"), "m"));

  // The configuration is read again, the layer is not.
  EXPECT_EQ(registry_.CountRequests("/blobs/"), layers_before + 1);
  EXPECT_THAT(fake_->Get("m").snapshots, SizeIs(1));
}

TEST_F(PullerTest, ManyWaitersShareOneDownload) {
  const std::string base = BigTar("base", 2 << 20);
  for (int i = 0; i < 4; ++i) {
    registry_.AddImage("a", absl::StrCat("v", i),
                       {{base}, {TarBuilder().File("x", absl::StrCat(i)).Take()}});
  }

  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0};
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      const absl::Status status = process_->Pull(Image(absl::StrCat("a:v", i % 4))).status();
      EXPECT_OK(status);
      if (status.ok()) ++succeeded;
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(succeeded, 16);
  const std::string digest =
      archive::Sha256Of(archive::CompressAll(Compression::kGzip, base)).str();
  EXPECT_EQ(registry_.CountRequests(digest), 1u);
  EXPECT_THAT(fake_->Get("n").snapshots, SizeIs(5));
}

TEST_F(PullerTest, OneOperationServesManyCallersAndOutlivesTheFirst) {
  registry_.AddImage("a", "v1", {{BigTar("x", 1 << 20)}});
  const oci::ImageReference reference = *oci::ImageReference::Parse(Image("a:v1"));
  const Puller::Request request{"n", reference, *oci::ParsePlatform("linux/amd64"), {}};

  auto first = std::make_unique<Puller::Watch>(process_->puller.Start(request));
  Puller::Watch second = process_->puller.Start(request);
  first.reset();
  while (!second->progress().WaitFinished(absl::Seconds(1))) {
  }

  EXPECT_OK(second->outcome());
  EXPECT_EQ(registry_.CountRequests("/manifests/"), 1u);
}

TEST_F(PullerTest, ATruncatedConnectionIsResumedWhereItBroke) {
  registry_.AddImage("a", "v1", {{BigTar("x", 4 << 20), Compression::kNone}});
  std::atomic<int> cuts{0};
  registry_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (request.headers.count("range") > 0 || cuts > 0) return false;
    if (!absl::StrContains(request.path, "/blobs/")) return false;
    ++cuts;
    answer->status = 200;
    answer->body = std::string(5 << 20, 'x');
    answer->cut_after = 0;
    answer->reset = true;
    return true;
  });

  ASSERT_OK(process_->Pull(Image("a:v1")));

  EXPECT_EQ(cuts, 1);
}

// Sends only half of the large layer, as often as `times`.
void CutHalf(FakeRegistry& registry, const std::string& tar, int times) {
  auto left = std::make_shared<std::atomic<int>>(times);
  const std::string digest = archive::Sha256Of(tar).str();
  registry.Intercept([=](const FakeRequest& request, FakeAnswer* answer) {
    if (!absl::StrContains(request.path, digest) || (*left)-- <= 0) return false;
    uint64_t from = 0;
    auto range = request.headers.find("range");
    if (range != request.headers.end()) {
      from = std::stoull(range->second.substr(6));
      answer->status = 206;
      answer->headers.push_back(
          absl::StrCat("Content-Range: bytes ", from, "-", tar.size() - 1, "/", tar.size()));
    }
    answer->body = tar.substr(from);
    answer->cut_after = static_cast<long>(answer->body.size() / 2);
    return true;
  });
}

TEST_F(PullerTest, ATruncatedBodyIsContinuedByRange) {
  const std::string tar = BigTar("x", 4 << 20);
  registry_.AddImage("a", "v1", {{tar, Compression::kNone}});
  CutHalf(registry_, tar, 3);

  ASSERT_OK(process_->Pull(Image("a:v1")));

  bool ranged = false;
  for (const FakeRequest& request : registry_.requests()) {
    if (request.headers.count("range") > 0) ranged = true;
  }
  EXPECT_TRUE(ranged);
}

TEST_F(PullerTest, ADownloadSurvivesARestartAndGoesOn) {
  const std::string tar = BigTar("x", 4 << 20);
  registry_.AddImage("a", "v1", {{tar, Compression::kNone}});
  // Every attempt breaks before any progress, after the first half.
  auto first = std::make_shared<std::atomic<bool>>(true);
  const std::string digest = archive::Sha256Of(tar).str();
  registry_.Intercept([=](const FakeRequest& request, FakeAnswer* answer) {
    if (!absl::StrContains(request.path, digest)) return false;
    if (first->exchange(false)) {
      answer->body = tar;
      answer->cut_after = 2 << 20;
    } else {
      answer->reset = true;
    }
    return true;
  });
  EXPECT_THAT(process_->Pull(Image("a:v1")), HasCode(absl::StatusCode::kUnavailable));
  ExpectNothingLeft(/*ingests=*/1);

  registry_.Intercept(nullptr);
  Restart();
  ASSERT_OK(process_->Pull(Image("a:v1")));

  const FakeRequest last = registry_.requests().back();
  ASSERT_EQ(last.headers.count("range"), 1u);
  EXPECT_GT(std::stoull(last.headers.at("range").substr(6)), 1000000u);
}

TEST_F(PullerTest, BytesWithAnotherDigestAreDataLossAndLeaveNothing) {
  const std::string tar = TarBuilder().File("x", "1").Take();
  registry_.AddImage("a", "v1", {{tar, Compression::kNone}});
  std::string wrong = tar;
  wrong[600] ^= 1;
  const std::string digest = archive::Sha256Of(tar).str();
  registry_.Intercept([=](const FakeRequest& request, FakeAnswer* answer) {
    answer->body = wrong;
    return absl::StrContains(request.path, digest);
  });

  EXPECT_THAT(process_->Pull(Image("a:v1")), HasCode(absl::StatusCode::kDataLoss));
  ExpectNothingLeft();
}

TEST_F(PullerTest, AManifestWithAnotherDigestIsDataLoss) {
  const std::string digest = registry_.AddImage("a", "v1", {{TarBuilder().File("x", "1").Take()}});
  registry_.Intercept([=](const FakeRequest& request, FakeAnswer* answer) {
    answer->body = R"({"schemaVersion":2,"layers":[],"config":{}})";
    return absl::StrContains(request.path, "/manifests/");
  });

  EXPECT_THAT(process_->Pull(Image("a@" + digest)), HasCode(absl::StatusCode::kDataLoss));
  ExpectNothingLeft();
}

TEST_F(PullerTest, AWrongDiffIdIsDataLossAndLeavesNothing) {
  const std::string tar = TarBuilder().File("x", "1").Take();
  const std::string other =
      archive::CompressAll(Compression::kGzip, TarBuilder().File("y", "1").Take());
  registry_.AddImage("a", "v1", {{tar}});
  // A manifest whose layer is another, honest blob.
  oci::Manifest manifest;
  manifest.media_type = oci::kMediaTypeManifest;
  Registry::Session session{*oci::ImageReference::Parse(Image("a:v1")), {}, nullptr};
  manifest = *oci::ParseManifest(process_->registry.FetchDocument(session, "v1")->bytes);
  manifest.layers[0].digest = *Digest::Parse(registry_.AddBlob(other));
  manifest.layers[0].size_bytes = other.size();
  registry_.AddManifest("a", "bad", oci::WriteManifest(manifest), oci::kMediaTypeManifest);

  EXPECT_THAT(process_->Pull(Image("a:bad")), Fails(absl::StatusCode::kDataLoss, "diff id"));
  EXPECT_THAT(fake_->Get("n").snapshots, IsEmpty());
  EXPECT_THAT(fake_->Get("n").images, IsEmpty());
}

TEST_F(PullerTest, AHostileLayerIsRefusedAndLeavesNothing) {
  registry_.AddImage(
      "a", "v1",
      {{TarBuilder().File("ok", "1").Take()}, {TarBuilder().File("../../evil", "1").Take()}});

  EXPECT_THAT(process_->Pull(Image("a:v1")), Fails(absl::StatusCode::kInvalidArgument, ".."));
  EXPECT_THAT(fake_->Get("n").images, IsEmpty());
  EXPECT_THAT(fake_->Get("n").leases, IsEmpty());
  // The honest lowest layer may stay until the collection; the other one is gone.
  fake_->Collect();
  EXPECT_THAT(fake_->Get("n").snapshots, IsEmpty());
}

TEST_F(PullerTest, UnknownImagesAndRegistriesAreNamed) {
  EXPECT_THAT(process_->Pull(Image("none:v1")), Fails(absl::StatusCode::kNotFound, "none:v1"));
  EXPECT_THAT(process_->Pull("127.0.0.1:1/none"),
              Fails(absl::StatusCode::kUnavailable, "127.0.0.1:1/none"));
  ExpectNothingLeft();
}

TEST_F(PullerTest, AFullDiskIsResourceExhaustedAndLeavesNothing) {
  registry_.AddImage("a", "v1", {{BigTar("x", 1 << 20)}});
  ASSERT_OK(failpoint::Arm("image.ingest.append=enospc"));

  EXPECT_THAT(process_->Pull(Image("a:v1")), HasCode(absl::StatusCode::kResourceExhausted));
  failpoint::DisarmAll();
  fake_->Collect();
  EXPECT_THAT(fake_->Get("n").snapshots, IsEmpty());
  EXPECT_THAT(fake_->Get("n").leases, IsEmpty());
  EXPECT_OK(process_->Pull(Image("a:v1")));
}

TEST_F(PullerTest, AfterAFailureAtAnyStepTheNextPullSucceeds) {
  registry_.AddImage(
      "a", "v1", {{TarBuilder().File("x", "1").Take()}, {TarBuilder().File("y/z", "2").Take()}});
  int failures = 0;
  for (const std::string& name : failpoint::List()) {
    if (!absl::StartsWith(name, "image.")) continue;
    ASSERT_OK(failpoint::Arm(absl::StrCat(name, "=enospc")));
    const absl::Status status = process_->Pull(Image("a:v1")).status();
    failpoint::DisarmAll();
    if (status.ok()) {  // A step of something else: start from nothing again.
      ASSERT_OK(process_->metadata.DeleteImage(Caller{"n", ""}, Image("a:v1"), true));
      continue;
    }
    ++failures;
    EXPECT_THAT(status, HasCode(absl::StatusCode::kResourceExhausted)) << name;
    EXPECT_THAT(fake_->Get("n").images, IsEmpty()) << name;
    EXPECT_THAT(fake_->Get("n").leases, IsEmpty()) << name;
    fake_->Collect();
    EXPECT_THAT(fake_->Get("n").snapshots, IsEmpty()) << name;
    EXPECT_THAT(*sys::ListDirectory(temp_.path() + "/scratch"), IsEmpty()) << name;
  }
  EXPECT_GT(failures, 8);

  ASSERT_OK(process_->Pull(Image("a:v1")));
  EXPECT_EQ(*sys::ReadFile(Layers(Image("a:v1"))[0] + "/y/z"), "2");
}

TEST_F(PullerTest, DirectoriesALayerDoesNotListLookAsBelow) {
  archive::TarEntry directory = TarBuilder::Entry(archive::EntryType::kDirectory, "srv", "", 01777);
  directory.uid = 33;
  registry_.AddImage(
      "a", "v1", {{TarBuilder().Add(directory).Take()}, {TarBuilder().File("srv/x", "1").Take()}});

  ASSERT_OK(process_->Pull(Image("a:v1")));

  struct stat status = {};
  ASSERT_EQ(::stat((Layers(Image("a:v1"))[0] + "/srv").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 01777u);
  EXPECT_EQ(status.st_uid, 33u);
}

TEST_F(PullerTest, WhiteoutsAndOpaqueDirectoriesReachTheOverlay) {
  registry_.AddImage(
      "a", "v1",
      {{TarBuilder().File("gone", "1").Directory("d").File("d/old", "1").Take()},
       {TarBuilder().File(".wh.gone", "").Directory("d").File("d/.wh..wh..opq", "").Take()}});

  ASSERT_OK(process_->Pull(Image("a:v1")));

  const std::string top = Layers(Image("a:v1"))[0];
  struct stat status = {};
  ASSERT_EQ(::lstat((top + "/gone").c_str(), &status), 0);
  EXPECT_TRUE(archive::IsWhiteoutDevice(status));
  char value = 0;
  EXPECT_EQ(::getxattr((top + "/d").c_str(), "trusted.overlay.opaque", &value, 1), 1);
  EXPECT_EQ(value, 'y');
}

TEST_F(PullerTest, ARecordedBlobWithoutBytesIsFetchedAgain) {
  const std::string tar = TarBuilder().File("x", "1").Take();
  registry_.AddImage("a", "v1", {{tar, Compression::kNone}});
  ASSERT_OK(process_->Pull(Image("a:v1")));
  const Digest digest = archive::Sha256Of(tar);
  ASSERT_OK(sys::Unlink(absl::StrCat(temp_.path(), "/state/blobs/sha256/", digest.hex())));

  ASSERT_OK(process_->Pull(Image("a:v1")));

  EXPECT_OK(process_->blobs->BlobSize(digest));
}

class ForeignSnapshotterTest : public PullerTest {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots", /*rebase=*/false);
    registry_.AddImage("a", "v1",
                       {{TarBuilder().File("x", "1").Take()},
                        {TarBuilder().File("y", "2").File(".wh.x", "").Take()}});
  }
};

TEST_F(ForeignSnapshotterTest, WithoutRebaseTheErrorSaysWhatToSet) {
  Restart();

  EXPECT_THAT(process_->Pull(Image("a:v1")),
              Fails(absl::StatusCode::kFailedPrecondition, "parallel_unpack = false"));
  EXPECT_THAT(fake_->Get("n").images, IsEmpty());
}

TEST_F(ForeignSnapshotterTest, SerialUnpackingStandsEveryLayerOnItsParent) {
  InstallerOptions options;
  options.parallel_unpack = false;
  process_ = std::make_unique<ImageProcess>(*fake_, temp_.path(), options);

  ASSERT_OK(process_->Pull(Image("a:v1")));

  const std::vector<std::string> layers = Layers(Image("a:v1"));
  ASSERT_THAT(layers, SizeIs(2));
  EXPECT_EQ(*sys::ReadFile(layers[0] + "/y"), "2");
  struct stat status = {};
  ASSERT_EQ(::lstat((layers[0] + "/x").c_str(), &status), 0);
  EXPECT_TRUE(archive::IsWhiteoutDevice(status));
}

}  // namespace
}  // namespace gantry::image
