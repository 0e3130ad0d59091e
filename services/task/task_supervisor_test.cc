#include "services/task/task_supervisor.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "containerd/events/events.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/task/event_server.h"
#include "services/task/task_audit.h"
#include "services/task/task_service.h"

namespace gantry::task {
namespace {

namespace v1 = containerd::services::tasks::v1;
using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kSoon = absl::Seconds(20);

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
    return found->second;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, ContainerRecord> records_;
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
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::Tasks::NewStub(server_->InProcessChannel({}));
  }
  // As after a crash: nothing is told to the shims.
  void StopProcess() {
    if (server_ == nullptr) return;
    supervisor_->PrepareToStop();
    server_->Shutdown();
    server_.reset();
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
    EXPECT_THAT(*sys::ListDirectory(Path("run/.s")), IsEmpty());
    EXPECT_THAT(State(id), HasCode(absl::StatusCode::kNotFound));
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
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Tasks::Stub> stub_;
};

TEST_F(TaskSupervisorTest, AWholeLifeWithOurOwnShim) {
  absl::StatusOr<CreatedTask> created = Create("web");
  ASSERT_OK(created);
  EXPECT_EQ(created->pid, 4711u);
  EXPECT_THAT(created->timings, HasSubstr("task.shim="));
  EXPECT_OK(Start("web"));
  EXPECT_EQ(State("web")->status(), containerd::v1::types::RUNNING);
  EXPECT_THAT(supervisor_->Delete("default", "web"),
              Fails(absl::StatusCode::kFailedPrecondition, "running"));

  EXPECT_OK(Kill("web"));
  absl::StatusOr<Exit> waited = WaitForExit("web");
  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");

  ASSERT_OK(waited);
  EXPECT_EQ(waited->code, 128u + SIGTERM);
  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 128u + SIGTERM);
  ExpectNothingLeft("web");
  EXPECT_FALSE(sys::Exists(Path("deleted-web"))) << "our own shim needs no delete command";
  ASSERT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/start web",
                                              "/tasks/exit web 143", "/tasks/delete web"));
  EXPECT_THAT(supervisor_->Delete("default", "web"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_OK(Create("web")) << "the id is free again";
}

TEST_F(TaskSupervisorTest, AWholeLifeWithAStrangersShim) {
  ASSERT_OK(Create("web", "io.containerd.fake.v2"));
  EXPECT_TRUE(sys::Exists(Path("run/default/web/log")));
  EXPECT_TRUE(sys::Exists(Path("run/default/web/work")));
  EXPECT_OK(Start("web"));
  EXPECT_OK(Kill("web"));

  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");

  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 143u);
  ExpectNothingLeft("web");
  EXPECT_TRUE(sys::Exists(Path("deleted-web"))) << "strangers' shims get their delete command";
}

TEST_F(TaskSupervisorTest, AShimThatRefusesBootstrapParamsIsAskedAgain) {
  EXPECT_OK(Create("web", "io.containerd.fake.v2", "{\"fake\":\"refuses-params\"}"));
  EXPECT_OK(Create("web2", "io.containerd.fake.v2", "{\"fake\":\"refuses-params\"}"));
}

TEST_F(TaskSupervisorTest, FailedCreatesSayWhyAndLeaveNothing) {
  EXPECT_THAT(Create("a", kOwnRuntime, "{\"fake\":\"create-fails\"}"),
              Fails(absl::StatusCode::kUnknown, "the fake refuses"));
  ExpectNothingLeft("a");
  EXPECT_THAT(Create("b", kOwnRuntime, "{\"fake\":\"create-dies\"}"),
              HasCode(absl::StatusCode::kUnavailable));
  ExpectNothingLeft("b");
  EXPECT_TRUE(sys::Exists(Path("deleted-b"))) << "what a dead shim left is its delete command's";
  EXPECT_THAT(Create("c", "io.containerd.fake.v2", "{\"fake\":\"start-fails\"}"),
              Fails(absl::StatusCode::kUnknown, "cannot do it"));
  ExpectNothingLeft("c");
  EXPECT_THAT(Create("d", "io.containerd.nobody.v2"),
              Fails(absl::StatusCode::kNotFound, "containerd-shim-nobody-v2"));
  ExpectNothingLeft("d");
  EXPECT_THAT(Create("no/such"), HasCode(absl::StatusCode::kInvalidArgument));
  for (const char* id : {"a", "b", "c", "d"}) EXPECT_EQ(ShimPid(id), 0) << id;
}

