// Engine: removing, renaming, pausing.
#include <signal.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"
#include "services/engine/engine.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kKillPatience = absl::Seconds(30);

}  // namespace

absl::Status Engine::Remove(const v1::RemoveContainerRequest& request) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(request.container()));
  for (int attempt = 0;; ++attempt) {
    if (container->state() == State::kRemoving) {
      return WrongState("remove", container->name(), State::kRemoving);
    }
    absl::StatusOr<Container::Operation> operation = container->Begin("remove", kPatience);
    // Killed by the round before, and gone with its end.
    if (absl::IsNotFound(operation.status()) && attempt > 0) return absl::OkStatus();
    RETURN_IF_ERROR(operation.status());
    const State state = container->state();
    if (!IsLive(state)) {
      StepTimer timer;
      const absl::Status removed = RemoveHeld(container, request.volumes(), timer);
      CountAction("remove", began);
      UpdateGauges();
      return removed;
    }
    if (!request.force()) {
      return absl::FailedPreconditionError(
          absl::StrCat("You cannot remove a ", StateName(state), " container ", container->id(),
                       ". Stop the container before attempting removal or force remove"));
    }
    if (attempt > 2) {
      return absl::UnavailableError(absl::StrCat("container '", container->name(),
                                                 "' is started again and again; try later"));
    }
    // Its end is handled under the operation, so that has to be given back meanwhile.
    operation->End();
    container->SetStoppedByUser();
    const absl::Status killed = tasks_.Kill(container->id(), "", SIGKILL, true);
    if (killed.ok()) TellKill(*container, SIGKILL);
    if (!killed.ok() && !absl::IsNotFound(killed)) return killed;
    if (container->state() == State::kPaused) (void)Unpause(container->id());
    auto ended = std::make_shared<absl::Notification>();
    const uint64_t ticket =
        container->Wait(container->config().auto_remove() ? v1::WaitContainerRequest::REMOVED
                                                          : v1::WaitContainerRequest::NOT_RUNNING,
                        [ended](const WaitResult&) { ended->Notify(); });
    if (!ended->WaitForNotificationWithTimeout(kKillPatience)) {
      container->CancelWait(ticket);
      return absl::DeadlineExceededError(
          absl::StrCat("container '", container->name(),
                       "' did not end after SIGKILL; see what its processes wait for"));
    }
    // With --rm it is gone by now, which is what was asked for.
    if (index_.FindById(container->id()) == nullptr) return absl::OkStatus();
  }
}

absl::Status Engine::RemoveHeld(const ContainerPtr& container, bool with_volumes,
                                StepTimer& timer) {
  const std::string& id = container->id();
  RETURN_IF_ERROR(container->MarkRemoving());
  metadata::v1::DeleteContainerRequest request;
  request.set_id(id);
  request.set_remove_snapshot(true);
  for (const auto& [bucket, key] :
       {std::pair<const char*, std::string>(kContainerBucket, id),
        std::pair<const char*, std::string>(kNameBucket, container->name())}) {
    metadata::v1::RecordWrite* write = request.add_records();
    write->set_bucket(bucket);
    write->set_key(key);
    write->set_remove(true);
  }
  std::vector<std::string> volumes;
  if (with_volumes) {
    for (const std::string& name : container->definition().anonymous_volumes()) {
      // Another container may have it by --volumes-from.
      if (VolumeUsers(name).size() > 1) continue;
      volumes.push_back(name);
      *request.add_records() = volumes_.RemovalWrite(name);
    }
  }

  absl::Status removed = FAILPOINT("engine.remove.before_task_delete");
  if (removed.ok() && container->needs_cleanup()) {
    removed = tasks_.Delete(id);
    removed = FirstError(removed, network_.Release(id));
  }
  if (removed.ok()) removed = FAILPOINT("engine.remove.before_record");
  // A record written late would bring the container back.
  container->HoldRecording();
  auto record_again = absl::MakeCleanup([&] { container->EndRecording(false); });
  if (removed.ok()) removed = metadata_.DeleteContainer(request);
  if (!removed.ok()) {
    (void)container->MarkDead(absl::StrCat("removal failed: ", removed.message()));
    RecordSoon(container);
    return Annotate(removed, absl::StrCat("remove container '", container->name(), "'"));
  }
  timer.Step("record_delete");
  // Removed as of here, whatever comes; what is left on disk is swept after a crash.
  container->SetNeedsCleanup(false);
  {
    absl::MutexLock lock(&mutex_);
    sweeping_.insert(id);  // Before the index forgets it: an audit finds it in one of the two.
    spec_users_.erase(id);
  }
  index_.Remove(*container);
  // To be killed at; an error changes nothing here.
  FAILPOINT("engine.remove.after_record").IgnoreError();
  for (const std::string& name : volumes) DeleteVolumeFiles(name);
  Tell(*container, "destroy");
  for (const std::string& name : volumes) TellVolume(name, "destroy");
  container->MarkRemoved(timer.steps());
  // Nobody has to wait for these: ids do not come again.
  executor_.Run([this, id] {
    Persist("delete the files of a removed container", id, [this, id] { return SweepFiles(id); });
  });
  return absl::OkStatus();
}

