#include "services/metadata/collector.h"

#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_join.h"
#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Labels MakeLabels(std::initializer_list<std::pair<std::string, std::string>> pairs) {
  Labels labels;
  for (const auto& [key, value] : pairs) labels[key] = value;
  return labels;
}

class CollectorTest : public HouseTest {
 protected:
  void SetUp() override {
    HouseTest::SetUp();
    house_->Start();
    ASSERT_OK(WaitIdle());
  }

  bool HasBlob(int number) { return house_->blobs.Get(caller_, DigestOf(number)).ok(); }

  std::string ExpiryIn(absl::Duration time) {
    return absl::FormatTime(absl::RFC3339_full, now_ + time, absl::UTCTimeZone());
  }
};

TEST_F(CollectorTest, AnImageKeepsWhatItsLabelsReferenceAndNothingElseStays) {
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));
  const Caller leased{"test", "pull"};
  // The collector runs all the time: without the lease it may take the layer before the image is
  // there.
  caller_ = leased;
  ASSERT_OK(AddLayer("chain"));
  caller_ = {"test", ""};
  ASSERT_OK(AddBlob(leased, DigestOf(3)));
  ASSERT_OK(AddBlob(leased, DigestOf(4)));
  ASSERT_OK(AddBlob(leased, DigestOf(2),
                    MakeLabels({{"containerd.io/gc.ref.snapshot.overlayfs", "chain"}})));
  ASSERT_OK(AddBlob(leased, DigestOf(1),
                    MakeLabels({{"containerd.io/gc.ref.content.config", DigestOf(2)},
                                {"containerd.io/gc.ref.content.l.0", DigestOf(3)}})));
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));
  ASSERT_OK(house_->leases.Delete(caller_, "pull"));

  ASSERT_OK(Collect());

  EXPECT_TRUE(HasBlob(1) && HasBlob(2) && HasBlob(3));
  EXPECT_FALSE(HasBlob(4));
  EXPECT_THAT(SnapshotNames(), ElementsAre("chain"));

  ASSERT_OK(house_->images.Delete(caller_, "busybox", nullptr));
  ASSERT_OK(Collect());
  EXPECT_FALSE(HasBlob(1) || HasBlob(2) || HasBlob(3));
  EXPECT_THAT(SnapshotNames(), IsEmpty());
  EXPECT_THAT(house_->snapshotter.Keys(), IsEmpty());
  EXPECT_THAT(Topics(), Contains("/content/delete"));
}

TEST_F(CollectorTest, AContainerKeepsItsSnapshotAndThatItsParents) {
  v1::CreateContainerRequest create;
  *create.mutable_container() = MakeContainer("web", "web");
  create.set_snapshot_parent("base");
  ASSERT_OK(house_->leases.Create(caller_, "work", {}));
  caller_.lease = "work";
  ASSERT_OK(AddLayer("base"));
  ASSERT_OK(house_->bundles.CreateContainer(caller_, create));
  ASSERT_OK(house_->leases.Delete(caller_, "work"));
  caller_.lease = "";

  ASSERT_OK(Collect());
  EXPECT_THAT(SnapshotNames(), ElementsAre("base", "web"));

  ASSERT_OK(house_->containers.Delete(caller_, "web"));
  ASSERT_OK(Collect());
  EXPECT_THAT(SnapshotNames(), IsEmpty());
  EXPECT_THAT(house_->snapshotter.Keys(), IsEmpty());
}

TEST_F(CollectorTest, AnExpiredLeaseGoesWithWhatItHeld) {
  ASSERT_OK(house_->leases.Create(caller_, "pull",
                                  MakeLabels({{kLabelGcExpire, ExpiryIn(absl::Hours(1))}})));
  ASSERT_OK(AddBlob({"test", "pull"}, DigestOf(1)));
  ASSERT_OK(Collect());
  EXPECT_TRUE(HasBlob(1));

  now_ += absl::Hours(2);
  ASSERT_OK(Collect());

  EXPECT_FALSE(HasBlob(1));
  EXPECT_THAT(*house_->leases.List(caller_, {}), IsEmpty());
}

TEST_F(CollectorTest, AFlatLeaseKeepsItsObjectsOnly) {
  ASSERT_OK(house_->leases.Create(caller_, "flat", MakeLabels({{kLabelGcFlat, "true"}})));
  ASSERT_OK(AddBlob({"test", "flat"}, DigestOf(1),
                    MakeLabels({{"containerd.io/gc.ref.content.0", DigestOf(2)}})));
  ASSERT_OK(house_->leases.Create(caller_, "other", {}));
  ASSERT_OK(AddBlob({"test", "other"}, DigestOf(2)));
  ASSERT_OK(house_->leases.Delete(caller_, "other"));

  ASSERT_OK(Collect());

  EXPECT_TRUE(HasBlob(1));
  EXPECT_FALSE(HasBlob(2));
}

