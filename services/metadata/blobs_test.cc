#include "services/metadata/blobs.h"

#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class BlobsTest : public HouseTest {
 protected:
  class Watcher : public BlobGarbage::Watcher {
   public:
    void OfferBlob(const std::string& digest) override { offered.push_back(digest); }
    void OfferIngest(const std::string& backend_id) override { ingests.push_back(backend_id); }
    std::vector<std::string> offered, ingests;
  };

  absl::StatusOr<v1::BeginIngestResponse> Begin(const Caller& caller, const std::string& ref,
                                                const std::string& digest = "") {
    v1::BeginIngestRequest request;
    request.set_ref(ref);
    request.set_expected_digest(digest);
    return house_->blobs.BeginIngest(caller, request);
  }

  absl::Status CommitIngest(const Caller& caller, const std::string& ref,
                            const std::string& digest) {
    v1::CommitIngestRequest request;
    request.set_ref(ref);
    request.set_digest(digest);
    request.set_size_bytes(10);
    return house_->blobs.CommitIngest(caller, request).status();
  }
};

TEST_F(BlobsTest, ABlobIsVisibleWhereItWasCommittedOnly) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));

  EXPECT_EQ(house_->blobs.Get(caller_, DigestOf(1))->size_bytes(), 10u);
  EXPECT_THAT(house_->blobs.Get({"other", ""}, DigestOf(1)), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Topics(), ElementsAre("/content/create"));
}

TEST_F(BlobsTest, AnIngestIsResumedUnderTheSameIdAcrossARestart) {
  const std::string id = Begin(caller_, "layer", DigestOf(1))->backend_id();

  Reopen();

  EXPECT_EQ(Begin(caller_, "layer", DigestOf(1))->backend_id(), id);
  EXPECT_EQ(Begin(caller_, "layer")->expected_digest(), DigestOf(1));
  EXPECT_THAT(Begin(caller_, "layer", DigestOf(2)), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_NE(Begin({"other", ""}, "layer")->backend_id(), id);
}

TEST_F(BlobsTest, AVisibleBlobIsAlreadyThereAndLeasedAllTheSame) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));

  EXPECT_THAT(Begin({"test", "pull"}, "layer", DigestOf(1)),
              HasCode(absl::StatusCode::kAlreadyExists));

  EXPECT_THAT(*house_->leases.ListResources(caller_, "pull"), SizeIs(1));
  EXPECT_THAT(*house_->blobs.ListIngests(caller_, false), IsEmpty());
}

TEST_F(BlobsTest, ABlobOfAnotherNamespaceIsSharedWithoutBytes) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));

  EXPECT_TRUE(Begin({"other", ""}, "layer", DigestOf(1))->shared());
  EXPECT_FALSE(Begin({"other", ""}, "layer2", DigestOf(2))->shared());
  ASSERT_OK(CommitIngest({"other", ""}, "layer", DigestOf(1)));

  EXPECT_OK(house_->blobs.Get({"other", ""}, DigestOf(1)));
}

TEST_F(BlobsTest, CommittingABlobTwiceEndsTheIngestAndSaysSo) {
  ASSERT_OK(Begin(caller_, "one"));
  ASSERT_OK(Begin(caller_, "two"));
  ASSERT_OK(CommitIngest(caller_, "one", DigestOf(1)));

  EXPECT_THAT(CommitIngest(caller_, "two", DigestOf(1)), HasCode(absl::StatusCode::kAlreadyExists));

  EXPECT_THAT(*house_->blobs.ListIngests(caller_, false), IsEmpty());
  EXPECT_THAT(CommitIngest(caller_, "two", DigestOf(1)), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(BlobsTest, LabelsAreReplacedByPathAndListsFilter) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));
  ASSERT_OK(AddBlob(caller_, DigestOf(2)));
  v1::UpdateBlobRequest update;
  update.set_digest(DigestOf(1));
  (*update.mutable_labels())["a/b"] = "c";
  update.add_update_paths("labels.a/b");

  ASSERT_OK(house_->blobs.Update(caller_, update));

  EXPECT_THAT(*house_->blobs.List(caller_, {"labels.\"a/b\"==c"}, "", 10), SizeIs(1));
  EXPECT_THAT(*house_->blobs.List(caller_, {}, "", 1), SizeIs(1));
  EXPECT_THAT(*house_->blobs.List(caller_, {}, DigestOf(1), 10), SizeIs(1));
  EXPECT_THAT(*house_->blobs.List(caller_, {"size==10"}, "", 10), IsEmpty());
}

