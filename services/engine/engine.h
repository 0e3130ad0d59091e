// What happens to containers: made, started, ended, started again, removed. The engine asks the
// other processes to do things, in an order that a crash at any point can be recovered from
// (docs/lifecycle.md), and keeps nothing that only it knows.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/metrics/registry.h"
#include "lib/rpc/audit.h"
#include "services/engine/container.h"
#include "services/engine/container_index.h"
#include "services/engine/event_journal.h"
#include "services/engine/executor.h"
#include "services/engine/image_client.h"
#include "services/engine/metadata_client.h"
#include "services/engine/network/network.h"
#include "services/engine/pending_endpoint.h"
#include "services/engine/spec_builder.h"
#include "services/engine/step_timer.h"
#include "services/engine/task_client.h"
#include "services/engine/user_database.h"
#include "services/engine/volume_store.h"

namespace gantry::engine {

struct EngineOptions {
  std::string state_directory;
  std::string runtime_directory;
  std::string namespace_name = "gantry";
  std::string snapshotter = "overlayfs";
  std::string runtime = "io.containerd.gantry.v2";
  std::string cgroup_parent = "/gantry";
  std::string init_path;
  uint64_t log_max_size_bytes = 10 << 20;
  uint64_t log_max_files = 3;
  absl::Duration stop_timeout = absl::Seconds(10);
  std::string boot_id;
  std::string engine_id;       // Stable over restarts; shown by Info.
  std::string root_directory;  // Where the suite keeps its state; shown by Info.
};

// Thread-safe. Borrowed parts outlive it.
//
// Lock order: none of the engine's own mutex and a container's is held while another is taken.
class Engine {
 public:
  using StatusCallback = std::function<void(const absl::Status&)>;

  Engine(EngineOptions options, MetadataClient& metadata, ImageClient& images, TaskClient& tasks,
         network::Network& network, metrics::Registry& metrics);
  ~Engine();

  // Loads what is recorded, finds out what became of it, and goes on from there: running tasks are
  // adopted, those that ended are handled as if their end came now, half-done work is finished or
  // undone. Called once, before anything else.
  absl::Status Recover();

  // A stop was asked for: ends parked waits; restart policies rest from now on.
  void BeginStop();

  // As BeginStop, and ends background work. Called when no call is under way any more.
  void Stop();

  // --- Life cycle. Errors as gantry/engine/v1/engine.proto says ---

  absl::StatusOr<v1::CreateContainerResponse> Create(const v1::CreateContainerRequest& request);
  absl::StatusOr<v1::StartContainerResponse> Start(const v1::StartContainerRequest& request);

  // Call back when it is done, on any thread: they may take as long as the program does.
  void StopContainer(const v1::StopContainerRequest& request, StatusCallback done);
  void Restart(const v1::RestartContainerRequest& request, StatusCallback done);

  absl::Status Kill(const v1::KillContainerRequest& request);
  absl::Status Remove(const v1::RemoveContainerRequest& request);
  absl::Status Pause(absl::string_view container);
  absl::Status Unpause(absl::string_view container);
  absl::Status Rename(absl::string_view container, const std::string& new_name);

  // --- Running containers ---

  absl::StatusOr<v1::AttachAddress> Attach(absl::string_view container);
  absl::StatusOr<v1::ExecResponse> Exec(const v1::ExecRequest& request);
  absl::Status Resize(const v1::ResizeRequest& request);
  absl::StatusOr<v1::TopResponse> Top(const v1::TopRequest& request);

  // --- Looking ---

  absl::StatusOr<ContainerPtr> Find(absl::string_view reference) const {
    return index_.Find(reference);
  }
  absl::StatusOr<v1::ListContainersResponse> List(const v1::ListContainersRequest& request);
  absl::StatusOr<v1::ContainerDetails> Inspect(const v1::InspectContainerRequest& request);
  std::string LogPath(const Container& container) const;
  absl::StatusOr<v1::SystemInfoResponse> Info();

  // --- Files of a container ---

