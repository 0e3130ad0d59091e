// Engine: starting containers.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"
#include "lib/oci/spec.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"
#include "services/engine/engine.h"
#include "services/engine/network/hosts_files.h"
#include "services/engine/shared_memory.h"
#include "services/engine/snapshot_root.h"
#include "services/engine/volatile_root.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kLastingWait = absl::Seconds(5);
constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr int kNotFoundCode = 127;
constexpr int kNotExecutableCode = 126;
constexpr int kStartFailedCode = 128;

// Puts a link in place of whatever has the name.
absl::Status PlaceLink(const std::string& target, const std::string& path) {
  ::unlink(path.c_str());
  if (::symlink(target.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return sys::ErrnoError(errno, absl::StrCat("make the link '", path, "'"));
}

// What the runtime said when the program cannot run, as the caller should see it, and the exit code
// a shell would give.
absl::Status ProgramError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return status;
    default:
      return absl::FailedPreconditionError(status.message());
  }
}

int StartFailureCode(absl::string_view message) {
  if (absl::StrContains(message, "executable file not found") ||
      absl::StrContains(message, "no such file or directory") ||
      absl::StrContains(message, "No such file or directory")) {
    return kNotFoundCode;
  }
  if (absl::StrContains(message, "ermission denied") || absl::StrContains(message, "exec format")) {
    return kNotExecutableCode;
  }
  return kStartFailedCode;
}

std::string PercentEncode(absl::string_view path) {
  std::string text;
  for (unsigned char c : path) {
    if (absl::ascii_isalnum(c) || c == '/' || c == '-' || c == '_' || c == '.' || c == '~') {
      text.push_back(static_cast<char>(c));
    } else {
      absl::StrAppend(&text, "%", absl::Hex(c, absl::kZeroPad2));
    }
  }
  return text;
}

// "10m", "512k", "1g", "100" as bytes; 0 when it is none of these.
uint64_t ParseSize(absl::string_view text) {
  uint64_t factor = 1;
  if (!text.empty()) {
    switch (absl::ascii_tolower(static_cast<unsigned char>(text.back()))) {
      case 'k':
        factor = 1 << 10;
        break;
      case 'm':
        factor = 1 << 20;
        break;
      case 'g':
        factor = 1 << 30;
        break;
      default:
        break;
    }
    if (factor > 1) text.remove_suffix(1);
  }
  uint64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? number * factor : 0;
}

}  // namespace

absl::StatusOr<v1::StartContainerResponse> Engine::Start(const v1::StartContainerRequest& request) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(request.container()));
  if (container->state() == State::kRemoving) {
    return WrongState("start", container->name(), State::kRemoving);
  }
  ASSIGN_OR_RETURN(Container::Operation operation, container->Begin("start", kPatience));
  v1::StartContainerResponse response;
  response.set_id(container->id());
  if (container->state() != State::kRunning) {
    StepTimer timer;
    StartOptions options;
    options.attach = request.attach();
    options.rows = request.tty_rows();
    options.columns = request.tty_columns();
    container->ResetRestarts();
    const absl::Status started = StartRun(container, std::move(options), timer);
    if (!started.ok()) {
      // A container that is to go with its end goes with a failed start, too; but not for a peer
      // that was away.
      if (container->goes_with_its_end() && !absl::IsUnavailable(started)) {
        const absl::Status removed = RemoveHeld(container, true, timer);
        if (!removed.ok()) SettleLater(container, absl::Seconds(1), 1);
      }
      return started;
    }
    for (const v1::StepTiming& step : timer.steps()) *response.add_timings() = step;
    CountAction("start", began);
  }
  *response.mutable_attach() = AddressOf(*container);
  return response;
}