TEST_F(BlobsTest, TheLastRecordsEndOffersTheBytesToTheWatchers) {
  Watcher watcher;
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));
  ASSERT_OK(house_->blob_garbage.AddWatcher(&watcher, {DigestOf(1), DigestOf(9)}, {}));
  EXPECT_THAT(watcher.offered, ElementsAre(DigestOf(9)));

  ASSERT_OK(house_->blobs.Delete(caller_, DigestOf(1)));

  EXPECT_THAT(watcher.offered, ElementsAre(DigestOf(9), DigestOf(1)));
  EXPECT_OK(house_->blob_garbage.Claim(DigestOf(1)));
  house_->blob_garbage.RemoveWatcher(&watcher);
}

TEST_F(BlobsTest, ABlobThatIsRecordedOrExpectedCannotBeClaimed) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));
  ASSERT_OK(Begin(caller_, "layer", DigestOf(2)));

  EXPECT_THAT(house_->blob_garbage.Claim(DigestOf(1)),
              HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(house_->blob_garbage.Claim(DigestOf(2)),
              HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(house_->blob_garbage.Claim("sha256:x"), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(BlobsTest, WhileABlobIsClaimedItIsNotSharedAndCannotBeCommitted) {
  Watcher watcher;
  ASSERT_OK(house_->blob_garbage.AddWatcher(&watcher, {}, {}));
  ASSERT_OK(house_->blob_garbage.Claim(DigestOf(1)));
  ASSERT_OK(Begin(caller_, "layer"));

  EXPECT_FALSE(Begin(caller_, "other", DigestOf(1))->shared());
  EXPECT_THAT(CommitIngest(caller_, "layer", DigestOf(1)), HasCode(absl::StatusCode::kUnavailable));

  house_->blob_garbage.Release(DigestOf(1), true);
  EXPECT_OK(CommitIngest(caller_, "layer", DigestOf(1)));
  house_->blob_garbage.RemoveWatcher(&watcher);
}

TEST_F(BlobsTest, AClaimRefusedForAnIngestIsOfferedAgainWhenThatIsAborted) {
  Watcher watcher;
  ASSERT_OK(house_->blob_garbage.AddWatcher(&watcher, {}, {}));
  ASSERT_OK(Begin(caller_, "layer", DigestOf(1)));
  EXPECT_THAT(house_->blob_garbage.Claim(DigestOf(1)),
              HasCode(absl::StatusCode::kFailedPrecondition));

  ASSERT_OK(house_->blobs.AbortIngest(caller_, "layer"));

  EXPECT_THAT(watcher.offered, ElementsAre(DigestOf(1)));
  EXPECT_OK(house_->blob_garbage.Claim(DigestOf(1)));
  house_->blob_garbage.RemoveWatcher(&watcher);
}

TEST_F(BlobsTest, AnIngestIsOfferedWhenItsRecordGoes) {
  Watcher watcher;
  const std::string kept = Begin(caller_, "kept")->backend_id();
  const std::string aborted = Begin(caller_, "aborted")->backend_id();
  const std::string committed = Begin(caller_, "committed")->backend_id();
  ASSERT_OK(house_->blob_garbage.AddWatcher(&watcher, {}, {kept, "of another life", aborted}));
  EXPECT_THAT(watcher.ingests, ElementsAre("of another life"));

  ASSERT_OK(house_->blobs.AbortIngest(caller_, "aborted"));
  ASSERT_OK(CommitIngest(caller_, "committed", DigestOf(1)));

  EXPECT_THAT(watcher.ingests, ElementsAre("of another life", aborted, committed));
  house_->blob_garbage.RemoveWatcher(&watcher);
}

}  // namespace
}  // namespace gantry::metadata
