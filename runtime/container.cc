#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"
#include "runtime/container_impl.h"
#include "runtime/create/creation.h"
#include "runtime/new_process.h"
#include "runtime/unit.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

absl::Status DoesNotExist(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("container ", Quote(id), " does not exist"));
}

}  // namespace

absl::Status Container::Impl::LoadSpec() const {
  if (spec) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(absl::StrCat(directory, "/", kConfigName)));
  ASSIGN_OR_RETURN(spec, oci::ParseSpec(bytes));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Container::Impl::ReachInit() const {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.ok()) return ErrnoError(errno, "make a socket");
  ASSIGN_OR_RETURN(UniqueFd place, sys::OpenPath(directory));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("/proc/self/fd/", place.get(), "/", kStartSocketName);
  memcpy(address.sun_path, path.data(), path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError(errno, "reach the waiting init");
  }
  return socket;
}

bool Container::Impl::InitListens() const {
  if (start_end.ok()) return true;
  if (!record.start_by_others || !sys::Exists(absl::StrCat(directory, "/", kStartSocketName)))
    return false;
  // Connecting a datagram socket has no effect on the other side; it fails once init has executed.
  return ReachInit().ok();
}

absl::StatusOr<Status> Container::Impl::GetStatus() const {
  if (!pidfd.ok() || HasEnded(pidfd)) return Status::kStopped;
  if (InitListens()) return Status::kCreated;
  if (!cgroup.empty() && cgroup.IsFrozen().value_or(false)) return Status::kPaused;
  return Status::kRunning;
}

State MakeState(const Record& record, Status status, pid_t pid) {
  State state;
  state.oci_version = record.oci_version;
  state.id = record.id;
  state.bundle = record.bundle;
  state.rootfs = record.rootfs;
  state.owner = record.owner;
  state.created = record.created;
  state.annotations = record.annotations;
  state.status = status;
  state.pid = pid;
  return state;
}

State Container::Impl::MakeState(Status status) const {
  return runtime::MakeState(record, status, status == Status::kStopped ? 0 : record.pid);
}

Container::Container(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Container::Container(Container&&) noexcept = default;
Container& Container::operator=(Container&&) noexcept = default;
Container::~Container() = default;

absl::StatusOr<Container> Container::Create(const CreateOptions& options) {
  Creation creation(options);
  ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, creation.Run());
  return Container(std::move(impl));
}

absl::StatusOr<Container> Container::Load(const std::string& state_root, const std::string& id) {
  RETURN_IF_ERROR(CheckContainerId(id));
  auto impl = std::make_unique<Impl>();
  impl->directory = ContainerDirectory(state_root, id);
  absl::StatusOr<Record> record = LoadRecord(impl->directory);
  if (absl::IsNotFound(record.status())) {
    if (!sys::Exists(impl->directory)) return DoesNotExist(id);
    // Died between the directory and its record: nothing else was made yet.
    impl->record.id = id;
    impl->never_ran = true;
    return Container(std::move(impl));
  }
  RETURN_IF_ERROR(record.status());
  impl->record = *std::move(record);
  impl->cgroup = cgroup::Cgroup(impl->record.cgroup_mode, impl->record.cgroups);
  impl->never_ran = impl->record.pid == 0;
  if (impl->record.pid > 0 && impl->record.boot_id == BootId()) {
    absl::StatusOr<UniqueFd> pidfd = sys::OpenPidfd(impl->record.pid);
    // Looked at after it was opened: from then on the number cannot be somebody else's.
    if (pidfd.ok() &&
        sys::ProcessStartTime(impl->record.pid).value_or(0) == impl->record.start_time) {
      impl->pidfd = *std::move(pidfd);
    }
  }
  return Container(std::move(impl));
}

const std::string& Container::id() const { return impl_->record.id; }
pid_t Container::pid() const { return impl_->record.pid; }
const UniqueFd& Container::pidfd() const { return impl_->pidfd; }
const cgroup::Cgroup& Container::cgroup() const { return impl_->cgroup; }
bool Container::has_own_pid_namespace() const { return impl_->record.own_pid_namespace; }
UniqueFd Container::TakeConsole() { return std::move(impl_->console); }
const std::vector<Timing>& Container::timings() const { return impl_->timings; }

absl::StatusOr<const oci::Spec*> Container::GetSpec() const {
  if (impl_->slim) impl_->spec.reset();
  impl_->slim = false;
  RETURN_IF_ERROR(impl_->LoadSpec());
  return &*impl_->spec;
}

absl::StatusOr<Status> Container::GetStatus() const { return impl_->GetStatus(); }

absl::StatusOr<State> Container::GetState() const {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  return impl_->MakeState(status);
}

absl::Status Container::Pause() {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status != Status::kRunning && status != Status::kCreated) {
    return absl::FailedPreconditionError(
        absl::StrCat("container not running or created: ", StatusName(status)));
  }
  if (impl_->cgroup.empty()) {
    return absl::FailedPreconditionError("cannot pause a container that has no cgroup");
  }
  return impl_->cgroup.Freeze();
}

absl::Status Container::Resume() {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status != Status::kPaused &&
      !(status == Status::kCreated && impl_->cgroup.IsFrozen().value_or(false))) {
    return absl::FailedPreconditionError(
        absl::StrCat("container not paused: ", StatusName(status)));
  }
  return impl_->cgroup.Thaw();
}

absl::Status Container::Update(const oci::Resources& resources) {
  RETURN_IF_ERROR(FAILPOINT("runtime.update.before_limits"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kStopped) return absl::FailedPreconditionError("container not running");
  RETURN_IF_ERROR(oci::CheckResources(resources, "resources"));
  RETURN_IF_ERROR(impl_->cgroup.CheckUpdate(resources));
  RETURN_IF_ERROR(UpdateUnit(impl_->record, resources));
  return impl_->cgroup.Update(resources);
}

absl::Status Container::UpdateCacheAndBandwidth(const std::string& l3_cache_schema,
                                                const std::string& mem_bw_schema) {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kStopped) return absl::FailedPreconditionError("container not running");
  return UpdateResctrl(impl_->record.resctrl, l3_cache_schema, mem_bw_schema);
}

absl::StatusOr<std::vector<pid_t>> Container::Pids() const {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (!impl_->cgroup.empty()) {
    absl::StatusOr<std::vector<pid_t>> pids = impl_->cgroup.Pids();
    if (absl::IsNotFound(pids.status()) && status == Status::kStopped) return std::vector<pid_t>();
    return pids;
  }
  return status == Status::kStopped ? std::vector<pid_t>() : std::vector<pid_t>{impl_->record.pid};
}

}  // namespace gantry::runtime
