#include "services/engine/testing/fake_suite.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "containerd/events/events.pb.h"
#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "containerd/services/tasks/v1/tasks.grpc.pb.h"
#include "gantry/image/v1/image.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "gantry/task/v1/task.grpc.pb.h"
#include "lib/sys/file.h"

namespace gantry::engine {
namespace {

namespace containers = ::containerd::services::containers::v1;
namespace snapshots = ::containerd::services::snapshots::v1;
namespace tasks = ::containerd::services::tasks::v1;
namespace events = ::containerd::services::events::v1;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

struct Process {
  bool started = false;
  bool ended = false;
  int code = 0;
  absl::Time exited_at;
};

struct Task {
  Process init;
  bool paused = false;
  std::string stdout_uri;
  std::vector<std::string> root_options;
  std::vector<int> signals;
  std::map<std::string, Process> execs;
};

google::protobuf::Timestamp Stamp(absl::Time time) {
  google::protobuf::Timestamp stamp;
  stamp.set_seconds(absl::ToUnixSeconds(time));
  stamp.set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(stamp.seconds()))));
  return stamp;
}

Status NotFound(const std::string& what) {
  return Status(StatusCode::NOT_FOUND, absl::StrCat(what, ": not found"));
}

}  // namespace

struct FakeSuite::State {
  using RecordMap = std::map<std::pair<std::string, std::string>, metadata::v1::Record>;

  std::string directory;
  mutable absl::Mutex mutex;
  std::map<std::string, image::v1::ImageDetails> images ABSL_GUARDED_BY(mutex);
  int images_made ABSL_GUARDED_BY(mutex) = 0;
  int inspections ABSL_GUARDED_BY(mutex) = 0;

  bool Means(const metadata::v1::ImageExpectation& expected) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return std::any_of(images.begin(), images.end(), [&](const auto& entry) {
      return entry.second.names(0) == expected.name() &&
             entry.second.target().digest() == expected.digest();
    });
  }
  RecordMap records ABSL_GUARDED_BY(mutex);
  std::map<std::string, containers::Container> containers_ ABSL_GUARDED_BY(mutex);
  std::map<std::string, std::string> snapshot_parents ABSL_GUARDED_BY(mutex);
  std::map<std::string, Task> tasks_ ABSL_GUARDED_BY(mutex);
  std::map<std::string, Status> faults ABSL_GUARDED_BY(mutex);
  std::vector<std::string> ooms ABSL_GUARDED_BY(mutex);
  std::vector<v1::Event> told ABSL_GUARDED_BY(mutex);
  int durable_writes ABSL_GUARDED_BY(mutex) = 0;
  bool ignore_term ABSL_GUARDED_BY(mutex) = false;
  int64_t pid ABSL_GUARDED_BY(mutex) = ::getpid();
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  std::map<std::string, uint64_t> generation ABSL_GUARDED_BY(mutex);

  std::string Upper(const std::string& key) const {
    return absl::StrCat(directory, "/snapshots/", key);
  }

  Status Fault(const std::string& method) ABSL_LOCKS_EXCLUDED(mutex) {
    absl::MutexLock lock(&mutex);
    auto found = faults.find(method);
    if (found == faults.end()) return Status::OK;
    Status status = found->second;
    faults.erase(found);
    return status;
  }

  Status Apply(const google::protobuf::RepeatedPtrField<metadata::v1::RecordWrite>& writes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    for (const auto& write : writes) {
      if (write.must_not_exist() && records.count({write.bucket(), write.key()}) > 0) {
        return Status(StatusCode::ALREADY_EXISTS,
                      absl::StrCat("record ", write.bucket(), "/", write.key(), " exists"));
      }
    }
    for (const auto& write : writes) {
      const auto key = std::make_pair(write.bucket(), write.key());
      if (write.remove()) {
        records.erase(key);
        continue;
      }
      metadata::v1::Record& record = records[key];
      record.set_bucket(write.bucket());
      record.set_key(write.key());
      record.set_value(write.value());
      record.set_revision(record.revision() + 1);
    }
    ++durable_writes;
    return Status::OK;
  }

  void AddMounts(const std::string& key,
                 google::protobuf::RepeatedPtrField<::containerd::types::Mount>* mounts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    ::containerd::types::Mount* mount = mounts->Add();
    mount->set_type("overlay");
    mount->set_source("overlay");
    mount->add_options(absl::StrCat("upperdir=", Upper(key), "/fs"));
    mount->add_options(absl::StrCat("workdir=", Upper(key), "/work"));
    mount->add_options(absl::StrCat("lowerdir=", snapshot_parents[key]));
  }

  void End(Process& process, int code) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (process.ended) return;
    process.ended = true;
    process.code = code;
    process.exited_at = absl::Now();
  }
};

