// The services on a real socket: headers, streams that never end, and their ends.
#include <grpcpp/grpcpp.h>

#include <thread>

#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "services/metadata/containerd_services.h"
#include "services/metadata/event_streams.h"
#include "services/metadata/garbage_service.h"
#include "services/metadata/objects.h"
#include "services/metadata/suite_services.h"
#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class StreamsTest : public HouseTest {
 protected:
  void SetUp() override {
    HouseTest::SetUp();
    images_ = std::make_unique<ImagesService>(house_->images, house_->collector);
    events_ = std::make_unique<EventsService>(house_->journal);
    journal_ = std::make_unique<JournalService>(house_->journal);
    garbage_ =
        std::make_unique<GarbageService>(house_->collector, house_->blob_garbage, house_->backends);
    records_ = std::make_unique<RecordsService>(house_->records);
    const std::string socket = directory_.path() + "/s";
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    for (grpc::Service* service : std::initializer_list<grpc::Service*>{
             images_.get(), events_.get(), journal_.get(), garbage_.get(), records_.get()}) {
      builder.RegisterService(service);
    }
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    channel_ = rpc::Dial(socket);
  }

  void TearDown() override {
    StopServer();
    HouseTest::TearDown();
  }

  void StopServer() {
    if (server_ == nullptr) return;
    house_->journal.Stop();
    garbage_->Stop();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
    server_->Wait();
    server_.reset();
  }

  absl::Status AppendExit(const std::string& topic = "/tasks/exit") {
    containerd::types::Envelope envelope;
    envelope.set_namespace_("test");
    envelope.set_topic(topic);
    *envelope.mutable_timestamp() = ToProto(absl::Now());
    envelope.mutable_event()->set_type_url("containerd.events.TaskExit");
    return house_->journal.Append(envelope);
  }

  std::unique_ptr<ImagesService> images_;
  std::unique_ptr<EventsService> events_;
  std::unique_ptr<JournalService> journal_;
  std::unique_ptr<GarbageService> garbage_;
  std::unique_ptr<RecordsService> records_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(StreamsTest, ACallWithoutANamespaceIsRefused) {
  auto stub = images_v1::Images::NewStub(channel_);
  grpc::ClientContext context;
  images_v1::ListImagesResponse response;

  grpc::Status status = stub->List(&context, images_v1::ListImagesRequest(), &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(StreamsTest, ASubscriberSeesWhatMatchesFromItsSubscriptionOn) {
  ASSERT_OK(AppendExit());  // Before: not seen.
  auto stub = events_v1::Events::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30));
  events_v1::SubscribeRequest request;
  request.add_filters("topic==/images/create");
  std::unique_ptr<grpc::ClientReader<containerd::types::Envelope>> stream =
      stub->Subscribe(&context, request);
  stream->WaitForInitialMetadata();

  ASSERT_OK(AppendExit());
  ASSERT_OK(house_->images.Create(caller_, MakeImage("busybox", DigestOf(1)), std::nullopt));

  containerd::types::Envelope event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.topic(), "/images/create");
  EXPECT_EQ(event.event().type_url(), "containerd.services.images.v1.ImageCreate");
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(StreamsTest, ABadFilterIsAnErrorAndNotSilence) {
  auto stub = events_v1::Events::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30));
  events_v1::SubscribeRequest request;
  request.add_filters("topic~=(");
  auto stream = stub->Subscribe(&context, request);

  containerd::types::Envelope event;
  EXPECT_FALSE(stream->Read(&event));

  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(StreamsTest, TheJournalIsReadFromACursorAndFollowed) {
  for (int i = 0; i < 200; ++i) ASSERT_OK(AppendExit());
  auto stub = v1::Journal::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30));
  v1::ReadJournalRequest request;
  request.set_after_sequence(50);
  request.set_follow(true);
  auto stream = stub->Read(&context, request);

  v1::JournalEntry entry;
  for (uint64_t expected = 51; expected <= 200; ++expected) {
    ASSERT_TRUE(stream->Read(&entry));
    ASSERT_EQ(entry.sequence(), expected);
  }
  ASSERT_OK(AppendExit("/tasks/oom"));
  ASSERT_TRUE(stream->Read(&entry));
  EXPECT_EQ(entry.sequence(), 201u);
  EXPECT_EQ(entry.envelope().topic(), "/tasks/oom");

  // A stop of the server ends it with a word the client can act on.
  StopServer();
  EXPECT_FALSE(stream->Read(&entry));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(StreamsTest, WithoutFollowTheJournalEndsAndUntilEndsAFollower) {
  ASSERT_OK(AppendExit());
  auto stub = v1::Journal::NewStub(channel_);
  for (bool follow : {false, true}) {
    grpc::ClientContext context;
    rpc::PrepareCall(context, absl::Seconds(30));
    v1::ReadJournalRequest request;
    request.set_follow(follow);
    if (follow) *request.mutable_until() = ToProto(absl::Now() + absl::Milliseconds(50));
    auto stream = stub->Read(&context, request);

    v1::JournalEntry entry;
    EXPECT_TRUE(stream->Read(&entry));
    EXPECT_FALSE(stream->Read(&entry));
    EXPECT_TRUE(stream->Finish().ok());
  }
}

