#include "shim/task_service.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/version.h"
#include "lib/log/log.h"
#include "runtime/runtime.h"
#include "shim/metrics.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

constexpr uint32_t kTimingsField = 100;  // docs/formats/shim-timings.md

void WriteTimings(pb::Writer& writer, const std::vector<StepTiming>& timings) {
  for (const StepTiming& timing : timings) {
    writer.Message(kTimingsField, [&](pb::Writer& entry) {
      entry.String(1, timing.step);
      entry.Varint(2, static_cast<uint64_t>(timing.microseconds));
    });
  }
}

// For OciRuntime::DoneStatus: an answer without content.
std::function<void(absl::Status)> Plain(const ttrpc::Responder& responder) {
  return [responder](const absl::Status& status) { responder.Reply(status); };
}

std::function<void(absl::StatusOr<Container::Started>)> StartAnswer(
    const ttrpc::Responder& responder) {
  return [responder](const absl::StatusOr<Container::Started>& started) {
    std::string answer;
    if (started.ok()) {
      pb::Writer writer(&answer);
      writer.Varint(1, static_cast<uint64_t>(started->pid));
      WriteTimings(writer, started->timings);
    }
    responder.Reply(started.status(), answer);
  };
}

// PARSE_OR_REPLY(std::string id, ParseId(payload));
#define PARSE_OR_REPLY(left, expression) \
  auto parsed = (expression);            \
  if (!parsed.ok()) {                    \
    responder.Reply(parsed.status());    \
    return;                              \
  }                                      \
  left = *std::move(parsed)

#define FIND_OR_REPLY(id)                      \
  absl::StatusOr<Container*> found = Find(id); \
  if (!found.ok()) {                           \
    responder.Reply(found.status());           \
    return;                                    \
  }                                            \
  Container& container = **found

}  // namespace

TaskService::TaskService(sys::EventLoop& loop, Reaper& reaper, Publisher& publisher, std::string ns,
                         std::string seccomp_cache, std::function<void()> shut_down)
    : loop_(loop),
      reaper_(reaper),
      publisher_(publisher),
      ns_(std::move(ns)),
      seccomp_cache_(std::move(seccomp_cache)),
      shut_down_(std::move(shut_down)) {}

TaskService::~TaskService() = default;

TaskService::Method TaskService::FindMethod(absl::string_view name) {
  static constexpr struct {
    absl::string_view name;
    Method method;
  } kMethods[] = {{"Create", &TaskService::Create},
                  {"Start", &TaskService::Start},
                  {"Delete", &TaskService::Delete},
                  {"State", &TaskService::State},
                  {"Wait", &TaskService::Wait},
                  {"Kill", &TaskService::Kill},
                  {"Exec", &TaskService::Exec},
                  {"Pids", &TaskService::Pids},
                  {"Pause", &TaskService::Pause},
                  {"Resume", &TaskService::Resume},
                  {"Checkpoint", &TaskService::Checkpoint},
                  {"Update", &TaskService::Update},
                  {"Stats", &TaskService::Stats},
                  {"ResizePty", &TaskService::ResizePty},
                  {"CloseIO", &TaskService::CloseIo},
                  {"Connect", &TaskService::Connect},
                  {"Shutdown", &TaskService::Shutdown}};
  for (const auto& entry : kMethods) {
    if (entry.name == name) return entry.method;
  }
  return nullptr;
}

void TaskService::Handle(const ttrpc::Request& request, const ttrpc::Responder& responder) {
  if (request.service == "gantry.shim.v1.Logs" && request.method == "Reopen") {
    ReopenLogs(request.payload, responder);
    return;
  }
  const bool task =
      request.service == "containerd.task.v2.Task" || request.service == "containerd.task.v3.Task";
  const Method method = task ? FindMethod(request.method) : nullptr;
  if (method == nullptr) {
    responder.Reply(absl::UnimplementedError(
        absl::StrCat("/", request.service, "/", request.method, " is not served by this shim")));
    return;
  }
  (this->*method)(request.payload, responder);
}

