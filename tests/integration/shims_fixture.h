// A supervisor with real shims and real containers; no gRPC around it.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/task/event_server.h"
#include "services/task/task_audit.h"
#include "services/task/task_supervisor.h"
#include "tests/support/suite.h"

namespace gantry::task {

inline constexpr absl::Duration kSoon = absl::Seconds(30);

// The same record for every id, which stands in it where "@ID@" was.
class OneContainer : public ContainerSource {
 public:
  absl::StatusOr<ContainerRecord> Get(const std::string&, const std::string& id) override {
    ContainerRecord named = record;
    named.spec = absl::StrReplaceAll(record.spec, {{"@ID@", id}});
    return named;
  }
  ContainerRecord record;
};

class ShimsRootTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    ::signal(SIGPIPE, SIG_IGN);  // As the frame of every daemon does.
    runtime_ = GetParam();
    if (runtime_ == "own, started ahead") pool_size_ = 2;
    if (runtime_.rfind("own", 0) == 0)
      runtime_ = gantry::testing::BinDirectory() + "/containerd-shim-gantry-v2";
    if (::access(runtime_.c_str(), X_OK) != 0) GTEST_SKIP() << "needs " << runtime_;
    if (!IsOwnShim(runtime_) && ::access("/usr/sbin/runc", X_OK) != 0) GTEST_SKIP() << "needs runc";
    if (::access("/bin/busybox", X_OK) != 0) GTEST_SKIP() << "needs busybox-static";
    for (const char* directory : {"run/.s", "work", "root/bin", "root/proc", "root/dev"}) {
      ASSERT_OK(sys::MakeDirectories(Path(directory), 0755));
    }
    absl::StatusOr<std::string> busybox = sys::ReadFile("/bin/busybox", 16 << 20);
    ASSERT_OK(busybox);
    ASSERT_OK(sys::WriteFileAtomically(Path("root/bin/busybox"), *busybox, 0755));
    StartProcess();
  }
  void TearDown() override {
    if (supervisor_ == nullptr) return;  // Skipped, or stopped by the test.
    // A test that ends with a task ends it: a shim outlives us otherwise, as it should.
    if (Signal(SIGKILL).ok()) WaitForExit().status().IgnoreError();
    const absl::Status deleted = supervisor_->Delete("default", id_).status();
    EXPECT_TRUE(deleted.ok() || absl::IsNotFound(deleted)) << deleted;
    StopProcess();
  }

  std::string Path(const std::string& name) { return absl::StrCat(temp_.path(), "/", name); }

  void StartProcess() {
    absl::StatusOr<std::unique_ptr<LoopThread>> loop = LoopThread::Start();
    ASSERT_OK(loop);
    loop_ = std::move(*loop);
    metrics_ = std::make_unique<metrics::Registry>();
    forwarder_ = std::make_unique<EventForwarder>(
        *loop_,
        [this](const containerd::types::Envelope& envelope,
               std::function<void(absl::Status)> done) {
          {
            absl::MutexLock lock(&mutex_);
            topics_.push_back(envelope.topic());
          }
          done(absl::OkStatus());
        },
        ForwarderOptions{});
    logs_ = std::make_unique<ShimLogs>(*loop_);
    reaper_ = std::make_unique<ChildReaper>(*loop_);
    launcher_ = std::make_unique<ShimLauncher>(LaunchOptions{.gateway_socket = Path("gantry.sock"),
                                                             .events_socket = Path("events.sock"),
                                                             .socket_directory = Path("run/.s"),
                                                             .work_directory = Path("work"),
                                                             .pool_size = pool_size_,
                                                             .pool_binary = runtime_});
    workers_ = std::make_unique<Workers>(4);
    supervisor_ = std::make_unique<TaskSupervisor>(
        SupervisorOptions{.bundle_root = Path("run"), .search = BinarySearchOfThisProcess()},
        container_, *launcher_, *forwarder_, *logs_, *reaper_, *workers_, *metrics_);
    supervisor_->Adopt();
    absl::StatusOr<std::unique_ptr<EventServer>> events = EventServer::Listen(
        *loop_, Path("events.sock"), *forwarder_,
        [this](const containerd::types::Envelope& envelope) { supervisor_->Observe(envelope); });
    ASSERT_OK(events);
    events_ = std::move(*events);
  }
  void StopProcess() {
    supervisor_->PrepareToStop();
    events_.reset();
    supervisor_.reset();
    workers_.reset();
    launcher_.reset();
    reaper_.reset();
    logs_.reset();
    forwarder_.reset();
    loop_.reset();
  }

  // Creates a container of `script`, whose output goes to the file `out`.
  absl::StatusOr<CreatedTask> Create(const std::string& script) {
    SetRecord(script);
    return CreateNamed(id_);
  }
  void SetRecord(const std::string& script) {
    container_.record.runtime = runtime_;
    container_.record.spec = absl::StrCat(
        R"({"ociVersion":"1.0.2","process":{"terminal":false,"user":{"uid":0,"gid":0},"args":["/bin/busybox","sh","-c",")",
        script,
        R"("],"env":["PATH=/bin"],"cwd":"/"},"root":{"path":"rootfs","readonly":true},"hostname":"t","mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs"}],"linux":{"cgroupsPath":"/gantry-task-test/@ID@","namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]},"annotations":{)",
        annotations_, "}}");
  }
  // Of the record as it is; may be called from several threads.
  absl::StatusOr<CreatedTask> CreateNamed(const std::string& id) {
    CreateParameters parameters{.ns = "default", .request = {}, .runtime_path = ""};
    parameters.request.set_id(id);
    containerd::types::Mount* root = parameters.request.add_rootfs();
    root->set_type("bind");
    root->set_source(Path("root"));
    root->add_options("rbind");
    root->add_options("ro");
    parameters.request.set_stdout(absl::StrCat("file://", Path("out")));
    parameters.request.set_stderr(absl::StrCat("file://", Path("out")));
    return supervisor_->Create(std::move(parameters));
  }
  template <typename Request>
  absl::StatusOr<std::string> Call(const std::string& method, Request request) {
    request.set_id(id_);
    absl::Notification done;
    absl::StatusOr<std::string> result = absl::UnknownError("");
    supervisor_->Call("default", id_, method, request, kSoon,
                      [&](absl::StatusOr<std::string> answer) {
                        result = std::move(answer);
                        done.Notify();
                      });
    done.WaitForNotification();
    return result;
  }
  absl::Status Start(const std::string& exec_id = "") {
    containerd::task::v2::StartRequest request;
    request.set_exec_id(exec_id);
    return Call("Start", request).status();
  }
  absl::Status Signal(int signal) {
    containerd::task::v2::KillRequest request;
    request.set_signal(static_cast<uint32_t>(signal));
    return Call("Kill", request).status();
  }
  containerd::v1::types::Status State() {
    containerd::task::v2::StateResponse state;
    const absl::StatusOr<std::string> payload = Call("State", containerd::task::v2::StateRequest());
    if (!payload.ok() || !state.ParseFromString(*payload)) return containerd::v1::types::UNKNOWN;
    return state.status();
  }
  absl::StatusOr<Exit> WaitForExit(const std::string& exec_id = "") {
    struct Result {
      absl::Notification done;
      absl::StatusOr<Exit> exit = absl::UnknownError("");
    };
    auto result = std::make_shared<Result>();  // The answer may come after this gave up.
    supervisor_->Wait("default", id_, exec_id, [result](absl::StatusOr<Exit> exit) {
      result->exit = std::move(exit);
      result->done.Notify();
    });
    if (!result->done.WaitForNotificationWithTimeout(kSoon)) {
      return absl::DeadlineExceededError("the wait did not end");
    }
    return result->exit;
  }
  pid_t ShimPid() {
    const absl::StatusOr<std::vector<std::string>> pids = sys::ListDirectory("/proc");
    for (const std::string& pid : pids.value()) {
      absl::StatusOr<std::string> cmdline = sys::ReadFile(absl::StrCat("/proc/", pid, "/cmdline"));
      ShimProcess process;
      if (cmdline.ok() && ParseShimCommandLine(*cmdline, Path("gantry.sock"), &process) &&
          process.id == id_) {
        return std::stoi(pid);
      }
    }
    return 0;
  }
  void ExpectNothingLeft() {
    ASSERT_TRUE(forwarder_->Drain(kSoon));
    workers_->WaitUntilIdle();
    EXPECT_EQ(sys::ListDirectory(Path("run/.s"))->size(), pool_size_);
    EXPECT_THAT(*sys::ListDirectory(Path("work")), ::testing::IsEmpty());
    EXPECT_FALSE(sys::Exists(Path("run/default")));
    EXPECT_THAT(*sys::MountPointsBelow(temp_.path()), ::testing::IsEmpty());
    rpc::AuditReport report;
    EXPECT_OK(AuditTasks(*supervisor_,
                         {.bundle_root = Path("run"),
                          .socket_directory = Path("run/.s"),
                          .gateway_socket = Path("gantry.sock")},
                         report));
    EXPECT_THAT(report.findings, ::testing::IsEmpty());
  }
  std::vector<std::string> topics() {
    absl::MutexLock lock(&mutex_);
    return topics_;
  }

  sys::TempDir temp_ = *sys::TempDir::Create("/tmp");
  std::string runtime_;
  size_t pool_size_ = 0;
  std::string id_ = absl::StrCat("c", ::getpid());  // Of the container that is spoken about.
  std::string annotations_;                         // JSON members, for what is created next.
  OneContainer container_;
  absl::Mutex mutex_;
  std::vector<std::string> topics_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<LoopThread> loop_;
  std::unique_ptr<metrics::Registry> metrics_;
  std::unique_ptr<EventForwarder> forwarder_;
  std::unique_ptr<ShimLogs> logs_;
  std::unique_ptr<ChildReaper> reaper_;
  std::unique_ptr<ShimLauncher> launcher_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<TaskSupervisor> supervisor_;
  std::unique_ptr<EventServer> events_;
};

}  // namespace gantry::task
