// Transfer and Streaming as containerd's newer clients use them, by a client written after the
// contract: streams opened first, then one call that names them.
#include <grpcpp/grpcpp.h>

#include <string>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/rpc/request.h"
#include "lib/testing/status_matchers.h"
#include "services/image/exporter.h"
#include "services/image/streams.h"
#include "services/image/testing/fake_registry.h"
#include "services/image/testing/image_process.h"
#include "services/image/transfer_service.h"
#include "services/image/transfers.h"

namespace gantry::image {
namespace {

namespace transfer = containerd::types::transfer;
namespace streaming = containerd::services::streaming::v1;
using archive::TarBuilder;
using google::protobuf::Any;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The client's end of a stream.
class ClientStream {
 public:
  ClientStream(streaming::Streaming::Stub& stub, const std::string& id,
               const std::string& namespace_name = "n") {
    rpc::PrepareCall(context_, absl::Seconds(30), namespace_name);
    stream_ = stub.Stream(&context_);
    streaming::StreamInit init;
    init.set_id(id);
    Any acknowledgement;
    open_ = stream_->Write(ToAny(init)) && stream_->Read(&acknowledgement) &&
            acknowledgement.type_url() == "google.protobuf.Empty";
  }
  ~ClientStream() { context_.TryCancel(); }

  bool open() const { return open_; }
  bool Read(Any* message) { return stream_->Read(message); }
  bool Write(const google::protobuf::Message& message) { return stream_->Write(ToAny(message)); }
  grpc::Status Finish() {
    stream_->WritesDone();
    return stream_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

  // As the Go client sends bytes: 32 KiB at most, never more than it was allowed.
  void SendAll(absl::string_view bytes) {
    int64_t allowed = 0;
    while (!bytes.empty()) {
      if (allowed == 0) {
        Any message;
        transfer::WindowUpdate update;
        if (!stream_->Read(&message) || !FromAny(message, &update)) return;
        allowed += update.update();
      }
      const size_t size = std::min<size_t>({bytes.size(), 32 << 10, static_cast<size_t>(allowed)});
      transfer::Data data;
      data.set_data(bytes.data(), size);
      if (!Write(data)) return;
      allowed -= static_cast<int64_t>(size);
      bytes.remove_prefix(size);
    }
    stream_->WritesDone();
  }

  // As it receives them: a window of 64 KiB, filled up as it is used.
  std::string ReceiveAll() {
    constexpr int32_t kWindow = 64 << 10;
    std::string bytes;
    int64_t window = 0;
    for (;;) {
      if (window < kWindow) {
        transfer::WindowUpdate update;
        update.set_update(kWindow);
        if (!Write(update)) return bytes;
        window += kWindow;
      }
      Any message;
      transfer::Data data;
      if (!stream_->Read(&message) || !FromAny(message, &data)) return bytes;
      window -= static_cast<int64_t>(data.data().size());
      EXPECT_GE(window, 0) << "more was sent than allowed";
      bytes += data.data();
    }
  }

  std::vector<std::string> ReadEvents() {
    std::vector<std::string> events;
    Any message;
    transfer::Progress progress;
    while (stream_->Read(&message)) {
      EXPECT_TRUE(FromAny(message, &progress)) << message.type_url();
      events.push_back(progress.event());
    }
    return events;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<Any, Any>> stream_;
  bool open_ = false;
};

class TransferTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    fake_ = std::make_unique<FakeMetadata>(temp_.path() + "/snapshots");
    process_ = std::make_unique<ImageProcess>(*fake_, temp_.path());
    exporter_ =
        std::make_unique<Exporter>(*process_->blobs, process_->metadata, oci::ImageLimits());
    transfers_ = std::make_unique<Transfers>(streams_, process_->puller, process_->importer,
                                             *exporter_, process_->metadata, "overlayfs");
    service_ = std::make_unique<TransferService>(*transfers_);
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    builder.RegisterService(&streams_);
    server_ = builder.BuildAndStart();
    const auto channel = server_->InProcessChannel(grpc::ChannelArguments());
    streams_stub_ = streaming::Streaming::NewStub(channel);
    stub_ = containerd::services::transfer::v1::Transfer::NewStub(channel);
    registry_.AddImage("a", "v1",
                       {{TarBuilder().File("x", "1").Take()},
                        {TarBuilder().File("y", std::string(300000, 'y')).Take()}});
  }
  void TearDown() override {
    streams_.Stop();
    if (server_ != nullptr) server_->Shutdown();
  }

  std::string Image() { return registry_.host() + "/a:v1"; }

  grpc::Status Run(const google::protobuf::Message& from, const google::protobuf::Message& to,
                   const std::string& progress = "", const std::string& namespace_name = "n") {
    grpc::ClientContext context;
    rpc::PrepareCall(context, absl::Seconds(60), namespace_name);
    containerd::services::transfer::v1::TransferRequest request;
    *request.mutable_source() = ToAny(from);
    *request.mutable_destination() = ToAny(to);
    request.mutable_options()->set_progress_stream(progress);
    google::protobuf::Empty response;
    return stub_->Transfer(&context, request, &response);
  }

