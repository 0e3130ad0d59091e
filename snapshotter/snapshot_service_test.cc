#include "snapshotter/snapshot_service.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "snapshotter/overlay_snapshotter.h"

namespace gantry::snapshotter {
namespace {

namespace v1 = containerd::services::snapshots::v1;
using ::testing::HasSubstr;

// The real snapshotter behind the real wire.
class SnapshotServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create();
    ASSERT_OK(made);
    temp_ = std::make_unique<sys::TempDir>(std::move(*made));
    absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> opened =
        OverlaySnapshotter::Open({.root = temp_->path()});
    ASSERT_OK(opened);
    snapshotter_ = std::move(*opened);
    service_ = std::make_unique<SnapshotService>(*snapshotter_);
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::Snapshots::NewStub(server_->InProcessChannel({}));
  }

  grpc::Status Prepare(const std::string& key, const std::string& parent) {
    v1::PrepareSnapshotRequest request;
    request.set_snapshotter("overlayfs");
    request.set_key(key);
    request.set_parent(parent);
    (*request.mutable_labels())["containerd.io/snapshot/x"] = "y";
    grpc::ClientContext context;
    return stub_->Prepare(&context, request, &prepared_);
  }
  grpc::Status Commit(const std::string& key, const std::string& name) {
    v1::CommitSnapshotRequest request;
    request.set_key(key);
    request.set_name(name);
    grpc::ClientContext context;
    google::protobuf::Empty response;
    return stub_->Commit(&context, request, &response);
  }
  std::vector<std::string> List(const std::string& filter) {
    v1::ListSnapshotsRequest request;
    if (!filter.empty()) request.add_filters(filter);
    grpc::ClientContext context;
    auto reader = stub_->List(&context, request);
    std::vector<std::string> names;
    for (v1::ListSnapshotsResponse response; reader->Read(&response);) {
      for (const v1::Info& info : response.info()) names.push_back(info.name());
    }
    list_status_ = reader->Finish();
    return names;
  }

  std::unique_ptr<sys::TempDir> temp_;
  std::unique_ptr<OverlaySnapshotter> snapshotter_;
  std::unique_ptr<SnapshotService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Snapshots::Stub> stub_;
  v1::PrepareSnapshotResponse prepared_;
  grpc::Status list_status_;
};

TEST_F(SnapshotServiceTest, KeysOfContainerdPassWithoutANamespaceHeader) {
  ASSERT_TRUE(Prepare("default/12/extract-991-Ab_c sha256:aa", "").ok());
  EXPECT_EQ(prepared_.mounts(0).type(), "bind");
  ASSERT_TRUE(Commit("default/12/extract-991-Ab_c sha256:aa", "default/13/sha256:aa").ok());

  v1::StatSnapshotRequest request;
  request.set_key("default/13/sha256:aa");
  v1::StatSnapshotResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Stat(&context, request, &response).ok());
  EXPECT_EQ(response.info().kind(), v1::COMMITTED);
  EXPECT_EQ(response.info().labels().at("containerd.io/snapshot/x"), "y");
  EXPECT_GT(response.info().created_at().seconds(), 0);
}

TEST_F(SnapshotServiceTest, PrepareNamesTheMissingParent) {
  grpc::Status status = Prepare("web", "no-such-layer");

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("no-such-layer"));
}

TEST_F(SnapshotServiceTest, BadKeysAreRefused) {
  EXPECT_EQ(Prepare("", "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Prepare("a\nb", "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Prepare(std::string(2000, 'a'), "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SnapshotServiceTest, ListFiltersAndSplitsLongAnswers) {
  for (int i = 0; i < 250; ++i) ASSERT_TRUE(Prepare("k" + std::to_string(i), "").ok());
  ASSERT_TRUE(Commit("k7", "base").ok());

  EXPECT_EQ(List("").size(), 250u);
  EXPECT_THAT(List("kind==committed"), ::testing::ElementsAre("base"));
  EXPECT_THAT(List("name==k8"), ::testing::ElementsAre("k8"));
  EXPECT_EQ(List("labels.\"containerd.io/snapshot/x\"==y").size(), 250u);
  List("name==");
  EXPECT_EQ(list_status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SnapshotServiceTest, UpdateTakesLabelsOnly) {
  ASSERT_TRUE(Prepare("web", "").ok());
  v1::UpdateSnapshotRequest request;
  request.mutable_info()->set_name("web");
  (*request.mutable_info()->mutable_labels())["a"] = "b";
  request.mutable_update_mask()->add_paths("labels.a");
  v1::UpdateSnapshotResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Update(&context, request, &response).ok());
  }
  EXPECT_EQ(response.info().labels().size(), 2u);

  request.mutable_update_mask()->add_paths("parent");
  grpc::ClientContext context;
  EXPECT_EQ(stub_->Update(&context, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SnapshotServiceTest, RemoveThenCleanupFreesTheKey) {
  ASSERT_TRUE(Prepare("web", "").ok());
  v1::RemoveSnapshotRequest remove;
  remove.set_key("web");
  google::protobuf::Empty empty;
  {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->Remove(&context, remove, &empty).ok());
  }
  {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->Cleanup(&context, {}, &empty).ok());
  }
  EXPECT_TRUE(Prepare("web", "").ok());
}

}  // namespace
}  // namespace gantry::snapshotter