TEST_F(StreamsTest, ACursorOfAnotherJournalIsOutOfRange) {
  auto stub = v1::Journal::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30));
  v1::ReadJournalRequest request;
  request.set_after_sequence(1000);
  auto stream = stub->Read(&context, request);

  v1::JournalEntry entry;
  EXPECT_FALSE(stream->Read(&entry));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

TEST_F(StreamsTest, GarbageBlobsAreOfferedAndClaimsEndWithTheirWatcher) {
  ASSERT_OK(AddBlob(caller_, DigestOf(1)));
  auto stub = v1::Garbage::NewStub(channel_);
  {
    grpc::ClientContext context;
    rpc::PrepareCall(context, absl::Seconds(30));
    v1::WatchGarbageBlobsRequest request;
    request.add_known_digests(DigestOf(1));
    request.add_known_digests(DigestOf(2));
    auto stream = stub->WatchBlobs(&context, request);
    v1::GarbageBlob blob;
    ASSERT_TRUE(stream->Read(&blob));
    EXPECT_EQ(blob.digest(), DigestOf(2));
    ASSERT_OK(house_->blobs.Delete(caller_, DigestOf(1)));
    ASSERT_TRUE(stream->Read(&blob));
    EXPECT_EQ(blob.digest(), DigestOf(1));
    grpc::ClientContext claim;
    rpc::PrepareCall(claim, absl::Seconds(30));
    v1::ClaimBlobRequest claim_request;
    claim_request.set_digest(DigestOf(1));
    v1::ClaimBlobResponse claimed;
    ASSERT_TRUE(stub->ClaimBlob(&claim, claim_request, &claimed).ok());
    EXPECT_TRUE(house_->blob_garbage.IsClaimed(DigestOf(1)));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  StopServer();  // Waits for the server's side of the stream.
  EXPECT_FALSE(house_->blob_garbage.IsClaimed(DigestOf(1)));
}

TEST_F(StreamsTest, SubscribersComeAndGoWhileEventsFlow) {
  std::atomic<bool> stop{false};
  std::thread publishing([&] {
    while (!stop) EXPECT_OK(AppendExit());
  });
  std::vector<std::thread> subscribers;
  for (int i = 0; i < 8; ++i) {
    subscribers.emplace_back([&] {
      auto stub = events_v1::Events::NewStub(channel_);
      for (int round = 0; round < 20; ++round) {
        grpc::ClientContext context;
        rpc::PrepareCall(context, absl::Seconds(30));
        auto stream = stub->Subscribe(&context, events_v1::SubscribeRequest());
        containerd::types::Envelope event;
        for (int n = 0; n < round; ++n) EXPECT_TRUE(stream->Read(&event));
        context.TryCancel();
        (void)stream->Finish();
      }
    });
  }
  for (std::thread& subscriber : subscribers) subscriber.join();
  stop = true;
  publishing.join();
}

TEST_F(StreamsTest, RecordsAreListedWhole) {
  for (int page = 0; page < 3; ++page) {
    Records::Writes writes;
    for (int i = 0; i < 500; ++i) {
      v1::RecordWrite& write = *writes.Add();
      write.set_bucket("b");
      write.set_key(absl::StrCat(page, ".", i));
    }
    ASSERT_OK(house_->records.Commit(caller_, writes));
  }
  auto stub = v1::Records::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30), "test");
  v1::ListRecordsRequest request;
  request.set_bucket("b");
  auto stream = stub->List(&context, request);

  std::set<std::string> keys;
  v1::Record record;
  while (stream->Read(&record)) EXPECT_TRUE(keys.insert(record.key()).second);

  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(keys.size(), 1500u);
}

}  // namespace
}  // namespace gantry::metadata
