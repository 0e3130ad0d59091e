// gantry-engine: containers as people mean them.
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/rpc/daemon.h"
#include "lib/sys/file.h"
#include "services/engine/containers_service.h"
#include "services/engine/directory_watcher.h"
#include "services/engine/engine.h"
#include "services/engine/network/host_network.h"

namespace gantry::engine {
namespace {

absl::StatusOr<std::string> ReadBootId() {
  ASSIGN_OR_RETURN(std::string text, sys::ReadFile("/proc/sys/kernel/random/boot_id"));
  return std::string(absl::StripAsciiWhitespace(text));
}

// Names this engine for good.
absl::StatusOr<std::string> EngineId(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/engine-id");
  absl::StatusOr<std::string> text = sys::ReadFile(path, 256);
  if (text.ok()) return std::string(absl::StripAsciiWhitespace(*text));
  if (!absl::IsNotFound(text.status())) return text.status();
  const std::string id = RandomHex(16);
  RETURN_IF_ERROR(sys::WriteFileDurably(path, absl::StrCat(id, "\n"), 0600));
  return id;
}

// A program of the suite that lies beside this one; empty: it is not installed.
std::string Beside(const std::string& name) {
  char path[4096];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) return "";
  const std::string own(path, static_cast<size_t>(size));
  std::string other = absl::StrCat(own.substr(0, own.rfind('/')), "/", name);
  return sys::Exists(other) ? other : "";
}

absl::StatusOr<EngineOptions> ReadOptions(rpc::Daemon& daemon) {
  const config::Section& section = daemon.section();
  EngineOptions options;
  options.state_directory = daemon.state_directory();
  options.runtime_directory = daemon.runtime_directory();
  options.root_directory = daemon.state_root();
  ASSIGN_OR_RETURN(options.namespace_name, section.GetString("namespace", options.namespace_name));
  RETURN_IF_ERROR(CheckIdentifier("engine.namespace", options.namespace_name));
  ASSIGN_OR_RETURN(options.snapshotter, section.GetString("snapshotter", options.snapshotter));
  ASSIGN_OR_RETURN(options.runtime, section.GetString("runtime", options.runtime));
  ASSIGN_OR_RETURN(
      options.cgroup_parent,
      section.GetString("cgroup_parent", absl::StrCat("/gantry", daemon.instance_suffix())));
  if (!absl::StartsWith(options.cgroup_parent, "/")) {
    return absl::InvalidArgumentError("engine.cgroup_parent must begin with '/'");
  }
  ASSIGN_OR_RETURN(
      int64_t max_size,
      section.GetInteger("log_max_size_bytes", options.log_max_size_bytes, 0, int64_t{1} << 40));
  ASSIGN_OR_RETURN(int64_t max_files,
                   section.GetInteger("log_max_files", options.log_max_files, 1, 1000));
  options.log_max_size_bytes = static_cast<uint64_t>(max_size);
  options.log_max_files = static_cast<uint64_t>(max_files);
  ASSIGN_OR_RETURN(options.stop_timeout, section.GetDuration("stop_timeout", options.stop_timeout));
  ASSIGN_OR_RETURN(options.boot_id, ReadBootId());
  ASSIGN_OR_RETURN(options.engine_id, EngineId(daemon.state_directory()));
  options.init_path = Beside("gantry-init");
  return options;
}

absl::StatusOr<network::HostNetworkOptions> ReadNetworkOptions(rpc::Daemon& daemon) {
  const config::Section& section = daemon.section();
  network::HostNetworkOptions options;
  options.run_dir = daemon.runtime_directory();
  const std::string bridge = daemon.instance_suffix().empty()
                                 ? options.bridge
                                 : absl::StrCat("gantry", daemon.instance_suffix());
  ASSIGN_OR_RETURN(options.bridge, section.GetString("network_bridge", bridge));
  ASSIGN_OR_RETURN(options.subnet, section.GetString("network_subnet", options.subnet));
  ASSIGN_OR_RETURN(int64_t pool_size,
                   section.GetInteger("network_pool_size", options.pool_size, 0, 64));
  options.pool_size = static_cast<int>(pool_size);
  return options;
}

absl::Status Serve(rpc::Daemon& daemon) {
  ASSIGN_OR_RETURN(EngineOptions options, ReadOptions(daemon));
  ASSIGN_OR_RETURN(network::HostNetworkOptions network_options, ReadNetworkOptions(daemon));
  RETURN_IF_ERROR(daemon.section().CheckAllKnown());
  ASSIGN_OR_RETURN(std::unique_ptr<network::HostNetwork> network,
                   network::HostNetwork::Create(network_options));
  MetadataClient metadata(daemon.Dial("metadata"), daemon.Dial("metadata"), options.namespace_name);
  ImageClient images(daemon.Dial("image"), options.namespace_name);
  TaskClient tasks(daemon.Dial("task"), daemon.Dial("task"), options.namespace_name);
  ASSIGN_OR_RETURN(std::unique_ptr<DirectoryWatcher> watcher, DirectoryWatcher::Create());
  Engine engine(options, metadata, images, tasks, *network, daemon.metrics());
  RETURN_IF_ERROR(engine.Recover());

  ContainersService containers(engine, *watcher);
  VolumesService volumes(engine);
  SystemService system(engine);
  ImagesService engine_images(engine);
  daemon.AddService(&containers);
  daemon.AddService(&volumes);
  daemon.AddService(&system);
  daemon.AddService(&engine_images);
  daemon.AddAuditor([&engine](rpc::AuditReport& report) { return engine.Audit(report); });
  daemon.OnStop([&engine] { engine.BeginStop(); });
  const absl::Status served = daemon.Serve();
  containers.Stop();
  engine.Stop();
  return served;
}

}  // namespace

int Main(int argc, char** argv) { return rpc::RunDaemon(argc, argv, "engine", Serve); }

}  // namespace gantry::engine
