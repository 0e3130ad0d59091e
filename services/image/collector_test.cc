#include "services/image/collector.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/base/failpoint.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/fake_metadata.h"
#include "services/image/testing/fake_registry.h"
#include "services/image/testing/image_process.h"

namespace gantry::image {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class CollectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots");
    process_ = std::make_unique<ImageProcess>(*fake_, temp_.path());
    registry_.AddImage("a", "v1", {{archive::TarBuilder().File("x", "1").Take()}});
    ASSERT_OK(process_->Pull(Name()));
  }

  std::string Name() const { return registry_.host() + "/a:v1"; }

  size_t Findings() {
    rpc::AuditReport report;
    EXPECT_OK(process_->collector.Audit(report));
    return report.findings.size();
  }

  // Until the deadline of the test.
  bool BlobsBecome(size_t count) {
    return Become([&] { return process_->blobs->ListBlobs()->size() == count; });
  }
  bool IngestsBecome(size_t count) {
    return Become([&] { return process_->blobs->ListIngests()->size() == count; });
  }
  bool Become(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    absl::Mutex mutex;
    absl::MutexLock lock(&mutex);
    absl::CondVar never;
    while (!condition() && absl::Now() < deadline) {
      never.WaitWithTimeout(&mutex, absl::Milliseconds(10));
    }
    return condition();
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  FakeRegistry registry_;
  std::unique_ptr<FakeMetadata> fake_;
  std::unique_ptr<ImageProcess> process_;
};

TEST_F(CollectorTest, BytesGoWhenMetadataSaysSo) {
  process_->collector.Start();
  ASSERT_THAT(*process_->blobs->ListBlobs(), SizeIs(3));
  EXPECT_EQ(Findings(), 0u);

  ASSERT_OK(process_->catalog.Remove("n", Name(), false));

  EXPECT_TRUE(BlobsBecome(0));
  EXPECT_EQ(Findings(), 0u);
}

TEST_F(CollectorTest, AStartRemovesWhatAKilledProcessLeft) {
  // Renamed into place, then killed before the record; an ingest nobody knows; a lease.
  ASSERT_OK((*process_->blobs->OpenIngest("orphan"))->Append("x"));
  {
    std::unique_ptr<Ingest> ingest = *process_->blobs->OpenIngest("i");
    ASSERT_OK(ingest->Append("hello"));
    ASSERT_OK(ingest->Commit(archive::Sha256Of("hello"), [] { return absl::OkStatus(); }));
  }
  ASSERT_OK(process_->metadata.CreateLease(Caller{"n", ""}, "gantry-image-old-1",
                                           {{kPullLeaseLabel, "1"}}));
  ASSERT_OK(process_->metadata.CreateLease(Caller{"n", ""}, "of-a-client", {}));
  EXPECT_EQ(Findings(), 2u);

  process_->collector.Start();

  EXPECT_TRUE(BlobsBecome(3));
  EXPECT_THAT(*process_->blobs->ListIngests(), IsEmpty());
  EXPECT_EQ(fake_->Get("n").leases.count("gantry-image-old-1"), 0u);
  EXPECT_EQ(fake_->Get("n").leases.count("of-a-client"), 1u);
  EXPECT_EQ(Findings(), 0u);
}

TEST_F(CollectorTest, AnIngestGoesWithItsRecord) {
  process_->collector.Start();
  Metadata& metadata = process_->metadata;
  const Caller caller{"n", ""};
  ASSERT_OK(metadata.CreateLease(caller, "pull", {}));
  absl::StatusOr<metadata::v1::BeginIngestResponse> leased =
      metadata.BeginIngest({"n", "pull"}, "leased", "", 0);
  ASSERT_OK(leased);
  ASSERT_OK((*process_->blobs->OpenIngest(leased->backend_id()))->Append("half a lay"));

  ASSERT_OK(metadata.DeleteLease(caller, "pull"));
  fake_->Collect();

  EXPECT_TRUE(IngestsBecome(0));
  EXPECT_EQ(Findings(), 0u);
}

TEST_F(CollectorTest, WhatCouldNotBeRemovedIsTriedAgain) {
  process_->collector.Start();
  ASSERT_OK(failpoint::Arm("image.blob.before_unlink=error@1"));

  ASSERT_OK(process_->catalog.Remove("n", Name(), false));

  EXPECT_TRUE(BlobsBecome(0));
  failpoint::DisarmAll();
}

TEST_F(CollectorTest, TheAuditNamesRecordsWithoutBytes) {
  const Digest digest = process_->blobs->ListBlobs()->front();
  ASSERT_OK(sys::Unlink(absl::StrCat(temp_.path(), "/state/blobs/sha256/", digest.hex())));

  EXPECT_EQ(Findings(), 1u);
}

}  // namespace
}  // namespace gantry::image
