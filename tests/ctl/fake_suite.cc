#include "tests/ctl/fake_suite.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gantry/engine/v1/engine.grpc.pb.h"
#include "gantry/image/v1/image.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "lib/attach/protocol.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/sys/socket.h"

namespace gantry::testing {

namespace engine = ::gantry::engine::v1;

struct FakeContainer {
  engine::ContainerConfig config;
  std::string id;
  std::string name;
  engine::ContainerState state;
  std::shared_ptr<sys::UniqueFd> killed;  // An eventfd: becomes readable at a signal.
  int signal = 0;
};

struct FakeState {
  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::string shim_socket;
  std::map<std::string, FakeContainer> containers;  // By id.
  std::map<std::string, std::vector<std::string>> execs;
  std::map<std::string, engine::Volume> volumes;
  engine::CreateContainerRequest last_create;
  std::vector<std::string> signals, windows, pulled;
  std::string received, received_path;
  std::map<std::string, std::vector<std::string>> findings;

  FakeContainer* Find(const std::string& name) {
    for (auto& [id, container] : containers) {
      if (container.name == name || (name.size() >= 4 && absl::StartsWith(id, name))) {
        return &container;
      }
    }
    return nullptr;
  }
  void Ended(const std::string& id, int code) {
    std::lock_guard lock(mutex);
    auto found = containers.find(id);
    if (found == containers.end()) return;
    found->second.state.set_status(engine::ContainerState::EXITED);
    found->second.state.set_exit_code(code);
    if (found->second.config.auto_remove()) containers.erase(found);
    changed.notify_all();
  }
};

namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

Status NoContainer(const std::string& name) {
  return {StatusCode::NOT_FOUND, "No such container: " + name};
}

bool IsProgram(const std::string& name) {
  for (const char* known :
       {"echo", "err", "exit", "cat", "size", "hang", "vanish", "flood", "true"}) {
    if (name == known) return true;
  }
  return false;
}

class ContainersService final : public engine::Containers::Service {
 public:
  explicit ContainersService(std::shared_ptr<FakeState> state) : state_(std::move(state)) {}

  Status Create(ServerContext*, const engine::CreateContainerRequest* request,
                engine::CreateContainerResponse* response) override {
    std::lock_guard lock(state_->mutex);
    state_->last_create = *request;
    const engine::ContainerConfig& config = request->config();
    const bool pulled =
        std::count(state_->pulled.begin(), state_->pulled.end(), config.image()) > 0;
    if (config.image() != "busybox" && !pulled) {
      return {StatusCode::NOT_FOUND,
              absl::StrCat("Unable to find image '", config.image(), ":latest' locally")};
    }
    if (!config.name().empty()) {
      if (FakeContainer* holder = state_->Find(config.name())) {
        return {StatusCode::ALREADY_EXISTS,
                absl::StrCat("name '", config.name(), "' is already in use by container '",
                             holder->id.substr(0, 12), "'")};
      }
    }
    if (request->start() && config.command_size() > 0) {
      if (config.command(0) == "/etc/passwd") {
        return {StatusCode::FAILED_PRECONDITION, "exec '/etc/passwd': permission denied"};
      }
      if (!IsProgram(config.command(0))) {
        return {StatusCode::FAILED_PRECONDITION,
                absl::StrCat("exec '", config.command(0), "': executable file not found in $PATH")};
      }
    }
    FakeContainer container;
    container.config = config;
    container.id = RandomHex(32);
    container.name = config.name().empty() ? "clever_turing" : config.name();
    container.killed = std::make_shared<sys::UniqueFd>(::eventfd(0, EFD_CLOEXEC));
    container.state.set_status(request->start() ? engine::ContainerState::RUNNING
                                                : engine::ContainerState::CREATED);
    container.state.mutable_started_at()->set_seconds(::time(nullptr) - 180);
    response->set_id(container.id);
    response->set_name(container.name);
    if (config.privileged()) response->add_warnings("everything is allowed");
    FillAddress(container.id, "", response->mutable_attach());
    for (const char* step : {"snapshot", "spec", "shim", "start"}) {
      engine::StepTiming* timing = response->add_timings();
      timing->set_step(step);
      timing->set_microseconds(1500);
      timing->set_depth(absl::string_view(step) == "spec" ? 1 : 0);
    }
    state_->containers[container.id] = container;
    return Status::OK;
  }

