#include "services/gateway/proxy.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "containerd/services/content/v1/content.grpc.pb.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "containerd/services/images/v1/images.grpc.pb.h"
#include "containerd/services/tasks/v1/tasks.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "lib/sys/temp_dir.h"

namespace gantry::gateway {
namespace {

namespace content = containerd::services::content::v1;
namespace events = containerd::services::events::v1;
namespace images = containerd::services::images::v1;
namespace tasks = containerd::services::tasks::v1;
using ::testing::HasSubstr;

class FakeImages final : public images::Images::Service {
 public:
  grpc::Status Get(grpc::ServerContext* context, const images::GetImageRequest* request,
                   images::GetImageResponse* response) override {
    context->AddTrailingMetadata("trailer-bin", std::string("\0\1", 2));
    context->AddInitialMetadata("leader", "1");
    if (request->name() == "missing") return {grpc::StatusCode::NOT_FOUND, "no image 'missing'"};
    response->mutable_image()->set_name(
        absl::StrCat(rpc::RequestHeader(*context, rpc::kNamespaceHeader), "/", request->name()));
    return grpc::Status::OK;
  }
};

class FakeContent final : public content::Content::Service {
 public:
  // Echoes the length of every chunk.
  grpc::Status Write(grpc::ServerContext*,
                     grpc::ServerReaderWriter<content::WriteContentResponse,
                                              content::WriteContentRequest>* stream) override {
    content::WriteContentRequest request;
    int64_t total = 0;
    while (stream->Read(&request)) {
      if (request.ref() == "stop") return {grpc::StatusCode::OUT_OF_RANGE, "enough"};
      total += static_cast<int64_t>(request.data().size());
      content::WriteContentResponse response;
      response.set_offset(total);
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
};

class FakeEvents final : public events::Events::Service {
 public:
  // Says nothing until it is cancelled.
  grpc::Status Subscribe(grpc::ServerContext* context, const events::SubscribeRequest*,
                         grpc::ServerWriter<containerd::types::Envelope>* writer) override {
    writer->SendInitialMetadata();
    while (!context->IsCancelled()) std::this_thread::yield();
    cancelled.Notify();
    return grpc::Status::CANCELLED;
  }
  absl::Notification cancelled;
};

class ProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    metadata_ = Serve("metadata", {&images_, &events_});
    image_ = Serve("image", {&content_});
    proxy_ = std::make_unique<Proxy>(
        [&](const std::string& process) { return rpc::Dial(Path(process)); });
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix://" + Path("gantry"), grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(rpc::kMaxMessageBytes);
    builder.RegisterCallbackGenericService(proxy_.get());
    gateway_ = builder.BuildAndStart();
    channel_ = rpc::Dial(Path("gantry"));
  }

  std::string Path(const std::string& name) {
    return absl::StrCat(dir_.path(), "/", name, ".sock");
  }

  std::unique_ptr<grpc::Server> Serve(const std::string& name,
                                      std::vector<grpc::Service*> services) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix://" + Path(name), grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(rpc::kMaxMessageBytes);
    for (grpc::Service* service : services) builder.RegisterService(service);
    return builder.BuildAndStart();
  }

  sys::TempDir dir_ = *sys::TempDir::Create();
  FakeImages images_;
  FakeContent content_;
  FakeEvents events_;
  std::unique_ptr<grpc::Server> metadata_;
  std::unique_ptr<grpc::Server> image_;
  std::unique_ptr<Proxy> proxy_;
  std::unique_ptr<grpc::Server> gateway_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ProxyTest, UnaryCallsPassWithMetadataBothWays) {
  auto stub = images::Images::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(10), "k8s.io");
  images::GetImageRequest request;
  request.set_name("busybox");
  images::GetImageResponse response;

  ASSERT_TRUE(stub->Get(&context, request, &response).ok());

  EXPECT_EQ(response.image().name(), "k8s.io/busybox");
  EXPECT_EQ(context.GetServerInitialMetadata().count("leader"), 1u);
  EXPECT_EQ(context.GetServerTrailingMetadata().find("trailer-bin")->second,
            std::string("\0\1", 2));
}

TEST_F(ProxyTest, StatusesPass) {
  auto stub = images::Images::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(10));
  images::GetImageRequest request;
  request.set_name("missing");
  images::GetImageResponse response;
  const grpc::Status status = stub->Get(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no image 'missing'");
}

TEST_F(ProxyTest, LargeMessagesAndHalfCloseInAStream) {
  auto stub = content::Content::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(30));
  auto stream = stub->Write(&context);
  content::WriteContentRequest request;
  request.set_data(std::string(8 << 20, 'x'));
  content::WriteContentResponse response;
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(stream->Write(request));
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.offset(), i * (8 << 20));
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ProxyTest, AnEarlyStatusEndsACallWhoseClientStillWrites) {
  auto stub = content::Content::NewStub(channel_);
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    rpc::PrepareCall(context, absl::Seconds(30));
    auto stream = stub->Write(&context);
    content::WriteContentRequest request;
    request.set_ref("stop");
    stream->Write(request);
    content::WriteContentResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  }
}

TEST_F(ProxyTest, CancellationReachesTheBackend) {
  auto stub = events::Events::NewStub(channel_);
  grpc::ClientContext context;
  auto stream = stub->Subscribe(&context, {});
  stream->WaitForInitialMetadata();  // Headers come although no event does.
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(events_.cancelled.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(ProxyTest, DeadlinesPass) {
  auto stub = events::Events::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Milliseconds(100));
  auto stream = stub->Subscribe(&context, {});
  containerd::types::Envelope envelope;
  EXPECT_FALSE(stream->Read(&envelope));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(events_.cancelled.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(ProxyTest, ADeadProcessIsNamedAndAnUnknownServiceIsUnimplemented) {
  auto tasks_stub = tasks::Tasks::NewStub(channel_);
  grpc::ClientContext context;
  rpc::PrepareCall(context, absl::Seconds(10));
  tasks::ListTasksResponse response;
  const grpc::Status dead = tasks_stub->List(&context, {}, &response);
  EXPECT_EQ(dead.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(dead.error_message(), HasSubstr("gantry-task does not answer"));

  grpc::GenericStub generic(channel_);
  grpc::ClientContext unknown;
  rpc::PrepareCall(unknown, absl::Seconds(10));
  grpc::Slice slice("x");
  grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer answer;
  absl::Notification done;
  grpc::Status status;
  generic.UnaryCall(&unknown, "/no.such.Service/Do", {}, &request, &answer,
                    [&](grpc::Status result) {
                      status = result;
                      done.Notify();
                    });
  done.WaitForNotification();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ProxyTest, ManyCallsAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      auto stub = images::Images::NewStub(channel_);
      for (int i = 0; i < 100; ++i) {
        grpc::ClientContext context;
        rpc::PrepareCall(context, absl::Seconds(30), "n");
        images::GetImageRequest request;
        request.set_name(absl::StrCat(i));
        images::GetImageResponse response;
        if (stub->Get(&context, request, &response).ok() &&
            response.image().name() == absl::StrCat("n/", i)) {
          ++right;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 800);
}

}  // namespace
}  // namespace gantry::gateway
