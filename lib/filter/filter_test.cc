#include "lib/filter/filter.h"

#include <map>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::filter {
namespace {

using ::gantry::testing::Fails;

std::optional<std::string> Web(const std::vector<std::string>& path) {
  static const auto* labels =
      new std::map<std::string, std::string>{{"com.example", "yes"}, {"a/b", "x,y"}, {"empty", ""}};
  if (path[0] == "name" && path.size() == 1) return "web-1";
  if (path[0] == "labels") {
    auto found = labels->find(JoinPath(path, 1));
    if (found != labels->end()) return found->second;
  }
  return std::nullopt;
}

bool Matches(const std::vector<std::string>& filters) {
  absl::StatusOr<Filter> filter = Filter::Parse(filters);
  EXPECT_OK(filter);
  return filter.ok() && filter->Matches(Web);
}

TEST(FilterTest, NothingAndEmptyMatchEverything) {
  EXPECT_TRUE(Matches({}));
  EXPECT_TRUE(Matches({"name==other", ""}));
}

TEST(FilterTest, OperatorsCompare) {
  EXPECT_TRUE(Matches({"name==web-1"}));
  EXPECT_FALSE(Matches({"name==web"}));
  EXPECT_TRUE(Matches({"name!=web"}));
  EXPECT_TRUE(Matches({"name~=^web"}));
  EXPECT_TRUE(Matches({"name~=/b-1$/"}));
  EXPECT_TRUE(Matches({"name~=|b.1|"}));
  EXPECT_FALSE(Matches({"name~=^b"}));
}

TEST(FilterTest, PresenceIsNotTruth) {
  EXPECT_TRUE(Matches({"labels.empty"}));
  EXPECT_FALSE(Matches({"labels.missing"}));
  EXPECT_TRUE(Matches({"labels.missing!=x"}));
  EXPECT_FALSE(Matches({"labels.missing==\"\""}));
}

TEST(FilterTest, LabelKeysMayHaveDotsOrQuotes) {
  EXPECT_TRUE(Matches({"labels.com.example==yes"}));
  EXPECT_TRUE(Matches({"labels.\"com.example\"==yes"}));
  EXPECT_TRUE(Matches({"labels.\"a/b\"==\"x,y\""}));
}

TEST(FilterTest, CommasAreAndFiltersAreOr) {
  EXPECT_FALSE(Matches({"name==web-1,labels.missing"}));
  EXPECT_TRUE(Matches({"name==web-1,labels.com.example"}));
  EXPECT_TRUE(Matches({"name==other", "labels.com.example"}));
}

TEST(FilterTest, ErrorsNameThePlace) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Filter::Parse({"name=="}), Fails(code, "expected a value"));
  EXPECT_THAT(Filter::Parse({"=x"}), Fails(code, "field name"));
  EXPECT_THAT(Filter::Parse({"name=x"}), Fails(code, "byte 4"));
  EXPECT_THAT(Filter::Parse({"name==\"x"}), Fails(code, "not closed"));
  EXPECT_THAT(Filter::Parse({"name==\"x\\"}), Fails(code, "not closed"));
  EXPECT_THAT(Filter::Parse({"name~=["}), Fails(code, "bad expression"));
  EXPECT_THAT(Filter::Parse({"name,"}), Fails(code, "field name"));
  EXPECT_THAT(Filter::Parse({std::string(kMaxFilterBytes + 1, 'a')}), Fails(code, "bytes"));
}

}  // namespace
}  // namespace gantry::filter