struct FakeSuite::Services {
  struct Store final : metadata::v1::Store::Service {
    explicit Store(State& s) : state(s) {}
    State& state;

    Status CreateContainer(ServerContext*, const metadata::v1::CreateContainerRequest* request,
                           metadata::v1::CreateContainerResponse* response) override {
      if (Status fault = state.Fault("Store.CreateContainer"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      const std::string& id = request->container().id();
      if (state.containers_.count(id) > 0) return Status(StatusCode::ALREADY_EXISTS, id);
      if (request->has_expected_image() && !state.Means(request->expected_image())) {
        return Status(StatusCode::ABORTED, "the image has another target");
      }
      const std::string parent =
          request->snapshot_parent().empty()
              ? absl::StrCat(state.directory, "/empty")
              : absl::StrCat(state.directory, "/images/", request->snapshot_parent());
      if (!sys::Exists(parent)) return NotFound(absl::StrCat("snapshot ", parent));
      if (Status applied = state.Apply(request->records()); !applied.ok()) return applied;
      const std::string& key = request->container().snapshot_key();
      (void)sys::MakeDirectories(absl::StrCat(state.Upper(key), "/fs"), 0755);
      (void)sys::MakeDirectories(absl::StrCat(state.Upper(key), "/work"), 0755);
      state.snapshot_parents[key] = parent;
      state.containers_[id] = request->container();
      *response->mutable_container() = request->container();
      state.AddMounts(key, response->mutable_mounts());
      return Status::OK;
    }

    Status DeleteContainer(ServerContext*, const metadata::v1::DeleteContainerRequest* request,
                           metadata::v1::DeleteContainerResponse*) override {
      if (Status fault = state.Fault("Store.DeleteContainer"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      auto found = state.containers_.find(request->id());
      if (found != state.containers_.end()) {
        if (request->remove_snapshot()) {
          (void)sys::RemoveTree(state.Upper(found->second.snapshot_key()));
          state.snapshot_parents.erase(found->second.snapshot_key());
        }
        state.containers_.erase(found);
      }
      return state.Apply(request->records());
    }
  };

  struct Records final : metadata::v1::Records::Service {
    explicit Records(State& s) : state(s) {}
    State& state;

    Status Commit(ServerContext*, const metadata::v1::CommitRecordsRequest* request,
                  metadata::v1::CommitRecordsResponse*) override {
      if (Status fault = state.Fault("Records.Commit"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      return state.Apply(request->writes());
    }

    Status List(ServerContext*, const metadata::v1::ListRecordsRequest* request,
                grpc::ServerWriter<metadata::v1::Record>* writer) override {
      absl::MutexLock lock(&state.mutex);
      for (const auto& [key, record] : state.records) {
        if (key.first == request->bucket()) writer->Write(record);
      }
      return Status::OK;
    }
  };

  struct Snapshots final : snapshots::Snapshots::Service {
    explicit Snapshots(State& s) : state(s) {}
    State& state;

    Status Mounts(ServerContext*, const snapshots::MountsRequest* request,
                  snapshots::MountsResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      if (state.snapshot_parents.count(request->key()) == 0) return NotFound(request->key());
      state.AddMounts(request->key(), response->mutable_mounts());
      return Status::OK;
    }
    Status Usage(ServerContext*, const snapshots::UsageRequest*,
                 snapshots::UsageResponse* response) override {
      response->set_size(4096);
      return Status::OK;
    }
  };

  struct Containers final : containers::Containers::Service {
    explicit Containers(State& s) : state(s) {}
    State& state;

    Status Update(ServerContext*, const containers::UpdateContainerRequest* request,
                  containers::UpdateContainerResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      auto found = state.containers_.find(request->container().id());
      if (found == state.containers_.end()) return NotFound(request->container().id());
      *found->second.mutable_spec() = request->container().spec();
      *response->mutable_container() = found->second;
      ++state.durable_writes;
      return Status::OK;
    }
    Status ListStream(ServerContext*, const containers::ListContainersRequest*,
                      grpc::ServerWriter<containers::ListContainerMessage>* writer) override {
      absl::MutexLock lock(&state.mutex);
      for (const auto& [id, container] : state.containers_) {
        containers::ListContainerMessage message;
        *message.mutable_container() = container;
        writer->Write(message);
      }
      return Status::OK;
    }
  };

  struct Events final : events::Events::Service {
    explicit Events(State& s) : state(s) {}
    State& state;

    Status Subscribe(ServerContext* context, const events::SubscribeRequest*,
                     grpc::ServerWriter<::containerd::types::Envelope>* writer) override {
      size_t sent = 0;
      const std::string ns = "gantry";
      absl::MutexLock lock(&state.mutex);
      const uint64_t generation = state.generation["metadata"];
      while (!context->IsCancelled() && state.generation["metadata"] == generation) {
        auto news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state.mutex) {
          return state.ooms.size() > sent || state.generation["metadata"] != generation;
        };
        if (!state.mutex.AwaitWithTimeout(absl::Condition(&news), absl::Milliseconds(50))) continue;
        while (sent < state.ooms.size()) {
          ::containerd::events::TaskOOM oom;
          oom.set_container_id(state.ooms[sent++]);
          ::containerd::types::Envelope envelope;
          envelope.set_namespace_(ns);
          envelope.set_topic("/tasks/oom");
          envelope.mutable_event()->set_type_url("containerd.events.TaskOOM");
          envelope.mutable_event()->set_value(oom.SerializeAsString());
          writer->Write(envelope);
        }
      }
      return Status::OK;
    }
  };

  struct Journal final : metadata::v1::Journal::Service {
    explicit Journal(State& s) : state(s) {}
    State& state;

    grpc::Status Append(ServerContext*, const metadata::v1::AppendJournalRequest* request,
                        metadata::v1::AppendJournalResponse*) override {
      if (grpc::Status fault = state.Fault("Journal.Append"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      for (const auto& envelope : request->envelopes()) {
        v1::Event event;
        if (event.ParseFromString(envelope.event().value())) state.told.push_back(event);
      }
      return grpc::Status::OK;
    }
  };

  struct Images final : image::v1::Images::Service {
    explicit Images(State& s) : state(s) {}
    State& state;

    Status Inspect(ServerContext*, const image::v1::InspectImageRequest* request,
                   image::v1::ImageDetails* response) override {
      absl::MutexLock lock(&state.mutex);
      ++state.inspections;
      auto found = state.images.find(request->reference());
      if (found == state.images.end()) return NotFound(request->reference());
      *response = found->second;
      return Status::OK;
    }
    Status List(ServerContext*, const image::v1::ListImagesRequest*,
                image::v1::ListImagesResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      for (const auto& [name, image] : state.images) *response->add_images() = image;
      return Status::OK;
    }
    Status Remove(ServerContext*, const image::v1::RemoveImageRequest* request,
                  image::v1::RemoveImageResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      auto found = state.images.find(request->reference());
      if (found == state.images.end()) return NotFound(request->reference());
      response->add_untagged(request->reference());
      if (!request->keep_image()) {
        response->add_deleted(found->second.id());
        state.images.erase(found);
      }
      return Status::OK;
    }
  };

  struct Tasks final : tasks::Tasks::Service {
    explicit Tasks(State& s) : state(s) {}
    State& state;

    static Process* Find(Task& task, const std::string& exec_id) {
      if (exec_id.empty()) return &task.init;
      auto found = task.execs.find(exec_id);
      return found == task.execs.end() ? nullptr : &found->second;
    }
    Task* FindTask(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state.mutex) {
      auto found = state.tasks_.find(id);
      return found == state.tasks_.end() ? nullptr : &found->second;
    }
    void Trailers(ServerContext* context) {
      context->AddTrailingMetadata("gantry-shim-address",
                                   absl::StrCat("unix://", state.directory, "/shim.sock"));
      context->AddTrailingMetadata("gantry-timings", "clone=120;exec=30");
    }

    Status Create(ServerContext* context, const tasks::CreateTaskRequest* request,
                  tasks::CreateTaskResponse* response) override {
      if (Status fault = state.Fault("Tasks.Create"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      if (state.containers_.count(request->container_id()) == 0) {
        return NotFound(request->container_id());
      }
      if (FindTask(request->container_id()) != nullptr) {
        return Status(StatusCode::ALREADY_EXISTS, "task exists");
      }
      Task& task = state.tasks_[request->container_id()];
      task.stdout_uri = request->stdout();
      for (const auto& mount : request->rootfs()) {
        task.root_options.assign(mount.options().begin(), mount.options().end());
      }
      response->set_pid(static_cast<uint32_t>(state.pid));
      Trailers(context);
      return Status::OK;
    }
    Status Start(ServerContext* context, const tasks::StartRequest* request,
                 tasks::StartResponse* response) override {
      if (Status fault = state.Fault("Tasks.Start"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      Process* process = task == nullptr ? nullptr : Find(*task, request->exec_id());
      if (process == nullptr) return NotFound(request->container_id());
      process->started = true;
      response->set_pid(static_cast<uint32_t>(state.pid));
      Trailers(context);
      return Status::OK;
    }
    Status Delete(ServerContext*, const tasks::DeleteTaskRequest* request,
                  tasks::DeleteResponse* response) override {
      if (Status fault = state.Fault("Tasks.Delete"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr) return NotFound(request->container_id());
      if (task->init.started && !task->init.ended) {
        return Status(StatusCode::FAILED_PRECONDITION, "task is running");
      }
      response->set_exit_status(static_cast<uint32_t>(task->init.code));
      state.tasks_.erase(request->container_id());
      return Status::OK;
    }
    Status DeleteProcess(ServerContext*, const tasks::DeleteProcessRequest* request,
                         tasks::DeleteResponse*) override {
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr || task->execs.erase(request->exec_id()) == 0) {
        return NotFound(request->exec_id());
      }
      return Status::OK;
    }
    Status Get(ServerContext* context, const tasks::GetRequest* request,
               tasks::GetResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr) return NotFound(request->container_id());
      Fill(request->container_id(), *task, response->mutable_process());
      Trailers(context);
      return Status::OK;
    }
    Status List(ServerContext*, const tasks::ListTasksRequest*,
                tasks::ListTasksResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      for (const auto& [id, task] : state.tasks_) Fill(id, task, response->add_tasks());
      return Status::OK;
    }
    void Fill(const std::string& id, const Task& task, ::containerd::v1::types::Process* process)
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(state.mutex) {
      process->set_id(id);
      process->set_pid(static_cast<uint32_t>(state.pid));
      process->set_status(task.init.ended     ? ::containerd::v1::types::STOPPED
                          : task.paused       ? ::containerd::v1::types::PAUSED
                          : task.init.started ? ::containerd::v1::types::RUNNING
                                              : ::containerd::v1::types::CREATED);
      process->set_exit_status(static_cast<uint32_t>(task.init.code));
      if (task.init.ended) *process->mutable_exited_at() = Stamp(task.init.exited_at);
    }
    Status Kill(ServerContext*, const tasks::KillRequest* request,
                google::protobuf::Empty*) override {
      if (Status fault = state.Fault("Tasks.Kill"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      Process* process = task == nullptr ? nullptr : Find(*task, request->exec_id());
      if (process == nullptr || process->ended) return NotFound(request->container_id());
      const int signal = static_cast<int>(request->signal());
      if (request->exec_id().empty()) task->signals.push_back(signal);
      if (signal == SIGKILL || (signal == SIGTERM && !state.ignore_term)) {
        state.End(*process, 128 + signal);
      }
      return Status::OK;
    }
    Status Exec(ServerContext*, const tasks::ExecProcessRequest* request,
                google::protobuf::Empty*) override {
      if (Status fault = state.Fault("Tasks.Exec"); !fault.ok()) return fault;
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr) return NotFound(request->container_id());
      task->execs[request->exec_id()];
      return Status::OK;
    }
    Status ResizePty(ServerContext*, const tasks::ResizePtyRequest*,
                     google::protobuf::Empty*) override {
      return Status::OK;
    }
    Status Pause(ServerContext*, const tasks::PauseTaskRequest* request,
                 google::protobuf::Empty*) override {
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr) return NotFound(request->container_id());
      task->paused = true;
      return Status::OK;
    }
    Status Resume(ServerContext*, const tasks::ResumeTaskRequest* request,
                  google::protobuf::Empty*) override {
      absl::MutexLock lock(&state.mutex);
      Task* task = FindTask(request->container_id());
      if (task == nullptr) return NotFound(request->container_id());
      task->paused = false;
      return Status::OK;
    }
    Status ListPids(ServerContext*, const tasks::ListPidsRequest* request,
                    tasks::ListPidsResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      if (FindTask(request->container_id()) == nullptr) return NotFound(request->container_id());
      response->add_processes()->set_pid(static_cast<uint32_t>(state.pid));
      return Status::OK;
    }
    Status Wait(ServerContext* context, const tasks::WaitRequest* request,
                tasks::WaitResponse* response) override {
      absl::MutexLock lock(&state.mutex);
      const uint64_t generation = state.generation["task"];
      while (true) {
        Task* task = FindTask(request->container_id());
        Process* process = task == nullptr ? nullptr : Find(*task, request->exec_id());
        if (process == nullptr) return NotFound(request->container_id());
        if (process->ended) {
          response->set_exit_status(static_cast<uint32_t>(process->code));
          *response->mutable_exited_at() = Stamp(process->exited_at);
          return Status::OK;
        }
        if (context->IsCancelled()) return Status::CANCELLED;
        if (state.generation["task"] != generation) {
          return Status(StatusCode::UNAVAILABLE, "the process was restarted");
        }
        // Any change of state wakes the condition; the time-out looks for a caller that has gone.
        auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state.mutex) {
          Task* now = FindTask(request->container_id());
          Process* it = now == nullptr ? nullptr : Find(*now, request->exec_id());
          return it == nullptr || it->ended || state.generation["task"] != generation;
        };
        state.mutex.AwaitWithTimeout(absl::Condition(&changed), absl::Milliseconds(50));
      }
    }
  };

  struct Runs final : task::v1::Runs::Service {
    explicit Runs(Tasks& t) : tasks(t) {}
    Tasks& tasks;

    Status Run(ServerContext* context, const task::v1::RunRequest* request,
               task::v1::RunResponse* response) override {
      tasks::CreateTaskRequest create;
      create.set_container_id(request->container_id());
      create.set_stdout(request->stdout());
      *create.mutable_rootfs() = request->rootfs();
      tasks::CreateTaskResponse created;
      if (Status status = tasks.Create(context, &create, &created); !status.ok()) return status;
      tasks::StartRequest start;
      start.set_container_id(request->container_id());
      tasks::StartResponse started;
      if (Status status = tasks.Start(context, &start, &started); !status.ok()) {
        context->AddTrailingMetadata("gantry-run", "created");
        return status;
      }
      response->set_pid(started.pid());
      response->set_shim_address(absl::StrCat("unix://", tasks.state.directory, "/shim.sock"));
      response->set_timings("clone=120;exec=30");
      return Status::OK;
    }

    Status Exec(ServerContext* context, const task::v1::ExecRequest* request,
                task::v1::ExecResponse* response) override {
      tasks::ExecProcessRequest add;
      add.set_container_id(request->container_id());
      add.set_exec_id(request->exec_id());
      google::protobuf::Empty added;
      if (Status status = tasks.Exec(context, &add, &added); !status.ok()) return status;
      tasks::StartRequest start;
      start.set_container_id(request->container_id());
      start.set_exec_id(request->exec_id());
      tasks::StartResponse started;
      const Status status = tasks.Start(context, &start, &started);
      response->set_pid(started.pid());
      return status;
    }
  };

  explicit Services(State& state)
      : store(state),
        records(state),
        snapshots_service(state),
        containers_service(state),
        events_service(state),
        journal_service(state),
        images(state),
        tasks_service(state),
        runs(tasks_service) {}

  Store store;
  Records records;
  Snapshots snapshots_service;
  Containers containers_service;
  Events events_service;
  Journal journal_service;
  Images images;
  Tasks tasks_service;
  Runs runs;
  std::map<std::string, std::unique_ptr<grpc::Server>> servers;
};

FakeSuite::FakeSuite(std::string directory)
    : state_(std::make_unique<State>()), services_(std::make_unique<Services>(*state_)) {
  state_->directory = std::move(directory);
  (void)sys::MakeDirectories(absl::StrCat(state_->directory, "/empty"), 0755);
  (void)sys::MakeDirectories(absl::StrCat(state_->directory, "/snapshots"), 0755);
  for (const char* process : {"metadata", "image", "task"}) StartServer(process);
}

FakeSuite::~FakeSuite() {
  for (const char* process : {"metadata", "image", "task"}) StopServer(process);
}

std::string FakeSuite::SocketPath(const std::string& process) const {
  return absl::StrCat(state_->directory, "/", process, ".sock");
}

void FakeSuite::StartServer(const std::string& process) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("unix://", SocketPath(process)),
                           grpc::InsecureServerCredentials());
  if (process == "metadata") {
    builder.RegisterService(&services_->store);
    builder.RegisterService(&services_->records);
    builder.RegisterService(&services_->snapshots_service);
    builder.RegisterService(&services_->containers_service);
    builder.RegisterService(&services_->events_service);
    builder.RegisterService(&services_->journal_service);
  } else if (process == "image") {
    builder.RegisterService(&services_->images);
  } else {
    builder.RegisterService(&services_->tasks_service);
    builder.RegisterService(&services_->runs);
  }
  services_->servers[process] = builder.BuildAndStart();
}

void FakeSuite::StopServer(const std::string& process) {
  auto found = services_->servers.find(process);
  if (found == services_->servers.end()) return;
  {
    absl::MutexLock lock(&state_->mutex);
    ++state_->generation[process];
  }
  found->second->Shutdown(std::chrono::system_clock::now());
  found->second->Wait();
  services_->servers.erase(found);
}

image::v1::ImageDetails& FakeSuite::AddImage(const std::string& name,
                                             const std::map<std::string, std::string>& files) {
  absl::MutexLock lock(&state_->mutex);
  image::v1::ImageDetails& image = state_->images[name];
  image = image::v1::ImageDetails();
  image.set_id(absl::StrCat("sha256:", std::string(64, 'a')));
  image.add_names(absl::StrCat("docker.io/library/", name, ":latest"));
  image.mutable_target()->set_digest(
      absl::StrFormat("sha256:%064d", static_cast<int>(++state_->images_made)));
  image.set_chain_id(absl::StrCat("chain-", state_->images_made));
  image.add_diff_ids("sha256:diff");
  image.set_size_bytes(1000);
  image.mutable_config()->add_cmd("sh");
  const std::string root = absl::StrCat(state_->directory, "/images/", image.chain_id());
  (void)sys::MakeDirectories(root, 0755);
  for (const auto& [path, text] : files) {
    const std::string full = absl::StrCat(root, "/", path);
    (void)sys::MakeDirectories(full.substr(0, full.rfind('/')), 0755);
    (void)sys::WriteFileAtomically(full, text, 0644);
  }
  return image;
}

std::vector<std::string> FakeSuite::RootfsOf(const std::string& id) const {
  absl::MutexLock lock(&state_->mutex);
  auto found = state_->tasks_.find(id);
  return found == state_->tasks_.end() ? std::vector<std::string>() : found->second.root_options;
}

int FakeSuite::image_inspections() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->inspections;
}

std::vector<std::string> FakeSuite::RecordKeys(const std::string& bucket) const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<std::string> keys;
  for (const auto& [key, record] : state_->records) {
    if (key.first == bucket) keys.push_back(key.second);
  }
  return keys;
}

std::string FakeSuite::RecordValue(const std::string& bucket, const std::string& key) const {
  absl::MutexLock lock(&state_->mutex);
  auto found = state_->records.find({bucket, key});
  return found == state_->records.end() ? "" : found->second.value();
}

std::vector<std::string> FakeSuite::ContainerIds() const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [id, container] : state_->containers_) ids.push_back(id);
  return ids;
}

std::string FakeSuite::SpecOf(const std::string& id) const {
  absl::MutexLock lock(&state_->mutex);
  auto found = state_->containers_.find(id);
  return found == state_->containers_.end() ? "" : found->second.spec().value();
}

std::vector<std::string> FakeSuite::SnapshotKeys() const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<std::string> keys;
  for (const auto& [key, parent] : state_->snapshot_parents) keys.push_back(key);
  return keys;
}

std::string FakeSuite::UpperDirectory(const std::string& key) const {
  return absl::StrCat(state_->Upper(key), "/fs");
}

int FakeSuite::durable_writes() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->durable_writes;
}

std::vector<v1::Event> FakeSuite::Events() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->told;
}