  Status Start(ServerContext*, const engine::StartContainerRequest* request,
               engine::StartContainerResponse* response) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    container->state.set_status(engine::ContainerState::RUNNING);
    response->set_id(container->id);
    FillAddress(container->id, "", response->mutable_attach());
    return Status::OK;
  }

  Status Stop(ServerContext*, const engine::StopContainerRequest* request,
              engine::StopContainerResponse*) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    container->state.set_status(engine::ContainerState::EXITED);
    return Status::OK;
  }

  Status Kill(ServerContext*, const engine::KillContainerRequest* request,
              engine::KillContainerResponse*) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    state_->signals.push_back(request->signal());
    int number = 9;
    (void)absl::SimpleAtoi(request->signal(), &number);
    container->signal = number;
    const uint64_t one = 1;
    if (::write(container->killed->get(), &one, sizeof one) < 0) return Status::CANCELLED;
    return Status::OK;
  }

  Status Remove(ServerContext*, const engine::RemoveContainerRequest* request,
                engine::RemoveContainerResponse*) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    if (container->state.status() == engine::ContainerState::RUNNING && !request->force()) {
      return {StatusCode::FAILED_PRECONDITION, "cannot remove a running container"};
    }
    state_->containers.erase(container->id);
    state_->changed.notify_all();
    return Status::OK;
  }

  Status Wait(ServerContext* context, const engine::WaitContainerRequest* request,
              engine::WaitContainerResponse* response) override {
    std::unique_lock lock(state_->mutex);
    while (!state_->stopping && !context->IsCancelled()) {
      FakeContainer* container = state_->Find(request->container());
      if (container == nullptr) return NoContainer(request->container());
      response->set_exit_code(container->state.exit_code());
      if (request->condition() == engine::WaitContainerRequest::NOT_RUNNING &&
          container->state.status() != engine::ContainerState::RUNNING) {
        return Status::OK;
      }
      state_->changed.wait_for(lock, std::chrono::milliseconds(20));
    }
    return Status::CANCELLED;
  }

  Status List(ServerContext*, const engine::ListContainersRequest* request,
              engine::ListContainersResponse* response) override {
    std::lock_guard lock(state_->mutex);
    for (const std::string& filter : request->filters()) {
      if (!absl::StartsWith(filter, "name=")) {
        return {StatusCode::INVALID_ARGUMENT, absl::StrCat("unknown filter '", filter, "'")};
      }
    }
    for (const auto& [id, container] : state_->containers) {
      const bool runs = container.state.status() == engine::ContainerState::RUNNING;
      if (!request->all() && !runs) continue;
      engine::ContainerSummary* summary = response->add_containers();
      summary->set_id(id);
      summary->set_name(container.name);
      summary->set_image("docker.io/library/busybox:latest");
      *summary->mutable_command() = container.config.command();
      summary->mutable_created_at()->set_seconds(::time(nullptr) - 180);
      *summary->mutable_state() = container.state;
      *summary->mutable_ports() = container.config.ports();
      *summary->mutable_labels() = container.config.labels();
    }
    return Status::OK;
  }

  Status Inspect(ServerContext*, const engine::InspectContainerRequest* request,
                 engine::ContainerDetails* response) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    response->set_id(container->id);
    response->set_name(container->name);
    *response->mutable_config() = container->config;
    *response->mutable_state() = container->state;
    *response->mutable_network()->mutable_ports() = container->config.ports();
    return Status::OK;
  }

  Status Attach(ServerContext*, const engine::AttachContainerRequest* request,
                engine::AttachAddress* response) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    FillAddress(container->id, "", response);
    return Status::OK;
  }

  Status Exec(ServerContext*, const engine::ExecRequest* request,
              engine::ExecResponse* response) override {
    std::lock_guard lock(state_->mutex);
    FakeContainer* container = state_->Find(request->container());
    if (container == nullptr) return NoContainer(request->container());
    if (container->state.status() != engine::ContainerState::RUNNING) {
      return {StatusCode::FAILED_PRECONDITION, "container is not running"};
    }
    if (!IsProgram(request->command(0))) {
      return {StatusCode::FAILED_PRECONDITION, "executable file not found in $PATH"};
    }
    const std::string exec_id = RandomHex(8);
    state_->execs[exec_id] = {request->command().begin(), request->command().end()};
    response->set_exec_id(exec_id);
    FillAddress(container->id, exec_id, response->mutable_attach());
    return Status::OK;
  }

  Status WaitExec(ServerContext*, const engine::WaitExecRequest*,
                  engine::WaitExecResponse* response) override {
    response->set_exit_code(42);
    return Status::OK;
  }

  Status Logs(ServerContext*, const engine::LogsRequest* request,
              grpc::ServerWriter<engine::LogEntry>* writer) override {
    if (request->container() == "endless") {
      engine::LogEntry entry;
      entry.set_stream(engine::LogEntry::STDOUT);
      entry.set_data(std::string(10000, 'y') + "\n");
      while (writer->Write(entry)) {
      }
      return Status::OK;
    }
    const std::pair<engine::LogEntry::Stream, const char*> lines[] = {
        {engine::LogEntry::STDOUT, "out1\n"},
        {engine::LogEntry::STDERR, "err1\n"},
        {engine::LogEntry::STDOUT, "long "},
        {engine::LogEntry::STDOUT, "line\n"}};
    int64_t seconds = 1700000000;
    for (const auto& [stream, text] : lines) {
      engine::LogEntry entry;
      entry.set_stream(stream);
      entry.set_data(text);
      entry.mutable_time()->set_seconds(seconds++);
      writer->Write(entry);
    }
    return Status::OK;
  }

  Status Top(ServerContext*, const engine::TopRequest*, engine::TopResponse* response) override {
    response->add_titles("PID");
    response->add_titles("CMD");
    engine::TopResponse::Process* process = response->add_processes();
    process->add_fields("1");
    process->add_fields("sh \x1b[31m");
    return Status::OK;
  }

  Status GetArchive(ServerContext*, const engine::GetArchiveRequest* request,
                    grpc::ServerWriter<engine::ArchiveChunk>* writer) override {
    const bool directory = request->path() == "/tmp" || request->path() == "/";
    if (!directory && request->path() != "/etc/passwd") {
      return {StatusCode::NOT_FOUND,
              absl::StrCat("Could not find the file ", request->path(), " in the container")};
    }
    engine::ArchiveChunk chunk;
    chunk.mutable_stat()->set_name(directory ? "tmp" : "passwd");
    chunk.mutable_stat()->set_directory(directory);
    writer->Write(chunk);
    if (request->stat_only()) return Status::OK;
    std::lock_guard lock(state_->mutex);
    chunk.Clear();
    chunk.set_data(state_->received);
    writer->Write(chunk);
    return Status::OK;
  }

  Status PutArchive(ServerContext*, grpc::ServerReader<engine::PutArchiveRequest>* reader,
                    engine::PutArchiveResponse*) override {
    engine::PutArchiveRequest request;
    std::string bytes, path;
    while (reader->Read(&request)) {
      if (!request.path().empty()) path = request.container() + ":" + request.path();
      bytes += request.data();
    }
    std::lock_guard lock(state_->mutex);
    state_->received = bytes;
    state_->received_path = path;
    return Status::OK;
  }

 private:
  void FillAddress(const std::string& id, const std::string& exec_id,
                   engine::AttachAddress* address) const {
    address->set_socket_path(state_->shim_socket);
    address->set_container_id(id);
    address->set_exec_id(exec_id);
  }
  std::shared_ptr<FakeState> state_;
};

