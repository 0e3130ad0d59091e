#include "shim/log_writer.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::shim {
namespace {

using ::gantry::testing::Fails;
using ::testing::HasSubstr;

constexpr char kStamp[] = "2026-11-23T10:02:11.123456789Z";

class LogWriterTest : public ::testing::Test {
 protected:
  void TearDown() override { failpoint::DisarmAll(); }

  LogWriter Open(LogFormat format = LogFormat::kJsonFile, uint64_t max_size = 0,
                 int max_files = 1) {
    LogWriter writer = LogWriter::Open({path_, format, max_size, max_files}).value();
    writer.SetClockForTest([] {
      absl::Time time;
      std::string error;
      EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, kStamp, &time, &error));
      return time;
    });
    return writer;
  }
  std::string Text(absl::string_view suffix = "") const {
    return sys::ReadFile(absl::StrCat(path_, suffix)).value_or("<none>");
  }
  // Every line parses; returns the `log` members one after the other.
  static std::string Logged(const std::string& text) {
    std::string logged;
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const auto document = json::Document::Parse(line);
      EXPECT_TRUE(document.ok()) << document.status() << ": " << line.substr(0, 200);
      if (!document.ok()) continue;
      std::string part;
      EXPECT_OK(document->root().Required("log", &part));
      logged += part;
    }
    return logged;
  }

  sys::TempDir directory_ = sys::TempDir::Create().value();
  std::string path_ = absl::StrCat(directory_.path(), "/c.log");
};

TEST_F(LogWriterTest, JsonLinesAreDockers) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "hello \"you\"\t\x01\n");
  writer.Write(StreamName::kStderr, "oops\n");
  EXPECT_EQ(Text(), absl::StrCat(R"({"log":"hello \"you\"\t\u0001\n","stream":"stdout","time":")",
                                 kStamp, "\"}\n", R"({"log":"oops\n","stream":"stderr","time":")",
                                 kStamp, "\"}\n"));
}

TEST_F(LogWriterTest, CriLinesAreKubernetes) {
  LogWriter writer = Open(LogFormat::kCri);
  writer.Write(StreamName::kStdout, "one\ntwo");
  writer.Flush(StreamName::kStdout);
  EXPECT_EQ(Text(), absl::StrCat(kStamp, " stdout F one\n", kStamp, " stdout F two\n"));
}

TEST_F(LogWriterTest, LinesArriveInPieces) {
  LogWriter writer = Open();
  for (const char* piece : {"a", "b\nc", "", "d", "\ne"}) writer.Write(StreamName::kStdout, piece);
  EXPECT_EQ(Logged(Text()), "ab\ncd\n");
  writer.Flush(StreamName::kStdout);
  EXPECT_EQ(Logged(Text()), "ab\ncd\ne");
}

TEST_F(LogWriterTest, StreamsDoNotMixWithinALine) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "out");
  writer.Write(StreamName::kStderr, "err\n");
  writer.Write(StreamName::kStdout, "put\n");
  EXPECT_EQ(Logged(Text()), "err\noutput\n");
}

TEST_F(LogWriterTest, LongLinesAreCutAtSixteenKibibytes) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, absl::StrCat(std::string(40000, 'x'), "\n"));
  const std::string text = Text();
  EXPECT_EQ(Logged(text), absl::StrCat(std::string(40000, 'x'), "\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
}

TEST_F(LogWriterTest, CriMarksTheParts) {
  LogWriter writer = Open(LogFormat::kCri);
  writer.Write(StreamName::kStdout, absl::StrCat(std::string(20000, 'x'), "\n"));
  EXPECT_THAT(Text(), HasSubstr(absl::StrCat(" stdout P ", std::string(16384, 'x'), "\n")));
  EXPECT_THAT(Text(), HasSubstr(absl::StrCat(" stdout F ", std::string(20000 - 16384, 'x'), "\n")));
}

TEST_F(LogWriterTest, BytesThatAreNoTextAreReplacedInJson) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "\xff\xc3\x28 \xe2\x82\xac \xed\xa0\x80\n");
  EXPECT_EQ(Logged(Text()),
            "\xef\xbf\xbd\xef\xbf\xbd( \xe2\x82\xac \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n");
}

TEST_F(LogWriterTest, RotatesBeforeTheLimitAndKeepsTheNewest) {
  LogWriter writer = Open(LogFormat::kJsonFile, 400, 3);
  for (int i = 0; i < 20; ++i) writer.Write(StreamName::kStdout, absl::StrCat("line ", i, "\n"));
  for (const char* suffix : {"", ".1", ".2"}) {
    struct stat info;
    ASSERT_EQ(::stat(absl::StrCat(path_, suffix).c_str(), &info), 0) << suffix;
    EXPECT_LE(info.st_size, 400) << suffix;
  }
  EXPECT_FALSE(sys::Exists(absl::StrCat(path_, ".3")));
  EXPECT_FALSE(sys::Exists(absl::StrCat(path_, ".new")));
  const std::string logged = Logged(Text(".2")) + Logged(Text(".1")) + Logged(Text());
  EXPECT_TRUE(absl::EndsWith(logged, "line 17\nline 18\nline 19\n")) << logged;
}

