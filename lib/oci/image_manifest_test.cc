#include "lib/oci/image_manifest.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/testing/status_matchers.h"

namespace gantry::oci {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using testing::HasCode;

std::string D(absl::string_view seed) { return archive::Sha256Of(seed).str(); }

std::string DescriptorJson(absl::string_view type, absl::string_view seed,
                           absl::string_view more = "") {
  return absl::StrCat(R"({"mediaType":")", type, R"(","digest":")", D(seed), R"(","size":7)", more,
                      "}");
}

std::string ManifestJson() {
  return absl::StrCat(R"({"schemaVersion":2,"mediaType":")", kMediaTypeManifest, R"(","config":)",
                      DescriptorJson(kMediaTypeConfig, "c"), R"(,"layers":[)",
                      DescriptorJson(kMediaTypeLayerGzip, "l1"), ",",
                      DescriptorJson(kMediaTypeLayerZstd, "l2"), "]}");
}

Descriptor For(absl::string_view platform) {
  Descriptor descriptor;
  descriptor.media_type = kMediaTypeManifest;
  descriptor.digest = archive::Sha256Of(platform);
  descriptor.platform = *ParsePlatform(platform);
  return descriptor;
}

TEST(ImageManifestTest, ReadsAManifestAndWritesItAgain) {
  absl::StatusOr<Manifest> manifest = ParseManifest(ManifestJson());

  ASSERT_OK(manifest);
  EXPECT_EQ(manifest->config.digest.str(), D("c"));
  ASSERT_EQ(manifest->layers.size(), 2u);
  EXPECT_EQ(manifest->layers[1].media_type, kMediaTypeLayerZstd);
  EXPECT_EQ(manifest->layers[1].size_bytes, 7u);
  absl::StatusOr<Manifest> again = ParseManifest(WriteManifest(*manifest));
  ASSERT_OK(again);
  EXPECT_EQ(again->layers[0].digest, manifest->layers[0].digest);
}

TEST(ImageManifestTest, ErrorsNameWhatIsWrong) {
  EXPECT_THAT(ParseManifest(R"({"schemaVersion":1})"),
              Fails(absl::StatusCode::kInvalidArgument, "schemaVersion"));
  EXPECT_THAT(ParseManifest(R"({"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:x",)"
                            R"("size":1},"layers":[]})"),
              Fails(absl::StatusCode::kInvalidArgument, "config.digest"));
  EXPECT_THAT(ParseManifest(absl::StrCat(
                  R"({"schemaVersion":2,"config":)", DescriptorJson(kMediaTypeConfig, "c"),
                  R"(,"layers":[{"mediaType":"a/b","digest":")", D("l"), R"(","size":-1}]})")),
              Fails(absl::StatusCode::kInvalidArgument, "layers[0]"));
}

TEST(ImageManifestTest, LimitsHold) {
  ImageLimits limits;
  limits.max_layers = 1;
  EXPECT_THAT(ParseManifest(ManifestJson(), limits),
              Fails(absl::StatusCode::kResourceExhausted, "layers"));
  limits = ImageLimits();
  limits.max_document_bytes = 10;
  EXPECT_THAT(ParseManifest(ManifestJson(), limits), HasCode(absl::StatusCode::kResourceExhausted));
}

TEST(ImageManifestTest, ADocumentSaysItselfWhatItIs) {
  EXPECT_EQ(*DocumentMediaType(ManifestJson(), "text/plain"), kMediaTypeManifest);
  EXPECT_EQ(*DocumentMediaType(R"({"manifests":[]})", ""), kMediaTypeIndex);
  EXPECT_EQ(*DocumentMediaType(R"({"layers":[]})",
                               absl::StrCat(kMediaTypeDockerManifest, "; charset=utf-8")),
            kMediaTypeDockerManifest);
  EXPECT_THAT(DocumentMediaType(R"({"layers":[],"manifests":[]})", ""),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(DocumentMediaType(R"({"fsLayers":[]})", ""),
              Fails(absl::StatusCode::kInvalidArgument, "schema 1"));
}

TEST(ImageManifestTest, PicksThePlatformThatFitsBest) {
  Index index;
  index.manifests = {For("linux/arm/v5"), For("linux/386"), For("linux/amd64"), For("linux/arm/v7"),
                     For("linux/arm64/v8")};

  const auto pick = [&index](absl::string_view wanted) {
    absl::StatusOr<Descriptor> found = SelectManifest(index, *ParsePlatform(wanted));
    return found.ok() ? found->platform->str() : std::string(found.status().message());
  };

  EXPECT_EQ(pick("linux/amd64"), "linux/amd64");
  EXPECT_EQ(pick("x86_64"), "linux/amd64");
  EXPECT_EQ(pick("linux/arm64"), "linux/arm64");
  EXPECT_EQ(pick("linux/arm/v6"), "linux/arm/v5");
  EXPECT_EQ(pick("linux/arm/v8"), "linux/arm/v7");
  EXPECT_THAT(pick("linux/s390x"), ::testing::HasSubstr("linux/386"));
}

TEST(ImageManifestTest, ReadsWhatAContainerTakesOver) {
  absl::StatusOr<ImageConfiguration> image = ParseImageConfiguration(absl::StrCat(
      R"({"architecture":"amd64","os":"linux","created":"2024-05-01T10:00:00.5Z",)",
      R"("config":{"User":"1:2","Env":["A=b"],"Entrypoint":["/e"],"Cmd":null,"WorkingDir":"/w",)",
      R"("ExposedPorts":{"80/tcp":{},"443/tcp":{}},"Volumes":{"/v":{}},"Labels":{"k":"v"}},)",
      R"("rootfs":{"type":"layers","diff_ids":[")", D("1"), "\",\"", D("2"),
      R"("]},"history":[{"created_by":"x","empty_layer":true}]})"));

  ASSERT_OK(image);
  EXPECT_EQ(image->platform.str(), "linux/amd64");
  EXPECT_EQ(*image->created, absl::FromUnixMillis(1714557600500));
  EXPECT_THAT(image->exposed_ports, ElementsAre("443/tcp", "80/tcp"));
  EXPECT_TRUE(image->cmd.empty());
  EXPECT_TRUE(image->history[0].empty_layer);
  EXPECT_EQ(image->diff_ids.size(), 2u);
}

