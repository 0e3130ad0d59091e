// Engine: lists, details and facts.
#include <linux/magic.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/version.h"
#include "lib/cgroup/cgroup.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "services/engine/container_config.h"
#include "services/engine/container_filter.h"
#include "services/engine/engine.h"
#include "services/engine/snapshot_root.h"

namespace gantry::engine {
namespace {

// PRETTY_NAME of os-release.
std::string OperatingSystem() {
  for (const char* path : {"/etc/os-release", "/usr/lib/os-release"}) {
    absl::StatusOr<std::string> text = sys::ReadFile(path, 64 << 10);
    if (!text.ok()) continue;
    for (absl::string_view line : absl::StrSplit(*text, '\n')) {
      if (!absl::ConsumePrefix(&line, "PRETTY_NAME=")) continue;
      return std::string(absl::StripSuffix(absl::StripPrefix(line, "\""), "\""));
    }
  }
  return "Linux";
}

// As `docker info` spells it.
std::string BackingFileSystem(const std::string& directory) {
  struct statfs info = {};
  if (::statfs(directory.c_str(), &info) != 0) return "unknown";
  switch (static_cast<uint32_t>(info.f_type)) {
    case EXT4_SUPER_MAGIC:
      return "extfs";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    default:
      return absl::StrCat("0x", absl::Hex(static_cast<uint32_t>(info.f_type)));
  }
}

}  // namespace

v1::ContainerSummary Engine::Summarize(const Container& container) const {
  const v1::ContainerDefinition& definition = container.definition();
  v1::ContainerSummary summary;
  summary.set_id(container.id());
  summary.set_name(container.name());
  summary.set_image(definition.config().image());
  summary.set_image_id(definition.image_id());
  *summary.mutable_command() = definition.args();
  *summary.mutable_created_at() = definition.created_at();
  *summary.mutable_state() = container.StateProto();
  *summary.mutable_labels() = definition.config().labels();
  summary.set_network(definition.config().network());
  for (const v1::MountPoint& point : definition.mounts()) {
    v1::Mount* mount = summary.add_mounts();
    mount->set_type(point.type());
    mount->set_source(point.type() == "volume" ? point.name() : point.source());
    mount->set_target(point.destination());
    mount->set_read_only(!point.rw());
  }
  std::set<std::pair<uint32_t, std::string>> published;
  if (IsLive(container.state())) {
    const Run run = container.run();
    *summary.mutable_ports() = run.network.ports();
    for (const v1::PortBinding& port : run.network.ports()) {
      published.emplace(port.container_port(), port.protocol());
    }
    for (const std::string& text : definition.config().expose()) {
      auto ports = ParseExposed(text);
      if (!ports.ok()) continue;
      for (const auto& [port, protocol] : *ports) {
        if (published.count({port, protocol}) > 0) continue;
        summary.add_exposed_ports(absl::StrCat(port, "/", protocol));
      }
    }
  }
  return summary;
}

absl::StatusOr<v1::ListContainersResponse> Engine::List(const v1::ListContainersRequest& request) {
  ASSIGN_OR_RETURN(ContainerFilter filter,
                   ContainerFilter::Parse({request.filters().begin(), request.filters().end()}));
  RETURN_IF_ERROR(filter.Bind(index_));
  v1::ListContainersResponse response;
  const bool all = request.all() || request.last() != 0 || filter.NamesStates();
  for (const ContainerPtr& container : index_.All()) {
    if (request.last() != 0 &&
        static_cast<uint32_t>(response.containers_size()) == request.last()) {
      break;
    }
    if (!all && !IsLive(container->state()) && container->state() != State::kRestarting) continue;
    v1::ContainerSummary summary = Summarize(*container);
    if (!filter.Matches(*container, summary)) continue;
    if (request.size()) {
      absl::StatusOr<uint64_t> used = metadata_.SnapshotUsage(
          container->definition().snapshotter(), container->definition().snapshot_key());
      if (used.ok()) {
        summary.set_size_rw_bytes(*used);
        summary.set_size_root_bytes(*used + container->definition().image_size_bytes());
      }
    }
    *response.add_containers() = std::move(summary);
  }
  return response;
}

absl::StatusOr<v1::ContainerDetails> Engine::Inspect(const v1::InspectContainerRequest& request) {
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(request.container()));
  const v1::ContainerDefinition& definition = container->definition();
  const std::string directory = StateDirectory(container->id());
  v1::ContainerDetails details;
  details.set_id(container->id());
  details.set_name(container->name());
  *details.mutable_created_at() = definition.created_at();
  if (definition.args_size() > 0) details.set_path(definition.args(0));
  for (int i = 1; i < definition.args_size(); ++i) details.add_args(definition.args(i));
  *details.mutable_state() = container->StateProto();
  *details.mutable_config() = definition.config();
  details.set_image_id(definition.image_id());
  details.set_resolv_conf_path(absl::StrCat(directory, "/resolv.conf"));
  details.set_hostname_path(absl::StrCat(directory, "/hostname"));
  details.set_hosts_path(absl::StrCat(directory, "/hosts"));
  details.set_log_path(LogPath(*container));
  for (const std::string& exec_id : container->execs().Running()) details.add_exec_ids(exec_id);
  details.set_driver("overlay2");
  details.set_runtime(definition.runtime());
  *details.mutable_mount_points() = definition.mounts();
  const Run run = container->run();
  if (IsLive(container->state())) *details.mutable_network() = run.network;
  if (details.network().network().empty()) {
    details.mutable_network()->set_network(definition.config().network());
  }
  for (const v1::StepTiming& step : run.timings) *details.add_timings() = step;
  if (absl::StatusOr<std::vector<containerd::types::Mount>> rootfs = RootfsOf(*container);
      rootfs.ok()) {
    for (auto& [key, value] : GraphDriverData(*rootfs)) {
      (*details.mutable_graph_driver_data())[key] = value;
    }
    // Mounted by the shim, while there is a task: seen from the host through its program.
    (*details.mutable_graph_driver_data())["MergedDir"] =
        IsLive(container->state()) ? absl::StrCat("/proc/", run.pid, "/root") : "";
  }
  if (request.size()) {
    ASSIGN_OR_RETURN(uint64_t used,
                     metadata_.SnapshotUsage(definition.snapshotter(), definition.snapshot_key()));
    details.set_size_rw_bytes(used);
    details.set_size_root_bytes(used + definition.image_size_bytes());
  }
  return details;
}

