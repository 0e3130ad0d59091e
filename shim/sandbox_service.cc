#include "shim/sandbox_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "shim/metrics.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

// A caller's number of seconds must not overflow a timer.
constexpr uint32_t kMaxStopSeconds = 24 * 3600;

// As Kubernetes' CRI calls them, which is who reads this field.
const char* NameOf(Sandbox::State state) {
  return state == Sandbox::State::kReady ? "SANDBOX_READY" : "SANDBOX_NOTREADY";
}

// GOARCH of the machine this was built for.
constexpr char kArchitecture[] =
#if defined(__x86_64__)
    "amd64";
#elif defined(__aarch64__)
    "arm64";
#else
#error "name this architecture as Go does"
#endif

void WriteInfo(pb::Writer& writer, absl::string_view key, absl::string_view value) {
  writer.Message(4, [&](pb::Writer& entry) {
    entry.String(1, key);
    entry.String(2, value);
  });
}

std::string StatusAnswer(const Sandbox& sandbox, bool verbose) {
  const Sandbox::Status& status = sandbox.status();
  std::string answer;
  pb::Writer writer(&answer);
  writer.String(1, sandbox.id());
  writer.Varint(2, static_cast<uint64_t>(status.pid));
  writer.String(3, NameOf(status.state));
  if (verbose) {
    WriteInfo(writer, "bundle", sandbox.request().bundle);
    WriteInfo(writer, "netns", sandbox.request().netns_path);
  }
  WriteTimestamp(writer, 5, status.created_at);
  if (status.exited_at != absl::InfinitePast()) WriteTimestamp(writer, 6, status.exited_at);
  return answer;
}

}  // namespace

SandboxService::SandboxService(sys::EventLoop& loop, Reaper& reaper, TaskService& tasks,
                               std::string ns, std::string seccomp_cache,
                               std::function<void()> shut_down)
    : loop_(loop),
      reaper_(reaper),
      tasks_(tasks),
      ns_(std::move(ns)),
      seccomp_cache_(std::move(seccomp_cache)),
      shut_down_(std::move(shut_down)) {}

SandboxService::~SandboxService() = default;

SandboxService::Method SandboxService::FindMethod(absl::string_view name) {
  static constexpr struct {
    absl::string_view name;
    Method method;
  } kMethods[] = {{"CreateSandbox", &SandboxService::CreateSandbox},
                  {"StartSandbox", &SandboxService::StartSandbox},
                  {"Platform", &SandboxService::Platform},
                  {"StopSandbox", &SandboxService::StopSandbox},
                  {"WaitSandbox", &SandboxService::WaitSandbox},
                  {"SandboxStatus", &SandboxService::SandboxStatus},
                  {"PingSandbox", &SandboxService::PingSandbox},
                  {"ShutdownSandbox", &SandboxService::ShutdownSandbox},
                  {"SandboxMetrics", &SandboxService::SandboxMetrics}};
  for (const auto& entry : kMethods) {
    if (entry.name == name) return entry.method;
  }
  return nullptr;
}

void SandboxService::Handle(const ttrpc::Request& request, const ttrpc::Responder& responder) {
  const Method method = FindMethod(request.method);
  if (method == nullptr) {
    responder.Reply(absl::UnimplementedError(
        absl::StrCat("/", request.service, "/", request.method, " is not served by this shim")));
    return;
  }
  (this->*method)(request.payload, responder);
}

absl::StatusOr<Sandbox*> SandboxService::Find(absl::string_view payload) {
  ASSIGN_OR_RETURN(const std::string id, ParseId(payload));
  if (sandbox_ == nullptr || sandbox_->id() != id) {
    return absl::NotFoundError(absl::StrCat("sandbox '", id, "' is not in this shim"));
  }
  return sandbox_.get();
}

// Later: the sandbox is in the middle of a call.
void SandboxService::Drop() {
  std::shared_ptr<Sandbox> dropped = std::move(sandbox_);
  tasks_.Hold(false);
  loop_.Post([dropped]() mutable { dropped.reset(); });
}