  static transfer::ImageStore Store(const std::string& name) {
    transfer::ImageStore store;
    store.set_name(name);
    return store;
  }
  transfer::OCIRegistry From(const std::string& reference) {
    transfer::OCIRegistry registry;
    registry.set_reference(reference);
    return registry;
  }

  // Exports `name` and answers the archive.
  std::string Export(const std::string& name) {
    ClientStream stream(*streams_stub_, "out");
    EXPECT_TRUE(stream.open());
    grpc::Status status;
    transfer::ImageExportStream to;
    to.set_stream("out");
    std::thread call([&] { status = Run(Store(name), to); });
    std::string bytes = stream.ReceiveAll();
    call.join();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(stream.Finish().ok());
    return bytes;
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  FakeRegistry registry_;
  std::unique_ptr<FakeMetadata> fake_;
  std::unique_ptr<ImageProcess> process_;
  Streams streams_;
  std::unique_ptr<Exporter> exporter_;
  std::unique_ptr<Transfers> transfers_;
  std::unique_ptr<TransferService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<streaming::Streaming::Stub> streams_stub_;
  std::unique_ptr<containerd::services::transfer::v1::Transfer::Stub> stub_;
};

TEST_F(TransferTest, APullRecordsUnpacksAndTellsHowFarItIs) {
  ClientStream progress(*streams_stub_, "p");
  ASSERT_TRUE(progress.open());
  std::vector<std::string> events;
  std::thread reader([&] { events = progress.ReadEvents(); });
  transfer::ImageStore store = Store("my.name/for:it");
  (*store.mutable_labels())["k"] = "v";

  const grpc::Status status = Run(From(Image()), store, "p");
  reader.join();

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(progress.Finish().ok());
  const FakeNamespace space = fake_->Get("n");
  ASSERT_EQ(space.images.count("my.name/for:it"), 1u);
  EXPECT_EQ(space.images.at("my.name/for:it").labels().at("k"), "v");
  EXPECT_THAT(space.snapshots, SizeIs(2));
  EXPECT_THAT(space.leases, IsEmpty());
  EXPECT_THAT(events, Contains(HasSubstr("Resolving from")));
  EXPECT_THAT(events, Contains("extracted"));
  EXPECT_THAT(events, Contains("saved"));
}

TEST_F(TransferTest, CredentialsAreAskedForOverTheirStream) {
  const std::string expected = "Basic " + absl::Base64Escape("me:secret");
  registry_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    auto found = request.headers.find("authorization");
    if (found != request.headers.end() && found->second == expected) return false;
    answer->status = 401;
    answer->headers = {"WWW-Authenticate: Basic realm=\"here\""};
    return request.path != "/v2/";
  });
  ClientStream auth(*streams_stub_, "auth");
  std::string asked_host;
  std::thread answerer([&] {
    Any message;
    transfer::AuthRequest request;
    while (auth.Read(&message) && FromAny(message, &request)) {
      asked_host = request.host();
      transfer::AuthResponse response;
      response.set_authtype(transfer::CREDENTIALS);
      response.set_username("me");
      response.set_secret("secret");
      auth.Write(response);
    }
  });
  transfer::OCIRegistry from = From(Image());
  from.mutable_resolver()->set_auth_stream("auth");