absl::StatusOr<v1::SystemInfoResponse> Engine::Info() {
  v1::SystemInfoResponse info;
  uint32_t running = 0, paused = 0, stopped = 0;
  for (const ContainerPtr& container : index_.All()) {
    const State state = container->state();
    ++(state == State::kRunning ? running : state == State::kPaused ? paused : stopped);
  }
  info.set_containers_running(running);
  info.set_containers_paused(paused);
  info.set_containers_stopped(stopped);
  if (absl::StatusOr<uint32_t> images = images_.Count(); images.ok()) {
    info.set_images(*images);
  } else {
    info.add_warnings(absl::StrCat("images are not counted: ", images.status().message()));
  }
  info.set_version(std::string(Version()));
  info.set_storage_driver("overlay2");
  (*info.mutable_storage_facts())["Backing Filesystem"] =
      BackingFileSystem(options_.state_directory);
  (*info.mutable_storage_facts())["Supports d_type"] = "true";
  (*info.mutable_storage_facts())["Native Overlay Diff"] = "true";
  (*info.mutable_storage_facts())["userxattr"] = "false";
  info.set_logging_driver("json-file");
  info.set_cgroup_driver("cgroupfs");
  if (absl::StatusOr<cgroup::Layout> layout = cgroup::Layout::Detect(); layout.ok()) {
    info.set_cgroup_version(layout->mode == cgroup::Mode::kV2 ? "2" : "1");
  }
  info.add_runtimes(options_.runtime);
  if (options_.runtime != "io.containerd.runc.v2") info.add_runtimes("io.containerd.runc.v2");
  info.set_default_runtime(options_.runtime);
  struct utsname kernel = {};
  ::uname(&kernel);
  info.set_kernel_version(kernel.release);
  info.set_operating_system(OperatingSystem());
  info.set_os_type("linux");
  info.set_architecture(kernel.machine);
  info.set_name(kernel.nodename);
  info.set_cpus(static_cast<uint32_t>(::sysconf(_SC_NPROCESSORS_ONLN)));
  struct sysinfo memory = {};
  if (::sysinfo(&memory) == 0) info.set_memory_bytes(uint64_t{memory.totalram} * memory.mem_unit);
  info.set_id(options_.engine_id);
  info.set_root_directory(options_.root_directory);
  info.add_security_options("seccomp,profile=builtin");
  info.add_security_options("cgroupns");
  info.add_insecure_registries("127.0.0.0/8");
  return info;
}