void SandboxService::CreateSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  absl::StatusOr<CreateSandboxRequest> request = ParseCreateSandbox(payload);
  absl::Status status = request.status();
  if (status.ok()) status = CheckIdentifier("sandbox id", request->id);
  if (status.ok() && (request->bundle.empty() || request->bundle[0] != '/')) {
    status = absl::InvalidArgumentError(
        absl::StrCat("bundle '", request->bundle, "' must be an absolute path"));
  }
  if (status.ok() && sandbox_ != nullptr) {
    status = absl::AlreadyExistsError(absl::StrCat("this shim has the sandbox '", sandbox_->id(),
                                                   "'; a shim has one, start another shim"));
  }
  if (!status.ok()) return responder.Reply(status);
  sandbox_ = std::make_unique<Sandbox>(loop_, reaper_, ns_, seccomp_cache_, *std::move(request));
  tasks_.Hold(true);
  sandbox_->Create([this, responder](const absl::Status& created) {
    if (!created.ok()) {
      log::Warning("create failed", {{"sandbox", sandbox_->id()}, {"status", created}});
      Drop();
    }
    responder.Reply(created);
  });
}

void SandboxService::StartSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  (*sandbox)->Start([responder](const absl::StatusOr<Sandbox::Status>& started) {
    std::string answer;
    if (started.ok()) {
      pb::Writer writer(&answer);
      writer.Varint(1, static_cast<uint64_t>(started->pid));
      WriteTimestamp(writer, 2, started->created_at);
    }
    responder.Reply(started.status(), answer);
  });
}

void SandboxService::Platform(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  std::string answer;
  pb::Writer(&answer).Message(1, [](pb::Writer& platform) {
    platform.String(1, "linux");
    platform.String(2, kArchitecture);
  });
  responder.Reply(absl::OkStatus(), answer);
}

void SandboxService::StopSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  uint64_t seconds = 0;
  for (pb::Reader reader(payload); reader.Next();) {
    if (reader.field() == 2) seconds = std::min<uint64_t>(reader.varint(), kMaxStopSeconds);
  }
  (*sandbox)->Stop(absl::Seconds(seconds),
                   [responder](const absl::Status& status) { responder.Reply(status); });
}

void SandboxService::WaitSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  (*sandbox)->Wait([responder](const absl::StatusOr<ProcessExit>& exit) {
    std::string answer;
    if (exit.ok()) {
      pb::Writer writer(&answer);
      writer.Varint(1, static_cast<uint64_t>(exit->code));
      WriteTimestamp(writer, 2, exit->time);
    }
    responder.Reply(exit.status(), answer);
  });
}

void SandboxService::SandboxStatus(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  bool verbose = false;
  for (pb::Reader reader(payload); reader.Next();) {
    if (reader.field() == 2) verbose = reader.boolean();
  }
  responder.Reply(absl::OkStatus(), StatusAnswer(**sandbox, verbose));
}

void SandboxService::PingSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  responder.Reply(Find(payload).status());
}

// Whatever still runs in the sandbox ends with it; then the shim does.
void SandboxService::ShutdownSandbox(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  tasks_.EndAll([this, responder] {
    if (sandbox_ == nullptr) return responder.Reply(absl::OkStatus());  // Asked twice.
    sandbox_->Remove([this, responder](const absl::Status& removed) {
      if (!removed.ok()) return responder.Reply(removed);
      Drop();
      responder.Reply(absl::OkStatus());
      shut_down_();
    });
  });
}

void SandboxService::SandboxMetrics(absl::string_view payload, const ttrpc::Responder& responder) {
  const absl::StatusOr<Sandbox*> sandbox = Find(payload);
  if (!sandbox.ok()) return responder.Reply(sandbox.status());
  const cgroup::Cgroup* cgroup = (*sandbox)->cgroup();
  if (cgroup == nullptr || cgroup->empty()) {
    return responder.Reply(
        absl::NotFoundError(absl::StrCat("sandbox '", (*sandbox)->id(), "' has no cgroup")));
  }
  const absl::StatusOr<Any> metrics = ReadMetrics(*cgroup);
  std::string answer;
  if (metrics.ok()) {
    pb::Writer(&answer).Message(1, [&](pb::Writer& metric) {
      WriteTimestamp(metric, 1, absl::Now());
      metric.String(2, (*sandbox)->id());
      WriteAny(metric, 3, metrics->type_url, metrics->value);
    });
  }
  responder.Reply(metrics.status(), answer);
}

}  // namespace gantry::shim