TEST_F(TaskSupervisorTest, EveryStepOfCreateMayFail) {
  for (const char* step :
       {"task.bundle.before_make", "task.bundle.after_make", "task.launch.before_start",
        "task.launch.before_spawn", "task.launch.after_spawn", "task.create.before_call",
        "task.create.after_call"}) {
    ASSERT_OK(failpoint::Arm(absl::StrCat(step, "=error")));
    EXPECT_THAT(Create("web"), Fails(absl::StatusCode::kUnavailable, step));
    failpoint::DisarmAll();
    ExpectNothingLeft("web");
    EXPECT_EQ(ShimPid("web"), 0) << step;
  }
  EXPECT_OK(Create("web"));
}

TEST_F(TaskSupervisorTest, ATaskCannotBeCreatedTwice) {
  ASSERT_OK(Create("web"));
  EXPECT_THAT(Create("web"), Fails(absl::StatusCode::kAlreadyExists, "delete it first"));
  EXPECT_THAT(supervisor_->List("default").size(), 1u);
  EXPECT_THAT(supervisor_->List("other").size(), 0u);
}

TEST_F(TaskSupervisorTest, AKilledShimLeavesAStoppedTaskWith137) {
  ASSERT_OK(Create("web"));
  ASSERT_OK(Start("web"));
  const pid_t pid = ShimPid("web");
  ASSERT_GT(pid, 0);

  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  absl::StatusOr<Exit> exit = WaitForExit("web");

  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 137u);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit web 137"));
  EXPECT_TRUE(sys::Exists(Path("deleted-web"))) << "the container was cleaned up";
  absl::StatusOr<containerd::task::v2::StateResponse> state = State("web");
  ASSERT_OK(state);
  EXPECT_EQ(state->status(), containerd::v1::types::STOPPED);
  EXPECT_EQ(state->exit_status(), 137u);
  EXPECT_THAT(Kill("web"), HasCode(absl::StatusCode::kNotFound));
  absl::StatusOr<Exit> deleted = supervisor_->Delete("default", "web");
  ASSERT_OK(deleted);
  EXPECT_EQ(deleted->code, 137u);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  ExpectNothingLeft("web");
}

TEST_F(TaskSupervisorTest, TheExitRecordOfADeadShimIsBelieved) {
  ASSERT_OK(Create("web"));
  ASSERT_OK(Start("web"));
  ASSERT_OK(WriteExitFile(Path("run/default/web/exit"),
                          {.pid = 4711, .code = 3, .at = absl::FromUnixSeconds(1000)}));
  ASSERT_EQ(::kill(ShimPid("web"), SIGKILL), 0);

  absl::StatusOr<Exit> exit = WaitForExit("web");

  ASSERT_OK(exit);
  EXPECT_EQ(exit->code, 3u);
  EXPECT_EQ(exit->at, absl::FromUnixSeconds(1000));
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit web 3"));
}

TEST_F(TaskSupervisorTest, AfterARestartTasksAreFoundAgain) {
  ASSERT_OK(Create("runs"));
  ASSERT_OK(Start("runs"));
  ASSERT_OK(Create("stranger", "io.containerd.fake.v2"));
  ASSERT_OK(Start("stranger"));
  ASSERT_OK(Create("dies"));
  ASSERT_OK(Start("dies"));
  ASSERT_OK(Create("ends"));
  ASSERT_OK(Start("ends"));
  const pid_t dying = ShimPid("dies");
  StopProcess();
  ASSERT_EQ(::kill(dying, SIGKILL), 0);
  ASSERT_OK(
      WriteExitFile(Path("run/default/dies/exit"), {.pid = 4711, .code = 5, .at = absl::Now()}));
  ASSERT_OK(sys::MakeDirectories(Path("run/default/never-started/rootfs")));
  ASSERT_OK(sys::ListenUnix(Path("run/.s/stale")));

  StartProcess();

  EXPECT_EQ(State("runs")->status(), containerd::v1::types::RUNNING);
  EXPECT_EQ(State("stranger")->status(), containerd::v1::types::RUNNING);
  EXPECT_EQ(State("dies")->status(), containerd::v1::types::STOPPED);
  EXPECT_TRUE(metadata_.WaitFor("/tasks/exit dies 5"));
  EXPECT_FALSE(sys::Exists(Path("run/default/never-started")));
  EXPECT_FALSE(sys::Exists(Path("run/.s/stale")));
  for (const char* id : {"runs", "stranger", "ends"}) {
    EXPECT_OK(Kill(id)) << id;
    EXPECT_EQ(WaitForExit(id)->code, 143u) << id;
    EXPECT_OK(supervisor_->Delete("default", id)) << id;
  }
  EXPECT_EQ(supervisor_->Delete("default", "dies")->code, 5u);
  EXPECT_THAT(supervisor_->List(""), IsEmpty());
}

