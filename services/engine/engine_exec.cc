// Engine: programs beside a container's own, and its streams.
#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/oci/spec.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"
#include "services/engine/engine.h"
#include "services/engine/process_root.h"

namespace gantry::engine {

absl::StatusOr<ContainerPtr> Engine::FindRunning(absl::string_view reference,
                                                 absl::string_view verb) {
  ASSIGN_OR_RETURN(ContainerPtr container, index_.Find(reference));
  const State state = container->state();
  if (state == State::kCreated || state == State::kExited) {
    return absl::FailedPreconditionError(absl::StrCat("cannot ", verb, " container '",
                                                      container->name(), "': Container ",
                                                      container->id(), " is not running"));
  }
  if (!IsLive(state)) return WrongState(verb, container->name(), state);
  return container;
}

absl::StatusOr<v1::AttachAddress> Engine::Attach(absl::string_view reference) {
  ASSIGN_OR_RETURN(ContainerPtr container, FindRunning(reference, "attach to"));
  ASSIGN_OR_RETURN(v1::AttachAddress address, StreamsOf(container));
  Tell(*container, "attach");
  return address;
}

absl::StatusOr<v1::AttachAddress> Engine::StreamsOf(const ContainerPtr& container) {
  if (container->run().shim_socket.empty()) {
    ASSIGN_OR_RETURN(TaskStatus status, tasks_.Get(container->id()));
    container->SetShimSocket(status.shim_socket);
  }
  v1::AttachAddress address = AddressOf(*container);
  if (address.socket_path().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot attach to container '", container->name(),
                     "': its runtime does not offer its streams; read its logs instead"));
  }
  return address;
}

absl::StatusOr<v1::ExecResponse> Engine::Exec(const v1::ExecRequest& request) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(ContainerPtr container, FindRunning(request.container(), "exec in"));
  if (container->state() == State::kPaused) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Container ", container->name(), " is paused, unpause the container before exec"));
  }
  const std::string& id = container->id();
  ResolvedUser user;
  if (request.user().empty()) {
    absl::MutexLock lock(&mutex_);
    if (auto known = spec_users_.find(id); known != spec_users_.end()) user = known->second;
  }
  if (!request.user().empty() || user == ResolvedUser()) {
    // The files as they are now, inside the container.
    ASSIGN_OR_RETURN(sys::UniqueFd root, OpenProcessRoot(container->run().pid));
    ASSIGN_OR_RETURN(UserDatabase database, ReadUserDatabase(root));
    const std::string& text = request.user().empty() ? container->config().user() : request.user();
    const std::vector<std::string> groups(container->config().group_add().begin(),
                                          container->config().group_add().end());
    ASSIGN_OR_RETURN(user, ResolveUser(text, groups, database));
  }
  ASSIGN_OR_RETURN(oci::Process process, BuildExecProcess(container->definition(), request, user));
  if (request.tty() && request.tty_rows() != 0 && request.tty_columns() != 0) {
    process.console_size = oci::ConsoleSize{request.tty_rows(), request.tty_columns()};
  }

  const std::string exec_id = RandomHex(32);
  TaskStdio stdio;
  stdio.terminal = request.tty();
  if (!request.detach()) {
    stdio.out =
        absl::StrCat("gantry-log:///?format=none&attach=wait&stdin=", request.open_stdin() ? 1 : 0);
    if (!request.tty()) stdio.err = stdio.out;
  }
  RETURN_IF_ERROR(FAILPOINT("engine.exec.before_add"));
  container->execs().Add(exec_id);
  const std::string command = absl::StrJoin(request.command(), " ");
  Tell(*container, absl::StrCat("exec_create: ", command), {{"execID", exec_id}});
  absl::StatusOr<int64_t> started = tasks_.Exec(id, exec_id, oci::WriteProcess(process), stdio);
  if (started.ok()) {
    if (absl::Status stepped = FAILPOINT("engine.exec.after_start"); !stepped.ok()) {
      (void)tasks_.Kill(id, exec_id, SIGKILL);
      started = stepped;
    }
  }
  if (!started.ok()) {
    container->execs().Forget(exec_id);
    const absl::Status forgotten = tasks_.DeleteProcess(id, exec_id);
    if (!forgotten.ok()) {
      log::Warning("an exec that did not start stays",
                   {{"container", id}, {"exec", exec_id}, {"error", forgotten}});
    }
    const absl::Status& status = started.status();
    if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) return status;
    return absl::FailedPreconditionError(
        absl::StrCat("exec in container '", container->name(), "': ", status.message()));
  }
  Tell(*container, absl::StrCat("exec_start: ", command), {{"execID", exec_id}});
  tasks_.Wait(id, exec_id, [this, container, exec_id](absl::StatusOr<TaskExit> exit) {
    if (absl::IsCancelled(exit.status())) return;
    const int32_t code = exit.ok() ? exit->code : 137;
    Tell(*container, "exec_die", {{"execID", exec_id}, {"exitCode", absl::StrCat(code)}});
    container->execs().End(exec_id, code);
    // Not on this thread, which is gRPC's.
    executor_.Run([this, container, exec_id] {
      const absl::Status forgotten = tasks_.DeleteProcess(container->id(), exec_id);
      if (!forgotten.ok()) {
        log::Debug("an exec that ended stays until its container ends",
                   {{"exec", exec_id}, {"error", forgotten}});
      }
    });
  });

  v1::ExecResponse response;
  response.set_exec_id(exec_id);
  response.set_pid(*started);
  absl::StatusOr<v1::AttachAddress> address = StreamsOf(container);
  if (address.ok()) {
    *response.mutable_attach() = *std::move(address);
    response.mutable_attach()->set_exec_id(exec_id);
  } else if (!request.detach()) {
    log::Warning("the streams of an exec cannot be reached",
                 {{"container", id}, {"error", address.status()}});
  }
  CountAction("exec", began);
  return response;
}

absl::Status Engine::Resize(const v1::ResizeRequest& request) {
  ASSIGN_OR_RETURN(ContainerPtr container, FindRunning(request.container(), "resize"));
  if (request.rows() > 65535 || request.columns() > 65535) {
    return absl::InvalidArgumentError("a terminal has at most 65535 rows and columns");
  }
  if (!request.exec_id().empty()) {
    RETURN_IF_ERROR(container->execs().CheckKnown(request.exec_id()));
  }
  RETURN_IF_ERROR(
      tasks_.Resize(container->id(), request.exec_id(), request.rows(), request.columns()));
  if (request.exec_id().empty()) {
    Tell(*container, "resize",
         {{"height", absl::StrCat(request.rows())}, {"width", absl::StrCat(request.columns())}});
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