absl::Status Engine::StartRun(const ContainerPtr& container, StartOptions options,
                              StepTimer& timer) {
  const absl::Status started = TryStart(container, options, timer);
  if (options.endpoint != nullptr) {
    // The endpoint made ahead was not reached by TryStart.
    if (options.endpoint->Get().ok()) (void)network_.Release(container->id());
  }
  for (const v1::StepTiming& step : timer.steps()) {
    metrics_
        .GetHistogram("gantry_engine_start_step_seconds", "Time of each step of a start",
                      {{"step", step.step()}})
        .Observe(static_cast<double>(step.microseconds()) / 1e6);
  }
  UpdateGauges();
  if (started.ok()) {
    if (options.attach) Tell(*container, "attach");
    TellResources(*container, true);
    Tell(*container, "start");
    return started;
  }
  container->MarkStartFailed(StartFailureCode(started.message()), std::string(started.message()));
  RecordSoon(container);
  return started;
}

absl::Status Engine::TryStart(const ContainerPtr& container, StartOptions& options,
                              StepTimer& timer) {
  const State before = container->state();
  if (!IsLegalTransition(before, State::kRunning) || before == State::kPaused) {
    return WrongState("start", container->name(), before);
  }
  if (container->needs_cleanup()) RETURN_IF_ERROR(FinishRun(container, timer));

  const std::string& id = container->id();
  RETURN_IF_ERROR(sys::MakeDirectories(RuntimeDirectory(id), 0700));
  RETURN_IF_ERROR(sys::MakeDirectories(StateDirectory(id), 0700));
  bool task_made = false;
  auto undo = absl::MakeCleanup([&] { UndoStart(*container, task_made); });

  ASSIGN_OR_RETURN(Run run, JoinNetwork(container, options));
  RETURN_IF_ERROR(FAILPOINT("engine.start.after_network"));
  RETURN_IF_ERROR(LinkNamespaces(*container, run));
  RETURN_IF_ERROR(WriteHostFiles(*container, run));
  timer.Step("network");

  ASSIGN_OR_RETURN(std::vector<containerd::types::Mount> rootfs, RootfsOf(*container));
  RETURN_IF_ERROR(PrepareMounts(*container, rootfs));
  RETURN_IF_ERROR(RefreshUser(*container, rootfs, options.spec));
  run.number = container->NextRunNumber();
  v1::RunFile file;
  file.set_version(1);
  *file.mutable_started_at() = ToProto(absl::Now());
  *file.mutable_network() = run.network;
  file.set_network_mode(run.network_mode);
  RETURN_IF_ERROR(sys::WriteFileAtomically(RunFilePath(id), file.SerializeAsString()));
  if (container->definition().single_run()) RETURN_IF_ERROR(MakeVolatile(rootfs));
  RETURN_IF_ERROR(FAILPOINT("engine.start.before_task_create"));
  timer.Step("prepare");

  // From here on there may be a task, also when the answer is an error that hides whether.
  task_made = true;
  TaskRun task;
  task.spec = std::move(options.spec);
  task.runtime = container->definition().runtime();
  task.rootfs = std::move(rootfs);
  task.stdio = StdioOf(*container, options.attach);
  if (container->config().tty()) {
    task.rows = options.rows;
    task.columns = options.columns;
  }
  bool created = false;
  absl::StatusOr<TaskAnswer> started = tasks_.Run(id, task, &created);
  if (!started.ok()) {
    return Annotate(ProgramError(started.status()),
                    absl::StrCat(created ? "failed to start container '"
                                         : "failed to create task for container '",
                                 container->name(), "'"));
  }
  timer.Add(started->timings);
  timer.Step("task_run");
  RETURN_IF_ERROR(FAILPOINT("engine.start.after_task_start"));
  WatchRun(container, run.number);

  run.pid = started->pid;
  run.shim_socket = started->shim_socket;
  run.started_at = absl::Now();
  run.timings = timer.steps();
  container->SetBootId(options_.boot_id);
  RETURN_IF_ERROR(container->MarkRunning(std::move(run)));
  std::move(undo).Cancel();
  // What a reboot must know of this start is written behind the caller's back: a crash before it is
  // recovered from the task itself, and a container that goes with its run needs none.
  if (!container->definition().single_run()) RecordSoon(container);
  return absl::OkStatus();
}