absl::Status Engine::Audit(rpc::AuditReport& report) {
  std::set<std::string> known_ids;
  for (const ContainerPtr& container : index_.All()) known_ids.insert(container->id());
  {
    absl::MutexLock lock(&mutex_);
    known_ids.insert(sweeping_.begin(), sweeping_.end());
  }
  const auto find = [&](const char* kind, const std::string& object, std::string problem,
                        std::string remedy) {
    report.findings.push_back({kind, object, std::move(problem), std::move(remedy)});
  };

  // Tasks first, then states: what ends in between is seen as ended by both or by the second.
  ASSIGN_OR_RETURN(std::vector<TaskStatus> tasks, tasks_.List());
  std::set<std::string> with_task;
  for (const TaskStatus& task : tasks) {
    ++report.checked["task"];
    with_task.insert(task.container_id);
    if (index_.FindById(task.container_id) != nullptr) continue;
    find("task", task.container_id, "a task without a container of the engine",
         "delete it with ctr tasks rm, if nobody else made it");
  }
  for (const ContainerPtr& container : index_.All()) {
    ++report.checked["container"];
    if (IsLive(container->state()) && with_task.count(container->id()) == 0) {
      // Started after the list was read?
      if (tasks_.Get(container->id()).ok()) continue;
      find("container", container->id(), "is said to run and has no task", "restart the engine");
    }
  }
  ASSIGN_OR_RETURN(std::vector<std::string> recorded, metadata_.ListContainerIds());
  for (const std::string& id : recorded) {
    ++report.checked["container record"];
    if (index_.FindById(id) == nullptr && known_ids.count(id) == 0) {
      find("container", id, "recorded in metadata and unknown to the engine",
           "remove it with ctr containers rm, if nobody else made it");
    }
  }
  for (const auto& [kind, base] :
       {std::pair<const char*, std::string>("state directory",
                                            absl::StrCat(options_.state_directory, "/containers")),
        std::pair<const char*, std::string>(
            "run directory", absl::StrCat(options_.runtime_directory, "/containers"))}) {
    ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(base));
    for (const std::string& name : names) {
      ++report.checked[kind];
      ContainerPtr container = index_.FindById(name);
      if (container == nullptr) {
        if (known_ids.count(name) > 0) continue;  // Removed since.
        find("file", absl::StrCat(base, "/", name), "belongs to no container",
             "restart the engine, which sweeps it");
      } else if (absl::string_view(kind) == "run directory" && !IsLive(container->state()) &&
                 !container->needs_cleanup() && !container->busy()) {
        find("file", absl::StrCat(base, "/", name), "left by a run that has ended",
             "start or remove the container");
      }
    }
  }
  ASSIGN_OR_RETURN(std::vector<std::string> strays, volumes_.DirectoriesWithoutRecord());
  report.checked["volume"] += volumes_.size() + strays.size();
  for (const std::string& name : strays) {
    find("file", volumes_.Mountpoint(name), "a volume directory without a record",
         "restart the engine, which sweeps it");
  }
  ASSIGN_OR_RETURN(std::vector<std::string> mounts,
                   sys::MountPointsBelow(absl::StrCat(options_.runtime_directory, "/mounts")));
  report.checked["private mount"] += mounts.size();
  for (const std::string& mount : mounts) {
    find("mount", mount, "a private mount that was not undone", "unmount it");
  }
  ASSIGN_OR_RETURN(rpc::AuditReport network, network_.Audit());
  report.findings.insert(report.findings.end(), network.findings.begin(), network.findings.end());
  for (const auto& [kind, count] : network.checked) report.checked[kind] += count;
  for (const network::Endpoint& endpoint : network_.Info().connected) {
    ContainerPtr container = index_.FindById(endpoint.container_id);
    if (container != nullptr &&
        (IsLive(container->state()) || container->needs_cleanup() || container->busy())) {
      continue;
    }
    if (container == nullptr && known_ids.count(endpoint.container_id) == 0) continue;  // Starting.
    find("address", endpoint.container_id, "an endpoint of a container that does not run",
         "restart the engine");
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