  // A directory to resolve the paths of a container from, and what keeps it valid. Paths are
  // resolved in it with openat2 only.
  struct FileRoot {
    sys::UniqueFd root;
    std::string path;  // What the caller's path is below `root`.
    bool read_only = false;
    // Of a stopped container: it cannot be started while its files are open.
    std::optional<Container::Operation> operation;
  };
  absl::StatusOr<FileRoot> OpenFiles(absl::string_view container, absl::string_view path,
                                     bool for_writing);

  // --- Volumes ---

  VolumeStore& volumes() { return volumes_; }
  // Names of the containers that use a volume.
  std::vector<std::string> VolumeUsers(absl::string_view name) const;
  absl::Status RemoveVolume(const std::string& name);

  absl::StatusOr<v1::Volume> CreateVolume(const v1::CreateVolumeRequest& request);

  // --- Images ---

  absl::StatusOr<v1::RemoveImageResponse> RemoveImage(const v1::RemoveImageRequest& request);

  // --- Events ---

  // Files of a container were copied in or out.
  void TellCopy(absl::string_view reference, absl::string_view path, bool into);

  // Compares records, tasks, directories, mounts and endpoints.
  absl::Status Audit(rpc::AuditReport& report);

 private:
  struct StartOptions {
    bool attach = false;
    uint32_t rows = 0, columns = 0;
    // The endpoint being made while the container is; joined by the start.
    std::shared_ptr<PendingEndpoint> endpoint;
    std::string spec;  // config.json as recorded; empty: nobody has it at hand.
  };
  struct MountPlan {
    std::vector<v1::MountPoint> points;
    std::vector<std::string> copy_up;
    std::vector<std::string> anonymous;
    std::vector<VolumeStore::Hold> holds;  // Until the container is in the index.
  };
  struct ImageUsers {
    ContainerPtr running, stopped;  // One of each, if there is one.
  };
  class StopOperation;

  // engine_events.cc. `details` go beside name, image and labels.
  void Tell(const Container& container, absl::string_view action,
            std::vector<std::pair<std::string, std::string>> details = {});
  void TellAt(const Container& container, absl::string_view action,
              std::vector<std::pair<std::string, std::string>> details, absl::Time at);
  void TellKill(const Container& container, int signal);
  // Volumes and network of a container that starts, or has ended.
  void TellResources(const Container& container, bool joined);
  void TellVolume(const std::string& name, absl::string_view action);

  // engine_images.cc
  ImageUsers UsersOfImage(const std::string& image_id) const;

  // engine_create.cc
  absl::StatusOr<MountPlan> PlanMounts(const v1::ContainerConfig& config);
  absl::StatusOr<v1::ContainerDefinition> Define(const std::string& id,
                                                 const v1::ContainerConfig& config,
                                                 const image::v1::ImageDetails& image,
                                                 bool single_run,
                                                 std::vector<VolumeStore::Hold>& holds);
  absl::Status ResolveReferences(v1::ContainerConfig& config);
  // One attempt at Create. Sets `*stale` when what `image` remembers is not so any more: then
  // nothing was made.
  absl::StatusOr<v1::CreateContainerResponse> CreateFrom(const v1::CreateContainerRequest& request,
                                                         const ImageClient::Resolved& image,
                                                         StepTimer& timer, bool* stale);
  absl::Status Record(const v1::ContainerRecord& record, const ImageClient::Resolved& image,
                      const std::string& spec_json, std::vector<containerd::types::Mount>* rootfs);
  std::optional<ResolvedUser> CachedUser(const v1::ContainerDefinition& definition) const;

  // engine_start.cc: all with the container's operation held.
  absl::Status StartRun(const ContainerPtr& container, StartOptions options, StepTimer& timer);
  absl::Status TryStart(const ContainerPtr& container, StartOptions& options, StepTimer& timer);
  absl::StatusOr<Run> JoinNetwork(const ContainerPtr& container, StartOptions& options);
  absl::Status LinkNamespaces(const Container& container, const Run& run);
  absl::Status WriteHostFiles(const Container& container, const Run& run);
  absl::Status PrepareMounts(const Container& container,
                             const std::vector<containerd::types::Mount>& rootfs);
  // Sets `spec_json` when the recorded one had to be changed.
  absl::Status RefreshUser(Container& container,
                           const std::vector<containerd::types::Mount>& rootfs,
                           std::string& spec_json);
  absl::StatusOr<ResolvedUser> UserOf(const v1::ContainerDefinition& definition,
                                      const std::vector<containerd::types::Mount>& rootfs);
  absl::StatusOr<std::vector<containerd::types::Mount>> RootfsOf(Container& container);
  TaskStdio StdioOf(const Container& container, bool attach) const;
  network::EndpointRequest EndpointRequestOf(const v1::ContainerDefinition& definition) const;
  void WatchRun(const ContainerPtr& container, uint64_t number, int attempt = 0);
  void UndoStart(Container& container, bool task_made);
  v1::AttachAddress AddressOf(const Container& container) const;