void FakeSuite::PublishOom(const std::string& id) {
  absl::MutexLock lock(&state_->mutex);
  state_->ooms.push_back(id);
}

std::map<std::string, FakeSuite::TaskView> FakeSuite::Tasks() const {
  absl::MutexLock lock(&state_->mutex);
  std::map<std::string, TaskView> views;
  for (const auto& [id, task] : state_->tasks_) {
    TaskView& view = views[id];
    view.running = task.init.started && !task.init.ended;
    view.paused = task.paused;
    view.ended = task.init.ended;
    view.exit_code = task.init.code;
    view.stdout_uri = task.stdout_uri;
    view.signals = task.signals;
    for (const auto& [exec_id, process] : task.execs) view.execs.push_back(exec_id);
  }
  return views;
}

void FakeSuite::EndTask(const std::string& id, int code) {
  absl::MutexLock lock(&state_->mutex);
  state_->End(state_->tasks_[id].init, code);
}

void FakeSuite::EndExec(const std::string& id, const std::string& exec_id, int code) {
  absl::MutexLock lock(&state_->mutex);
  state_->End(state_->tasks_[id].execs[exec_id], code);
}

void FakeSuite::IgnoreTerm(bool ignore) {
  absl::MutexLock lock(&state_->mutex);
  state_->ignore_term = ignore;
}

void FakeSuite::LoseTask(const std::string& id) {
  absl::MutexLock lock(&state_->mutex);
  state_->tasks_.erase(id);
}

void FakeSuite::SetPid(int64_t pid) {
  absl::MutexLock lock(&state_->mutex);
  state_->pid = pid;
}

void FakeSuite::FailNext(const std::string& method, int grpc_code, const std::string& message) {
  absl::MutexLock lock(&state_->mutex);
  state_->faults[method] = Status(static_cast<StatusCode>(grpc_code), message);
}

bool FakeSuite::Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

}  // namespace gantry::engine