TEST_F(CollectorTest, AnIngestLivesADayAndALeasedOneAsLongAsItsLease) {
  v1::BeginIngestRequest begin;
  begin.set_ref("alone");
  ASSERT_OK(house_->blobs.BeginIngest(caller_, begin));
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));
  begin.set_ref("leased");
  ASSERT_OK(house_->blobs.BeginIngest({"test", "pull"}, begin));
  now_ += absl::Hours(25);

  ASSERT_OK(Collect());
  ASSERT_THAT(*house_->blobs.ListIngests(caller_, false), SizeIs(1));
  EXPECT_EQ(house_->blobs.ListIngests(caller_, false)->at(0).ref(), "leased");

  ASSERT_OK(house_->leases.Delete(caller_, "pull"));
  ASSERT_OK(Collect());
  EXPECT_THAT(*house_->blobs.ListIngests(caller_, false), IsEmpty());
}

TEST_F(CollectorTest, AnExpiredImageGoesAndSaysSo) {
  Images::Image image = MakeImage("cache", DigestOf(1));
  (*image.mutable_labels())[kLabelGcExpire] = ExpiryIn(absl::Hours(1));
  ASSERT_OK(house_->images.Create(caller_, image, std::nullopt));
  ASSERT_OK(Collect());
  EXPECT_OK(house_->images.Get(caller_, "cache"));

  now_ += absl::Hours(2);
  ASSERT_OK(Collect());

  EXPECT_THAT(*house_->images.List(caller_, {}), IsEmpty());
  EXPECT_THAT(Topics(), Contains("/images/delete"));
}

TEST_F(CollectorTest, ABackReferenceKeepsAnObjectAsLongAsItsHolder) {
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("web")));
  ASSERT_OK(house_->leases.Create(caller_, "l", {}));
  ASSERT_OK(AddBlob({"test", "l"}, DigestOf(1),
                    MakeLabels({{"containerd.io/gc.bref.container", "web"}})));
  ASSERT_OK(house_->leases.Delete(caller_, "l"));
  ASSERT_OK(Collect());
  EXPECT_TRUE(HasBlob(1));

  ASSERT_OK(house_->containers.Delete(caller_, "web"));
  ASSERT_OK(Collect());

  EXPECT_FALSE(HasBlob(1));
}

TEST_F(CollectorTest, APlanExplainsAndChangesNothing) {
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));
  ASSERT_OK(AddBlob({"test", "pull"}, DigestOf(1)));
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));
  ASSERT_OK(AddBlob({"test", "pull"}, DigestOf(2)));
  // Taking it out of the lease must not race with this test's plan: collection is stopped.
  house_->collector.Stop();
  ASSERT_OK(house_->leases.Delete(caller_, "pull"));

  absl::StatusOr<Collected> plan = house_->collector.Plan();

  ASSERT_OK(plan);
  ASSERT_THAT(plan->removed, SizeIs(1));
  EXPECT_EQ(plan->removed[0].object.key, DigestOf(2));
  EXPECT_EQ(plan->removed[0].reason, "unreferenced");
  std::vector<std::string> reasons;
  for (const Collected::Item& item : plan->kept) reasons.push_back(item.reason);
  EXPECT_THAT(reasons, Contains(absl::StrCat("image busybox > content ", DigestOf(1))));
  EXPECT_TRUE(HasBlob(2));
}

TEST_F(CollectorTest, WhatComesBackIntoUseBetweenMarkAndSweepIsKept) {
  ASSERT_OK(house_->leases.Create(caller_, "pull", {}));
  ASSERT_OK(AddBlob({"test", "pull"}, DigestOf(1)));
  ASSERT_OK(Collect());
  ASSERT_OK(failpoint::Arm("metadata.collector.before_sweep=delay(300)@1"));
  ASSERT_OK(house_->leases.Delete(caller_, "pull"));
  std::thread collecting([&] { EXPECT_OK(Collect()); });
  // The mark may run before or after this; in either case the image must keep its blob.
  absl::Status created =
      house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt).status();
  collecting.join();

  ASSERT_OK(created);
  // An image may be created when its blob is gone already; then there is nothing to keep.
  absl::StatusOr<Collected> plan = house_->collector.Plan();
  ASSERT_OK(plan);
  EXPECT_THAT(plan->removed, IsEmpty());
}

// A crash in the middle of a collection loses nothing that was kept and finishes what was begun.
class CollectorCrashTest : public HouseTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(CollectorCrashTest, TheNextStartFinishes) {
  ASSERT_OK(AddLayer("kept"));
  ASSERT_OK(AddLayer("garbage"));
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("web", "kept")));
  house_.reset();
  const pid_t child = ::fork();
  if (child == 0) {
    if (!failpoint::Arm(absl::StrCat(GetParam(), "=kill")).ok()) ::_exit(1);
    absl::StatusOr<std::unique_ptr<MetadataHouse>> house =
        MetadataHouse::Open(directory_.path(), Options());
    if (!house.ok()) ::_exit(2);
    (*house)->Start();
    (void)(*house)->collector.Collect(absl::Now() + absl::Seconds(20));
    ::_exit(3);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);

  Reopen();
  house_->Start();
  ASSERT_OK(Collect());

  EXPECT_THAT(SnapshotNames(), ElementsAre("kept"));
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(1));
  ExpectNoFindings();
}