void Engine::UndoStart(Container& container, bool task_made) {
  const std::string& id = container.id();
  absl::Status undone;
  if (task_made) {
    undone = tasks_.Delete(id);
    if (!undone.ok()) {
      (void)tasks_.Kill(id, "", SIGKILL, true);
      undone = tasks_.Delete(id);
    }
  }
  undone = FirstError(undone, network_.Release(id));
  undone = FirstError(undone, RemoveRuntimeDirectory(id));
  if (undone.ok()) return;
  // The next start or the removal tries again.
  container.SetNeedsCleanup(true);
  log::Warning("a failed start could not be undone", {{"container", id}, {"error", undone}});
}

network::EndpointRequest Engine::EndpointRequestOf(
    const v1::ContainerDefinition& definition) const {
  const v1::ContainerConfig& config = definition.config();
  network::EndpointRequest request;
  request.container_id = definition.id();
  request.mode = network::ParseMode(config.network()).value_or(network::Mode::kBridge);
  request.ip = config.ip();
  request.mac = config.mac_address();
  for (const v1::PortBinding& binding : config.ports()) {
    network::PortRequest& port = request.ports.emplace_back();
    port.protocol = network::ParseProtocol(binding.protocol()).value_or(network::Protocol::kTcp);
    port.container_port = static_cast<uint16_t>(binding.container_port());
    port.host_ip = binding.host_ip();
    port.host_port = static_cast<uint16_t>(binding.host_port());
  }
  request.publish_all = config.publish_all();
  for (const std::string& text : config.expose()) {
    auto ports = ParseExposed(text);
    if (!ports.ok()) continue;
    for (const auto& [port, protocol] : *ports) {
      request.exposed.push_back({network::ParseProtocol(protocol).value_or(network::Protocol::kTcp),
                                 static_cast<uint16_t>(port)});
    }
  }
  return request;
}

absl::StatusOr<Run> Engine::JoinNetwork(const ContainerPtr& container, StartOptions& options) {
  Run run;
  const absl::string_view other_id = SharedContainer(container->config().network());
  if (other_id.empty()) {
    absl::StatusOr<network::Endpoint> endpoint =
        options.endpoint != nullptr ? options.endpoint->Get()
                                    : network_.Connect(EndpointRequestOf(container->definition()));
    options.endpoint = nullptr;  // Ours to release from now on.
    RETURN_IF_ERROR(
        Annotate(endpoint.status(), absl::StrCat("connect container '", container->name(), "'")));
    run.network = ToProto(*endpoint);
    run.network_mode = std::string(network::ModeName(endpoint->mode));
    if (!endpoint->netns_path.empty()) {
      RETURN_IF_ERROR(
          PlaceLink(endpoint->netns_path, NamespaceLink(places_, container->id(), "netns")));
    }
    return run;
  }
  ContainerPtr other = index_.FindById(std::string(other_id));
  if (other == nullptr || !IsLive(other->state())) {
    return absl::FailedPreconditionError(absl::StrCat("cannot join the network of container '",
                                                      other_id.substr(0, 12),
                                                      "': it is not running; start it first"));
  }
  RETURN_IF_ERROR(PlaceLink(absl::StrCat("/proc/", other->run().pid, "/ns/net"),
                            NamespaceLink(places_, container->id(), "netns")));
  run.network.set_network(container->config().network());
  return run;
}

absl::Status Engine::LinkNamespaces(const Container& container, const Run& run) {
  const std::pair<const char*, absl::string_view> kinds[] = {
      {"pid", SharedContainer(container.config().pid_mode())},
      {"ipc", SharedContainer(container.config().ipc_mode())}};
  for (const auto& [kind, other_id] : kinds) {
    if (other_id.empty()) continue;
    ContainerPtr other = index_.FindById(std::string(other_id));
    if (other == nullptr || !IsLive(other->state())) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot join the ", kind, " namespace of container '",
                       other_id.substr(0, 12), "': it is not running; start it first"));
    }
    RETURN_IF_ERROR(PlaceLink(absl::StrCat("/proc/", other->run().pid, "/ns/", kind),
                              NamespaceLink(places_, container.id(), kind)));
    if (absl::string_view(kind) != "ipc") continue;
    RETURN_IF_ERROR(PlaceLink(other->config().ipc_mode() == "host"
                                  ? "/dev/shm"
                                  : SharedMemoryDirectory(places_, other->id()),
                              NamespaceLink(places_, container.id(), "shm")));
  }
  if (container.config().ipc_mode() != "shareable") return absl::OkStatus();
  return MountSharedMemory(SharedMemoryDirectory(places_, container.id()),
                           SharedMemoryBytes(container.config()));
}

