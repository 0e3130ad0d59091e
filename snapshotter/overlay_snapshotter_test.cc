#include "snapshotter/overlay_snapshotter.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::snapshotter {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OverlaySnapshotterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create();
    ASSERT_OK(made);
    temp_ = std::make_unique<sys::TempDir>(std::move(*made));
    Reopen();
  }
  void TearDown() override { failpoint::DisarmAll(); }

  void Reopen() {
    snapshotter_.reset();
    absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> opened = OverlaySnapshotter::Open(
        {.root = temp_->path(), .on_failure = [this](const absl::Status&) { failed_ = true; }});
    ASSERT_OK(opened);
    snapshotter_ = std::move(*opened);
  }

  // The layer's own directory.
  std::string Upper(const Mounts& mounts) {
    if (mounts[0].type == "bind") return mounts[0].source;
    for (const std::string& option : mounts[0].options) {
      if (absl::StartsWith(option, "upperdir=")) return option.substr(9);
    }
    return "";
  }
  // A committed layer with one file.
  void Layer(const std::string& name, const std::string& parent, const std::string& file) {
    absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("extract " + name, parent, {});
    ASSERT_OK(mounts);
    ASSERT_OK(sys::WriteFileAtomically(Upper(*mounts) + "/" + file, name));
    ASSERT_OK(snapshotter_->Commit("extract " + name, name, {}, ""));
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const Info& info : snapshotter_->List()) names.push_back(info.name);
    return names;
  }
  size_t Directories(const std::string& name = "snapshots") {
    return sys::ListDirectory(temp_->path() + "/" + name)->size();
  }
  // What must hold after any fault and a restart: every directory has a snapshot and the reverse.
  void ExpectConsistent() {
    const OverlaySnapshotter::Inventory inventory = snapshotter_->TakeInventory();
    EXPECT_EQ(inventory.keys_by_id.size(), Directories());
    EXPECT_EQ(Directories("damaged"), 0u);
    EXPECT_THAT(inventory.without_parent, ElementsAre());
    EXPECT_OK(snapshotter_->Cleanup(absl::Seconds(10)));
    EXPECT_EQ(Directories("trash"), 0u);
  }

  std::unique_ptr<sys::TempDir> temp_;
  std::unique_ptr<OverlaySnapshotter> snapshotter_;
  std::atomic<bool> failed_{false};
};

TEST_F(OverlaySnapshotterTest, MountShapesAreContainerds) {
  Layer("base", "", "a");
  Layer("top", "base", "b");

  absl::StatusOr<Mounts> scratch = snapshotter_->Prepare("scratch", "", {});
  absl::StatusOr<Mounts> view_of_one = snapshotter_->View("v1", "base", {});
  absl::StatusOr<Mounts> view_of_two = snapshotter_->View("v2", "top", {});
  absl::StatusOr<Mounts> web = snapshotter_->Prepare("web", "top", {});

  ASSERT_OK(scratch);
  EXPECT_EQ((*scratch)[0].type, "bind");
  EXPECT_THAT((*scratch)[0].options, ElementsAre("rw", "rbind"));
  ASSERT_OK(view_of_one);
  EXPECT_EQ((*view_of_one)[0].type, "bind");
  EXPECT_THAT((*view_of_one)[0].options, ElementsAre("ro", "rbind"));
  EXPECT_TRUE(sys::Exists((*view_of_one)[0].source + "/a"));
  ASSERT_OK(view_of_two);
  EXPECT_EQ((*view_of_two)[0].type, "overlay");
  EXPECT_THAT((*view_of_two)[0].options, ElementsAre("index=off", HasSubstr("lowerdir=")));
  ASSERT_OK(web);
  ASSERT_THAT((*web)[0].options, ElementsAre("index=off", HasSubstr("workdir="),
                                             HasSubstr("upperdir="), HasSubstr("lowerdir=")));
  const std::string lower = (*web)[0].options[3].substr(9);
  EXPECT_TRUE(sys::Exists(lower.substr(0, lower.find(':')) + "/b")) << "newest first";
  EXPECT_TRUE(sys::Exists(lower.substr(lower.find(':') + 1) + "/a"));
}

