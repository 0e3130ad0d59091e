#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "runtime/annotations.h"
#include "runtime/container_impl.h"
#include "runtime/handover.h"
#include "runtime/hooks.h"
#include "runtime/init/channel.h"
#include "runtime/timing.h"

namespace gantry::runtime {

using sys::UniqueFd;

absl::Status Container::Start() {
  const int64_t began = NowMicroseconds();
  RETURN_IF_ERROR(FAILPOINT("runtime.start.before_start"));
  UniqueFd socket;
  if (impl_->start_end.ok()) {
    socket = std::move(impl_->start_end);
  } else {
    absl::StatusOr<UniqueFd> reached =
        impl_->record.start_by_others ? impl_->ReachInit() : absl::UnavailableError("");
    if (!reached.ok()) {
      ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
      return absl::FailedPreconditionError(status == Status::kStopped
                                               ? "cannot start a container that has stopped"
                                               : "cannot start an already running container");
    }
    socket = *std::move(reached);
  }
  ASSIGN_OR_RETURN(auto pair, MakePair());
  RETURN_IF_ERROR(SendMessage(socket.get(), Message::kGo, "", pair.second.get()));
  pair.second.Reset();
  socket.Reset();
  absl::StatusOr<Received> answer = ReceiveMessage(pair.first.get());
  if (answer.ok() && answer->kind == Message::kError) return DecodeStatus(answer->payload);
  impl_->timings.push_back({"exec", NowMicroseconds() - began});
  if (impl_->record.start_by_others) {
    RETURN_IF_ERROR(sys::Unlink(absl::StrCat(impl_->directory, "/", kStartSocketName)));
  }
  if (!impl_->record.has_poststart) return absl::OkStatus();
  RETURN_IF_ERROR(impl_->LoadSpec());
  ASSIGN_OR_RETURN(Annotations annotations, ParseAnnotations(impl_->record.annotations));
  ASSIGN_OR_RETURN(HookOutput output, OpenHookOutput(annotations));
  absl::Status status = RunHooks(impl_->spec->hooks.poststart, "poststart",
                                 WriteState(impl_->MakeState(Status::kRunning)), output);
  if (!status.ok()) (void)impl_->KillAndWait();
  return status;
}

}  // namespace gantry::runtime
