#include "services/image/content_service.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/rpc/request.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/fake_metadata.h"

namespace gantry::image {
namespace {

namespace content = containerd::services::content::v1;

class ContentServiceTest : public ::testing::Test {
 protected:
  ContentServiceTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = content::Content::NewStub(server_->InProcessChannel(grpc::ChannelArguments()));
  }
  ~ContentServiceTest() override { server_->Shutdown(); }

  std::unique_ptr<grpc::ClientContext> Context(const std::string& lease = "",
                                               const std::string& name = "n") {
    auto context = std::make_unique<grpc::ClientContext>();
    rpc::PrepareCall(*context, absl::Seconds(30), name, lease);
    return context;
  }

  // Sends the messages, answers the last response and the end.
  grpc::Status Write(const std::vector<content::WriteContentRequest>& messages,
                     content::WriteContentResponse* last, const std::string& lease = "",
                     const std::string& name = "n") {
    auto context = Context(lease, name);
    auto stream = stub_->Write(context.get());
    for (const content::WriteContentRequest& message : messages) {
      if (!stream->Write(message) || !stream->Read(last)) break;
    }
    stream->WritesDone();
    return stream->Finish();
  }

  static content::WriteContentRequest Message(content::WriteAction action, std::string data = "",
                                              int64_t offset = 0, std::string expected = "") {
    content::WriteContentRequest message;
    message.set_action(action);
    message.set_ref("r");
    message.set_data(std::move(data));
    message.set_offset(offset);
    message.set_expected(std::move(expected));
    return message;
  }