TEST_F(LogWriterTest, ABurstInOneReadIsRotatedLineByLine) {
  LogWriter writer = Open(LogFormat::kJsonFile, 1000, 100);
  std::string burst;
  for (int i = 0; i < 100; ++i) absl::StrAppend(&burst, "line ", i, "\n");
  writer.Write(StreamName::kStdout, burst);
  std::string logged;
  for (int i = 99; i >= 1; --i) {
    const std::string suffix = absl::StrCat(".", i);
    if (sys::Exists(absl::StrCat(path_, suffix))) logged += Logged(Text(suffix));
  }
  EXPECT_EQ(logged + Logged(Text()), burst);
}

TEST_F(LogWriterTest, OneFileIsEmptiedInstead) {
  LogWriter writer = Open(LogFormat::kJsonFile, 300, 1);
  for (int i = 0; i < 50; ++i) writer.Write(StreamName::kStdout, absl::StrCat("line ", i, "\n"));
  EXPECT_LE(Text().size(), 300u);
  EXPECT_TRUE(absl::EndsWith(Logged(Text()), "line 49\n"));
  EXPECT_FALSE(sys::Exists(absl::StrCat(path_, ".1")));
}

TEST_F(LogWriterTest, ATornLineIsCutOffAtOpen) {
  ASSERT_OK(sys::WriteFileAtomically(path_, "{\"log\":\"whole\\n\"}\n{\"log\":\"to"));
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "next\n");
  EXPECT_EQ(Logged(Text()), "whole\nnext\n");
}

TEST_F(LogWriterTest, ReopenFollowsARename) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "old\n");
  ASSERT_OK(sys::Rename(path_, absl::StrCat(path_, ".moved")));
  ASSERT_OK(writer.Reopen());
  writer.Write(StreamName::kStdout, "new\n");
  EXPECT_EQ(Logged(Text(".moved")), "old\n");
  EXPECT_EQ(Logged(Text()), "new\n");
}

TEST_F(LogWriterTest, LinksAndDevicesAreRefused) {
  ASSERT_EQ(::symlink("/etc/passwd", path_.c_str()), 0);
  EXPECT_FALSE(LogWriter::Open({path_}).ok());
  EXPECT_THAT(LogWriter::Open({"/dev/null"}),
              Fails(absl::StatusCode::kFailedPrecondition, "regular"));
  EXPECT_THAT(LogWriter::Open({absl::StrCat(directory_.path(), "/no/dir")}),
              Fails(absl::StatusCode::kNotFound, "/no/dir"));
}

TEST_F(LogWriterTest, LossIsCountedAndTold) {
  LogWriter writer = Open();
  writer.Write(StreamName::kStdout, "before\n");
  ASSERT_OK(failpoint::Arm("shim.log.write=error"));
  writer.Write(StreamName::kStdout, "lost 1\nlost 2\n");
  writer.Write(StreamName::kStdout, "lost 3\n");
  failpoint::DisarmAll();
  writer.Write(StreamName::kStdout, "after\n");
  const std::string logged = Logged(Text());
  EXPECT_THAT(logged, HasSubstr("before\n[gantry] "));
  EXPECT_TRUE(absl::EndsWith(logged, "after\n"));
  EXPECT_EQ(logged.find("lost "), std::string::npos);
  EXPECT_GE(writer.dropped_lines(), 2u);
}

// A file system of eight pages, in a mount namespace of our own.
class FullDiskTest : public LogWriterTest {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=32k"), 0);
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) ::umount2(directory_.path().c_str(), MNT_DETACH);
  }
  bool mounted_ = false;
};

TEST_F(FullDiskTest, EveryLineOfTheFileParsesAndTheGapIsMarked) {
  LogWriter writer = Open();
  for (int i = 0; i < 2000; ++i) writer.Write(StreamName::kStdout, absl::StrCat("line ", i, "\n"));
  EXPECT_GT(writer.dropped_lines(), 0u);
  const std::string full = Logged(Text());
  EXPECT_THAT(full, HasSubstr("line 0\n"));

  // Somebody makes room.
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  ASSERT_OK(writer.Reopen());
  writer.Write(StreamName::kStdout, "room again\n");

  const std::string logged = Logged(Text());
  EXPECT_THAT(logged, HasSubstr("[gantry] "));
  EXPECT_THAT(logged, HasSubstr("dropped, No space left on device"));
  EXPECT_TRUE(absl::EndsWith(logged, "room again\n")) << logged;
}

}  // namespace
}  // namespace gantry::shim
