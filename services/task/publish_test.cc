#include "services/task/publish.h"

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::task {
namespace {

using ::gantry::testing::Fails;

TEST(ParsePublishTest, UnderstandsTheFormsOfGoFlags) {
  const PublishArguments arguments =
      ParsePublish({"--address", "/run/x.sock", "publish", "-topic=/tasks/oom", "--namespace", "k"})
          .value();
  EXPECT_EQ(arguments.address, "/run/x.sock");
  EXPECT_EQ(arguments.topic, "/tasks/oom");
  EXPECT_EQ(arguments.ns, "k");
  EXPECT_TRUE(IsPublish({"--address", "a", "publish"}));
  EXPECT_FALSE(IsPublish({"--config", "file"}));
}

TEST(ParsePublishTest, NamesWhatIsMissingOrUnknown) {
  EXPECT_THAT(ParsePublish({"publish", "--topic", "/t", "--namespace", "k"}),
              Fails(absl::StatusCode::kInvalidArgument, "--address is missing"));
  EXPECT_THAT(ParsePublish({"publish", "--dance"}),
              Fails(absl::StatusCode::kInvalidArgument, "'--dance' is not known"));
  EXPECT_THAT(ParsePublish({"--address", "a", "publish", "--topic", "/t", "--namespace", "../k"}),
              Fails(absl::StatusCode::kInvalidArgument, "namespace"));
}

class RecordingEvents : public containerd::services::events::v1::Events::Service {
 public:
  grpc::Status Publish(grpc::ServerContext* context,
                       const containerd::services::events::v1::PublishRequest* request,
                       google::protobuf::Empty*) override {
    const auto ns = context->client_metadata().find("containerd-namespace");
    seen = absl::StrCat(
        ns == context->client_metadata().end() ? ""
                                               : std::string(ns->second.data(), ns->second.size()),
        " ", request->topic(), " ", request->event().type_url(), " ", request->event().value());
    return grpc::Status::OK;
  }
  std::string seen;
};

TEST(PublishTest, HandsTheEventToTheDaemon) {
  const sys::TempDir temp = sys::TempDir::Create("/tmp").value();
  const std::string socket = temp.path() + "/d.sock";
  RecordingEvents events;
  grpc::ServerBuilder builder;
  builder.RegisterService(&events);
  builder.AddListeningPort("unix://" + socket, grpc::InsecureServerCredentials());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  google::protobuf::Any any;
  any.set_type_url("containerd.events.TaskOOM");
  any.set_value("bytes");

  ASSERT_OK(Publish({"unix://" + socket, "/tasks/oom", "k8s"}, any.SerializeAsString()));

  EXPECT_EQ(events.seen, "k8s /tasks/oom containerd.events.TaskOOM bytes");
  EXPECT_THAT(Publish({socket, "/tasks/oom", "k8s"}, "\xff\xff"),
              Fails(absl::StatusCode::kInvalidArgument, "not a google.protobuf.Any"));
  server->Shutdown();
}

}  // namespace
}  // namespace gantry::task
