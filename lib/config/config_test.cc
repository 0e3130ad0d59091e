#include "lib/config/config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::config {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::IsOk;
using ::testing::ElementsAre;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ConfigTest, ReadsEveryType) {
  absl::StatusOr<File> file = File::Parse(
      "version = 1\n[image]\nname = \"x\"\nlimit = 3\non = true\nwait = \"1m30s\"\nlist = [\"a\", "
      "\"b\"]\n",
      "t.toml");
  ASSERT_OK(file);
  Section image = file->GetSection("image");

  EXPECT_EQ(*image.GetString("name", ""), "x");
  EXPECT_EQ(*image.GetInteger("limit", 1, 0, 10), 3);
  EXPECT_TRUE(*image.GetBool("on", false));
  EXPECT_EQ(*image.GetDuration("wait", absl::ZeroDuration()), absl::Seconds(90));
  EXPECT_THAT(*image.GetStrings("list", {}), ElementsAre("a", "b"));
  EXPECT_OK(image.CheckAllKnown());
}

TEST(ConfigTest, AbsentKeysHaveDefaults) {
  Section engine = File().GetSection("engine");
  EXPECT_EQ(*engine.GetString("bridge", "gantry0"), "gantry0");
  EXPECT_OK(engine.CheckAllKnown());
}

TEST(ConfigTest, ErrorsNameFileLineAndKey) {
  absl::StatusOr<File> file = File::Parse("version = 1\n[image]\nlimit = 30\n", "t.toml");
  Section image = file->GetSection("image");
  EXPECT_THAT(image.GetInteger("limit", 1, 0, 10), Fails(kInvalid, "t.toml:3: image.limit"));
  EXPECT_THAT(image.GetBool("limit", false), Fails(kInvalid, "t.toml:3"));
}

TEST(ConfigTest, WhatNobodyKnowsIsAnError) {
  EXPECT_THAT(File::Parse("version = 1\n[imgae]\na = 1\n", "t"), Fails(kInvalid, "'imgae'"));
  EXPECT_THAT(File::Parse("version = 2\n", "t"), Fails(kInvalid, "version must be 1"));
  EXPECT_THAT(File::Parse("[image]\n", "t"), Fails(kInvalid, "no version"));
  EXPECT_THAT(File::Parse("image = 3\nversion = 1\n", "t"), Fails(kInvalid, "must be a section"));
  EXPECT_THAT(File::Parse("= 3", "t"), Fails(kInvalid, "t"));
  absl::StatusOr<File> file = File::Parse("version = 1\n[image]\ntypo = 1\n", "t.toml");
  EXPECT_THAT(file->GetSection("image").CheckAllKnown(),
              Fails(kInvalid, "t.toml:3: unknown key 'typo'"));
}

}  // namespace
}  // namespace gantry::config