  grpc::Status Read(const std::string& digest, int64_t offset, int64_t size, std::string* bytes) {
    auto context = Context();
    content::ReadContentRequest request;
    request.set_digest(digest);
    request.set_offset(offset);
    request.set_size(size);
    auto stream = stub_->Read(context.get(), request);
    content::ReadContentResponse chunk;
    while (stream->Read(&chunk)) {
      EXPECT_LE(chunk.data().size(), 1u << 20);
      EXPECT_EQ(chunk.offset(), offset + static_cast<int64_t>(bytes->size()));
      *bytes += chunk.data();
    }
    return stream->Finish();
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  FakeMetadata fake_{temp_.path() + "/snapshots"};
  Metadata metadata_{fake_.channel()};
  std::unique_ptr<BlobStore> blobs_ = *BlobStore::Open(temp_.path() + "/state");
  ContentService service_{*blobs_, metadata_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<content::Content::Stub> stub_;
  content::WriteContentResponse last_;
  const std::string hello_ = archive::Sha256Of("hello").str();
};

TEST_F(ContentServiceTest, WritesInPiecesAndReadsInChunks) {
  const std::string bytes(2500000, 'x');
  const std::string digest = archive::Sha256Of(bytes).str();

  ASSERT_TRUE(Write({Message(content::STAT), Message(content::WRITE, bytes.substr(0, 1000000)),
                     Message(content::COMMIT, bytes.substr(1000000), 1000000, digest)},
                    &last_)
                  .ok());

  EXPECT_EQ(last_.digest(), digest);
  EXPECT_EQ(last_.offset(), 2500000);
  std::string all, part;
  EXPECT_TRUE(Read(digest, 0, 0, &all).ok());
  EXPECT_TRUE(all == bytes);
  EXPECT_TRUE(Read(digest, 2499990, 5, &part).ok());
  EXPECT_EQ(part.size(), 5u);
  EXPECT_EQ(Read(digest, 2500001, 0, &part).error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(Read(hello_, 0, 0, &part).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ContentServiceTest, AStreamThatBrokeIsResumedAtTheOffsetOfStat) {
  ASSERT_TRUE(Write({Message(content::WRITE, "hel")}, &last_).ok());

  ASSERT_TRUE(Write({Message(content::STAT)}, &last_).ok());
  EXPECT_EQ(last_.offset(), 3);
  EXPECT_EQ(last_.digest(), archive::Sha256Of("hel").str());

  EXPECT_EQ(Write({Message(content::WRITE, "lo", 2)}, &last_).error_code(),
            grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_TRUE(Write({Message(content::COMMIT, "lo", 3, hello_)}, &last_).ok());
}

TEST_F(ContentServiceTest, OffsetZeroStartsOver) {
  ASSERT_TRUE(Write({Message(content::WRITE, "jello")}, &last_).ok());

  EXPECT_TRUE(
      Write({Message(content::WRITE, "hello"), Message(content::COMMIT, "", 5, hello_)}, &last_)
          .ok());
}

TEST_F(ContentServiceTest, WhatIsThereAlreadyIsAlreadyExistsAndLeased) {
  ASSERT_TRUE(Write({Message(content::COMMIT, "hello", 0, hello_)}, &last_).ok());

  EXPECT_EQ(Write({Message(content::STAT, "", 0, hello_)}, &last_, "l").error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(fake_.Get("n").leases["l"].count("content/" + hello_), 1u);
  EXPECT_EQ(Write({Message(content::WRITE, "hel"), Message(content::COMMIT, "lo", 3, hello_)},
                  &last_, "m")
                .error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(blobs_->ListIngests()->empty());
}

TEST_F(ContentServiceTest, AnotherNamespaceCommitsWithoutBytes) {
  ASSERT_TRUE(Write({Message(content::COMMIT, "hello", 0, hello_)}, &last_).ok());

  ASSERT_TRUE(
      Write({Message(content::STAT, "", 0, hello_), Message(content::COMMIT, "", 5, hello_)},
            &last_, "", "other")
          .ok());
  EXPECT_EQ(last_.offset(), 5);
  EXPECT_EQ(fake_.Get("other").blobs.count(hello_), 1u);
}

TEST_F(ContentServiceTest, ASecondWriterIsUnavailable) {
  auto context = Context();
  auto first = stub_->Write(context.get());
  ASSERT_TRUE(first->Write(Message(content::WRITE, "hel")) && first->Read(&last_));

  EXPECT_EQ(Write({Message(content::STAT)}, &last_).error_code(), grpc::StatusCode::UNAVAILABLE);
  first->WritesDone();
  EXPECT_TRUE(first->Finish().ok());
}

TEST_F(ContentServiceTest, WrongSizeOrDigestFailTheCommitAndKeepTheIngest) {
  content::WriteContentRequest short_one = Message(content::COMMIT, "hell");
  short_one.set_total(5);
  EXPECT_EQ(Write({short_one}, &last_).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Write({Message(content::COMMIT, "!", 4, hello_)}, &last_).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_TRUE(fake_.Get("n").blobs.empty());
}

TEST_F(ContentServiceTest, TheNamespaceIsRequired) {
  grpc::ClientContext context;
  content::InfoRequest request;
  content::InfoResponse response;
  request.set_digest(hello_);

  EXPECT_EQ(stub_->Info(&context, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Write({Message(content::STAT)}, &last_, "", "").error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ContentServiceTest, ShowsAndAbortsIngests) {
  ASSERT_TRUE(Write({Message(content::WRITE, "hel")}, &last_).ok());
  content::StatusRequest request;
  content::StatusResponse response;
  request.set_ref("r");

  ASSERT_TRUE(stub_->Status(Context().get(), request, &response).ok());
  EXPECT_EQ(response.status().offset(), 3);
  content::ListStatusesRequest list;
  content::ListStatusesResponse statuses;
  list.add_filters("ref~=^r");
  ASSERT_TRUE(stub_->ListStatuses(Context().get(), list, &statuses).ok());
  EXPECT_EQ(statuses.statuses_size(), 1);

  content::AbortRequest abort;
  google::protobuf::Empty empty;
  abort.set_ref("r");
  EXPECT_TRUE(stub_->Abort(Context().get(), abort, &empty).ok());
  EXPECT_EQ(stub_->Abort(Context().get(), abort, &empty).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(blobs_->ListIngests()->empty());
}

}  // namespace
}  // namespace gantry::image