absl::Status Engine::SweepFiles(const std::string& id) {
  RETURN_IF_ERROR(FAILPOINT("engine.remove.before_sweep"));
  RETURN_IF_ERROR(FirstError(sys::RemoveTree(StateDirectory(id)), RemoveRuntimeDirectory(id)));
  absl::MutexLock lock(&mutex_);
  sweeping_.erase(id);
  return absl::OkStatus();
}

absl::Status Engine::Pause(absl::string_view reference) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(reference));
  ASSIGN_OR_RETURN(Container::Operation operation, container->Begin("pause", kPatience));
  if (container->state() != State::kRunning) {
    return WrongState("pause", container->name(), container->state());
  }
  RETURN_IF_ERROR(tasks_.Pause(container->id()));
  RETURN_IF_ERROR(container->MarkPaused());
  CountAction("pause", began);
  Tell(*container, "pause");
  UpdateGauges();
  return absl::OkStatus();
}

absl::Status Engine::Unpause(absl::string_view reference) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(reference));
  ASSIGN_OR_RETURN(Container::Operation operation, container->Begin("unpause", kPatience));
  if (container->state() != State::kPaused) {
    return WrongState("unpause", container->name(), container->state());
  }
  RETURN_IF_ERROR(tasks_.Resume(container->id()));
  RETURN_IF_ERROR(container->MarkUnpaused());
  CountAction("unpause", began);
  Tell(*container, "unpause");
  UpdateGauges();
  return absl::OkStatus();
}

absl::Status Engine::Rename(absl::string_view reference, const std::string& new_name) {
  RETURN_IF_ERROR(CheckName("container name", new_name));
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(reference));
  ASSIGN_OR_RETURN(Container::Operation operation, container->Begin("rename", kPatience));
  const std::string old_name = container->name();
  if (old_name == new_name) {
    return absl::InvalidArgumentError(
        "Renaming a container with the same name as its current name");
  }
  if (container->state() == State::kDead) {
    return WrongState("rename", old_name, State::kDead);
  }
  RETURN_IF_ERROR(index_.ReserveName(new_name, container->id()));
  metadata::v1::CommitRecordsRequest request;
  metadata::v1::RecordWrite* write = request.add_writes();
  write->set_bucket(kNameBucket);
  write->set_key(new_name);
  write->set_value(container->id());
  write->set_must_not_exist(true);
  write = request.add_writes();
  write->set_bucket(kNameBucket);
  write->set_key(old_name);
  write->set_remove(true);
  container->HoldRecording();
  auto record_again = absl::MakeCleanup([&] { container->EndRecording(false); });
  v1::ContainerRecord record = container->ToRecord();
  record.set_name(new_name);
  write = request.add_writes();
  write->set_bucket(kContainerBucket);
  write->set_key(container->id());
  write->set_value(record.SerializeAsString());
  const absl::Status committed = metadata_.Commit(request);
  if (!committed.ok()) {
    index_.ReleaseName(new_name, container->id());
    return committed;
  }
  container->SetName(new_name);
  Tell(*container, "rename", {{"oldName", old_name}});
  index_.ReleaseName(old_name, container->id());
  return absl::OkStatus();
}

std::vector<std::string> Engine::VolumeUsers(absl::string_view name) const {
  std::vector<std::string> users;
  for (const ContainerPtr& container : index_.All()) {
    for (const v1::MountPoint& point : container->definition().mounts()) {
      if (point.type() != "volume" || point.name() != name) continue;
      users.push_back(container->name());
      break;
    }
  }
  return users;
}

absl::Status Engine::RemoveVolume(const std::string& name) {
  RETURN_IF_ERROR(volumes_.Remove(name, [&]() -> absl::Status {
    const std::vector<std::string> users = VolumeUsers(name);
    if (users.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("remove ", name, ": volume is in use - [", absl::StrJoin(users, ", "), "]"));
  }));
  DeleteVolumeFiles(name);
  TellVolume(name, "destroy");
  return absl::OkStatus();
}

absl::StatusOr<v1::Volume> Engine::CreateVolume(const v1::CreateVolumeRequest& request) {
  const bool there = !request.name().empty() && volumes_.Inspect(request.name()).ok();
  ASSIGN_OR_RETURN(v1::Volume volume, volumes_.Create(request.name(), {request.labels().begin(),
                                                                       request.labels().end()}));
  if (!there) TellVolume(volume.name(), "create");
  return volume;
}

// Of a volume whose record is gone.
void Engine::DeleteVolumeFiles(const std::string& name) {
  auto aside = std::make_shared<std::string>();  // Shared by the attempts, one after the other.
  Persist("delete the files of a removed volume", name, [this, name, aside]() -> absl::Status {
    if (aside->empty()) {
      ASSIGN_OR_RETURN(*aside, volumes_.MoveAside(name));
    }
    return sys::RemoveTree(*aside);
  });
}

}  // namespace gantry::engine
