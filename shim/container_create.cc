// How a container comes to be: root, streams, the runtime's create.
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"
#include "shim/container.h"

namespace gantry::shim {

absl::Status Container::PrepareRoot() {
  rootfs_ = absl::StrCat(request_.bundle, "/rootfs");
  if (request_.rootfs.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("shim.create.before_mount"));
  RETURN_IF_ERROR(sys::MakeDirectories(rootfs_, 0711));
  RETURN_IF_ERROR(sys::MountAll(request_.rootfs, rootfs_));
  mounted_ = true;
  return FAILPOINT("shim.create.after_mount");
}

absl::Status Container::OpenIo(Process& process) {
  ProcessIoOptions io;
  io.ns = ns_;
  io.container_id = request_.id;
  io.exec_id = process.exec_id;
  io.stdio = process.stdio;
  io.uid = options_.io_uid;
  io.gid = options_.io_gid;
  ASSIGN_OR_RETURN(process.io, ProcessIo::Open(loop_, reaper_, io));
  return absl::OkStatus();
}

void Container::Create(CreateTaskRequest request, DoneWith<Started> done) {
  request_ = std::move(request);
  operations_.Occupy();
  const int64_t began = sys::MonotonicNanos();
  absl::StatusOr<RuncOptions> options = ParseOptions(request_.options);
  absl::Status status = options.status();
  if (options.ok()) options_ = *std::move(options);
  if (status.ok() && !request_.checkpoint.empty()) {
    status = absl::UnimplementedError(
        "restore from a checkpoint is not supported by this shim; create without one");
  }
  if (status.ok()) status = SaveOptions(request_.bundle, request_.options);
  if (status.ok()) status = PrepareRoot();
  const int64_t mounted = sys::MonotonicNanos();
  init_.stdio = request_.stdio;
  if (status.ok()) status = OpenIo(init_);
  if (!status.ok()) {
    UndoCreate();
    done(status);
    return;
  }
  runtime_ =
      MakeRuntime(loop_, reaper_, {ns_, request_.id, request_.bundle, options_, seccomp_cache_});
  const int64_t opened = sys::MonotonicNanos();
  init_.starting = true;
  runtime_->Create(
      {init_.io->program_stdin(), init_.io->program_stdout(), init_.io->program_stderr()},
      init_.stdio.terminal,
      [this, done = std::move(done), began, mounted, opened](absl::StatusOr<Spawned> spawned) {
        if (spawned.ok()) {
          std::vector<StepTiming> timings = {{"shim.mount", (mounted - began) / 1000},
                                             {"shim.stdio", (opened - mounted) / 1000}};
          timings.insert(timings.end(), std::make_move_iterator(spawned->timings.begin()),
                         std::make_move_iterator(spawned->timings.end()));
          timings.push_back({"shim.create", (sys::MonotonicNanos() - began) / 1000});
          spawned->timings = std::move(timings);
        }
        OnCreated(std::move(spawned), done);
      });
}

void Container::UndoCreate() {
  init_.io.reset();
  if (!mounted_) return;
  mounted_ = false;
  if (const absl::Status status = sys::UnmountTree(rootfs_); !status.ok()) {
    log::Warning("could not unmount after a failed create", {{"status", status}});
  }
}

absl::Status Container::AdoptPid(Process& process, Spawned spawned) {
  process.pid = spawned.pid;
  process.pidfd = std::move(spawned.pidfd);
  if (spawned.console.ok()) process.io->SetConsole(std::move(spawned.console));
  reaper_.Watch(process.pid,
                [this, exec_id = process.exec_id, alive = alive_](const ChildExit& exit) {
                  if (*alive) OnChildExit(exec_id, exit);
                });
  return process.io->Begin(process.pid);
}

void Container::OnCreated(absl::StatusOr<Spawned> spawned, const DoneWith<Started>& done) {
  init_.starting = false;
  if (!spawned.ok()) {
    UndoCreate();
    done(spawned.status());
    return;
  }
  Started started;
  started.pid = spawned->pid;
  started.timings = std::move(spawned->timings);
  absl::Status status = AdoptPid(init_, *std::move(spawned));
  if (status.ok()) status = FAILPOINT("shim.create.after_runtime");
  // What `delete` prints when this process is gone.
  if (status.ok()) {
    status = sys::WriteFileAtomically(absl::StrCat(request_.bundle, "/init.pid"),
                                      absl::StrCat(init_.pid), 0644);
  }
  if (!status.ok()) {
    runtime_->Delete(/*force=*/true, [this, status, done](const absl::Status& deleted) {
      if (!deleted.ok()) log::Warning("could not undo a failed create", {{"status", deleted}});
      UndoCreate();
      done(status);
    });
    return;
  }
  init_.status = TaskStatus::kCreated;
  oom_.Begin(runtime_->cgroup());
  publish_(TaskCreate(request_, init_.pid));
  const std::shared_ptr<bool> alive = alive_;
  done(std::move(started));
  if (*alive) operations_.Finish();
}

}  // namespace gantry::shim
