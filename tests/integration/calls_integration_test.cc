// Every method that the suite serves, called for real: each ends by itself or by its deadline,
// refuses a message over the limit, is measured, and wants a namespace where the contract says so.
// The list is the contract's table, and the suite's own protos.

#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;
using Code = grpc::StatusCode;

// Of containerd's contract, but served by nobody yet (services/gateway/routes.cc says why).
bool IsUnserved(const std::string& method) {
  return absl::StrContains(method, "sandbox.v1.Controller/") ||
         absl::StrContains(method, "mounts.v1.Mounts/");
}

// What is served and still has this answer for a request that says nothing.
bool MayBeUnimplemented(const std::string& method) {
  return absl::StrContains(method, "diff.v1.Diff/Apply") ||       // Of an unknown media type.
         absl::StrContains(method, "transfer.v1.Transfer/") ||    // From nothing to nothing.
         absl::StrContains(method, "tasks.v1.Tasks/Checkpoint");  // CRIU is not for us.
}

// Without a namespace of their own (contracts/containerd, metadata-keys.tsv).
bool NeedsNamespace(const std::string& method) {
  for (const char* service : {"namespaces.v1", "version.v1", "introspection.v1", "events.v1"}) {
    if (absl::StrContains(method, service)) return false;
  }
  return absl::StartsWith(method, "/containerd.");
}

// What the contract's table has on the daemon's socket.
std::vector<std::string> ContainerdMethods() {
  std::vector<std::string> methods;
  std::ifstream table(
      absl::StrCat(testing::SourceDirectory(), "/tests/contracts/tables/services.tsv"));
  std::string line;
  while (std::getline(table, line)) {
    const std::vector<std::string> cells = absl::StrSplit(line, '\t');
    if (cells.size() > 5 && cells[5] == "daemon-grpc-socket") methods.push_back(cells[3]);
  }
  return methods;
}

void AddMethods(const google::protobuf::FileDescriptor* file, std::vector<std::string>* methods) {
  for (int i = 0; i < file->service_count(); ++i) {
    for (int j = 0; j < file->service(i)->method_count(); ++j) {
      methods->push_back(absl::StrCat("/", file->service(i)->full_name(), "/",
                                      file->service(i)->method(j)->name()));
    }
  }
}

std::vector<std::string> OwnMethods() {
  std::vector<std::string> methods;
  AddMethods(engine::v1::CreateContainerRequest::descriptor()->file(), &methods);
  AddMethods(image::v1::PullRequest::descriptor()->file(), &methods);
  AddMethods(metadata::v1::Blob::descriptor()->file(), &methods);
  return methods;
}

class CallsTest : public testing::SuiteTest {
 protected:
  void SetUp() override {
    SuiteTest::SetUp();
    channel_ = rpc::Dial(suite_->run() + "/gantry.sock");
  }

  // Sends one message of `bytes` and reads to the end of the call.
  grpc::Status Call(const std::string& method, absl::Duration timeout,
                    const std::string& namespace_name, size_t bytes = 0) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    rpc::PrepareCall(context, timeout, namespace_name);
    grpc::CompletionQueue queue;
    const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call =
        stub.PrepareCall(&context, method, &queue);
    const auto done = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    call->StartCall(nullptr);
    bool going = done();
    if (going) {
      const grpc::Slice slice(std::string(bytes, '\0'));
      call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
      going = done();
    }
    grpc::ByteBuffer answer;
    while (going) {
      call->Read(&answer, nullptr);
      going = done();
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    done();
    queue.Shutdown();
    while (done()) {
    }
    return status;
  }

  // The metrics of all processes, as the gateway hands them on.
  static std::string Page() {
    std::string text;
    for (const std::string& process : testing::Suite::Processes()) {
      const std::string socket = process == "gateway" ? "gantry" : process;
      auto stub = debug::v1::Debug::NewStub(rpc::Dial(suite_->run() + "/" + socket + ".sock"));
      grpc::ClientContext context;
      rpc::PrepareCall(context, absl::Seconds(10));
      debug::v1::MetricsResponse response;
      EXPECT_TRUE(stub->Metrics(&context, {}, &response).ok()) << process;
      text += response.text();
    }
    return text;
  }

  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(CallsTest, EveryMethodEndsIsMeasuredAndIsServedAsTheTablesSay) {
  std::vector<std::string> methods = ContainerdMethods();
  ASSERT_GT(methods.size(), 80u);
  for (const std::string& own : OwnMethods()) methods.push_back(own);

  for (const std::string& method : methods) {
    const absl::Time start = absl::Now();
    const grpc::Status status = Call(method, absl::Seconds(1), "calls");
    // Those that park end by their deadline, all others by themselves.
    EXPECT_LT(absl::Now() - start, absl::Seconds(8)) << method;
    if (!MayBeUnimplemented(method)) {
      EXPECT_EQ(status.error_code() == Code::UNIMPLEMENTED, IsUnserved(method))
          << method << ": " << status.error_message();
    }
    EXPECT_NE(status.error_code(), Code::INTERNAL) << method << ": " << status.error_message();
  }

  const std::string page = Page();
  for (const std::string& method : methods) {
    if (IsUnserved(method)) continue;
    EXPECT_THAT(page, HasSubstr(absl::StrCat("gantry_rpc_seconds_count{method=\"", method, "\"}")));
  }
}

TEST_F(CallsTest, NamespacedMethodsWantTheirHeader) {
  for (const std::string& method : ContainerdMethods()) {
    if (IsUnserved(method) || !NeedsNamespace(method)) continue;
    const grpc::Status status = Call(method, absl::Seconds(5), "");
    EXPECT_EQ(status.error_code(), Code::FAILED_PRECONDITION)
        << method << ": " << status.error_message();
  }
}

TEST_F(CallsTest, AMessageOverTheLimitIsRefusedByName) {
  for (const char* method :
       {"/containerd.services.images.v1.Images/Create",
        "/containerd.services.content.v1.Content/Write",
        "/containerd.services.tasks.v1.Tasks/Create", "/gantry.engine.v1.Containers/Create"}) {
    const grpc::Status status =
        Call(method, absl::Seconds(10), "calls", rpc::kMaxMessageBytes + 1000);
    EXPECT_EQ(status.error_code(), Code::RESOURCE_EXHAUSTED)
        << method << ": " << status.error_message();
  }
}

}  // namespace
}  // namespace gantry