absl::Status Engine::WriteHostFiles(const Container& container, const Run& run) {
  const v1::ContainerConfig& config = container.config();
  const std::string directory = StateDirectory(container.id());
  const auto write = [&](const char* name, absl::string_view text) {
    // Not atomically: a running container has the file itself mounted. Nothing runs now.
    ASSIGN_OR_RETURN(sys::UniqueFd file,
                     sys::Open(absl::StrCat(directory, "/", name),
                               O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644));
    if (::fchmod(file.get(), 0644) != 0) return sys::ErrnoError(errno, "chmod a host-made file");
    return sys::WriteAll(file, text);
  };
  const absl::string_view other_id = SharedContainer(config.network());
  if (!other_id.empty()) {
    // Who shares a network shares its names.
    for (const char* name : {"hosts", "resolv.conf", "hostname"}) {
      ASSIGN_OR_RETURN(std::string text, sys::ReadFile(absl::StrCat(
                                             StateDirectory(std::string(other_id)), "/", name)));
      RETURN_IF_ERROR(write(name, text));
    }
    return absl::OkStatus();
  }
  std::string hostname = config.hostname();
  if (hostname.empty() && (config.network() == "host" || config.uts_mode() == "host")) {
    char text[256] = {};
    if (::gethostname(text, sizeof text - 1) == 0) hostname = text;
  }
  if (hostname.empty()) hostname = container.id().substr(0, 12);
  network::HostsRequest hosts;
  hosts.ip = run.network.ip_address();
  hosts.gateway = run.network.gateway();
  hosts.hostname = hostname;
  hosts.domainname = config.domainname();
  hosts.extra_hosts.assign(config.extra_hosts().begin(), config.extra_hosts().end());
  ASSIGN_OR_RETURN(std::string hosts_text, network::RenderHosts(hosts));
  RETURN_IF_ERROR(write("hosts", hosts_text));
  network::ResolvRequest resolv;
  resolv.host_file = network::HostResolvConf();
  resolv.servers.assign(config.dns().begin(), config.dns().end());
  resolv.search.assign(config.dns_search().begin(), config.dns_search().end());
  resolv.options.assign(config.dns_options().begin(), config.dns_options().end());
  resolv.host_network = config.network() == "host";
  ASSIGN_OR_RETURN(std::string resolv_text, network::RenderResolvConf(resolv));
  RETURN_IF_ERROR(write("resolv.conf", resolv_text));
  return write("hostname", network::RenderHostname(hostname));
}

absl::StatusOr<std::vector<containerd::types::Mount>> Engine::RootfsOf(Container& container) {
  if (auto known = container.rootfs(); known.has_value()) return *std::move(known);
  ASSIGN_OR_RETURN(std::vector<containerd::types::Mount> mounts,
                   metadata_.SnapshotMounts(container.definition().snapshotter(),
                                            container.definition().snapshot_key()));
  container.SetRootfs(mounts);
  return mounts;
}

