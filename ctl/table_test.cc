#include "ctl/table.h"

#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;

Listing Sample() {
  Listing listing;
  listing.headers = {{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Names", "NAMES"}};
  listing.columns = {"ID", "Image", "Names"};
  listing.id_column = "ID";
  Value one = Value::Object();
  one.Set("ID", "0123456789ab").Set("Image", "busybox").Set("Names", "web");
  one.SetHidden("Label", Value::Object().Set("tier", "front"));
  Value two = Value::Object();
  two.Set("ID", "ba9876543210").Set("Image", "a-rather-long-image").Set("Names", "ö");
  two.SetHidden("Label", Value::Object());
  listing.rows = {one, two};
  return listing;
}

TEST(TableTest, ColumnsAreThreeSpacesApartAndTenWide) {
  EXPECT_EQ(FormatTable({{"A", "BB", "C"}, {"1234567890", "2", "3"}}),
            "A            BB        C\n"
            "1234567890   2         3\n");
}

TEST(TableTest, WidthsCountCharacters) {
  EXPECT_EQ(FormatTable({{"öööööööööö", "x"}, {"0123456789", "y"}}),
            "öööööööööö   x\n"
            "0123456789   y\n");
}

TEST(ListingTest, OrdinaryTableQuietAndJson) {
  EXPECT_EQ(*FormatListing(Sample(), "", false),
            "CONTAINER ID   IMAGE                 NAMES\n"
            "0123456789ab   busybox               web\n"
            "ba9876543210   a-rather-long-image   ö\n");
  EXPECT_EQ(*FormatListing(Sample(), "", true), "0123456789ab\nba9876543210\n");
  EXPECT_EQ(*FormatListing(Sample(), "json", false),
            "{\"ID\":\"0123456789ab\",\"Image\":\"busybox\",\"Names\":\"web\"}\n"
            "{\"ID\":\"ba9876543210\",\"Image\":\"a-rather-long-image\",\"Names\":\"ö\"}\n");
  Listing empty = Sample();
  empty.rows.clear();
  EXPECT_EQ(*FormatListing(empty, "", true), "");
  EXPECT_EQ(*FormatListing(empty, "", false), "CONTAINER ID   IMAGE     NAMES\n");
}

TEST(ListingTest, TemplatesAndTablesOfTemplates) {
  EXPECT_EQ(*FormatListing(Sample(), "{{.Names}}={{.Image}}", false),
            "web=busybox\nö=a-rather-long-image\n");
  EXPECT_EQ(*FormatListing(Sample(), "table {{.Names}}\\t{{.Label \"tier\"}}\\t{{.ID}}", false),
            "NAMES     LABEL     CONTAINER ID\n"
            "web       front     0123456789ab\n"
            "ö                   ba9876543210\n");
  EXPECT_THAT(FormatListing(Sample(), "{{.Nope}}", false),
              Fails(absl::StatusCode::kInvalidArgument, "Nope"));
}

}  // namespace
}  // namespace gantry::ctl