TEST_F(TaskSupervisorTest, AnExitIsPublishedOnceEvenOverRestarts) {
  ASSERT_OK(Create("web"));
  ASSERT_EQ(::kill(ShimPid("web"), SIGKILL), 0);
  ASSERT_TRUE(metadata_.WaitFor("/tasks/exit web 137"));
  // The mark that it was delivered is written after that.
  for (int i = 0; i < 1000 && !sys::Exists(Path("run/default/web/shim-ended")); ++i) {
    workers_->WaitUntilIdle();
    loop_->Do([] {});
  }
  StopProcess();

  StartProcess();

  EXPECT_EQ(State("web")->exit_status(), 137u);
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/exit web 137"));
}

TEST_F(TaskSupervisorTest, WhileMetadataIsAwayShimsGoOnAndNoExitIsLost) {
  metadata_.Answer(absl::UnavailableError("away"));
  ASSERT_OK(Create("web"));
  EXPECT_OK(Start("web"));
  EXPECT_OK(Kill("web"));
  EXPECT_EQ(WaitForExit("web")->code, 143u);
  EXPECT_OK(supervisor_->Delete("default", "web"));

  metadata_.Answer(absl::OkStatus());

  ASSERT_TRUE(metadata_.WaitFor("/tasks/delete web"));
  EXPECT_THAT(metadata_.events(), ElementsAre("/tasks/create web", "/tasks/start web",
                                              "/tasks/exit web 143", "/tasks/delete web"));
}

TEST_F(TaskSupervisorTest, AStuckShimHoldsUpNobodyElse) {
  ASSERT_OK(Create("stuck", kOwnRuntime, "{\"fake\":\"hangs\"}"));
  ASSERT_OK(Create("web"));
  containerd::task::v2::StateRequest request;
  request.set_id("stuck");
  std::atomic<int> late{0};
  for (int i = 0; i < 500; ++i) {
    supervisor_->Call("default", "stuck", "State", request, absl::Milliseconds(300),
                      [&](absl::StatusOr<std::string> answer) {
                        EXPECT_THAT(answer, HasCode(absl::StatusCode::kDeadlineExceeded));
                        ++late;
                      });
  }

  EXPECT_OK(State("web"));

  const absl::Time deadline = absl::Now() + kSoon;
  while (late < 500 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(late, 500);
}

TEST_F(TaskSupervisorTest, WaitsCanBeCancelledAndEndWithTheProcess) {
  ASSERT_OK(Create("web"));
  bool cancelled_was_called = false;
  const uint64_t ticket = supervisor_->Wait(
      "default", "web", "", [&](absl::StatusOr<Exit>) { cancelled_was_called = true; });
  ASSERT_NE(ticket, 0u);
  supervisor_->CancelWait("default", "web", "", ticket);
  absl::Notification stopped;
  supervisor_->Wait("default", "web", "", [&](absl::StatusOr<Exit> exit) {
    EXPECT_THAT(exit, HasCode(absl::StatusCode::kUnavailable));
    stopped.Notify();
  });

  supervisor_->PrepareToStop();

  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kSoon));
  EXPECT_FALSE(cancelled_was_called);
}

TEST_F(TaskSupervisorTest, TheAuditSeesWhatIsLeftAndNothingElse) {
  ASSERT_OK(Create("web"));
  rpc::AuditReport clean = Audit();
  EXPECT_THAT(clean.findings, IsEmpty());
  EXPECT_EQ(clean.checked["bundle"], 1u);
  EXPECT_EQ(clean.checked["shim"], 1u);
  EXPECT_EQ(clean.checked["socket"], 1u);

  ASSERT_OK(sys::MakeDirectories(Path("run/default/left")));
  ASSERT_OK(sys::ListenUnix(Path("run/.s/left")));
  rpc::AuditReport dirty = Audit();

  EXPECT_EQ(dirty.findings.size(), 2u);
  ASSERT_OK(sys::RemoveTree(Path("run/default/left")));
}

TEST_F(TaskSupervisorTest, ManyTasksComeAndGoSideBySide) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 10; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 5; ++i) {
        const std::string id = absl::StrCat("c", t, "-", i);
        EXPECT_OK(Create(id));
        EXPECT_OK(Start(id));
        EXPECT_OK(Kill(id));
        EXPECT_EQ(WaitForExit(id)->code, 143u);
        EXPECT_OK(supervisor_->Delete("default", id));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_THAT(supervisor_->List(""), IsEmpty());
  EXPECT_THAT(*sys::ListDirectory(Path("run/.s")), IsEmpty());
  ASSERT_TRUE(forwarder_->Drain(kSoon));
}

// ---- On the wire ----