TEST_F(OverlaySnapshotterTest, AContainerSeesItsLayersAndHidesWhatItDeletes) {
  REQUIRE_ROOT();
  Layer("base", "", "old");
  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", "base", {});
  ASSERT_OK(mounts);
  const std::string target = temp_->path() + "/merged";
  ASSERT_OK(sys::MakeDirectory(target, 0755));

  ASSERT_OK(sys::MountAll(*mounts, target));
  absl::Cleanup unmount = [&] { EXPECT_OK(sys::UnmountTree(target)); };
  EXPECT_TRUE(sys::Exists(target + "/old"));
  ASSERT_OK(sys::Unlink(target + "/old"));
  ASSERT_OK(sys::WriteFileAtomically(target + "/new", "x"));
  EXPECT_FALSE(sys::Exists(target + "/old"));
  std::move(unmount).Invoke();
  ASSERT_OK(snapshotter_->Commit("web", "changed", {}, ""));

  struct stat whiteout = {};
  ASSERT_EQ(::lstat((Upper(*mounts) + "/old").c_str(), &whiteout), 0);
  EXPECT_TRUE(S_ISCHR(whiteout.st_mode) && whiteout.st_rdev == 0) << "a whiteout of overlayfs";
  ASSERT_OK(sys::MakeDirectory(temp_->path() + "/again", 0755));
  absl::StatusOr<Mounts> view = snapshotter_->View("look", "changed", {});
  ASSERT_OK(view);
  ASSERT_OK(sys::MountAll(*view, temp_->path() + "/again"));
  EXPECT_FALSE(sys::Exists(temp_->path() + "/again/old"));
  EXPECT_TRUE(sys::Exists(temp_->path() + "/again/new"));
  EXPECT_OK(sys::UnmountTree(temp_->path() + "/again"));
}