class VolumesService final : public engine::Volumes::Service {
 public:
  explicit VolumesService(std::shared_ptr<FakeState> state) : state_(std::move(state)) {}
  Status Create(ServerContext*, const engine::CreateVolumeRequest* request,
                engine::Volume* response) override {
    std::lock_guard lock(state_->mutex);
    response->set_name(request->name().empty() ? RandomHex(32) : request->name());
    *response->mutable_labels() = request->labels();
    state_->volumes[response->name()] = *response;
    return Status::OK;
  }
  Status List(ServerContext*, const engine::ListVolumesRequest*,
              engine::ListVolumesResponse* response) override {
    std::lock_guard lock(state_->mutex);
    for (const auto& [name, volume] : state_->volumes) *response->add_volumes() = volume;
    return Status::OK;
  }
  Status Inspect(ServerContext*, const engine::InspectVolumeRequest* request,
                 engine::Volume* response) override {
    std::lock_guard lock(state_->mutex);
    const auto found = state_->volumes.find(request->name());
    if (found == state_->volumes.end()) return {StatusCode::NOT_FOUND, "no such volume"};
    *response = found->second;
    return Status::OK;
  }
  Status Remove(ServerContext*, const engine::RemoveVolumeRequest* request,
                engine::RemoveVolumeResponse*) override {
    std::lock_guard lock(state_->mutex);
    if (state_->volumes.erase(request->name()) == 0) {
      return {StatusCode::NOT_FOUND, "No such volume: " + request->name()};
    }
    return Status::OK;
  }

