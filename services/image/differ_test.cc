#include "services/image/differ.h"

#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/archive/tree.h"
#include "lib/oci/image_manifest.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/image_process.h"

namespace gantry::image {
namespace {

using archive::TarBuilder;
using testing::HasCode;

class DifferTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots");
    process_ = std::make_unique<ImageProcess>(*fake_, temp_.path());
  }

  containerd::types::Descriptor AddLayer(const std::string& tar) {
    const std::string bytes = archive::CompressAll(archive::Compression::kGzip, tar);
    const Digest digest = archive::Sha256Of(bytes);
    bool fetched = false;
    EXPECT_OK(process_->installer.StoreDocument(caller_, "r", bytes, digest, {}, &fetched));
    containerd::types::Descriptor layer;
    layer.set_media_type(oci::kMediaTypeLayerGzip);
    layer.set_digest(digest.str());
    layer.set_size(static_cast<int64_t>(bytes.size()));
    return layer;
  }

  // A snapshot made of `tar` on `parent`, through Apply as ctr does it.
  Differ::Mounts Prepare(const std::string& key, const std::string& parent) {
    return *process_->metadata.PrepareSnapshot(caller_, "overlayfs", key, parent, {});
  }

  const Caller caller_{"n", ""};
  sys::TempDir temp_ = *sys::TempDir::Create();
  std::unique_ptr<FakeMetadata> fake_;
  std::unique_ptr<ImageProcess> process_;
};

TEST_F(DifferTest, AppliesLayersToBindAndOverlayMounts) {
  const std::string lower = TarBuilder().Directory("d", 0711).File("d/x", "1").Take();
  const std::string upper = TarBuilder().File("d/.wh.x", "").File("d/y", "2").Take();

  absl::StatusOr<containerd::types::Descriptor> applied =
      process_->differ.Apply(caller_, AddLayer(lower), Prepare("a", ""), true, nullptr);
  ASSERT_OK(applied);
  EXPECT_EQ(applied->digest(), archive::Sha256Of(lower).str());
  EXPECT_EQ(applied->size(), static_cast<int64_t>(lower.size()));
  ASSERT_OK(process_->metadata.CommitSnapshot(caller_, "overlayfs", "A", "a", "", {}));
  const Differ::Mounts mounts = Prepare("b", "A");
  ASSERT_OK(process_->differ.Apply(caller_, AddLayer(upper), mounts, false, nullptr));

  const std::string directory = fake_->Get("n").snapshots["b"].directory;
  struct stat status = {};
  ASSERT_EQ(::lstat((directory + "/d/x").c_str(), &status), 0);
  EXPECT_TRUE(archive::IsWhiteoutDevice(status));
  ASSERT_EQ(::lstat((directory + "/d").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0711u);  // As below, though the layer does not list it.
}

TEST_F(DifferTest, UnknownMediaTypesAreUnimplementedAndUnknownBlobsNotFound) {
  containerd::types::Descriptor layer = AddLayer(TarBuilder().File("x", "1").Take());
  layer.set_media_type("application/x-other");
  EXPECT_THAT(process_->differ.Apply(caller_, layer, Prepare("a", ""), false, nullptr),
              HasCode(absl::StatusCode::kUnimplemented));
  layer.set_media_type(oci::kMediaTypeLayerGzip);
  layer.set_digest(archive::Sha256Of("none").str());
  EXPECT_THAT(process_->differ.Apply(caller_, layer, Prepare("b", ""), false, nullptr),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(DifferTest, ADiffAppliedAgainGivesTheSameTree) {
  ASSERT_OK(process_->differ.Apply(caller_,
                                   AddLayer(TarBuilder().File("x", "1").File("y", "1").Take()),
                                   Prepare("a", ""), false, nullptr));
  ASSERT_OK(process_->metadata.CommitSnapshot(caller_, "overlayfs", "A", "a", "", {}));
  const Differ::Mounts right = Prepare("c", "A");
  const std::string upper = fake_->Get("n").snapshots["c"].directory;
  ASSERT_OK(sys::WriteFileAtomically(upper + "/new", "2"));
  ASSERT_EQ(::mknod((upper + "/x").c_str(), S_IFCHR, 0), 0);
  Differ::Request request;
  request.left = *process_->metadata.ViewSnapshot(caller_, "overlayfs", "v", "A");
  request.right = right;
  request.labels = {{"mine", "1"}};

  absl::StatusOr<containerd::types::Descriptor> diff =
      process_->differ.Diff(caller_, request, nullptr);

  ASSERT_OK(diff);
  EXPECT_EQ(diff->media_type(), oci::kMediaTypeLayerGzip);
  const auto blob = process_->metadata.GetBlob(caller_, *Digest::Parse(diff->digest()));
  EXPECT_EQ(blob->labels().at("mine"), "1");
  EXPECT_EQ(blob->labels().count("containerd.io/uncompressed"), 1u);
  ASSERT_OK(process_->differ.Apply(caller_, *diff, Prepare("d", "A"), false, nullptr));
  const std::string again = fake_->Get("n").snapshots["d"].directory;
  EXPECT_EQ(*sys::ReadFile(again + "/new"), "2");
  struct stat status = {};
  ASSERT_EQ(::lstat((again + "/x").c_str(), &status), 0);
  EXPECT_TRUE(archive::IsWhiteoutDevice(status));
  EXPECT_FALSE(sys::Exists(again + "/y"));
  EXPECT_TRUE(process_->blobs->ListIngests()->empty());
  EXPECT_TRUE(sys::ListDirectory(temp_.path() + "/scratch")->empty());
}

}  // namespace
}  // namespace gantry::image
