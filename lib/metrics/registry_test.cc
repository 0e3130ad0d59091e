#include "lib/metrics/registry.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry::metrics {
namespace {

using ::testing::HasSubstr;

TEST(RegistryTest, SameNameAndLabelsAreOneSeries) {
  Registry registry;
  registry.GetCounter("gantry_x_total", "X.", {{"a", "1"}}).Add();
  registry.GetCounter("gantry_x_total", "X.", {{"a", "1"}}).Add(2);
  registry.GetCounter("gantry_x_total", "X.", {{"a", "2"}}).Add();

  const std::string text = registry.Text();

  EXPECT_THAT(text, HasSubstr("# TYPE gantry_x_total counter"));
  EXPECT_THAT(text, HasSubstr("gantry_x_total{a=\"1\"} 3"));
  EXPECT_THAT(text, HasSubstr("gantry_x_total{a=\"2\"} 1"));
}

TEST(RegistryTest, HistogramsCountDurations) {
  Registry registry;
  registry.GetHistogram("gantry_y_seconds", "Y.").Observe(absl::Milliseconds(3));
  EXPECT_THAT(registry.Text(), HasSubstr("gantry_y_seconds_bucket{le=\"0.005\"} 1"));
  EXPECT_THAT(registry.Text(), HasSubstr("gantry_y_seconds_bucket{le=\"0.0025\"} 0"));
}

}  // namespace
}  // namespace gantry::metrics