TEST(ImageManifestTest, ConfigurationsThatWouldDoHarmAreRefused) {
  const auto with = [](absl::string_view config) {
    return ParseImageConfiguration(
        absl::StrCat(R"({"os":"linux","architecture":"amd64","rootfs":{"type":"layers"},)",
                     R"("config":)", config, "}"));
  };
  EXPECT_OK(with("{}"));
  EXPECT_THAT(with(R"({"Env":["NOVALUE"]})"), Fails(absl::StatusCode::kInvalidArgument, "Env"));
  EXPECT_THAT(with(R"({"Env":["=x"]})"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(with(R"({"WorkingDir":"rel"})"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(with(R"({"Volumes":{"rel":{}}})"), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(ImageManifestTest, ChainIdsCoverAllLayersBelow) {
  const Digest a = archive::Sha256Of("a");
  const Digest b = archive::Sha256Of("b");

  EXPECT_THAT(ChainIds({a, b}),
              ElementsAre(a, archive::Sha256Of(absl::StrCat(a.str(), " ", b.str()))));
}

TEST(ImageManifestTest, KnowsWhichLayersItCanUnpack) {
  std::string compression;
  EXPECT_TRUE(IsLayerMediaType(kMediaTypeDockerLayerGzip, &compression));
  EXPECT_EQ(compression, "gzip");
  EXPECT_TRUE(IsLayerMediaType(kMediaTypeLayerZstd, &compression));
  EXPECT_EQ(compression, "zstd");
  EXPECT_TRUE(IsLayerMediaType(kMediaTypeLayer, &compression));
  EXPECT_EQ(compression, "none");
  EXPECT_FALSE(IsLayerMediaType("application/vnd.oci.image.layer.v1.tar+encrypted", &compression));
}

}  // namespace
}  // namespace gantry::oci
