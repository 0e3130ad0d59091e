#include "services/image/catalog.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/fake_registry.h"
#include "services/image/testing/image_process.h"

namespace gantry::image {
namespace {

using archive::TarBuilder;
using ::testing::ElementsAre;
using testing::Fails;
using testing::HasCode;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots");
    process_ = std::make_unique<ImageProcess>(*fake_, temp_.path());
    registry_.AddImage("app", "v1", {{TarBuilder().File("x", "1").Take()}},
                       R"({"Env":["A=b"],"Cmd":["sh"],"ExposedPorts":{"80/tcp":{}}})");
    ASSERT_OK(process_->Pull(App()));
  }

  std::string App() const { return absl::StrCat(registry_.host(), "/app:v1"); }
  Catalog& catalog() { return process_->catalog; }

  absl::StatusOr<std::vector<std::string>> Import(const std::string& archive, size_t step = 1000) {
    size_t offset = 0;
    Importer::Request request;
    request.namespace_name = "n";
    request.platform = *oci::ParsePlatform("linux/amd64");
    return process_->importer.Import(
        request,
        [&]() -> absl::StatusOr<absl::string_view> {
          absl::string_view piece = absl::string_view(archive).substr(offset, step);
          offset += piece.size();
          return piece;
        },
        nullptr);
  }

  static std::string DockerArchive(const std::string& tags,
                                   const std::string& layer_name = "l.tar") {
    const std::string layer = TarBuilder().File("hello", "world").Take();
    const std::string config = absl::StrCat(
        R"({"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[")",
        archive::Sha256Of(layer).str(), R"("]}})");
    return TarBuilder()
        .File("c.json", config)
        .File("l.tar", layer)
        .File("manifest.json", absl::StrCat(R"([{"Config":"c.json","RepoTags":)", tags,
                                            R"(,"Layers":[")", layer_name, R"("]}])"))
        .Take();
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  FakeRegistry registry_;
  std::unique_ptr<FakeMetadata> fake_;
  std::unique_ptr<ImageProcess> process_;
};

