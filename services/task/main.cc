// gantry-task: the supervisor of shims.
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/rpc/daemon.h"
#include "lib/sys/file.h"
#include "services/task/child_reaper.h"
#include "services/task/event_forwarder.h"
#include "services/task/event_server.h"
#include "services/task/loop_thread.h"
#include "services/task/metadata_client.h"
#include "services/task/publish.h"
#include "services/task/runs_service.h"
#include "services/task/shim_launcher.h"
#include "services/task/shim_logs.h"
#include "services/task/task_audit.h"
#include "services/task/task_service.h"
#include "services/task/task_supervisor.h"
#include "services/task/workers.h"

namespace gantry::task {
namespace {

constexpr int kWorkerThreads = 8;
constexpr absl::Duration kDrainTimeout = absl::Seconds(2);

// Three descriptors a task: the usual soft limit of 1024 would end at some 300 tasks. Containers do
// not inherit this: the runtime sets what their spec says, and dockerd's units raise it just so.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 1 << 18);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    log::Warning("limit of open descriptors could not be raised", {{"limit", limit.rlim_cur}});
  }
}

absl::Status Run(rpc::Daemon& daemon) {
  RaiseDescriptorLimit();
  const config::Section& section = daemon.section();
  SupervisorOptions options;
  options.bundle_root = daemon.runtime_directory();
  options.search = BinarySearchOfThisProcess();
  ASSIGN_OR_RETURN(options.default_runtime, section.GetString("default_runtime", kOwnRuntime));
  ASSIGN_OR_RETURN(options.runc_runtime, section.GetString("runc_runtime", kOwnRuntime));
  ASSIGN_OR_RETURN(options.create_timeout,
                   section.GetDuration("create_timeout", options.create_timeout));
  LaunchOptions launch;
  ASSIGN_OR_RETURN(launch.debug, section.GetBool("shim_debug", false));
  ASSIGN_OR_RETURN(launch.start_timeout,
                   section.GetDuration("start_timeout", launch.start_timeout));
  ASSIGN_OR_RETURN(const int64_t pool_size, section.GetInteger("shim_pool", 4, 0, 64));
  launch.pool_size = static_cast<size_t>(pool_size);
  launch.pool_binary = FindShimBinary(kOwnRuntime, options.search).value_or("");
  if (launch.pool_binary.empty()) launch.pool_size = 0;
  launch.gateway_socket = daemon.SocketPath("gateway");
  launch.events_socket = absl::StrCat(daemon.run_directory(), "/task-events.sock");
  launch.socket_directory = absl::StrCat(daemon.runtime_directory(), "/.s");
  launch.work_directory = daemon.state_directory();
  RETURN_IF_ERROR(sys::MakeDirectories(launch.socket_directory, 0700));

  MetadataClient metadata(daemon.Dial("metadata"));
  ASSIGN_OR_RETURN(std::unique_ptr<LoopThread> loop, LoopThread::Start());
  EventForwarder forwarder(*loop, metadata.Forwarding(), {.metrics = &daemon.metrics()});
  ShimLogs logs(*loop);
  ChildReaper reaper(*loop);
  ShimLauncher launcher(launch);
  Workers workers(kWorkerThreads);
  TaskSupervisor supervisor(options, metadata, launcher, forwarder, logs, reaper, workers,
                            daemon.metrics());
  // Shims of the last run have events for us; nothing is answered before their tasks are known.
  supervisor.Adopt();
  ASSIGN_OR_RETURN(std::unique_ptr<EventServer> events,
                   EventServer::Listen(*loop, launch.events_socket, forwarder,
                                       [&supervisor](const containerd::types::Envelope& envelope) {
                                         supervisor.Observe(envelope);
                                       }));
  TaskService service(supervisor, daemon.metrics());
  RunsService runs(supervisor);
  daemon.AddService(&service);
  daemon.AddService(&runs);
  daemon.AddAuditor([&](rpc::AuditReport& report) {
    return AuditTasks(supervisor,
                      {.bundle_root = options.bundle_root,
                       .socket_directory = launch.socket_directory,
                       .gateway_socket = launch.gateway_socket},
                      report);
  });
  daemon.OnStop([&supervisor] { supervisor.PrepareToStop(); });
  const absl::Status served = daemon.Serve();
  events.reset();
  (void)forwarder.Drain(
      kDrainTimeout);  // What stays is sent again: shims keep it, and so do bundles.
  return served;
}

}  // namespace

int Main(int argc, char** argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (IsPublish(words)) return PublishMain(words);
  return rpc::RunDaemon(argc, argv, "task", Run);
}

}  // namespace gantry::task
