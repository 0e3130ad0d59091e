#include "services/task/task_service.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"
#include "services/task/testing/supervisor_fixture.h"

namespace gantry::task {
namespace {

namespace v1 = containerd::services::tasks::v1;
using ::testing::HasSubstr;

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

TEST_F(TaskServiceTest, RunsAndExecsInOneCallEach) {
  gantry::task::v1::RunRequest run;
  run.set_container_id("web");
  run.set_spec("{}");
  gantry::task::v1::RunResponse running;
  grpc::ClientContext run_context;
  run_context.AddMetadata("containerd-namespace", "default");
  ASSERT_TRUE(runs_stub_->Run(&run_context, run, &running).ok());
  EXPECT_EQ(running.pid(), 4711u);
  EXPECT_THAT(running.shim_address(), HasSubstr("unix://"));
  EXPECT_THAT(running.timings(), HasSubstr("task.start="));

  const auto exec = [&](const std::string& container, const std::string& exec_id, bool* created) {
    gantry::task::v1::ExecRequest request;
    request.set_container_id(container);
    request.set_exec_id(exec_id);
    request.set_process("{}");
    gantry::task::v1::ExecResponse response;
    grpc::ClientContext context;
    context.AddMetadata("containerd-namespace", "default");
    const grpc::Status status = runs_stub_->Exec(&context, request, &response);
    *created = context.GetServerTrailingMetadata().count(kCreatedTrailer) > 0;
    EXPECT_EQ(status.ok(), response.pid() == 4711u);
    return status;
  };
  bool created = false;
  EXPECT_TRUE(exec("web", "one", &created).ok());
  EXPECT_EQ(exec("nobody", "one", &created).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_FALSE(created);
  EXPECT_EQ(exec("web", "no/such", &created).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace gantry::task