 private:
  std::shared_ptr<FakeState> state_;
};

class SystemService final : public engine::System::Service {
  Status Info(ServerContext*, const engine::SystemInfoRequest*,
              engine::SystemInfoResponse* response) override {
    response->set_containers_running(1);
    response->set_containers_stopped(2);
    response->set_images(3);
    response->set_storage_driver("overlay2");
    (*response->mutable_storage_facts())["Backing Filesystem"] = "extfs";
    response->set_cgroup_version("1");
    response->set_memory_bytes(8ull << 30);
    return Status::OK;
  }
};

class EngineImagesService final : public engine::Images::Service {
  Status Remove(ServerContext*, const engine::RemoveImageRequest* request,
                engine::RemoveImageResponse* response) override {
    if (request->reference() != "busybox") {
      return {StatusCode::NOT_FOUND, "No such image: " + request->reference()};
    }
    response->add_untagged("docker.io/library/busybox:latest");
    response->add_deleted("sha256:" + std::string(64, 'c'));
    return Status::OK;
  }
};

class ImagesService final : public image::v1::Images::Service {
 public:
  explicit ImagesService(std::shared_ptr<FakeState> state) : state_(std::move(state)) {}
  Status Pull(ServerContext*, const image::v1::PullRequest* request,
              grpc::ServerWriter<image::v1::PullProgress>* writer) override {
    if (absl::StrContains(request->reference(), "no/such")) {
      return {StatusCode::NOT_FOUND,
              absl::StrCat("repository '", request->reference(), "' does not exist")};
    }
    image::v1::PullProgress progress;
    progress.set_name("docker.io/library/" + request->reference() + ":latest");
    progress.set_status("latest: Pulling from library/" + request->reference());
    writer->Write(progress);
    for (const auto state :
         {image::v1::LayerProgress::DOWNLOADING, image::v1::LayerProgress::DOWNLOADING,
          image::v1::LayerProgress::EXTRACTING, image::v1::LayerProgress::COMPLETE}) {
      progress.Clear();
      image::v1::LayerProgress* layer = progress.add_layers();
      layer->set_digest("sha256:" + std::string(64, 'a'));
      layer->set_state(state);
      writer->Write(progress);
    }
    progress.Clear();
    progress.mutable_done()->set_name("docker.io/library/" + request->reference() + ":latest");
    progress.mutable_done()->set_digest("sha256:" + std::string(64, 'b'));
    std::lock_guard lock(state_->mutex);
    state_->pulled.push_back(request->reference());
    writer->Write(progress);
    return Status::OK;
  }
  Status List(ServerContext*, const image::v1::ListImagesRequest*,
              image::v1::ListImagesResponse* response) override {
    Fill(response->add_images());
    image::v1::ImageDetails* dangling = response->add_images();
    dangling->set_id("sha256:" + std::string(64, 'd'));
    dangling->mutable_created_at()->set_seconds(::time(nullptr) - 86400 * 3);
    return Status::OK;
  }
  Status Inspect(ServerContext*, const image::v1::InspectImageRequest* request,
                 image::v1::ImageDetails* response) override {
    if (request->reference() != "busybox") {
      return {StatusCode::NOT_FOUND, "No such image: " + request->reference()};
    }
    Fill(response);
    return Status::OK;
  }
  Status Tag(ServerContext*, const image::v1::TagImageRequest*,
             image::v1::TagImageResponse*) override {
    return Status::OK;
  }
  Status Import(ServerContext*, grpc::ServerReader<image::v1::ImportRequest>* reader,
                image::v1::ImportResponse* response) override {
    image::v1::ImportRequest request;
    std::string bytes;
    while (reader->Read(&request)) bytes += request.data();
    std::lock_guard lock(state_->mutex);
    state_->received = bytes;
    response->add_names("docker.io/library/loaded:docker");
    return Status::OK;
  }

