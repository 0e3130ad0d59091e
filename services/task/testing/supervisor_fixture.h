// The whole process but its gRPC frame, for tests, with a shim that runs nothing (fake_shim.cc).
#pragma once

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "containerd/events/events.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/task/event_server.h"
#include "services/task/runs_service.h"
#include "services/task/task_audit.h"
#include "services/task/task_service.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

inline constexpr absl::Duration kSoon = absl::Seconds(20);

class FakeContainers : public ContainerSource {
 public:
  void Add(const std::string& id, const std::string& runtime, const std::string& spec) {
    absl::MutexLock lock(&mutex_);
    records_[id] = {.runtime = runtime, .options = {}, .spec = spec};
  }
  absl::StatusOr<ContainerRecord> Get(const std::string&, const std::string& id) override {
    absl::MutexLock lock(&mutex_);
    auto found = records_.find(id);
    if (found == records_.end()) {
      return absl::NotFoundError(absl::StrCat("container '", id, "' does not exist"));
    }
    if (asked_ != nullptr) asked_->Notify();
    asked_ = nullptr;
    return found->second;
  }
  // Told at the next Get: a create is under way then.
  void NotifyNext(absl::Notification* asked) {
    absl::MutexLock lock(&mutex_);
    asked_ = asked;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, ContainerRecord> records_;
  absl::Notification* asked_ = nullptr;
};

// What metadata was handed, as "topic id".
class FakeMetadata {
 public:
  EventForwarder::Send Sender() {
    return [this](const containerd::types::Envelope& envelope,
                  std::function<void(absl::Status)> done) {
      absl::Status answer;
      {
        absl::MutexLock lock(&mutex_);
        answer = answer_;
        if (answer.ok()) {
          events_.push_back(absl::StrCat(envelope.topic(), " ", ContainerOf(envelope)));
          containerd::events::TaskExit exit;
          if (envelope.topic() == "/tasks/exit" && exit.ParseFromString(envelope.event().value())) {
            events_.back() += absl::StrCat(" ", exit.exit_status());
          }
        }
      }
      done(answer);
    };
  }
  void Answer(absl::Status answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
  }
  std::vector<std::string> events() {
    absl::MutexLock lock(&mutex_);
    return events_;
  }
  bool WaitFor(const std::string& event) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return std::find(events_.begin(), events_.end(), event) != events_.end();
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&there), kSoon);
  }

 private:
  absl::Mutex mutex_;
  absl::Status answer_;
  std::vector<std::string> events_;
};

