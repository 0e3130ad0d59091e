// The client against gRPC's own C++ server.

#include "ctl/wire/channel.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gantry/image/v1/image.grpc.pb.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::wire {
namespace {

using ::gantry::testing::Fails;

std::string Header(const grpc::ServerContext& context, const std::string& name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

class DebugService final : public debug::v1::Debug::Service {
  grpc::Status Info(grpc::ServerContext* context, const debug::v1::InfoRequest*,
                    debug::v1::InfoResponse* response) override {
    response->set_process(Header(*context, "containerd-namespace"));
    const auto left = context->deadline() - std::chrono::system_clock::now();
    response->set_pid(std::chrono::duration_cast<std::chrono::seconds>(left).count());
    // A large header and one that repeats: CONTINUATION and the dynamic table.
    context->AddTrailingMetadata("x-large", std::string(6000, 'h'));
    context->AddInitialMetadata("x-note", "again and again");
    return grpc::Status::OK;
  }
  grpc::Status SetFailpoints(grpc::ServerContext*, const debug::v1::SetFailpointsRequest*,
                             debug::v1::SetFailpointsResponse*) override {
    return {grpc::StatusCode::NOT_FOUND, "no failpoint '100%'\nnor ünïcode"};
  }
  grpc::Status Metrics(grpc::ServerContext*, const debug::v1::MetricsRequest*,
                       debug::v1::MetricsResponse* response) override {
    response->set_text(std::string(20 << 20, 'm'));
    return grpc::Status::OK;
  }
  grpc::Status Audit(grpc::ServerContext* context, const debug::v1::AuditRequest*,
                     debug::v1::AuditResponse*) override {
    // Answers when the caller has gone.
    std::unique_lock lock(mutex_);
    while (!context->IsCancelled()) released_.wait_for(lock, std::chrono::milliseconds(5));
    return grpc::Status::CANCELLED;
  }
  std::mutex mutex_;
  std::condition_variable released_;
};

class ImageService final : public image::v1::Images::Service {
  grpc::Status Pull(grpc::ServerContext*, const image::v1::PullRequest* request,
                    grpc::ServerWriter<image::v1::PullProgress>* writer) override {
    for (int i = 0; i < 1000; ++i) {
      image::v1::PullProgress progress;
      progress.set_status(absl::StrCat(i, std::string(10000, 'p')));
      if (!writer->Write(progress)) return grpc::Status::CANCELLED;
    }
    if (request->reference() == "bad") return {grpc::StatusCode::DATA_LOSS, "wrong digest"};
    return grpc::Status::OK;
  }
  grpc::Status Import(grpc::ServerContext*, grpc::ServerReader<image::v1::ImportRequest>* reader,
                      image::v1::ImportResponse* response) override {
    image::v1::ImportRequest request;
    size_t bytes = 0;
    while (reader->Read(&request)) {
      if (request.platform() == "refuse") return {grpc::StatusCode::INVALID_ARGUMENT, "no archive"};
      bytes += request.data().size();
    }
    response->add_names(absl::StrCat(bytes));
    return grpc::Status::OK;
  }
};

class ChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create("/tmp");
    ASSERT_OK(directory);
    directory_.emplace(*std::move(directory));
    socket_ = directory_->path() + "/s";
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket_, grpc::InsecureServerCredentials());
    builder.RegisterService(&debug_);
    builder.RegisterService(&image_);
    builder.SetMaxReceiveMessageSize(-1);
    // A poller that misses the shutdown looks again after this; ten seconds unless told otherwise.
    builder.SetSyncServerOption(grpc::ServerBuilder::CQ_TIMEOUT_MSEC, 100);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    absl::StatusOr<std::unique_ptr<Channel>> channel = Channel::Connect(socket_);
    ASSERT_OK(channel);
    channel_ = *std::move(channel);
    channel_->AddMetadata("containerd-namespace", "gantry");
  }
  void TearDown() override {
    channel_.reset();
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

  absl::Status Info(debug::v1::InfoResponse* response, absl::Duration timeout = absl::Seconds(30)) {
    return channel_->Unary("/gantry.debug.v1.Debug/Info", debug::v1::InfoRequest(), response,
                           timeout);
  }

  std::optional<sys::TempDir> directory_;
  std::string socket_;
  DebugService debug_;
  ImageService image_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Channel> channel_;
};

TEST_F(ChannelTest, UnaryCallsCarryMetadataAndDeadline) {
  debug::v1::InfoResponse response;
  ASSERT_OK(Info(&response, absl::Minutes(10)));
  EXPECT_EQ(response.process(), "gantry");
  EXPECT_GT(response.pid(), 500);
  EXPECT_LE(response.pid(), 600);
}

TEST_F(ChannelTest, OneConnectionServesManyCalls) {
  for (int i = 0; i < 50; ++i) {
    debug::v1::InfoResponse response;
    ASSERT_OK(Info(&response)) << i;
    EXPECT_EQ(response.process(), "gantry");
  }
}