TEST_F(OverlaySnapshotterTest, TheRootOfALayerKeepsOwnerAndMode) {
  REQUIRE_ROOT();
  absl::StatusOr<Mounts> base = snapshotter_->Prepare("b", "", {});
  ASSERT_OK(base);
  ASSERT_EQ(::chmod(Upper(*base).c_str(), 01777), 0);
  ASSERT_EQ(::chown(Upper(*base).c_str(), 7, 8), 0);
  ASSERT_EQ(::chmod(Upper(*base).c_str(), 01777), 0);
  ASSERT_OK(snapshotter_->Commit("b", "base", {}, ""));

  absl::StatusOr<Mounts> web = snapshotter_->Prepare("web", "base", {});

  ASSERT_OK(web);
  struct stat info = {};
  ASSERT_EQ(::stat(Upper(*web).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 01777u);
  EXPECT_EQ(info.st_uid, 7u);
  EXPECT_EQ(info.st_gid, 8u);
}

TEST_F(OverlaySnapshotterTest, RemapLabelsBecomeOptionsOfTheMounter) {
  REQUIRE_ROOT();
  Layer("base", "", "a");
  const Labels labels = {{"containerd.io/snapshot/uidmapping", "0:100000:65536"},
                         {"containerd.io/snapshot/gidmapping", "0:200000:65536"}};

  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", "base", labels);

  ASSERT_OK(mounts);
  EXPECT_THAT((*mounts)[0].options, ::testing::Contains("uidmap=0:100000:65536"));
  EXPECT_THAT((*mounts)[0].options, ::testing::Contains("gidmap=0:200000:65536"));
  struct stat info = {};
  ASSERT_EQ(::stat(Upper(*mounts).c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 100000u);
  EXPECT_EQ(info.st_gid, 200000u);
  EXPECT_THAT(snapshotter_->Prepare("x", "base", {{"containerd.io/snapshot/uidmapping", "1:2"}}),
              Fails(absl::StatusCode::kInvalidArgument, "inside:outside:length"));
}

TEST_F(OverlaySnapshotterTest, NamesAreSharedAndParentsMustBeCommitted) {
  Layer("base", "", "a");
  ASSERT_OK(snapshotter_->Prepare("web", "base", {}));

  EXPECT_THAT(snapshotter_->Prepare("base", "", {}), HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(snapshotter_->View("web", "base", {}), HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(snapshotter_->Commit("web", "base", {}, ""),
              HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(snapshotter_->Prepare("x", "web", {}),
              Fails(absl::StatusCode::kInvalidArgument, "only a committed"));
  EXPECT_THAT(snapshotter_->Prepare("x", "no-such-layer", {}),
              Fails(absl::StatusCode::kNotFound, "no-such-layer"));
  EXPECT_THAT(snapshotter_->GetMounts("base"), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(snapshotter_->GetMounts("gone"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Names(), ElementsAre("base", "web"));
}

TEST_F(OverlaySnapshotterTest, RemoveRefusesWithChildrenAndFreesTheDisk) {
  Layer("base", "", "a");
  ASSERT_OK(snapshotter_->View("web", "base", {}));

  EXPECT_THAT(snapshotter_->Remove("base"),
              Fails(absl::StatusCode::kFailedPrecondition, "1 children"));
  EXPECT_OK(snapshotter_->Remove("web"));
  EXPECT_THAT(snapshotter_->Remove("web"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_OK(snapshotter_->Remove("base"));

  EXPECT_OK(snapshotter_->Cleanup(absl::Seconds(10)));
  EXPECT_EQ(Directories(), 0u);
  EXPECT_EQ(Directories("trash"), 0u);
}

TEST_F(OverlaySnapshotterTest, RebasePutsALayerOnItsParentAtCommit) {
  Layer("base", "", "a");
  ASSERT_OK(snapshotter_->Prepare("loose", "", {}));
  ASSERT_OK(snapshotter_->Prepare("tied", "base", {}));
  Layer("other", "", "o");

  EXPECT_OK(snapshotter_->Commit("loose", "top", {}, "base"));

  EXPECT_EQ(snapshotter_->Stat("top")->parent, "base");
  EXPECT_THAT(snapshotter_->Commit("tied", "x", {}, "other"),
              Fails(absl::StatusCode::kFailedPrecondition, "cannot move"));
  EXPECT_OK(snapshotter_->Commit("tied", "x", {}, "base"));
  EXPECT_THAT(snapshotter_->Remove("base"),
              Fails(absl::StatusCode::kFailedPrecondition, "2 children"));
  Reopen();
  EXPECT_THAT(snapshotter_->Remove("base"),
              Fails(absl::StatusCode::kFailedPrecondition, "2 children"));
}

TEST_F(OverlaySnapshotterTest, EverythingSurvivesARestart) {
  Layer("base", "", "a");
  ASSERT_OK(snapshotter_->Prepare("web", "base", {{"k", "v"}}));
  const absl::StatusOr<Mounts> before = snapshotter_->GetMounts("web");
  const absl::StatusOr<Usage> usage = snapshotter_->GetUsage("base");
  ASSERT_OK(before);
  ASSERT_OK(usage);

  Reopen();

  EXPECT_THAT(Names(), ElementsAre("base", "web"));
  const absl::StatusOr<Mounts> after = snapshotter_->GetMounts("web");
  ASSERT_OK(after);
  EXPECT_EQ((*after)[0].options, (*before)[0].options);
  EXPECT_EQ(snapshotter_->Stat("web")->labels, (Labels{{"k", "v"}}));
  EXPECT_EQ(snapshotter_->GetUsage("base")->bytes, usage->bytes);
  ExpectConsistent();
}

TEST_F(OverlaySnapshotterTest, UsageGrowsWithAnActiveSnapshot) {
  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", "", {});
  ASSERT_OK(mounts);
  const uint64_t before = snapshotter_->GetUsage("web")->bytes;

  ASSERT_OK(sys::WriteFileDurably(Upper(*mounts) + "/big", std::string(1 << 20, 'x')));

  EXPECT_GE(snapshotter_->GetUsage("web")->bytes, before + (1 << 20));
  EXPECT_EQ(snapshotter_->GetUsage("web")->inodes, 2u);
}

TEST_F(OverlaySnapshotterTest, UpdateChangesOnlyTheLabelsItNames) {
  ASSERT_OK(snapshotter_->Prepare("web", "", {{"a", "1"}, {"b", "2"}}));

  EXPECT_OK(snapshotter_->Update(
      "web", {.replace_all = false, .paths = {"a", "b"}, .labels = {{"a", "new"}}}));

  EXPECT_EQ(snapshotter_->Stat("web")->labels, (Labels{{"a", "new"}}));
  Reopen();
  EXPECT_EQ(snapshotter_->Stat("web")->labels, (Labels{{"a", "new"}}));
}

TEST_F(OverlaySnapshotterTest, TheChainEndsAtTheKernelsLimit) {
  std::string parent;
  for (size_t depth = 0; depth < OverlaySnapshotter::kMaxDepth; ++depth) {
    const std::string name = absl::StrCat("l", depth);
    ASSERT_OK(snapshotter_->Prepare("k", "", {}));
    // Rebased, so that the test pays one sync a layer and no more.
    ASSERT_OK(snapshotter_->Commit("k", name, {}, parent));
    parent = name;
  }

  EXPECT_OK(
      snapshotter_->Prepare("fits", absl::StrCat("l", OverlaySnapshotter::kMaxDepth - 1), {}));
  ASSERT_OK(snapshotter_->Commit("fits", "too-deep", {}, ""));
  EXPECT_THAT(snapshotter_->Prepare("x", "too-deep", {}),
              Fails(absl::StatusCode::kFailedPrecondition, "500"));
}

TEST_F(OverlaySnapshotterTest, AHundredAndTwentyEightLayersMountThoughTheirOptionsFillNoPage) {
  REQUIRE_ROOT();
  constexpr int kLayers = 128;
  std::string parent;
  for (int depth = 0; depth < kLayers; ++depth) {
    const std::string name = absl::StrCat("layer ", depth);
    absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("k", "", {});
    ASSERT_OK(mounts);
    ASSERT_OK(sys::WriteFileAtomically(absl::StrCat(Upper(*mounts), "/f", depth), name));
    ASSERT_OK(sys::WriteFileAtomically(Upper(*mounts) + "/top", name));
    ASSERT_OK(snapshotter_->Commit("k", name, {}, parent));
    parent = name;
  }
  absl::StatusOr<Mounts> mounts = snapshotter_->Prepare("web", parent, {});
  ASSERT_OK(mounts);
  ASSERT_GT((*mounts)[0].options.back().size(), 4096u) << "the case is not the one it is about";
  absl::StatusOr<sys::TempDir> target = sys::TempDir::Create();
  ASSERT_OK(target);

  ASSERT_OK(sys::MountAll(*mounts, target->path()));

  absl::Cleanup unmount = [&] { EXPECT_EQ(::umount2(target->path().c_str(), MNT_DETACH), 0); };
  EXPECT_EQ(*sys::ReadFile(target->path() + "/top"), "layer 127");
  for (const int depth : {0, 1, 64, 127}) {
    EXPECT_TRUE(sys::Exists(absl::StrCat(target->path(), "/f", depth))) << depth;
  }
  ASSERT_OK(sys::WriteFileAtomically(target->path() + "/new", "1"));
  EXPECT_TRUE(sys::Exists(Upper(*mounts) + "/new"));
}

TEST_F(OverlaySnapshotterTest, KeysMayHoldWhatClientsPutIntoThem) {
  for (const std::string& key :
       {std::string("ns/12/extract-1-AbC sha256:00"), std::string("a/../../b"),
        std::string("\"q\""), std::string("a:b,c=d"), std::string("\xc3\xa4"),
        std::string(400, 'k')}) {
    absl::StatusOr<Mounts> mounts = snapshotter_->Prepare(key, "", {});
    ASSERT_OK(mounts) << key;
    // Never a part of a path: an odd key cannot lead anywhere.
    EXPECT_TRUE(absl::StartsWith(Upper(*mounts), temp_->path() + "/snapshots/"));
    EXPECT_FALSE(absl::StrContains(Upper(*mounts), ".."));
    ASSERT_OK(snapshotter_->Stat(key));
  }
  const std::vector<std::string> before = Names();

  Reopen();

  EXPECT_EQ(Names(), before);
  ExpectConsistent();
}

// ---- Faults: after each, the store is opened again and must be whole ----

TEST_F(OverlaySnapshotterTest, FailedStepsLeaveNothingBehind) {
  Layer("base", "", "a");
  ASSERT_OK(snapshotter_->Prepare("web", "base", {}));
  for (const char* step :
       {"prepare.before_mkdir", "prepare.before_record", "prepare.after_record"}) {
    for (const char* action : {"error", "enospc"}) {
      ASSERT_OK(failpoint::Arm(absl::StrCat("snapshotter.", step, "=", action)));
      EXPECT_FALSE(snapshotter_->Prepare("new", "base", {}).ok()) << step;
      EXPECT_FALSE(snapshotter_->View("new", "base", {}).ok()) << step;
      failpoint::DisarmAll();
      EXPECT_THAT(snapshotter_->Stat("new"), HasCode(absl::StatusCode::kNotFound)) << step;
    }
  }
  for (const char* step : {"commit.before_sync", "commit.before_record"}) {
    ASSERT_OK(failpoint::Arm(absl::StrCat("snapshotter.", step, "=error")));
    EXPECT_FALSE(snapshotter_->Commit("web", "done", {}, "").ok()) << step;
    failpoint::DisarmAll();
    EXPECT_EQ(snapshotter_->Stat("web")->kind, Kind::kActive) << step;
  }
  ASSERT_OK(failpoint::Arm("snapshotter.trash.before_rename=error"));
  EXPECT_FALSE(snapshotter_->Remove("web").ok());
  failpoint::DisarmAll();
  ASSERT_OK(failpoint::Arm("snapshotter.update.before_record=error"));
  EXPECT_FALSE(snapshotter_->Update("web", {.labels = {{"a", "b"}}}).ok());
  failpoint::DisarmAll();

  EXPECT_TRUE(snapshotter_->Stat("web")->labels.empty());
  Reopen();
  EXPECT_THAT(Names(), ElementsAre("base", "web"));
  ExpectConsistent();
}

// Runs `work` in a child that a failpoint kills, then opens the store again.
class KilledSnapshotterTest : public OverlaySnapshotterTest {
 protected:
  void KillAt(const std::string& step, const std::function<void(OverlaySnapshotter&)>& work) {
    snapshotter_.reset();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> opened =
          OverlaySnapshotter::Open({.root = temp_->path()});
      if (!opened.ok() || !failpoint::Arm(absl::StrCat(step, "=kill")).ok()) ::_exit(1);
      work(**opened);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << step << " was not reached";
    Reopen();
  }
};

TEST_F(KilledSnapshotterTest, AtAnyStepOfPrepareTheSnapshotIsThereOrNot) {
  Layer("base", "", "a");
  for (const char* step : {"before_mkdir", "before_record", "after_record"}) {
    KillAt(absl::StrCat("snapshotter.prepare.", step), [](OverlaySnapshotter& snapshotter) {
      snapshotter.Prepare("web", "base", {}).IgnoreError();
    });
    ExpectConsistent();
    const bool there = snapshotter_->Stat("web").ok();
    EXPECT_EQ(there, std::string(step) == "after_record");
    if (there) {
      EXPECT_OK(snapshotter_->Remove("web"));
    }
  }
}

TEST_F(KilledSnapshotterTest, AtAnyStepOfCommitTheLayerIsActiveOrCommitted) {
  Layer("base", "", "a");
  for (const char* step : {"before_sync", "before_record", "after_record"}) {
    ASSERT_OK(snapshotter_->Prepare("k", "base", {}));
    KillAt(absl::StrCat("snapshotter.commit.", step), [](OverlaySnapshotter& snapshotter) {
      snapshotter.Commit("k", "done", {}, "").IgnoreError();
    });
    ExpectConsistent();
    const bool committed = std::string(step) == "after_record";
    EXPECT_EQ(snapshotter_->Stat("done").ok(), committed) << step;
    EXPECT_EQ(snapshotter_->Stat("k").ok(), !committed) << step;
    EXPECT_OK(snapshotter_->Remove(committed ? "done" : "k"));
  }
}

TEST_F(KilledSnapshotterTest, InTheMiddleOfDeletingTheNextStartGoesOn) {
  ASSERT_OK(snapshotter_->Prepare("web", "", {}));
  KillAt("snapshotter.trash.before_delete", [](OverlaySnapshotter& snapshotter) {
    snapshotter.Remove("web").IgnoreError();
    snapshotter.Cleanup(absl::Seconds(10)).IgnoreError();
  });

  EXPECT_THAT(Names(), ElementsAre());
  ExpectConsistent();
}

TEST_F(OverlaySnapshotterTest, AnEmptyRecordIsForgottenUnlessTheLayerHasFiles) {
  absl::StatusOr<Mounts> empty = snapshotter_->Prepare("empty", "", {});
  absl::StatusOr<Mounts> full = snapshotter_->Prepare("full", "", {});
  ASSERT_OK(empty);
  ASSERT_OK(full);
  ASSERT_OK(sys::WriteFileAtomically(Upper(*full) + "/data", "precious"));
  snapshotter_.reset();
  ASSERT_EQ(::truncate((Upper(*empty) + "/../record").c_str(), 0), 0);
  ASSERT_EQ(::truncate((Upper(*full) + "/../record").c_str(), 0), 0);

  Reopen();

  EXPECT_THAT(Names(), ElementsAre());
  EXPECT_EQ(Directories(), 0u);
  EXPECT_EQ(Directories("damaged"), 1u);
}

TEST_F(OverlaySnapshotterTest, ARottenRecordIsSetAsideNotDeleted) {
  Layer("base", "", "a");
  absl::StatusOr<Mounts> view = snapshotter_->View("v", "base", {});
  ASSERT_OK(view);
  ASSERT_OK(snapshotter_->Remove("v"));
  const std::string record = (*view)[0].source + "/../record";
  snapshotter_.reset();
  absl::StatusOr<std::string> bytes = sys::ReadFile(record);
  ASSERT_OK(bytes);
  bytes->at(bytes->size() / 2) ^= 1;
  ASSERT_OK(sys::WriteFileAtomically(record, *bytes));

  Reopen();

  EXPECT_THAT(snapshotter_->Stat("base"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_EQ(Directories("damaged"), 1u);
}

TEST_F(OverlaySnapshotterTest, ALostParentIsDataLossAndTheChildCanGo) {
  Layer("base", "", "a");
  absl::StatusOr<Mounts> web = snapshotter_->Prepare("web", "base", {});
  ASSERT_OK(web);
  const std::string lower = (*web)[0].options[3].substr(9);
  snapshotter_.reset();
  ASSERT_OK(sys::RemoveTree(lower.substr(0, lower.size() - 3)));

  Reopen();

  EXPECT_THAT(snapshotter_->GetMounts("web"), Fails(absl::StatusCode::kDataLoss, "base"));
  EXPECT_OK(snapshotter_->Remove("web"));
}

TEST_F(OverlaySnapshotterTest, AFailedSyncStopsAllChanges) {
  ASSERT_OK(failpoint::Arm("snapshotter.syncer.before_sync=error(io error)"));
  ASSERT_OK(snapshotter_->Prepare("web", "", {}));
  snapshotter_.reset();  // Syncs what waits.
  EXPECT_TRUE(failed_);
}

TEST_F(OverlaySnapshotterTest, APathThatOverlayCannotTakeIsRefused) {
  EXPECT_THAT(OverlaySnapshotter::Open({.root = temp_->path() + "/a:b"}),
              Fails(absl::StatusCode::kInvalidArgument, "state_dir"));
}

TEST_F(OverlaySnapshotterTest, ManyThreadsOnTheSameNamesAgree) {
  Layer("base", "", "a");
  std::atomic<int> made{0};
  std::atomic<int> committed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        const std::string shared = absl::StrCat("shared", i);
        if (snapshotter_->Prepare(shared, "base", {}).ok()) ++made;
        const std::string own = absl::StrCat("own", t, "-", i);
        EXPECT_OK(snapshotter_->Prepare(own, "base", {}));
        if (i % 5 == 0) {
          if (snapshotter_->Commit(own, absl::StrCat("layer", i), {}, "").ok()) {
            ++committed;
          } else {
            EXPECT_OK(snapshotter_->Remove(own));
          }
        } else {
          EXPECT_OK(snapshotter_->Remove(own));
        }
        snapshotter_->List();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(made, 25) << "each key went to one caller";
  EXPECT_EQ(committed, 5) << "each name went to one caller";
  EXPECT_EQ(Names().size(), 1u + 25u + 5u);
  Reopen();
  EXPECT_EQ(Names().size(), 1u + 25u + 5u);
  ExpectConsistent();
}

}  // namespace
}  // namespace gantry::snapshotter