absl::StatusOr<Container*> TaskService::Find(const std::string& id) {
  const auto found = containers_.find(id);
  if (found == containers_.end()) {
    return absl::NotFoundError(absl::StrCat("container '", id, "' is not in this shim"));
  }
  return found->second.get();
}

absl::StatusOr<AttachHub*> TaskService::FindHub(const attach::Hello& hello) {
  ASSIGN_OR_RETURN(Container* const container, Find(hello.container_id));
  return container->Hub(hello.exec_id);
}

// Later: the container is in the middle of a call.
void TaskService::Drop(const std::string& id) {
  auto found = containers_.find(id);
  if (found == containers_.end()) return;
  std::shared_ptr<Container> dropped = std::move(found->second);
  containers_.erase(found);
  loop_.Post([dropped]() mutable { dropped.reset(); });
}

void TaskService::Create(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(CreateTaskRequest request, ParseCreateTask(payload));
  absl::Status status = CheckIdentifier("container id", request.id);
  if (status.ok() && (request.bundle.empty() || request.bundle[0] != '/')) {
    status = absl::InvalidArgumentError(
        absl::StrCat("bundle '", request.bundle, "' must be an absolute path"));
  }
  if (status.ok() && containers_.count(request.id) > 0) {
    status = absl::AlreadyExistsError(absl::StrCat("container '", request.id, "' exists already"));
  }
  if (!status.ok()) {
    responder.Reply(status);
    return;
  }
  const std::string id = request.id;
  auto& container = containers_[id];
  container =
      std::make_unique<Container>(loop_, reaper_, ns_, seccomp_cache_, [this](const Event& event) {
        publisher_.Publish(event.topic, event.type_url, event.payload);
      });
  container->Create(
      std::move(request), [this, id, responder](const absl::StatusOr<Container::Started>& started) {
        if (!started.ok()) {
          log::Warning("create failed", {{"container", id}, {"status", started.status()}});
          Drop(id);
        }
        StartAnswer(responder)(started);
      });
}

void TaskService::Start(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  container.Start(request.exec_id, StartAnswer(responder));
}

void TaskService::Delete(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  container.Delete(request.exec_id,
                   [this, request, responder](const absl::StatusOr<ProcessExit>& exit) {
                     std::string answer;
                     if (exit.ok()) {
                       pb::Writer writer(&answer);
                       writer.Varint(1, static_cast<uint64_t>(exit->pid));
                       writer.Varint(2, static_cast<uint64_t>(exit->code));
                       if (exit->time != absl::InfinitePast())
                         WriteTimestamp(writer, 3, exit->time);
                       if (request.exec_id.empty()) Drop(request.id);
                     }
                     responder.Reply(exit.status(), answer);
                   });
}

void TaskService::State(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  const absl::StatusOr<ProcessState> state = container.State(request.exec_id);
  std::string answer;
  if (state.ok()) {
    pb::Writer writer(&answer);
    writer.String(1, state->id);
    writer.String(2, state->bundle);
    writer.Varint(3, static_cast<uint64_t>(state->pid));
    writer.Varint(4, static_cast<uint64_t>(state->status));
    writer.String(5, state->stdio.in);
    writer.String(6, state->stdio.out);
    writer.String(7, state->stdio.err);
    writer.Bool(8, state->stdio.terminal);
    writer.Varint(9, static_cast<uint64_t>(state->exit_code));
    if (state->exited_at != absl::InfinitePast()) WriteTimestamp(writer, 10, state->exited_at);
    writer.String(11, state->exec_id);
  }
  responder.Reply(state.status(), answer);
}

void TaskService::Wait(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  container.Wait(request.exec_id, [responder](const absl::StatusOr<ProcessExit>& exit) {
    std::string answer;
    if (exit.ok()) {
      pb::Writer writer(&answer);
      writer.Varint(1, static_cast<uint64_t>(exit->code));
      if (exit->time != absl::InfinitePast()) WriteTimestamp(writer, 2, exit->time);
    }
    responder.Reply(exit.status(), answer);
  });
}

void TaskService::Kill(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  container.Kill(request.exec_id, request.third > 1000 ? -1 : static_cast<int>(request.third),
                 request.fourth != 0, Plain(responder));
}

