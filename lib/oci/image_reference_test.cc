#include "lib/oci/image_reference.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::oci {
namespace {

const char kHex[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(ImageReferenceTest, FillsInWhatPeopleLeaveOut) {
  const std::string digest = std::string("sha256:") + kHex;
  const std::pair<std::string, std::string> cases[] = {
      {"busybox", "docker.io/library/busybox:latest"},
      {"busybox:1.36", "docker.io/library/busybox:1.36"},
      {"user/app", "docker.io/user/app:latest"},
      {"docker.io/busybox", "docker.io/library/busybox:latest"},
      {"index.docker.io/busybox", "docker.io/library/busybox:latest"},
      {"127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"},
      {"localhost/a/b:t", "localhost/a/b:t"},
      {"[::1]:5000/a", "[::1]:5000/a:latest"},
      {"ghcr.io/x/y__z-1.a:V2", "ghcr.io/x/y__z-1.a:V2"},
      {"busybox@" + digest, "docker.io/library/busybox@" + digest},
      {"busybox:1@" + digest, "docker.io/library/busybox:1@" + digest},
  };
  for (const auto& [typed, full] : cases) {
    absl::StatusOr<ImageReference> reference = ImageReference::Parse(typed);
    ASSERT_OK(reference) << typed;
    EXPECT_EQ(reference->str(), full);
    EXPECT_EQ(ImageReference::Parse(full)->str(), full);
  }
}

TEST(ImageReferenceTest, RefusesWhatIsNoName) {
  for (const char* text :
       {"",    ":tag",   "UPPER", "a//b",         "-a",        "a-",          "a..b",     "a___b",
        "a b", "a:",     "a:-x",  "host:99999/a", "host:0/a",  "a@sha256:12", "a@md5:00", "/a",
        "a/",  "[::1/a", "../a",  "a\nb",         "h\xc3\xa4", kHex}) {
    EXPECT_THAT(ImageReference::Parse(text), testing::HasCode(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(ImageReferenceTest, ShowsFamiliarNames) {
  EXPECT_EQ(ImageReference::Parse("busybox")->FamiliarName(), "busybox");
  EXPECT_EQ(ImageReference::Parse("user/app")->FamiliarName(), "user/app");
  EXPECT_EQ(ImageReference::Parse("127.0.0.1:5000/a:1")->FamiliarName(), "127.0.0.1:5000/a");
}

}  // namespace
}  // namespace gantry::oci