TEST_F(CatalogTest, InspectsByNameIdAndDigest) {
  absl::StatusOr<v1::ImageDetails> image = catalog().Inspect("n", App());

  ASSERT_OK(image);
  EXPECT_THAT(image->names(), ElementsAre(App()));
  EXPECT_THAT(image->config().env(), ElementsAre("A=b"));
  EXPECT_THAT(image->config().exposed_ports(), ElementsAre("80/tcp"));
  EXPECT_FALSE(image->chain_id().empty());
  EXPECT_EQ(image->size_bytes(), 1000u);
  EXPECT_EQ(image->os(), "linux");
  for (const std::string& reference :
       {image->id(), image->id().substr(7), image->id().substr(7, 6), image->repo_digests(0)}) {
    absl::StatusOr<v1::ImageDetails> same = catalog().Inspect("n", reference);
    ASSERT_OK(same) << reference;
    EXPECT_EQ(same->id(), image->id());
  }
  EXPECT_THAT(catalog().Inspect("n", "nothing"), Fails(absl::StatusCode::kNotFound, "nothing"));
  EXPECT_THAT(catalog().Inspect("other", App()), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(CatalogTest, TagsAddNamesAndMoveThem) {
  EXPECT_EQ(*catalog().Tag("n", App(), "mine"), "docker.io/library/mine:latest");

  EXPECT_EQ(catalog().Inspect("n", App())->names_size(), 2);
  EXPECT_THAT(*catalog().List("n", ""), SizeIs(1));
  EXPECT_THAT(*catalog().List("n", "mine"), SizeIs(1));
  EXPECT_THAT(*catalog().List("n", "mi*:latest"), SizeIs(1));
  EXPECT_THAT(*catalog().List("n", "yours"), IsEmpty());
  EXPECT_THAT(catalog().Tag("n", App(), "Not A Name"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(catalog().Tag("n", "nothing", "x"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(CatalogTest, RemovingANameKeepsTheImageUntilItsLast) {
  ASSERT_OK(catalog().Tag("n", App(), "mine"));

  absl::StatusOr<v1::RemoveImageResponse> first = catalog().Remove("n", "mine", false);
  ASSERT_OK(first);
  EXPECT_THAT(first->untagged(), ElementsAre("mine:latest"));
  EXPECT_THAT(first->deleted(), IsEmpty());

  absl::StatusOr<v1::RemoveImageResponse> second = catalog().Remove("n", App(), false);
  ASSERT_OK(second);
  EXPECT_THAT(second->deleted(), SizeIs(2));  // The id and the layer's chain id.
  EXPECT_THAT(fake_->Get("n").blobs, IsEmpty());
  EXPECT_THAT(fake_->Get("n").snapshots, IsEmpty());
}

TEST_F(CatalogTest, ByIdSeveralNamesNeedForce) {
  ASSERT_OK(catalog().Tag("n", App(), "mine"));
  const std::string id = catalog().Inspect("n", App())->id();

  EXPECT_THAT(catalog().Remove("n", id, false), HasCode(absl::StatusCode::kFailedPrecondition));
  absl::StatusOr<v1::RemoveImageResponse> removed = catalog().Remove("n", id, true);
  ASSERT_OK(removed);
  EXPECT_THAT(removed->untagged(), SizeIs(2));
}

TEST_F(CatalogTest, AnImageInUseIsNotRemoved) {
  fake_->AddContainer("n", "web", App());

  EXPECT_THAT(catalog().Remove("n", App(), false),
              Fails(absl::StatusCode::kFailedPrecondition, "web"));
  EXPECT_OK(catalog().Inspect("n", App()));
  EXPECT_OK(catalog().Remove("n", App(), true));
}

TEST_F(CatalogTest, ImportsWhatDockerSaves) {
  absl::StatusOr<std::vector<std::string>> names = Import(DockerArchive(R"(["saved:1"])"));

  ASSERT_OK(names);
  EXPECT_THAT(*names, ElementsAre("docker.io/library/saved:1"));
  absl::StatusOr<v1::ImageDetails> image = catalog().Inspect("n", "saved:1");
  ASSERT_OK(image);
  EXPECT_EQ(*sys::ReadFile(fake_->Layers("n", image->chain_id())[0] + "/hello"), "world");
  fake_->Collect();
  EXPECT_OK(catalog().Inspect("n", "saved:1"));
  EXPECT_THAT(*sys::ListDirectory(temp_.path() + "/state/spool"), IsEmpty());
  EXPECT_THAT(fake_->Get("n").leases, IsEmpty());
}

TEST_F(CatalogTest, ImportsCompressedArchivesAndImagesWithoutNames) {
  const std::string archive =
      archive::CompressAll(archive::Compression::kGzip, DockerArchive("null"));

  absl::StatusOr<std::vector<std::string>> names = Import(archive);

  ASSERT_OK(names);
  EXPECT_THAT(names->at(0), HasSubstr("sha256:"));
  EXPECT_OK(catalog().Inspect("n", names->at(0)));
  EXPECT_THAT(*catalog().List("n", ""), SizeIs(2));
}

TEST_F(CatalogTest, ImportsOciLayouts) {
  const std::string layer = TarBuilder().File("hello", "oci").Take();
  const std::string packed = archive::CompressAll(archive::Compression::kGzip, layer);
  const std::string config = absl::StrCat(
      R"({"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[")",
      archive::Sha256Of(layer).str(), R"("]}})");
  oci::Manifest manifest;
  manifest.media_type = oci::kMediaTypeManifest;
  manifest.config = {oci::kMediaTypeConfig, archive::Sha256Of(config), config.size(), {}, {}};
  manifest.layers = {{oci::kMediaTypeLayerGzip, archive::Sha256Of(packed), packed.size(), {}, {}}};
  const std::string bytes = oci::WriteManifest(manifest);
  const auto blob = [](const std::string& content) {
    return absl::StrCat("blobs/sha256/", std::string(archive::Sha256Of(content).hex()));
  };
  TarBuilder builder;
  builder.File("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  builder.File(
      "index.json",
      absl::StrCat(R"({"schemaVersion":2,"manifests":[{"mediaType":")", oci::kMediaTypeManifest,
                   R"(","digest":")", archive::Sha256Of(bytes).str(), R"(","size":)", bytes.size(),
                   R"(,"annotations":{"org.opencontainers.image.ref.name":"x.io/oci:2"}}]})"));
  builder.File(blob(bytes), bytes).File(blob(config), config).File(blob(packed), packed);

  absl::StatusOr<std::vector<std::string>> names = Import(builder.Take());

  ASSERT_OK(names);
  EXPECT_THAT(*names, ElementsAre("x.io/oci:2"));
  EXPECT_OK(catalog().Inspect("n", "x.io/oci:2"));
}

TEST_F(CatalogTest, ArchivesThatAreNoneAreRefusedAndLeaveNothing) {
  EXPECT_THAT(Import(TarBuilder().File("readme", "x").Take()),
              Fails(absl::StatusCode::kInvalidArgument, "not an image archive"));
  EXPECT_THAT(Import(std::string(5000, 'z')), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(Import(DockerArchive(R"(["x:1"])", "../../../etc/shadow")).ok());
  EXPECT_FALSE(Import(DockerArchive(R"(["Bad Name"])")).ok());
  EXPECT_THAT(*sys::ListDirectory(temp_.path() + "/state/spool"), IsEmpty());
  EXPECT_THAT(*catalog().List("n", ""), SizeIs(1));
}

}  // namespace
}  // namespace gantry::image