class TaskServiceTest : public TaskSupervisorTest {
 protected:
  template <typename Response, typename Request, typename Method>
  grpc::Status Do(Method method, const Request& request, Response* response,
                  std::multimap<grpc::string_ref, grpc::string_ref>* trailers = nullptr) {
    context_ = std::make_unique<grpc::ClientContext>();
    context_->AddMetadata("containerd-namespace", "default");
    grpc::Status status = (stub_.get()->*method)(context_.get(), request, response);
    if (trailers != nullptr) *trailers = context_->GetServerTrailingMetadata();
    return status;
  }
  std::unique_ptr<grpc::ClientContext> context_;
};

TEST_F(TaskServiceTest, AWholeLifeOverGrpc) {
  containers_.Add("web", "io.containerd.runc.v2", "{}");
  v1::CreateTaskRequest create;
  create.set_container_id("web");
  v1::CreateTaskResponse created;
  std::multimap<grpc::string_ref, grpc::string_ref> trailers;
  ASSERT_TRUE(Do(&v1::Tasks::Stub::Create, create, &created, &trailers).ok());
  EXPECT_EQ(created.pid(), 4711u);
  EXPECT_EQ(trailers.count(kTimingsTrailer), 1u);
  EXPECT_EQ(trailers.count(kShimAddressTrailer), 1u);

  v1::StartRequest start;
  start.set_container_id("web");
  v1::StartResponse started;
  ASSERT_TRUE(Do(&v1::Tasks::Stub::Start, start, &started, &trailers).ok());
  ASSERT_EQ(trailers.count(kTimingsTrailer), 1u);
  const grpc::string_ref timings = trailers.find(kTimingsTrailer)->second;
  EXPECT_THAT(std::string(timings.data(), timings.size()), HasSubstr("shim.start=1234"));
  EXPECT_THAT(metrics_->Text(), HasSubstr("gantry_task_start_seconds"));

  v1::ListTasksResponse list;
  ASSERT_TRUE(Do(&v1::Tasks::Stub::List, v1::ListTasksRequest(), &list).ok());
  ASSERT_EQ(list.tasks_size(), 1);
  EXPECT_EQ(list.tasks(0).id(), "web");
  EXPECT_EQ(list.tasks(0).status(), containerd::v1::types::RUNNING);
  v1::MetricsResponse samples;
  v1::MetricsRequest metrics;
  metrics.add_filters("id==web");
  ASSERT_TRUE(Do(&v1::Tasks::Stub::Metrics, metrics, &samples).ok());
  ASSERT_EQ(samples.metrics_size(), 1);
  EXPECT_EQ(samples.metrics(0).data().type_url(), "io.containerd.cgroups.v2.Metrics");

  v1::WaitRequest wait;
  wait.set_container_id("web");
  v1::WaitResponse waited;
  std::thread waiter([&] {
    grpc::ClientContext context;
    context.AddMetadata("containerd-namespace", "default");
    EXPECT_TRUE(stub_->Wait(&context, wait, &waited).ok());
  });
  v1::KillRequest kill;
  kill.set_container_id("web");
  kill.set_signal(SIGKILL);
  google::protobuf::Empty empty;
  EXPECT_TRUE(Do(&v1::Tasks::Stub::Kill, kill, &empty).ok());
  waiter.join();
  EXPECT_EQ(waited.exit_status(), 137u);
  EXPECT_GT(waited.exited_at().seconds(), 0);
  EXPECT_EQ(Do(&v1::Tasks::Stub::Kill, kill, &empty).error_code(), grpc::StatusCode::NOT_FOUND);

  v1::DeleteTaskRequest remove;
  remove.set_container_id("web");
  v1::DeleteResponse deleted;
  ASSERT_TRUE(Do(&v1::Tasks::Stub::Delete, remove, &deleted).ok());
  EXPECT_EQ(deleted.exit_status(), 137u);
  EXPECT_EQ(Do(&v1::Tasks::Stub::Delete, remove, &deleted).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(TaskServiceTest, TheNamespaceIsRequiredAndUnknownTasksAreNotFound) {
  v1::GetRequest request;
  request.set_container_id("web");
  v1::GetResponse response;
  grpc::ClientContext bare;
  EXPECT_EQ(stub_->Get(&bare, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Do(&v1::Tasks::Stub::Get, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::CheckpointTaskResponse checkpoint;
  EXPECT_EQ(Do(&v1::Tasks::Stub::Checkpoint, v1::CheckpointTaskRequest(), &checkpoint).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(TaskServiceTest, ACallerThatLeavesAWaitIsForgotten) {
  ASSERT_OK(Create("web"));
  v1::WaitRequest request;
  request.set_container_id("web");
  v1::WaitResponse response;
  grpc::ClientContext context;
  context.AddMetadata("containerd-namespace", "default");
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));

  EXPECT_EQ(stub_->Wait(&context, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);

  EXPECT_OK(Kill("web"));
  EXPECT_EQ(WaitForExit("web")->code, 143u);
}

}  // namespace
}  // namespace gantry::task