void TaskService::Exec(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(ExecProcessRequest request, ParseExecProcess(payload));
  FIND_OR_REPLY(request.id);
  container.AddExec(std::move(request), Plain(responder));
}

void TaskService::Pids(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  const auto pids = container.Pids();
  std::string answer;
  if (pids.ok()) {
    pb::Writer writer(&answer);
    for (const auto& [pid, exec_id] : *pids) {
      writer.Message(1, [&, pid = pid, &exec_id = exec_id](pb::Writer& process) {
        process.Varint(1, static_cast<uint64_t>(pid));
        if (exec_id.empty()) return;
        std::string details;
        pb::Writer(&details).String(1, exec_id);
        WriteAny(process, 2, "containerd.runc.v1.ProcessDetails", details);
      });
    }
  }
  responder.Reply(pids.status(), answer);
}

void TaskService::Pause(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  container.Pause(Plain(responder));
}

void TaskService::Resume(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  container.Resume(Plain(responder));
}

void TaskService::Checkpoint(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  responder.Reply(absl::UnimplementedError(
      absl::StrCat("checkpoint container '", container.id(), "': this shim does not drive CRIU")));
}

void TaskService::Update(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const UpdateTaskRequest request, ParseUpdateTask(payload));
  FIND_OR_REPLY(request.id);
  container.Update(request.resources.value, Plain(responder));
}

void TaskService::Stats(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  if (container.cgroup() == nullptr || container.cgroup()->empty()) {
    responder.Reply(absl::NotFoundError(absl::StrCat("container '", id, "' has no cgroup")));
    return;
  }
  const absl::StatusOr<Any> metrics = ReadMetrics(*container.cgroup());
  std::string answer;
  if (metrics.ok()) {
    pb::Writer writer(&answer);
    WriteAny(writer, 1, metrics->type_url, metrics->value);
  }
  responder.Reply(metrics.status(), answer);
}

void TaskService::ResizePty(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  responder.Reply(container.ResizePty(request.exec_id, static_cast<uint32_t>(request.third),
                                      static_cast<uint32_t>(request.fourth)));
}

void TaskService::CloseIo(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  FIND_OR_REPLY(request.id);
  responder.Reply(request.third != 0 ? container.CloseIo(request.exec_id) : absl::OkStatus());
}

void TaskService::Connect(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  std::string answer;
  pb::Writer writer(&answer);
  writer.Varint(1, static_cast<uint64_t>(::getpid()));
  const auto found = containers_.find(id);
  if (found != containers_.end()) {
    writer.Varint(2, static_cast<uint64_t>(found->second->init_pid()));
  }
  writer.String(3, Version());
  responder.Reply(absl::OkStatus(), answer);
}

void TaskService::Shutdown(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const ProcessRequest request, ParseProcessRequest(payload));
  // ShutdownRequest keeps `now` where others keep the exec id, as a varint.
  bool now = false;
  for (pb::Reader reader(payload); reader.Next();) {
    if (reader.field() == 2) now = reader.boolean();
  }
  responder.Reply(absl::OkStatus());
  if ((containers_.empty() && !held_) || now) shut_down_();
}

void TaskService::EndAll(std::function<void()> done) {
  // Runs when the last of the callbacks that hold it is gone: whatever became of each.
  const std::shared_ptr<void> last(nullptr,
                                   [this, done = std::move(done)](void*) { loop_.Post(done); });
  std::vector<std::string> ids;  // Ending one may take it out of the map at once.
  for (const auto& [id, container] : containers_) ids.push_back(id);
  for (const std::string& id : ids) {
    containers_.at(id)->End([this, last, id](const absl::StatusOr<ProcessExit>& exit) {
      if (exit.ok()) return Drop(id);
      log::Warning("could not end a container", {{"container", id}, {"status", exit.status()}});
    });
  }
}

void TaskService::ReopenLogs(absl::string_view payload, const ttrpc::Responder& responder) {
  PARSE_OR_REPLY(const std::string id, ParseId(payload));
  FIND_OR_REPLY(id);
  responder.Reply(container.ReopenLogs());
}

}  // namespace gantry::shim
