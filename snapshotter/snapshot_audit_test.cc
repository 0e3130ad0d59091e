#include "snapshotter/snapshot_audit.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::snapshotter {
namespace {

using ::testing::HasSubstr;

class SnapshotAuditTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create();
    ASSERT_OK(made);
    temp_ = std::make_unique<sys::TempDir>(std::move(*made));
    absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> opened =
        OverlaySnapshotter::Open({.root = temp_->path()});
    ASSERT_OK(opened);
    snapshotter_ = std::move(*opened);
  }
  rpc::AuditReport Audit(const std::string& mountinfo) {
    rpc::AuditReport report;
    EXPECT_OK(AuditSnapshots(*snapshotter_, mountinfo, report));
    return report;
  }

  std::unique_ptr<sys::TempDir> temp_;
  std::unique_ptr<OverlaySnapshotter> snapshotter_;
};

TEST_F(SnapshotAuditTest, ACleanStoreHasNoFindingsButWasLookedAt) {
  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", "", {});
  ASSERT_OK(mounts);

  rpc::AuditReport report = Audit(absl::StrCat(
      "36 35 98:0 / /run/x rw - overlay overlay rw,upperdir=", (*mounts)[0].source, "\n"));

  EXPECT_TRUE(report.findings.empty());
  EXPECT_EQ(report.checked["snapshot"], 1u);
  EXPECT_EQ(report.checked["mount of a snapshot"], 1u);
}

TEST_F(SnapshotAuditTest, FindsADirectoryWithoutARecord) {
  ASSERT_OK(sys::MakeDirectory(temp_->path() + "/snapshots/stray", 0700));

  rpc::AuditReport report = Audit("");

  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_THAT(report.findings[0].object, HasSubstr("stray"));
}

TEST_F(SnapshotAuditTest, FindsARecordWithoutADirectory) {
  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", "", {});
  ASSERT_OK(mounts);
  ASSERT_OK(sys::RemoveTree((*mounts)[0].source + "/.."));
  ASSERT_OK(sys::RemoveTree((*mounts)[0].source.substr(0, (*mounts)[0].source.size() - 3)));

  rpc::AuditReport report = Audit("");

  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].object, "web");
}

TEST_F(SnapshotAuditTest, FindsAMountOfARemovedSnapshot) {
  rpc::AuditReport report =
      Audit(absl::StrCat("36 35 98:0 / /run/left rw - overlay overlay rw,lowerdir=", temp_->path(),
                         "/snapshots/gone/fs:/x\n"));

  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].kind, "mount");
  EXPECT_EQ(report.findings[0].object, "/run/left");
}

}  // namespace
}  // namespace gantry::snapshotter
