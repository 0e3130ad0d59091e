#include "lib/rpc/daemon.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::rpc {
namespace {

using ::testing::HasSubstr;

// A daemon without services of its own, in a thread of the test.
class DaemonTest : public ::testing::Test {
 protected:
  void Start(std::vector<std::string> extra = {}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    words_ = {"gantry-task", "--root", dir_.path(), "--ready-fd", absl::StrCat(ends[1])};
    words_.insert(words_.end(), extra.begin(), extra.end());
    for (std::string& word : words_) argv_.push_back(word.data());
    thread_ = std::thread([this] {
      exit_code_ = RunDaemon(static_cast<int>(argv_.size()), argv_.data(), "task",
                             [this](Daemon& daemon) { return Body(daemon); });
    });
    sys::UniqueFd ready(ends[0]);
    EXPECT_EQ(*sys::ReadAll(ready), "READY\n");
  }

  absl::Status Body(Daemon& daemon) {
    daemon_ = &daemon;
    daemon.AddAuditor([](AuditReport& report) {
      report.checked["mount"] = 3;
      report.findings.push_back({"mount", "/x", "nobody knows it", "unmount it"});
      return absl::OkStatus();
    });
    daemon.OnStop([this] { stopped_ = true; });
    return daemon.Serve();
  }

  void TearDown() override {
    if (daemon_ != nullptr) daemon_->RequestStop();
    if (thread_.joinable()) thread_.join();
  }

  std::shared_ptr<grpc::Channel> Channel() {
    return Dial(absl::StrCat(dir_.path(), "/run/task.sock"));
  }

  sys::TempDir dir_ = *sys::TempDir::Create();
  std::vector<std::string> words_;
  std::vector<char*> argv_;
  std::thread thread_;
  Daemon* daemon_ = nullptr;
  bool stopped_ = false;
  int exit_code_ = -1;
};

TEST_F(DaemonTest, ServesHealthAndDebugAndStopsGracefully) {
  Start();
  {
    auto channel = Channel();
    auto health = grpc::health::v1::Health::NewStub(channel);
    grpc::ClientContext context;
    PrepareCall(context, absl::Seconds(5));
    grpc::health::v1::HealthCheckResponse answer;
    ASSERT_TRUE(health->Check(&context, {}, &answer).ok());
    EXPECT_EQ(answer.status(), grpc::health::v1::HealthCheckResponse::SERVING);

    auto debug = debug::v1::Debug::NewStub(channel);
    grpc::ClientContext audit_context;
    PrepareCall(audit_context, absl::Seconds(5));
    debug::v1::AuditResponse audit;
    ASSERT_TRUE(debug->Audit(&audit_context, {}, &audit).ok());
    ASSERT_EQ(audit.findings_size(), 1);
    EXPECT_EQ(audit.findings(0).object(), "/x");
    EXPECT_EQ(audit.checked().at("mount"), 3u);

    grpc::ClientContext metrics_context;
    PrepareCall(metrics_context, absl::Seconds(5));
    debug::v1::MetricsResponse metrics;
    ASSERT_TRUE(debug->Metrics(&metrics_context, {}, &metrics).ok());
    EXPECT_THAT(metrics.text(), HasSubstr("gantry_rpc_seconds_bucket{method=\"/gantry.debug.v1."
                                          "Debug/Audit\""));
  }
  EXPECT_EQ(daemon_->instance_suffix().size(), 9u);
  struct stat info = {};
  ASSERT_EQ(::stat(absl::StrCat(dir_.path(), "/run/task.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);

  std::exchange(daemon_, nullptr)->RequestStop();
  thread_.join();

  EXPECT_TRUE(stopped_);
  EXPECT_EQ(exit_code_, 0);
  EXPECT_FALSE(sys::Exists(absl::StrCat(dir_.path(), "/run/task.sock")));
}

TEST_F(DaemonTest, ADirectoryOthersCanReadIsRefused) {
  ASSERT_OK(sys::MakeDirectories(absl::StrCat(dir_.path(), "/lib"), 0755));
  std::vector<std::string> words = {"gantry-task", "--root", dir_.path()};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());

  const int code = RunDaemon(static_cast<int>(argv.size()), argv.data(), "task", [](Daemon&) {
    ADD_FAILURE() << "must not run";
    return absl::OkStatus();
  });

  EXPECT_EQ(code, 1);
}

TEST_F(DaemonTest, BadUsageIsTwo) {
  std::string program = "gantry-task";
  std::string option = "--frobnicate";
  char* argv[] = {program.data(), option.data()};
  EXPECT_EQ(RunDaemon(2, argv, "task", [](Daemon&) { return absl::OkStatus(); }), 2);
}

}  // namespace
}  // namespace gantry::rpc
