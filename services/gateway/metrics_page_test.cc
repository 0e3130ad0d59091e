#include "services/gateway/metrics_page.h"

#include "gtest/gtest.h"

namespace gantry::gateway {
namespace {

TEST(MetricsPageTest, FamiliesStandOnceAndSamplesNameTheirProcess) {
  const std::string first =
      "# HELP a_total A.\n# TYPE a_total counter\na_total{code=\"OK\"} 3\n# HELP b B.\n# TYPE b "
      "gauge\nb 1\n";
  const std::string second = "# HELP a_total A.\n# TYPE a_total counter\na_total{code=\"OK\"} 4\n";

  EXPECT_EQ(MergePages({{"image", first}, {"task", second}}),
            "# HELP a_total A.\n# TYPE a_total counter\n"
            "a_total{process=\"image\",code=\"OK\"} 3\na_total{process=\"task\",code=\"OK\"} 4\n"
            "# HELP b B.\n# TYPE b gauge\nb{process=\"image\"} 1\n");
}

TEST(MetricsPageTest, HistogramsStayTogether) {
  const std::string text =
      "# HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_count 1\nh_seconds_sum 2\n"
      "h_seconds_bucket{le=\"+Inf\"} 1\n";
  EXPECT_EQ(
      MergePages({{"task", text}}),
      "# HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_count{process=\"task\"} 1\n"
      "h_seconds_sum{process=\"task\"} 2\nh_seconds_bucket{process=\"task\",le=\"+Inf\"} 1\n");
}

TEST(MetricsPageTest, NonsenseIsLeftOut) {
  EXPECT_EQ(MergePages({{"x", "no comment before 1\n\n{} 3\n# HELP\n"}}), "");
}

}  // namespace
}  // namespace gantry::gateway
