// Engine: after a start of its own, finding out what is true.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"
#include "services/engine/engine.h"
#include "services/engine/snapshot_root.h"

namespace gantry::engine {
namespace {

constexpr uint32_t kFormat = 1;
constexpr int kLostCode = 255;

absl::StatusOr<v1::RunFile> ReadRunFile(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(path, 1 << 20));
  v1::RunFile file;
  if (!file.ParseFromString(bytes) || file.version() > kFormat) {
    return absl::DataLossError(absl::StrCat("'", path, "' cannot be read"));
  }
  return file;
}

bool HasProgram(containerd::v1::types::Status status) {
  return status == containerd::v1::types::RUNNING || status == containerd::v1::types::PAUSED ||
         status == containerd::v1::types::PAUSING;
}

}  // namespace

absl::Status Engine::Recover() {
  RETURN_IF_ERROR(sys::MakeDirectories(absl::StrCat(options_.state_directory, "/containers")));
  RETURN_IF_ERROR(sys::MakeDirectories(absl::StrCat(options_.runtime_directory, "/containers")));
  RETURN_IF_ERROR(SweepSnapshotRoots(absl::StrCat(options_.runtime_directory, "/mounts")));
  RETURN_IF_ERROR(volumes_.Load());
  ASSIGN_OR_RETURN(std::vector<metadata::v1::Record> records,
                   metadata_.ListRecords(kContainerBucket));
  for (const metadata::v1::Record& stored : records) {
    v1::ContainerRecord record;
    if (!record.ParseFromString(stored.value()) || record.version() > kFormat ||
        record.definition().id() != stored.key()) {
      return absl::DataLossError(absl::StrCat("the record of container '", stored.key(),
                                              "' cannot be read; is this engine too old?"));
    }
    index_.Add(std::make_shared<Container>(std::move(record)));
  }
  ASSIGN_OR_RETURN(std::vector<TaskStatus> tasks, tasks_.List());
  ASSIGN_OR_RETURN(std::vector<network::Endpoint> endpoints, LiveEndpoints(tasks));
  ASSIGN_OR_RETURN(network::AdoptReport adopted, network_.Adopt(endpoints));
  for (const network::LostEndpoint& lost : adopted.lost) {
    log::Warning("a running container has lost its network; restart it",
                 {{"container", lost.container_id}, {"reason", lost.reason}});
  }
  for (const std::string& problem : adopted.problems) {
    log::Warning("the network is not as it should be", {{"problem", problem}});
  }
  for (const std::string& removed : adopted.removed) {
    log::Info("removed what an earlier engine left of the network", {{"object", removed}});
  }
  metadata_.WatchOom([this](const std::string& id) {
    ContainerPtr container = index_.FindById(id);
    if (container == nullptr) return;
    container->SetOomKilled();
    Tell(*container, "oom");
    // The end may have been quicker than this message.
    if (!IsLive(container->state())) RecordSoon(container);
  });

  std::map<std::string, TaskStatus> by_id;
  for (TaskStatus& task : tasks) by_id[task.container_id] = std::move(task);
  for (const ContainerPtr& container : index_.All()) {
    auto found = by_id.find(container->id());
    Adopt(container,
          found == by_id.end() ? std::nullopt : std::optional<TaskStatus>(found->second));
  }
  RETURN_IF_ERROR(SweepDirectories());
  UpdateGauges();
  log::Info("containers loaded", {{"containers", records.size()}, {"tasks", by_id.size()}});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<network::Endpoint>> Engine::LiveEndpoints(
    const std::vector<TaskStatus>& tasks) {
  std::vector<network::Endpoint> endpoints;
  for (const TaskStatus& task : tasks) {
    // Those of tasks that ended are kept for a moment too: their end is handled like any other.
    if (index_.FindById(task.container_id) == nullptr) continue;
    absl::StatusOr<v1::RunFile> file = ReadRunFile(RunFilePath(task.container_id));
    if (!file.ok()) {
      log::Warning("what a run had is not known",
                   {{"container", task.container_id}, {"error", file.status()}});
      continue;
    }
    if (file->network_mode().empty()) continue;
    endpoints.push_back(FromProto(task.container_id, file->network(), file->network_mode()));
  }
  return endpoints;
}

void Engine::Adopt(const ContainerPtr& container, const std::optional<TaskStatus>& task) {
  absl::StatusOr<Container::Operation> operation = container->Begin("adopt", absl::ZeroDuration());
  if (!operation.ok()) return;  // Nobody else is there yet.
  const v1::LastRun last = container->last_run();
  const bool rebooted = last.boot_id() != options_.boot_id;

  if (task.has_value() && task->status != containerd::v1::types::CREATED) {
    Run run;
    run.number = container->NextRunNumber();
    run.pid = task->pid;
    run.started_at = FromProto(last.started_at());
    if (absl::StatusOr<v1::RunFile> file = ReadRunFile(RunFilePath(container->id())); file.ok()) {
      run.network = file->network();
      run.network_mode = file->network_mode();
      // The record is written after the start; the file is there before it.
      run.started_at = FromProto(file->started_at());
    }
    const uint64_t number = run.number;
    // The record of a start may be behind, so an end that is recorded may be that of the run
    // before.
    const bool ended_known =
        (last.phase() == v1::LastRun::ENDED || last.phase() == v1::LastRun::RESTARTING) &&
        !HasProgram(task->status) && FromProto(last.finished_at()) == task->exit.exited_at;
    if (!ended_known) {
      container->AdoptRun(std::move(run), task->status == containerd::v1::types::PAUSED);
      container->SetBootId(options_.boot_id);
      log::Info("container adopted", {{"container", container->id()}, {"pid", task->pid}});
      if (HasProgram(task->status)) {
        absl::StatusOr<TaskStatus> details = tasks_.Get(container->id());
        if (details.ok()) container->SetShimSocket(details->shim_socket);
        if (last.phase() != v1::LastRun::STARTED && !container->definition().single_run()) {
          RecordSoon(container);
        }
        WatchRun(container, number);
        return;
      }
      // It ended while nobody looked. The wait answers at once, with more than List knows.
      WatchRun(container, number);
      return;
    }
    // The end is recorded, the cleaning up was cut short.
    container->SetNeedsCleanup(true);
  } else if (task.has_value()) {
    // Created and never started: the start was cut short. Undone, as if it had failed.
    if (last.phase() == v1::LastRun::STARTED) {
      container->MarkLost(kLostCode, "its end was not recorded", State::kExited);
    }
    container->SetNeedsCleanup(true);
  } else if (last.phase() == v1::LastRun::STARTED) {
    // Its end was not seen: it went with the machine, or with its shim.
    const bool again = ShouldRestart(*container, kLostCode);
    container->MarkLost(kLostCode, rebooted ? "the machine was restarted" : "its shim is gone",
                        again ? State::kRestarting : State::kExited);
    log::Warning("container was lost", {{"container", container->id()}, {"rebooted", rebooted}});
  } else if (rebooted && last.phase() == v1::LastRun::ENDED &&
             container->config().restart().name() == "always") {
    // `always` means also after a stop, once the machine has been restarted.
    container->ResetRestarts();
    (void)container->BackToRestarting();
  }

  // A start or an end that was cut short next to its own beginning or end.
  if (sys::Exists(RuntimeDirectory(container->id()))) container->SetNeedsCleanup(true);
  if (container->definition().single_run() && container->state() == State::kCreated) {
    // `run --rm` that was cut short before its start was recorded: nobody will start it again.
    executor_.Run([this, container] {
      absl::StatusOr<Container::Operation> held =
          container->Begin("clean up", absl::InfiniteDuration());
      if (!held.ok() || container->state() != State::kCreated) return;
      StepTimer timer;
      absl::Status removed;
      if (container->needs_cleanup()) removed = FinishRun(container, timer);
      if (removed.ok()) removed = RemoveHeld(container, true, timer);
      if (!removed.ok()) {
        log::Warning("a container cut short stays",
                     {{"container", container->id()}, {"error", removed}});
      }
    });
    return;
  }
  const State state = container->state();
  if (container->needs_cleanup() || state == State::kRestarting ||
      (container->goes_with_its_end() && (state == State::kExited || state == State::kDead))) {
    SettleLater(container, absl::ZeroDuration(), 0);
  }
}

absl::Status Engine::SweepDirectories() {
  for (const std::string& base : {absl::StrCat(options_.state_directory, "/containers"),
                                  absl::StrCat(options_.runtime_directory, "/containers")}) {
    ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(base));
    for (const std::string& name : names) {
      if (index_.FindById(name) != nullptr) continue;
      const std::string directory = absl::StrCat(base, "/", name);
      RETURN_IF_ERROR(sys::UnmountTree(directory));  // Shared memory of a run.
      RETURN_IF_ERROR(sys::RemoveTree(directory));
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