 private:
  static void Fill(image::v1::ImageDetails* details) {
    details->set_id("sha256:" + std::string(64, 'c'));
    details->add_names("127.0.0.1:5000/busybox:1");
    details->add_names("docker.io/library/busybox:latest");
    details->mutable_created_at()->set_seconds(::time(nullptr) - 7200);
    details->set_size_bytes(1980000);
  }
  std::shared_ptr<FakeState> state_;
};

class JournalService final : public metadata::v1::Journal::Service {
  // `Status` alone is a call of this service.
  grpc::Status Read(ServerContext*, const metadata::v1::ReadJournalRequest* request,
                    grpc::ServerWriter<metadata::v1::JournalEntry>* writer) override {
    engine::Event event;
    event.set_type("container");
    event.set_id("c1");
    (*event.mutable_attributes())["image"] = "docker.io/library/busybox:latest";
    (*event.mutable_attributes())["name"] = "web";
    event.set_action("create");
    Send("/gantry/container/create", event, "gantry", writer);
    event.set_action("start");
    Send("/gantry/container/start", event, "gantry", writer);
    Send("/gantry/container/start", event, "other", writer);
    event.set_action("exec_start: sh -c true");
    Send("/gantry/container/exec_start", event, "gantry", writer);
    event.set_action("die");
    (*event.mutable_attributes())["exitCode"] = "3";
    Send("/gantry/container/die", event, "gantry", writer);
    // The machinery below.
    Send("/tasks/exit", event, "gantry", writer);
    Send("/snapshot/remove", event, "gantry", writer);
    return request->follow() ? grpc::Status(StatusCode::UNAVAILABLE, "stopping") : grpc::Status::OK;
  }
  template <typename Message>
  void Send(const char* topic, const Message& message, const char* name_space,
            grpc::ServerWriter<metadata::v1::JournalEntry>* writer) {
    metadata::v1::JournalEntry entry;
    entry.mutable_envelope()->set_topic(topic);
    entry.mutable_envelope()->set_namespace_(name_space);
    entry.mutable_envelope()->mutable_timestamp()->set_seconds(1700000000 + seconds_++);
    entry.mutable_envelope()->mutable_event()->set_value(message.SerializeAsString());
    writer->Write(entry);
  }
  int seconds_ = 0;
};

class DebugService final : public debug::v1::Debug::Service {
 public:
  DebugService(std::string process, std::shared_ptr<FakeState> state)
      : process_(std::move(process)), state_(std::move(state)) {}
  Status Info(ServerContext*, const debug::v1::InfoRequest*,
              debug::v1::InfoResponse* response) override {
    response->set_process(process_);
    response->set_version("1.2.3");
    response->set_resident_bytes(2 << 20);
    return Status::OK;
  }
  Status ListFailpoints(ServerContext*, const debug::v1::ListFailpointsRequest*,
                        debug::v1::ListFailpointsResponse* response) override {
    response->add_names(process_ + ".step");
    return Status::OK;
  }
  Status SetFailpoints(ServerContext*, const debug::v1::SetFailpointsRequest* request,
                       debug::v1::SetFailpointsResponse*) override {
    if (!absl::StartsWith(request->specification(), process_ + ".step=")) {
      return {StatusCode::NOT_FOUND, "no such failpoint"};
    }
    return Status::OK;
  }
  Status Audit(ServerContext*, const debug::v1::AuditRequest*,
               debug::v1::AuditResponse* response) override {
    std::lock_guard lock(state_->mutex);
    for (const std::string& object : state_->findings[process_]) {
      debug::v1::Finding* finding = response->add_findings();
      finding->set_kind("mount");
      finding->set_object(object);
      finding->set_problem("belongs to no container");
      finding->set_remedy("unmount it");
    }
    (*response->mutable_checked())["mount"] = 2;
    return Status::OK;
  }
  Status Metrics(ServerContext*, const debug::v1::MetricsRequest*,
                 debug::v1::MetricsResponse* response) override {
    response->set_text("gantry_" + process_ + " 1\n");
    return Status::OK;
  }

 private:
  std::string process_;
  std::shared_ptr<FakeState> state_;
};

// One attach connection: plays the program until it ends. Runs on its own thread.
class FakeShim {
 public:
  FakeShim(sys::UniqueFd socket, std::shared_ptr<FakeState> state)
      : socket_(std::move(socket)), state_(std::move(state)) {}

