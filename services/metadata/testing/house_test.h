// A test's house of metadata with short words for what tests do all the time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/metadata/testing/metadata_house.h"

namespace gantry::metadata {

class HouseTest : public ::testing::Test {
 protected:
  void SetUp() override { Reopen(); }
  void TearDown() override { failpoint::DisarmAll(); }

  // Closes and opens again, as a restart does.
  void Reopen() {
    house_.reset();
    absl::StatusOr<std::unique_ptr<MetadataHouse>> opened =
        MetadataHouse::Open(directory_.path(), Options(), [this] { return now_; });
    ASSERT_OK(opened);
    house_ = *std::move(opened);
  }
  virtual DatabaseOptions Options() const {
    DatabaseOptions options;
    options.redo_log_bytes = 1 << 20;
    options.reserve_bytes = 0;
    return options;
  }

  static std::string DigestOf(int number) {
    return absl::StrCat("sha256:", absl::Hex(number, absl::kZeroPad16), std::string(48, '0'));
  }

  static Containers::Container MakeContainer(const std::string& id,
                                             const std::string& snapshot = "") {
    Containers::Container container;
    container.set_id(id);
    container.set_image("busybox");
    container.mutable_runtime()->set_name("io.containerd.gantry.v2");
    container.mutable_spec()->set_type_url(
        "types.containerd.io/opencontainers/runtime-spec/1/Spec");
    container.mutable_spec()->set_value("{}");
    if (!snapshot.empty()) {
      container.set_snapshotter(kSnapshotter);
      container.set_snapshot_key(snapshot);
    }
    return container;
  }

  static Images::Image MakeImage(const std::string& name, const std::string& digest) {
    Images::Image image;
    image.set_name(name);
    image.mutable_target()->set_digest(digest);
    image.mutable_target()->set_media_type("application/vnd.oci.image.manifest.v1+json");
    image.mutable_target()->set_size(100);
    return image;
  }

  absl::Status AddBlob(const Caller& caller, const std::string& digest, const Labels& labels = {}) {
    v1::BeginIngestRequest begin;
    begin.set_ref("write " + digest);
    RETURN_IF_ERROR(house_->blobs.BeginIngest(caller, begin).status());
    v1::CommitIngestRequest commit;
    commit.set_ref(begin.ref());
    commit.set_digest(digest);
    commit.set_size_bytes(10);
    *commit.mutable_labels() = labels;
    return house_->blobs.CommitIngest(caller, commit).status();
  }

  absl::StatusOr<Snapshots::Mounts> Prepare(const std::string& key, const std::string& parent = "",
                                            const Labels& labels = {}) {
    Snapshots::CreateRequest request{kSnapshotter, key, parent, labels};
    return house_->snapshots.Create(caller_, request);
  }

  absl::Status Commit(const std::string& name, const std::string& key, const Labels& labels = {}) {
    return house_->snapshots.Commit(caller_, {kSnapshotter, name, key, "", labels});
  }

  absl::Status AddLayer(const std::string& name, const std::string& parent = "",
                        const Labels& labels = {}) {
    RETURN_IF_ERROR(Prepare("extract " + name, parent).status());
    return Commit(name, "extract " + name, labels);
  }

  // Names of the recorded snapshots.
  std::vector<std::string> SnapshotNames() {
    std::vector<std::string> names;
    absl::StatusOr<std::vector<Snapshots::Info>> infos =
        house_->snapshots.List(caller_, kSnapshotter, {});
    EXPECT_OK(infos);
    for (const Snapshots::Info& info : *infos) names.push_back(info.name());
    return names;
  }

  absl::StatusOr<std::shared_ptr<const Collected>> Collect() {
    return house_->collector.Collect(absl::Now() + absl::Seconds(30));
  }

  absl::Status WaitIdle() { return house_->sweeper.WaitIdle(absl::Now() + absl::Seconds(30)); }

  // Topics of the journal's events, oldest first.
  std::vector<std::string> Topics() {
    std::vector<std::string> topics;
    absl::StatusOr<std::vector<Journal::Entry>> entries = house_->journal.Read(0, 10'000);
    EXPECT_OK(entries);
    for (const Journal::Entry& entry : *entries) topics.push_back(entry.envelope.topic());
    return topics;
  }

  void ExpectNoFindings() {
    rpc::AuditReport report;
    ASSERT_OK(house_->sweeper.Audit(report));
    for (const rpc::Finding& finding : report.findings) {
      ADD_FAILURE() << finding.kind << " " << finding.object << ": " << finding.problem;
    }
  }

  absl::Time now_ = absl::Now();
  sys::TempDir directory_ = *sys::TempDir::Create();
  Caller caller_{"test", ""};
  std::unique_ptr<MetadataHouse> house_;
};

}  // namespace gantry::metadata
