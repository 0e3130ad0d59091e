#include "services/image/blob_store.h"

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::image {
namespace {

using ::testing::ElementsAre;
using testing::HasCode;
using ::testing::IsEmpty;

absl::Status Ok() { return absl::OkStatus(); }

class BlobStoreTest : public ::testing::Test {
 protected:
  void TearDown() override { failpoint::DisarmAll(); }
  void Reopen() { store_ = *BlobStore::Open(temp_.path()); }

  sys::TempDir temp_ = *sys::TempDir::Create();
  std::unique_ptr<BlobStore> store_ = *BlobStore::Open(temp_.path());
  const Digest hello_ = archive::Sha256Of("hello");
};

TEST_F(BlobStoreTest, AnIngestBecomesABlob) {
  {
    std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
    ASSERT_OK(ingest->Append("hel"));
    ASSERT_OK(ingest->Append("lo"));
    ASSERT_OK(ingest->Commit(hello_, Ok));
  }

  EXPECT_EQ(*store_->ReadBlob(hello_, 100), "hello");
  EXPECT_THAT(*store_->ListBlobs(), ElementsAre(hello_));
  EXPECT_THAT(*store_->ListIngests(), IsEmpty());
}

TEST_F(BlobStoreTest, AnIngestGoesOnAfterARestart) {
  { ASSERT_OK((*store_->OpenIngest("i1"))->Append("hel")); }
  Reopen();

  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");

  EXPECT_EQ(ingest->offset(), 3u);
  EXPECT_EQ(ingest->digest(), archive::Sha256Of("hel"));
  ASSERT_OK(ingest->Append("lo"));
  EXPECT_OK(ingest->Commit(hello_, Ok));
}

TEST_F(BlobStoreTest, OneWriterAtATime) {
  std::unique_ptr<Ingest> first = *store_->OpenIngest("i1");

  EXPECT_THAT(store_->OpenIngest("i1"), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(store_->RemoveIngest("i1"), HasCode(absl::StatusCode::kUnavailable));
  first.reset();
  EXPECT_OK(store_->OpenIngest("i1"));
}

TEST_F(BlobStoreTest, OtherBytesAreNotCommitted) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("jello"));

  EXPECT_THAT(ingest->Commit(hello_, Ok), HasCode(absl::StatusCode::kDataLoss));
  EXPECT_THAT(*store_->ListBlobs(), IsEmpty());
}

TEST_F(BlobStoreTest, WhenTheRecordIsRefusedTheIngestIsAsBefore) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("hello"));

  EXPECT_THAT(ingest->Commit(hello_, [] { return absl::ResourceExhaustedError("disk full"); }),
              HasCode(absl::StatusCode::kResourceExhausted));

  EXPECT_THAT(*store_->ListBlobs(), IsEmpty());
  ingest.reset();
  ingest = *store_->OpenIngest("i1");
  EXPECT_EQ(ingest->offset(), 5u);
  EXPECT_OK(ingest->Commit(hello_, Ok));
}

// The answer got lost: who was told meanwhile that the blob is there must find its bytes.
TEST_F(BlobStoreTest, WhenNobodyKnowsWhetherItIsRecordedTheBlobStays) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("hello"));

  EXPECT_THAT(ingest->Commit(hello_, [] { return absl::UnavailableError("connection reset"); }),
              HasCode(absl::StatusCode::kUnavailable));

  EXPECT_EQ(*store_->BlobSize(hello_), 5u);
  EXPECT_EQ(*store_->ReadBlob(hello_, 100), "hello");
}

TEST_F(BlobStoreTest, ADroppedIngestGoesWhenItsWriterDoes) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("held");
  ASSERT_OK(store_->OpenIngest("free"));
  EXPECT_OK(store_->DropIngest("free"));
  EXPECT_OK(store_->DropIngest("never-there"));
  EXPECT_OK(store_->DropIngest("held"));
  EXPECT_THAT(*store_->ListIngests(), ElementsAre("held"));
  EXPECT_OK(ingest->Append("still writable"));

  ingest.reset();

  EXPECT_THAT(*store_->ListIngests(), IsEmpty());
  EXPECT_EQ((*store_->OpenIngest("held"))->offset(), 0u) << "a name may come again";
}

TEST_F(BlobStoreTest, AFailureAtEveryStepOfACommitKeepsTheBytes) {
  for (const char* step : {"image.commit.before_sync", "image.commit.before_rename"}) {
    std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
    if (ingest->offset() == 0) {
      ASSERT_OK(ingest->Append("hello"));
    }
    ASSERT_OK(failpoint::Arm(absl::StrCat(step, "=error")));
    EXPECT_FALSE(ingest->Commit(hello_, Ok).ok());
    failpoint::DisarmAll();
  }
  Reopen();
  EXPECT_OK((*store_->OpenIngest("i1"))->Commit(hello_, Ok));
}

TEST_F(BlobStoreTest, BytesThatChangedOnDiskAreDataLoss) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("hello"));
  ASSERT_OK(ingest->Commit(hello_, Ok));
  ASSERT_OK(sys::WriteFileAtomically(absl::StrCat(temp_.path(), "/blobs/sha256/", hello_.hex()),
                                     "jello"));

  EXPECT_THAT(store_->ReadBlob(hello_, 100), HasCode(absl::StatusCode::kDataLoss));
}

TEST_F(BlobStoreTest, ACommitWaitsForARemovalOfTheSameDigest) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("hello"));
  absl::Notification claimed;
  std::thread remover([&] {
    EXPECT_OK(store_->RemoveBlob(
        hello_,
        [&] {
          claimed.Notify();
          return absl::OkStatus();
        },
        Ok));
  });
  claimed.WaitForNotification();

  EXPECT_OK(ingest->Commit(hello_, Ok));
  remover.join();

  EXPECT_OK(store_->BlobSize(hello_));
}

TEST_F(BlobStoreTest, ABlobBackInUseIsKept) {
  std::unique_ptr<Ingest> ingest = *store_->OpenIngest("i1");
  ASSERT_OK(ingest->Append("hello"));
  ASSERT_OK(ingest->Commit(hello_, Ok));

  EXPECT_THAT(store_->RemoveBlob(
                  hello_, [] { return absl::FailedPreconditionError("in use"); }, Ok),
              HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(store_->BlobSize(hello_));
}

TEST_F(BlobStoreTest, IdsThatAreNoFileNamesAreRefused) {
  for (const char* id : {"", "..", "a/b", ".x", "a b"}) {
    EXPECT_THAT(store_->OpenIngest(id), HasCode(absl::StatusCode::kInternal)) << id;
  }
}

}  // namespace
}  // namespace gantry::image