  void Run() {
    if (!ReadMagic() || !ReadHello()) return;
    Play();
  }

 private:
  bool ReadMagic() {
    char magic[attach::kMagicBytes];
    return ::recv(socket_.get(), magic, sizeof magic, MSG_WAITALL) == sizeof magic;
  }

  bool ReadHello() {
    attach::Frame frame;
    if (!ReadFrame(&frame)) return false;
    absl::StatusOr<attach::Hello> hello = attach::ParseHello(frame.payload);
    if (!hello.ok()) return false;
    hello_ = *hello;
    {
      std::lock_guard lock(state_->mutex);
      const auto found = state_->containers.find(hello_.container_id);
      if (found == state_->containers.end()) return false;
      killed_ = found->second.killed;
      command_ = {found->second.config.command().begin(), found->second.config.command().end()};
      if (!hello_.exec_id.empty()) command_ = state_->execs[hello_.exec_id];
      if (hello_.columns != 0) AddWindow(hello_.columns, hello_.rows);
    }
    attach::Accepted accepted;
    accepted.stdin_open = hello_.want_stdin;
    std::string out;
    attach::AppendAccepted(accepted, &out);
    Send(out);
    return true;
  }

  void Play() {
    const std::string program = command_.empty() ? "true" : command_[0];
    const std::string words =
        absl::StrJoin(command_.begin() + (command_.empty() ? 0 : 1), command_.end(), " ");
    if (program == "echo") Say(attach::FrameType::kStdout, words + "\n");
    if (program == "err") Say(attach::FrameType::kStderr, words + "\n");
    if (program == "vanish") return state_->Ended(hello_.container_id, 42);
    if (program == "flood") {
      size_t bytes = 0;
      (void)absl::SimpleAtoi(words, &bytes);
      Say(attach::FrameType::kStdout, std::string(bytes, 'f'));
    }
    int code = 0;
    if (program == "exit") (void)absl::SimpleAtoi(words, &code);
    if (program == "cat" || program == "hang" || program == "size") code = Serve(program);
    if (code < 0) return;  // Detached: goes on.
    if (hello_.exec_id.empty()) state_->Ended(hello_.container_id, code);
    attach::Exit exit;
    exit.code = code;
    exit.reason = "exited";
    std::string out;
    attach::AppendExit(exit, &out);
    Send(out);
  }

  // Frames and signals until the program ends; -1: the client left.
  int Serve(const std::string& program) {
    Say(attach::FrameType::kStdout, "ready\n");
    while (true) {
      attach::Frame frame;
      absl::StatusOr<bool> got = parser_.Next(&frame);
      if (!got.ok()) return -1;
      if (!*got) {
        pollfd waiting[] = {{socket_.get(), POLLIN, 0}, {killed_->get(), POLLIN, 0}};
        ::poll(waiting, 2, -1);
        if (waiting[1].revents != 0) {
          std::lock_guard lock(state_->mutex);
          return 128 + state_->containers[hello_.container_id].signal;
        }
        if (!Fill()) return -1;
        continue;
      }
      if (frame.type == attach::FrameType::kStdin && program == "cat") {
        Say(attach::FrameType::kStdout, std::string(frame.payload));
      } else if (frame.type == attach::FrameType::kStdin && absl::StrContains(frame.payload, "q")) {
        return 7;
      } else if (frame.type == attach::FrameType::kCloseStdin) {
        return 0;
      } else if (frame.type == attach::FrameType::kDetach) {
        return -1;
      } else if (frame.type == attach::FrameType::kResize) {
        const auto size = attach::ParseResize(frame.payload);
        if (!size.ok()) return -1;
        std::lock_guard lock(state_->mutex);
        AddWindow(size->first, size->second);
        Say(attach::FrameType::kStdout, state_->windows.back() + "\n");
      }
    }
  }

  void AddWindow(int columns, int rows) {
    state_->windows.push_back(absl::StrCat(columns, "x", rows));
  }

  bool Fill() {
    char buffer[4096];
    const ssize_t count = ::read(socket_.get(), buffer, sizeof buffer);
    if (count <= 0) return false;
    parser_.Append(absl::string_view(buffer, static_cast<size_t>(count)));
    return true;
  }

  bool ReadFrame(attach::Frame* frame) {
    while (true) {
      absl::StatusOr<bool> got = parser_.Next(frame);
      if (!got.ok()) return false;
      if (*got) return true;
      if (!Fill()) return false;
    }
  }