  // engine_exit.cc
  void OnTaskEnded(const ContainerPtr& container, uint64_t number, int attempt,
                   absl::StatusOr<TaskExit> exit);
  void HandleExit(const ContainerPtr& container, uint64_t number, const TaskExit& exit,
                  const std::string& trouble);
  // With the operation held: does what the state asks for; comes back by itself if it cannot.
  void Settle(const ContainerPtr& container, Container::Operation& operation, int attempt,
              StepTimer& timer);
  void SettleLater(const ContainerPtr& container, absl::Duration delay, int attempt);
  absl::Status FinishRun(const ContainerPtr& container, StepTimer& timer);
  bool ShouldRestart(const Container& container, int32_t exit_code) const;
  void ScheduleRestart(const ContainerPtr& container, absl::Duration delay);
  void RestartByPolicy(const ContainerPtr& container, uint64_t number);
  absl::Status RecordNow(Container& container);
  void RecordSoon(const ContainerPtr& container);
  // Does `work`. While that fails: says so once, and tries again with growing pauses.
  void Persist(const std::string& what, const std::string& object,
               std::function<absl::Status()> work, int attempt = 0);

  // engine_remove.cc
  absl::Status RemoveHeld(const ContainerPtr& container, bool volumes, StepTimer& timer);
  absl::Status SweepFiles(const std::string& id);
  void DeleteVolumeFiles(const std::string& name);

  // engine_recover.cc
  void Adopt(const ContainerPtr& container, const std::optional<TaskStatus>& task);
  absl::StatusOr<std::vector<network::Endpoint>> LiveEndpoints(
      const std::vector<TaskStatus>& tasks);
  absl::Status SweepDirectories();

  // engine_look.cc
  v1::ContainerSummary Summarize(const Container& container) const;
  absl::StatusOr<ContainerPtr> FindRunning(absl::string_view reference, absl::string_view verb);
  absl::StatusOr<v1::AttachAddress> StreamsOf(const ContainerPtr& container);

  std::string StateDirectory(const std::string& id) const;
  std::string RuntimeDirectory(const std::string& id) const;
  // With what is mounted there.
  absl::Status RemoveRuntimeDirectory(const std::string& id);
  std::string RunFilePath(const std::string& id) const;
  void CountAction(absl::string_view action, absl::Time began);
  void UpdateGauges();

  const EngineOptions options_;
  const HostPlaces places_;
  MetadataClient& metadata_;
  ImageClient& images_;
  TaskClient& tasks_;
  network::Network& network_;
  metrics::Registry& metrics_;
  ContainerIndex index_;
  VolumeStore volumes_;
  Executor executor_;
  EventJournal events_;
  std::atomic<bool> stopping_{false};

  mutable absl::Mutex mutex_;
  // What a user text means in an image's files, by chain id, user and groups: chains never change.
  std::map<std::string, ResolvedUser> users_ ABSL_GUARDED_BY(mutex_);
  // The user in the recorded configuration of a container; missing: not known since the restart.
  std::map<std::string, ResolvedUser> spec_users_ ABSL_GUARDED_BY(mutex_);
  // Containers that are removed and have files left, which go behind everybody's back.
  std::set<std::string> sweeping_ ABSL_GUARDED_BY(mutex_);
};

// Wire form of an endpoint, and back.
v1::NetworkSettings ToProto(const network::Endpoint& endpoint);
network::Endpoint FromProto(const std::string& container_id, const v1::NetworkSettings& settings,
                            const std::string& mode);

}  // namespace gantry::engine
