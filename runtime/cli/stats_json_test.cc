#include "runtime/cli/stats_json.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

using ::testing::HasSubstr;

class StatsJsonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(std::move(*made));
  }
  void Put(const std::string& file, const std::string& text) {
    ASSERT_OK(sys::WriteFileAtomically(directory_->path() + "/" + file, text));
  }
  std::string Write(cgroup::Mode mode, const std::string& controllers) {
    const cgroup::Cgroup cgroup(mode, {{directory_->path(), controllers}});
    json::Writer writer;
    writer.BeginObject();
    EXPECT_OK(mode == cgroup::Mode::kV2 ? WriteStatsV2(cgroup, writer)
                                        : WriteStatsV1(cgroup, writer));
    writer.EndObject();
    std::string text = writer.Take();
    EXPECT_OK(json::Document::Parse(text)) << text;
    return text;
  }
  std::unique_ptr<sys::TempDir> directory_;
};

TEST_F(StatsJsonTest, V2HasPressureAsNumbersAndReadsApartFromWrites) {
  Put("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n");
  Put("cpu.pressure", "some avg10=0.25 avg60=0.00 avg300=1.50 total=42\nfull avg10=0.00 total=7\n");
  Put("memory.stat", "file 4096\n");
  Put("memory.current", "30\n");
  Put("io.stat", "8:16 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n");
  Put("hugetlb.2MB.current", "5\n");
  Put("hugetlb.2MB.max", "9\n");

  const std::string text = Write(cgroup::Mode::kV2, "");

  EXPECT_THAT(text, HasSubstr(R"("usage":{"total":7000,"kernel":2000,"user":5000})"));
  EXPECT_THAT(text,
              HasSubstr(R"("psi":{"some":{"avg10":0.25,"avg60":0.00,"avg300":1.50,"total":42})"));
  EXPECT_THAT(text, HasSubstr(R"("cache":4096)"));
  EXPECT_THAT(text, HasSubstr(R"({"major":8,"minor":16,"op":"Read","value":4096})"));
  EXPECT_THAT(text, HasSubstr(R"("hugetlb":{"2MB":{"usage":5,"max":9,"failcnt":0}})"));
}

TEST_F(StatsJsonTest, V1HasTheOldNames) {
  Put("memory.stat", "cache 10\nrss 20\n");
  Put("memory.usage_in_bytes", "30\n");
  Put("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\n");

  const std::string text = Write(cgroup::Mode::kV1, "cpuacct,memory,blkio");

  EXPECT_THAT(text, HasSubstr(R"("cache":10)"));
  EXPECT_THAT(text, HasSubstr(R"("kernelTCP":)"));
  EXPECT_THAT(text, HasSubstr(R"("ioServiceBytesRecursive":[{"major":8,"minor":0,"op":"Read")"));
}

TEST_F(StatsJsonTest, WhatIsNoNumberIsLeftOutOfPressure) {
  Put("memory.pressure", "some avg10=nan total=1.2.3 avg60=1.\n");
  EXPECT_THAT(Write(cgroup::Mode::kV2, ""), HasSubstr(R"("psi":{"some":{}})"));
}

}  // namespace
}  // namespace gantry::runtime
