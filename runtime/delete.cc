#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "runtime/annotations.h"
#include "runtime/container_impl.h"
#include "runtime/hooks.h"
#include "runtime/unit.h"

namespace gantry::runtime {

absl::Status Container::Delete(bool force, std::vector<std::string>* warnings) {
  RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_kill"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kRunning || status == Status::kPaused) {
    if (!force) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot delete container ", impl_->record.id,
                       " that is not stopped: ", StatusName(status)));
    }
  }
  if (status != Status::kStopped) RETURN_IF_ERROR(impl_->KillAndWait());
  if (!impl_->cgroup.empty()) {
    // Processes that outlived an init whose pid namespace was not theirs.
    if (!impl_->record.own_pid_namespace) (void)impl_->cgroup.KillAll();
  }
  RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_cgroup"));
  RETURN_IF_ERROR(StopUnit(impl_->record));
  if (!impl_->cgroup.empty()) RETURN_IF_ERROR(impl_->cgroup.Remove());
  RETURN_IF_ERROR(RemoveResctrl(impl_->record.resctrl));
  // The hooks are read before the record of them goes; a creation that died early has none.
  const bool hooks = impl_->record.has_poststop && !impl_->never_ran && impl_->LoadSpec().ok();
  RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_state"));
  RETURN_IF_ERROR(RemoveContainerDirectory(impl_->directory));
  if (!hooks) return absl::OkStatus();
  absl::StatusOr<Annotations> annotations = ParseAnnotations(impl_->record.annotations);
  absl::StatusOr<HookOutput> output =
      annotations.ok() ? OpenHookOutput(*annotations) : annotations.status();
  const HookOutput none;
  std::vector<std::string> failures =
      RunAllHooks(impl_->spec->hooks.poststop, "poststop",
                  WriteState(impl_->MakeState(Status::kStopped)), output.ok() ? *output : none);
  if (!output.ok()) failures.emplace_back(output.status().message());
  if (warnings != nullptr) *warnings = std::move(failures);
  return absl::OkStatus();
}

absl::Status ForceDelete(const std::string& state_root, const std::string& id) {
  absl::StatusOr<Container> container = Container::Load(state_root, id);
  if (absl::IsNotFound(container.status())) return absl::OkStatus();
  if (absl::IsDataLoss(container.status())) {
    return sys::RemoveTree(ContainerDirectory(state_root, id));
  }
  RETURN_IF_ERROR(container.status());
  return container->Delete(true);
}

}  // namespace gantry::runtime
