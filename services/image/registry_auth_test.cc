#include "services/image/registry_auth.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::image {
namespace {

using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

TEST(RegistryAuthTest, ReadsChallengesOfBothKinds) {
  std::vector<Challenge> challenges = ParseChallenges(
      "Bearer realm=\"https://a/t\",service=\"s \\\"q\\\"\", scope=x , Basic realm=\"r\"");

  ASSERT_THAT(challenges, SizeIs(2));
  EXPECT_EQ(challenges[0].scheme, "bearer");
  EXPECT_THAT(challenges[0].parameters,
              UnorderedElementsAre(Pair("realm", "https://a/t"), Pair("service", "s \"q\""),
                                   Pair("scope", "x")));
  EXPECT_EQ(challenges[1].scheme, "basic");
}

TEST(RegistryAuthTest, NonsenseGivesNoChallenges) {
  EXPECT_THAT(ParseChallenges(""), IsEmpty());
  EXPECT_THAT(ParseChallenges("\"\"\"\""), IsEmpty());
  EXPECT_THAT(ParseChallenges(",,,,"), IsEmpty());
}

TEST(RegistryAuthTest, TokensWithLineBreaksAreRefused) {
  EXPECT_EQ(ParseToken(R"({"access_token":"t","expires_in":5})")->value, "t");
  EXPECT_EQ(ParseToken(R"({"access_token":"t","expires_in":5})")->lifetime, absl::Seconds(5));
  EXPECT_THAT(ParseToken(R"({"token":"a\r\nX: y"})"),
              testing::HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(ParseToken("{}"), testing::HasCode(absl::StatusCode::kUnauthenticated));
}

TEST(RegistryAuthTest, KnowsDockerHubByItsOldNames) {
  absl::StatusOr<Credentials> found = FindCredentials(
      R"({"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p"}}})", "docker.io");

  ASSERT_OK(found);
  EXPECT_EQ(found->username, "u");
  EXPECT_TRUE(FindCredentials(R"({"auths":{}})", "docker.io")->empty());
}

}  // namespace
}  // namespace gantry::image