TEST_F(ChannelTest, StatusAndItsTextArrive) {
  debug::v1::SetFailpointsResponse response;
  const absl::Status status =
      channel_->Unary("/gantry.debug.v1.Debug/SetFailpoints", debug::v1::SetFailpointsRequest(),
                      &response, absl::Seconds(30));
  EXPECT_EQ(status, absl::NotFoundError("no failpoint '100%'\nnor ünïcode"));
  debug::v1::InfoResponse info;
  EXPECT_OK(Info(&info)) << "an error does not hurt the connection";
}

TEST_F(ChannelTest, UnknownMethodsAreUnimplemented) {
  debug::v1::InfoResponse response;
  EXPECT_THAT(
      channel_->Unary("/no.Such/Method", debug::v1::InfoRequest(), &response, absl::Seconds(30)),
      Fails(absl::StatusCode::kUnimplemented, ""));
}

TEST_F(ChannelTest, LargeAnswersPassTheWindows) {
  debug::v1::MetricsResponse response;
  ASSERT_OK(channel_->Unary("/gantry.debug.v1.Debug/Metrics", debug::v1::MetricsRequest(),
                            &response, absl::Seconds(60)));
  EXPECT_EQ(response.text().size(), 20u << 20);
}

TEST_F(ChannelTest, ServerStreamsEndWithTheirStatus) {
  for (const char* reference : {"good", "bad"}) {
    image::v1::PullRequest request;
    request.set_reference(reference);
    auto call = channel_->Open("/gantry.image.v1.Images/Pull", absl::Seconds(60));
    ASSERT_OK(call);
    ASSERT_OK((*call)->Write(request, true));
    image::v1::PullProgress progress;
    int count = 0;
    absl::StatusOr<bool> more = (*call)->Read(&progress);
    for (; more.ok() && *more; more = (*call)->Read(&progress)) ++count;
    EXPECT_EQ(count, 1000);
    if (request.reference() == "good") {
      EXPECT_OK(more);
    } else {
      EXPECT_THAT(more, Fails(absl::StatusCode::kDataLoss, "wrong digest"));
    }
  }
}

TEST_F(ChannelTest, AbandonedStreamsAreCancelled) {
  for (int i = 0; i < 5; ++i) {
    auto call = channel_->Open("/gantry.image.v1.Images/Pull", absl::Seconds(60));
    ASSERT_OK(call);
    ASSERT_OK((*call)->Write(image::v1::PullRequest(), true));
    image::v1::PullProgress progress;
    ASSERT_OK((*call)->Read(&progress));
  }
  debug::v1::InfoResponse response;
  EXPECT_OK(Info(&response)) << "what was left of the streams does not disturb";
}

TEST_F(ChannelTest, ClientStreamsSendMoreThanTheWindow) {
  auto call = channel_->Open("/gantry.image.v1.Images/Import", absl::Seconds(60));
  ASSERT_OK(call);
  image::v1::ImportRequest request;
  request.set_data(std::string(1 << 20, 'd'));
  for (int i = 0; i < 32; ++i) ASSERT_OK((*call)->Write(request, i == 31));
  image::v1::ImportResponse response;
  ASSERT_OK((*call)->Read(&response));
  EXPECT_EQ(response.names(0), absl::StrCat(32 << 20));
  EXPECT_FALSE(*(*call)->Read(nullptr));
}

TEST_F(ChannelTest, AnEarlyRefusalEndsAClientStream) {
  auto call = channel_->Open("/gantry.image.v1.Images/Import", absl::Seconds(60));
  ASSERT_OK(call);
  image::v1::ImportRequest request;
  request.set_platform("refuse");
  request.set_data(std::string(1 << 20, 'd'));
  for (int i = 0; i < 64; ++i) ASSERT_OK((*call)->Write(request, i == 63));
  image::v1::ImportResponse response;
  EXPECT_THAT((*call)->Read(&response), Fails(absl::StatusCode::kInvalidArgument, "no archive"));
}

TEST_F(ChannelTest, DeadlinesEndACall) {
  debug::v1::AuditResponse response;
  const absl::Status status =
      channel_->Unary("/gantry.debug.v1.Debug/Audit", debug::v1::AuditRequest(), &response,
                      absl::Milliseconds(100));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

TEST_F(ChannelTest, AStoppedServerIsUnavailable) {
  debug::v1::InfoResponse response;
  ASSERT_OK(Info(&response));
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
  EXPECT_THAT(Info(&response), Fails(absl::StatusCode::kUnavailable, ""));
  EXPECT_FALSE(Channel::Connect(socket_).ok());
}

TEST(FormatTimeoutTest, HasAtMostEightDigits) {
  EXPECT_EQ(FormatTimeout(absl::Milliseconds(1)), "1m");
  EXPECT_EQ(FormatTimeout(absl::Microseconds(1)), "1m");
  EXPECT_EQ(FormatTimeout(absl::Seconds(30)), "30000m");
  EXPECT_EQ(FormatTimeout(absl::Hours(100)), "360000S");
  EXPECT_EQ(FormatTimeout(absl::Hours(1000000)), "60000000M");
}

TEST(DecodePercentTest, KeepsWhatIsNoEscape) {
  EXPECT_EQ(DecodePercent("100%25 of %C3%BC%"), "100% of \xc3\xbc%");
  EXPECT_EQ(DecodePercent("%zz%4"), "%zz%4");
}

}  // namespace
}  // namespace gantry::wire