// The whole process but its gRPC frame, with a shim that runs nothing (testing/fake_shim.cc).
class TaskSupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create("/tmp");
    ASSERT_OK(made);
    temp_ = std::make_unique<sys::TempDir>(std::move(*made));
    ASSERT_OK(sys::MakeDirectories(Path("run/.s")));
    ASSERT_OK(sys::MakeDirectories(Path("work")));
    ASSERT_OK(sys::MakeDirectories(Path("bin")));
    for (const char* name : {"containerd-shim-gantry-v2", "containerd-shim-fake-v2"}) {
      ASSERT_EQ(::symlink(FAKE_SHIM, Path(absl::StrCat("bin/", name)).c_str()), 0);
    }
    StartProcess();
  }
  void TearDown() override {
    failpoint::DisarmAll();
    if (supervisor_ != nullptr) {
      for (const TaskName& name : supervisor_->List("")) {
        Kill(name.id).IgnoreError();
        supervisor_->Delete(name.ns, name.id).status().IgnoreError();
      }
    }
    StopProcess();
  }

  std::string Path(const std::string& name) { return absl::StrCat(temp_->path(), "/", name); }

  void StartProcess() {
    absl::StatusOr<std::unique_ptr<LoopThread>> loop = LoopThread::Start();
    ASSERT_OK(loop);
    loop_ = std::move(*loop);
    metrics_ = std::make_unique<metrics::Registry>();
    forwarder_ = std::make_unique<EventForwarder>(
        *loop_, metadata_.Sender(), ForwarderOptions{.patience = absl::Milliseconds(200)});
    logs_ = std::make_unique<ShimLogs>(*loop_);
    reaper_ = std::make_unique<ChildReaper>(*loop_);
    launcher_ = std::make_unique<ShimLauncher>(LaunchOptions{.gateway_socket = Path("gantry.sock"),
                                                             .events_socket = Path("events.sock"),
                                                             .socket_directory = Path("run/.s"),
                                                             .work_directory = Path("work")});
    workers_ = std::make_unique<Workers>(4);
    supervisor_ = std::make_unique<TaskSupervisor>(
        SupervisorOptions{.bundle_root = Path("run"),
                          .search = {.own_directory = Path("bin"), .path = {Path("bin")}},
                          .probe_timeout = absl::Milliseconds(500)},
        containers_, *launcher_, *forwarder_, *logs_, *reaper_, *workers_, *metrics_);
    supervisor_->Adopt();
    absl::StatusOr<std::unique_ptr<EventServer>> events = EventServer::Listen(
        *loop_, Path("events.sock"), *forwarder_,
        [this](const containerd::types::Envelope& envelope) { supervisor_->Observe(envelope); });
    ASSERT_OK(events);
    events_ = std::move(*events);
    service_ = std::make_unique<TaskService>(*supervisor_, *metrics_);
    runs_service_ = std::make_unique<RunsService>(*supervisor_);
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    builder.RegisterService(runs_service_.get());
    server_ = builder.BuildAndStart();
    stub_ = containerd::services::tasks::v1::Tasks::NewStub(server_->InProcessChannel({}));
    runs_stub_ = task::v1::Runs::NewStub(server_->InProcessChannel({}));
  }
  // As after a crash: nothing is told to the shims.
  void StopProcess() {
    if (server_ == nullptr) return;
    supervisor_->PrepareToStop();
    server_->Shutdown();
    server_.reset();
    runs_service_.reset();
    service_.reset();
    events_.reset();
    supervisor_.reset();
    workers_.reset();
    launcher_.reset();
    reaper_.reset();
    logs_.reset();
    forwarder_.reset();
    loop_.reset();
  }

  absl::StatusOr<CreatedTask> Create(const std::string& id,
                                     const std::string& runtime = kOwnRuntime,
                                     const std::string& spec = "{}") {
    containers_.Add(id, runtime, spec);
    CreateParameters parameters{.ns = "default", .request = {}, .runtime_path = ""};
    parameters.request.set_id(id);
    return supervisor_->Create(std::move(parameters));
  }
  // As gantry.task.v1.Runs: metadata knows nothing of it.
  absl::StatusOr<CreatedTask> Run(const std::string& id, const std::string& runtime = kOwnRuntime,
                                  const std::string& spec = "{}") {
    CreateParameters parameters{.ns = "default", .request = {}, .runtime_path = ""};
    parameters.request.set_id(id);
    parameters.record = ContainerRecord{.runtime = runtime, .options = {}, .spec = spec};
    parameters.start = true;
    return supervisor_->Create(std::move(parameters));
  }
  // A call to the shim, waited for.
  absl::StatusOr<std::string> Call(const std::string& id, const std::string& method,
                                   const google::protobuf::MessageLite& request) {
    absl::Notification done;
    absl::StatusOr<std::string> result = absl::UnknownError("");
    supervisor_->Call("default", id, method, request, absl::Seconds(2),
                      [&](absl::StatusOr<std::string> answer) {
                        result = std::move(answer);
                        done.Notify();
                      });
    done.WaitForNotification();
    return result;
  }
  absl::Status Start(const std::string& id) {
    containerd::task::v2::StartRequest request;
    request.set_id(id);
    return Call(id, "Start", request).status();
  }
  absl::Status Kill(const std::string& id) {
    containerd::task::v2::KillRequest request;
    request.set_id(id);
    request.set_signal(SIGTERM);
    return Call(id, "Kill", request).status();
  }
  absl::StatusOr<containerd::task::v2::StateResponse> State(const std::string& id) {
    containerd::task::v2::StateRequest request;
    request.set_id(id);
    absl::StatusOr<std::string> payload = Call(id, "State", request);
    if (!payload.ok()) return payload.status();
    containerd::task::v2::StateResponse state;
    EXPECT_TRUE(state.ParseFromString(*payload));
    return state;
  }
  absl::StatusOr<Exit> WaitForExit(const std::string& id) {
    // Shared: the answer may come after this gave up.
    struct Result {
      absl::Notification done;
      absl::StatusOr<Exit> exit = absl::UnknownError("");
    };
    auto result = std::make_shared<Result>();
    supervisor_->Wait("default", id, "", [result](absl::StatusOr<Exit> exit) {
      result->exit = std::move(exit);
      result->done.Notify();
    });
    if (!result->done.WaitForNotificationWithTimeout(kSoon)) {
      return absl::DeadlineExceededError("the wait did not end");
    }
    return result->exit;
  }
  pid_t ShimPid(const std::string& id) {
    const absl::StatusOr<std::vector<std::string>> pids = sys::ListDirectory("/proc");
    for (const std::string& pid : pids.value()) {
      absl::StatusOr<std::string> cmdline = sys::ReadFile(absl::StrCat("/proc/", pid, "/cmdline"));
      ShimProcess process;
      if (cmdline.ok() && ParseShimCommandLine(*cmdline, Path("gantry.sock"), &process) &&
          process.id == id) {
        return std::stoi(pid);
      }
    }
    return 0;
  }
  rpc::AuditReport Audit() {
    rpc::AuditReport report;
    EXPECT_OK(AuditTasks(*supervisor_,
                         {.bundle_root = Path("run"),
                          .socket_directory = Path("run/.s"),
                          .gateway_socket = Path("gantry.sock")},
                         report));
    return report;
  }
  void ExpectNothingLeft(const std::string& id) {
    EXPECT_FALSE(sys::Exists(Path("run/default/" + id)));
    EXPECT_FALSE(sys::Exists(Path("work/default/" + id)));
    EXPECT_THAT(*sys::ListDirectory(Path("run/.s")), ::testing::IsEmpty());
    workers_->WaitUntilIdle();
    EXPECT_THAT(sys::ListDirectory(Path("run/.trash")).value_or(std::vector<std::string>()),
                ::testing::IsEmpty());
    EXPECT_THAT(State(id), ::gantry::testing::HasCode(absl::StatusCode::kNotFound));
  }

  std::unique_ptr<sys::TempDir> temp_;
  FakeContainers containers_;
  FakeMetadata metadata_;
  std::unique_ptr<LoopThread> loop_;
  std::unique_ptr<metrics::Registry> metrics_;
  std::unique_ptr<EventForwarder> forwarder_;
  std::unique_ptr<ShimLogs> logs_;
  std::unique_ptr<ChildReaper> reaper_;
  std::unique_ptr<ShimLauncher> launcher_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<TaskSupervisor> supervisor_;
  std::unique_ptr<EventServer> events_;
  std::unique_ptr<TaskService> service_;
  std::unique_ptr<RunsService> runs_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<containerd::services::tasks::v1::Tasks::Stub> stub_;
  std::unique_ptr<task::v1::Runs::Stub> runs_stub_;
};

}  // namespace gantry::task