  const grpc::Status status = Run(from, Store(Image()));
  answerer.join();

  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(asked_host, registry_.host());
  // What this client's word bought is not there for the next one.
  ASSERT_TRUE(Run(Store(Image()), Store("kept")).ok());
  EXPECT_EQ(Run(From(Image()), Store("other")).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TransferTest, AnExportImportsAgainUnderTheSameNameAndIsReproducible) {
  ASSERT_TRUE(Run(From(Image()), Store(Image())).ok());
  const std::string archive = Export(Image());
  EXPECT_EQ(Export(Image()), archive);
  EXPECT_THAT(archive, HasSubstr("oci-layout"));
  EXPECT_THAT(archive, HasSubstr("manifest.json"));

  ClientStream stream(*streams_stub_, "in", "m");
  std::thread sender([&] { stream.SendAll(archive); });
  transfer::ImageImportStream from;
  from.set_stream("in");
  const grpc::Status status = Run(from, transfer::ImageStore(), "", "m");
  sender.join();

  ASSERT_TRUE(status.ok()) << status.error_message();
  const FakeNamespace before = fake_->Get("n");
  const FakeNamespace after = fake_->Get("m");
  ASSERT_EQ(after.images.count(Image()), 1u);
  EXPECT_EQ(after.images.at(Image()).target().digest(),
            before.images.at(Image()).target().digest());
  EXPECT_THAT(after.snapshots, SizeIs(2));
}

TEST_F(TransferTest, AnImportMayGivePrefixesToTags) {
  const std::string docker = [] {
    const std::string layer = TarBuilder().File("hello", "oci").Take();
    const std::string config = absl::StrCat(
        R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[")",
        archive::Sha256Of(layer).str(), R"("]}})");
    oci::Manifest manifest;
    manifest.media_type = oci::kMediaTypeManifest;
    manifest.config = {oci::kMediaTypeConfig, archive::Sha256Of(config), config.size(), {}, {}};
    manifest.layers = {{oci::kMediaTypeLayer, archive::Sha256Of(layer), layer.size(), {}, {}}};
    const std::string bytes = oci::WriteManifest(manifest);
    TarBuilder builder;
    builder.File("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    builder.File("index.json",
                 absl::StrCat(R"({"schemaVersion":2,"manifests":[{"mediaType":")",
                              oci::kMediaTypeManifest, R"(","digest":")",
                              archive::Sha256Of(bytes).str(), R"(","size":)", bytes.size(),
                              R"(,"annotations":{"org.opencontainers.image.ref.name":"v7"}}]})"));
    for (const std::string& blob : {bytes, config, layer}) {
      builder.File(absl::StrCat("blobs/sha256/", std::string(archive::Sha256Of(blob).hex())), blob);
    }
    return builder.Take();
  }();
  ClientStream stream(*streams_stub_, "in");
  std::thread sender([&] { stream.SendAll(docker); });
  transfer::ImageImportStream from;
  from.set_stream("in");
  transfer::ImageStore store;
  transfer::ImageReference* reference = store.add_extra_references();
  reference->set_name("my.io/base");
  reference->set_is_prefix(true);
  reference->set_add_digest(true);

  const grpc::Status status = Run(from, store);
  sender.join();

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(fake_->Get("n").images.count("my.io/base:v7"), 1u);
  EXPECT_THAT(fake_->Get("n").images, SizeIs(2));  // And by digest.
}

TEST_F(TransferTest, AnImportWhoseClientLeavesLeavesNothing) {
  ASSERT_TRUE(Run(From(Image()), Store(Image())).ok());
  const std::string archive = Export(Image());
  ClientStream stream(*streams_stub_, "in", "m");
  transfer::ImageImportStream from;
  from.set_stream("in");
  grpc::Status status;
  std::thread call([&] { status = Run(from, transfer::ImageStore(), "", "m"); });
  Any message;
  ASSERT_TRUE(stream.Read(&message));  // It was picked up.
  transfer::Data data;
  data.set_data(archive.substr(0, 1000));
  ASSERT_TRUE(stream.Write(data));

  stream.Cancel();
  call.join();

  EXPECT_FALSE(status.ok());
  EXPECT_THAT(fake_->Get("m").images, IsEmpty());
  EXPECT_THAT(*sys::ListDirectory(temp_.path() + "/state/spool"), IsEmpty());
}

TEST_F(TransferTest, TagsPointToTheSameImage) {
  ASSERT_TRUE(Run(From(Image()), Store(Image())).ok());

  ASSERT_TRUE(Run(Store(Image()), Store("other.name:1")).ok());

  const FakeNamespace space = fake_->Get("n");
  EXPECT_EQ(space.images.at("other.name:1").target().digest(),
            space.images.at(Image()).target().digest());
  EXPECT_EQ(Run(Store("none"), Store("x")).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(TransferTest, WhatIsNotKnownIsUnimplementedAndWhatIsMissingIsNamed) {
  EXPECT_EQ(Run(Store(Image()), From(Image())).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Run(transfer::Progress(), Store("x")).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  const grpc::Status missing = Run(From(Image()), Store(Image()), "no-such-stream");
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), HasSubstr("no-such-stream"));
  transfer::ImageStore foreign = Store(Image());
  foreign.add_unpacks()->set_snapshotter("zfs");
  EXPECT_EQ(Run(From(Image()), foreign).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(TransferTest, StreamsNeedANameOfTheirOwnAndANamespace) {
  ClientStream first(*streams_stub_, "s");
  ClientStream again(*streams_stub_, "s");
  ClientStream elsewhere(*streams_stub_, "s", "m");
  ClientStream nameless(*streams_stub_, "");
  ClientStream nowhere(*streams_stub_, "t", "");

  EXPECT_TRUE(first.open());
  EXPECT_TRUE(elsewhere.open());
  EXPECT_EQ(again.Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(nameless.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(nowhere.Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(TransferTest, AStreamWhoseClientIsGoneFreesItsName) {
  {
    ClientStream stream(*streams_stub_, "s");
    ASSERT_TRUE(stream.open());
    stream.Cancel();
    EXPECT_FALSE(stream.Finish().ok());
  }
  // The server hears of it a moment later.
  for (int i = 0; i < 1000; ++i) {
    ClientStream again(*streams_stub_, "s");
    if (again.open()) return;
  }
  FAIL() << "the name stays taken";
}

}  // namespace
}  // namespace gantry::image
