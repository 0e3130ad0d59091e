// Mounts in a container that runs: a child of ours enters its mount namespace, and no other, since
// file systems are the host root's to make. What is bound is cloned before that, on the host.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/container_impl.h"
#include "runtime/handover.h"
#include "runtime/init/channel.h"
#include "runtime/init/mount_plan.h"
#include "runtime/init/rootfs.h"
#include "runtime/init/rootfs_path.h"
#include "runtime/kernel.h"
#include "runtime/new_process.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

absl::StatusOr<std::vector<MountPlan>> PlanMounts(const std::vector<oci::Mount>& mounts) {
  std::vector<MountPlan> plans;
  for (size_t i = 0; i < mounts.size(); ++i) {
    ASSIGN_OR_RETURN(MountPlan plan, PlanMount(mounts[i], i));
    if (plan.type == "cgroup" || plan.type == "cgroup2" || plan.idmap) {
      return absl::InvalidArgumentError(absl::StrCat(
          "mounts[", i, "]: cgroup and id-mapped mounts can only be made with the container"));
    }
    if (plan.bind) {
      plan.tree.Reset(kernel::OpenTree(AT_FDCWD, plan.source.c_str(),
                                       OPEN_TREE_CLONE | (plan.recursive ? AT_RECURSIVE : 0)));
      if (!plan.tree.ok()) {
        return ErrnoError(errno, absl::StrCat("mounts[", i, "].source: bind ", Quote(plan.source)));
      }
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

// Takes away what is mounted on each destination. `self_fd` is our own /proc/self/fd on the host:
// through it umount2 gets the very mount that was looked at, whatever moves meanwhile.
absl::Status UnmountAll(const UniqueFd& root, const std::vector<oci::Mount>& mounts,
                        const UniqueFd& self_fd) {
  for (const oci::Mount& mount : mounts) {
    const std::string path = CleanPath(mount.destination);
    UniqueFd target(OpenIn(root, path, O_PATH));
    if (!target.ok()) return ErrnoError(errno, absl::StrCat("open ", Quote(path)));
    struct statx info = {};
    const bool mounted = ::statx(target.get(), "", AT_EMPTY_PATH, 0, &info) == 0 &&
                         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    if (!mounted || path == "/") {
      return absl::FailedPreconditionError(
          absl::StrCat("nothing that could be removed is mounted on ", Quote(path)));
    }
    if (::fchdir(self_fd.get()) != 0 ||
        ::umount2(absl::StrCat(target.get()).c_str(), MNT_DETACH) != 0) {
      return ErrnoError(errno, absl::StrCat("unmount ", Quote(path)));
    }
  }
  return absl::OkStatus();
}

// Runs `work(root, self_fd)` in a child that is in the mount namespace of the process behind
// `init`.
template <typename Work>
absl::Status RunInMountNamespace(const UniqueFd& init, Work work) {
  ASSIGN_OR_RETURN(auto pair, MakePair());
  int raw_pidfd = -1;
  const pid_t pid = kernel::Clone(0, &raw_pidfd, SIGCHLD);
  if (pid < 0) return ErrnoError(errno, "clone a process that mounts");
  if (pid == 0) {
    pair.first.Reset();
    absl::Status status;
    // Of this child and on the host: the container's /proc may be anything.
    UniqueFd self_fd(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (::setns(init.get(), CLONE_NEWNS) != 0) {
      status = ErrnoError(errno, "enter the mount namespace of the container");
    } else {
      UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
      status = work(std::move(root), self_fd);
    }
    (void)SendMessage(pair.second.get(), status.ok() ? Message::kReady : Message::kError,
                      status.ok() ? "" : EncodeStatus(status));
    ::_exit(0);
  }
  NewProcess process(pid, UniqueFd(raw_pidfd));
  pair.second.Reset();
  absl::StatusOr<Received> answer = ReceiveMessage(pair.first.get());
  if (!answer.ok()) return absl::InternalError("the process that mounts ended early");
  return answer->kind == Message::kReady ? absl::OkStatus() : DecodeStatus(answer->payload);
}

absl::Status CheckAlive(Status status) {
  if (status != Status::kStopped) return absl::OkStatus();
  return absl::FailedPreconditionError("container not running");
}

}  // namespace

absl::Status Container::AddMounts(const std::vector<oci::Mount>& mounts) {
  RETURN_IF_ERROR(FAILPOINT("runtime.mounts.before_add"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  RETURN_IF_ERROR(CheckAlive(status));
  ASSIGN_OR_RETURN(const oci::Spec* spec, GetSpec());
  RootfsPlan plan;
  plan.spec = spec;
  ASSIGN_OR_RETURN(plan.mounts, PlanMounts(mounts));
  return RunInMountNamespace(impl_->pidfd, [&plan](UniqueFd root, const UniqueFd&) {
    return Rootfs(plan).MountAll(std::move(root));
  });
}

absl::Status Container::RemoveMounts(const std::vector<oci::Mount>& mounts) {
  RETURN_IF_ERROR(FAILPOINT("runtime.mounts.before_remove"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  RETURN_IF_ERROR(CheckAlive(status));
  return RunInMountNamespace(impl_->pidfd, [&mounts](UniqueFd root, const UniqueFd& self_fd) {
    return UnmountAll(root, mounts, self_fd);
  });
}

}  // namespace gantry::runtime