absl::Status Engine::PrepareMounts(const Container& container,
                                   const std::vector<containerd::types::Mount>& rootfs) {
  const v1::ContainerDefinition& definition = container.definition();
  for (const v1::Mount& mount : definition.config().mounts()) {
    if (mount.type() == "bind" && mount.create_source() && !sys::Exists(mount.source())) {
      RETURN_IF_ERROR(
          Annotate(sys::MakeDirectories(mount.source(), 0755), "make the source of a bind mount"));
    }
  }
  sys::UniqueFd root;
  for (const v1::MountPoint& point : definition.mounts()) {
    if (point.type() != "volume") continue;
    sys::UniqueFd content;
    const bool copy_up = std::find(definition.copy_up().begin(), definition.copy_up().end(),
                                   point.destination()) != definition.copy_up().end();
    bool in_use = false;
    for (const std::string& user : VolumeUsers(point.name())) {
      absl::StatusOr<ContainerPtr> other = index_.Find(user);
      in_use |= other.ok() && (*other)->id() != container.id() && IsLive((*other)->state());
    }
    if (copy_up && !in_use && volumes_.IsEmpty(point.name())) {
      if (!root.ok()) {
        ASSIGN_OR_RETURN(
            root,
            OpenSnapshotRoot(rootfs, absl::StrCat(options_.runtime_directory, "/mounts"), true));
      }
      absl::StatusOr<sys::UniqueFd> found =
          sys::OpenInRoot(root, point.destination(), O_RDONLY | O_DIRECTORY);
      if (found.ok()) content = *std::move(found);
    }
    RETURN_IF_ERROR(Annotate(volumes_.EnsureDirectory(point.name(), content),
                             absl::StrCat("prepare volume '", point.name(), "'")));
  }
  return absl::OkStatus();
}

absl::Status Engine::RefreshUser(Container& container,
                                 const std::vector<containerd::types::Mount>& rootfs,
                                 std::string& spec_json) {
  const v1::ContainerDefinition& definition = container.definition();
  const std::vector<std::string> layers = LayerDirectories(rootfs);
  // Only a container that has files of its own there differs from its image.
  const bool changed = layers.size() < 2 || sys::Exists(absl::StrCat(layers[0], "/etc/passwd")) ||
                       sys::Exists(absl::StrCat(layers[0], "/etc/group"));
  ResolvedUser user;
  if (const std::optional<ResolvedUser> cached = CachedUser(definition);
      cached.has_value() && !changed) {
    user = *cached;
  } else {
    ASSIGN_OR_RETURN(user, UserOf(definition, rootfs));
  }
  {
    absl::MutexLock lock(&mutex_);
    auto known = spec_users_.find(container.id());
    if (known != spec_users_.end() && known->second == user) return absl::OkStatus();
  }
  std::vector<std::string> ignored;
  ASSIGN_OR_RETURN(oci::Spec spec, BuildSpec(definition, user, places_, &ignored));
  spec_json = oci::WriteSpec(spec);
  RETURN_IF_ERROR(metadata_.UpdateSpec(container.id(), spec_json));
  absl::MutexLock lock(&mutex_);
  spec_users_[container.id()] = user;
  return absl::OkStatus();
}

TaskStdio Engine::StdioOf(const Container& container, bool attach) const {
  const v1::ContainerConfig& config = container.config();
  uint64_t max_size = options_.log_max_size_bytes;
  uint64_t max_files = options_.log_max_files;
  const auto& log_options = config.log().options();
  if (auto found = log_options.find("max-size"); found != log_options.end()) {
    max_size = ParseSize(found->second);
  }
  if (auto found = log_options.find("max-file"); found != log_options.end()) {
    (void)absl::SimpleAtoi(found->second, &max_files);
  }
  const bool none = config.log().driver() == "none";
  TaskStdio stdio;
  stdio.terminal = config.tty();
  stdio.out =
      absl::StrCat("gantry-log://", none ? "/" : PercentEncode(LogPath(container)),
                   none ? "?format=none"
                        : absl::StrCat("?format=json-file&max-size=", max_size,
                                       "&max-file=", std::max<uint64_t>(max_files, 1)),
                   "&attach=", attach ? "wait" : "yes", "&stdin=", config.open_stdin() ? 1 : 0);
  if (!config.tty()) stdio.err = stdio.out;
  return stdio;
}

void Engine::WatchRun(const ContainerPtr& container, uint64_t number, int attempt) {
  const absl::Time began = absl::Now();
  tasks_.Wait(container->id(), "",
              [this, container, number, attempt, began](absl::StatusOr<TaskExit> exit) {
                // One that lasted was right: what ended it now is a new matter.
                const bool lasted = absl::Now() - began > kLastingWait;
                OnTaskEnded(container, number, lasted ? 0 : attempt, std::move(exit));
              });
}

}  // namespace gantry::engine