INSTANTIATE_TEST_SUITE_P(Failpoints, CollectorCrashTest,
                         ::testing::Values("metadata.collector.before_mark",
                                           "metadata.collector.before_sweep",
                                           "metadata.collector.after_sweep",
                                           "metadata.sweeper.before_remove"));

// Random objects with random references, against a model that knows only names and edges.
class GarbageModel {
 public:
  void AddRoot(const std::string& name) { roots_.insert(name); }
  void AddEdge(const std::string& from, const std::string& to) { edges_[from].insert(to); }
  std::set<std::string> Reachable() const {
    std::set<std::string> reached;
    std::vector<std::string> work(roots_.begin(), roots_.end());
    while (!work.empty()) {
      std::string name = work.back();
      work.pop_back();
      if (!reached.insert(name).second) continue;
      auto found = edges_.find(name);
      if (found != edges_.end())
        work.insert(work.end(), found->second.begin(), found->second.end());
    }
    return reached;
  }

 private:
  std::set<std::string> roots_;
  std::map<std::string, std::set<std::string>> edges_;
};

class CollectorPropertyTest : public HouseTest, public ::testing::WithParamInterface<int> {};

TEST_P(CollectorPropertyTest, ExactlyWhatAModelReachesIsKept) {
  std::mt19937 random(GetParam());
  auto below = [&](size_t limit) { return static_cast<int>(random() % limit); };
  GarbageModel model;
  constexpr int kBlobs = 25, kLayers = 15, kImages = 6;
  // Everything is made under one lease, so that nothing goes before all is in place; the collector
  // of this house is not started before that either.
  ASSERT_OK(house_->leases.Create(caller_, "all", {}));
  caller_.lease = "all";
  auto reference = [&](Labels& labels, const std::string& from) {
    for (int i = below(3); i > 0; --i) {
      const int kind = below(3);
      const std::string name = absl::StrCat(from, i);
      if (kind == 0) {
        const int to = below(kBlobs);
        labels[absl::StrCat("containerd.io/gc.ref.content", i % 2 == 0 ? "." : "/", i)] =
            DigestOf(to);
        model.AddEdge(from, absl::StrCat("blob", to));
      } else if (kind == 1) {
        const int to = below(kLayers);
        labels[absl::StrCat("containerd.io/gc.ref.snapshot.overlayfs/", i)] =
            absl::StrCat("layer", to);
        model.AddEdge(from, absl::StrCat("layer", to));
      } else {
        const int holder = below(kBlobs);
        labels[absl::StrCat("containerd.io/gc.bref.content.", i)] = DigestOf(holder);
        model.AddEdge(absl::StrCat("blob", holder), from);
      }
    }
  };
  for (int i = 0; i < kBlobs; ++i) {
    Labels labels;
    reference(labels, absl::StrCat("blob", i));
    if (below(15) == 0) {
      labels[kLabelGcRoot] = "yes";
      model.AddRoot(absl::StrCat("blob", i));
    }
    ASSERT_OK(AddBlob(caller_, DigestOf(i), labels));
  }
  for (int i = 0; i < kLayers; ++i) {
    Labels labels;
    reference(labels, absl::StrCat("layer", i));
    std::string parent;
    if (i > 0 && below(2) == 0) {
      parent = absl::StrCat("layer", below(i));
      model.AddEdge(absl::StrCat("layer", i), parent);
    }
    ASSERT_OK(AddLayer(absl::StrCat("layer", i), parent, labels));
  }
  for (int i = 0; i < kImages; ++i) {
    if (below(2) == 0) continue;
    const int target = below(kBlobs);
    ASSERT_OK(house_->images.Create(caller_, MakeImage(absl::StrCat("image", i), DigestOf(target)),
                                    std::nullopt));
    model.AddRoot(absl::StrCat("image", i));
    model.AddEdge(absl::StrCat("image", i), absl::StrCat("blob", target));
  }
  const int used = below(kLayers);
  ASSERT_OK(house_->containers.Create(caller_, MakeContainer("web", absl::StrCat("layer", used))));
  model.AddRoot(absl::StrCat("layer", used));
  ASSERT_OK(house_->leases.Delete(caller_, "all"));
  caller_.lease = "";

  house_->Start();
  ASSERT_OK(Collect());

  const std::set<std::string> expected = model.Reachable();
  std::vector<std::string> layers = SnapshotNames();
  for (int i = 0; i < kLayers; ++i) {
    const std::string name = absl::StrCat("layer", i);
    EXPECT_EQ(std::count(layers.begin(), layers.end(), name), expected.count(name)) << name;
  }
  for (int i = 0; i < kBlobs; ++i) {
    EXPECT_EQ(house_->blobs.Get(caller_, DigestOf(i)).ok(),
              expected.count(absl::StrCat("blob", i)) == 1)
        << i;
  }
  EXPECT_THAT(house_->snapshotter.Keys(), SizeIs(layers.size()));
  ExpectNoFindings();
}

INSTANTIATE_TEST_SUITE_P(Seeds, CollectorPropertyTest, ::testing::Range(0, 40));

}  // namespace
}  // namespace gantry::metadata