  void Say(attach::FrameType type, const std::string& bytes) {
    std::string out;
    attach::AppendBytes(type, bytes, &out);
    Send(out);
  }

  void Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }

  sys::UniqueFd socket_;
  std::shared_ptr<FakeState> state_;
  attach::FrameParser parser_;
  attach::Hello hello_;
  std::vector<std::string> command_;
  std::shared_ptr<sys::UniqueFd> killed_;
};

void ServeShims(sys::UniqueFd listener, int stop, std::shared_ptr<FakeState> state) {
  while (true) {
    pollfd waiting[] = {{listener.get(), POLLIN, 0}, {stop, POLLIN, 0}};
    ::poll(waiting, 2, -1);
    if (waiting[1].revents != 0) return;
    absl::StatusOr<sys::UniqueFd> socket = sys::Accept(listener);
    if (!socket.ok()) return;
    // Ends with its connection, which ends with the client.
    std::thread([shim = std::make_shared<FakeShim>(*std::move(socket), state)] {
      shim->Run();
    }).detach();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<FakeSuite>> FakeSuite::Start() {
  ASSIGN_OR_RETURN(sys::TempDir directory, sys::TempDir::Create("/tmp"));
  std::unique_ptr<FakeSuite> suite(new FakeSuite(std::move(directory)));
  suite->state_ = std::make_shared<FakeState>();
  suite->state_->shim_socket = suite->directory() + "/shim";
  ASSIGN_OR_RETURN(sys::UniqueFd listener, sys::ListenUnix(suite->state_->shim_socket));
  suite->stop_ = sys::UniqueFd(::eventfd(0, EFD_CLOEXEC));
  suite->shim_ = std::thread(ServeShims, std::move(listener), suite->stop_.get(), suite->state_);
  for (const std::string process :
       {"metadata", "snapshotter", "image", "task", "engine", "gateway"}) {
    grpc::ServerBuilder builder;
    builder.SetSyncServerOption(grpc::ServerBuilder::CQ_TIMEOUT_MSEC, 100);
    builder.AddListeningPort(
        "unix:" + suite->directory() + "/" + (process == "gateway" ? "gantry" : process) + ".sock",
        grpc::InsecureServerCredentials());
    const auto add = [&](auto service) {
      builder.RegisterService(service.get());
      suite->services_.push_back(service);
    };
    add(std::make_shared<DebugService>(process, suite->state_));
    if (process == "engine") {
      add(std::make_shared<ContainersService>(suite->state_));
      add(std::make_shared<VolumesService>(suite->state_));
      add(std::make_shared<SystemService>());
      add(std::make_shared<EngineImagesService>());
    } else if (process == "image") {
      add(std::make_shared<ImagesService>(suite->state_));
    } else if (process == "metadata") {
      add(std::make_shared<JournalService>());
    }
    suite->servers_[process] = builder.BuildAndStart();
    if (suite->servers_[process] == nullptr) return absl::InternalError("cannot serve " + process);
  }
  return suite;
}

FakeSuite::~FakeSuite() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
  }
  for (auto& [process, server] : servers_) server->Shutdown(std::chrono::system_clock::now());
  servers_.clear();
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  shim_.join();
}

void FakeSuite::StopProcess(const std::string& process) {
  servers_.at(process)->Shutdown(std::chrono::system_clock::now());
}

engine::CreateContainerRequest FakeSuite::last_create() const {
  std::lock_guard lock(state_->mutex);
  return state_->last_create;
}
std::vector<std::string> FakeSuite::signals() const {
  std::lock_guard lock(state_->mutex);
  return state_->signals;
}
std::string FakeSuite::received() const {
  std::lock_guard lock(state_->mutex);
  return state_->received;
}
std::string FakeSuite::received_path() const {
  std::lock_guard lock(state_->mutex);
  return state_->received_path;
}
std::vector<std::string> FakeSuite::windows() const {
  std::lock_guard lock(state_->mutex);
  return state_->windows;
}
void FakeSuite::AddFinding(const std::string& process, const std::string& object) {
  std::lock_guard lock(state_->mutex);
  state_->findings[process].push_back(object);
}
std::vector<std::string> FakeSuite::pulled() const {
  std::lock_guard lock(state_->mutex);
  return state_->pulled;
}

}  // namespace gantry::testing
