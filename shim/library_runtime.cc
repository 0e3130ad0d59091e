#include "shim/library_runtime.h"

#include <errno.h>
#include <fcntl.h>

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/oci/spec.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/runtime.h"

namespace gantry::shim {
namespace {

std::vector<StepTiming> Copy(const std::vector<runtime::Timing>& timings, size_t from = 0) {
  std::vector<StepTiming> steps;
  for (size_t i = from; i < timings.size(); ++i) {
    steps.push_back({timings[i].step, timings[i].microseconds});
  }
  return steps;
}

absl::StatusOr<sys::UniqueFd> Duplicate(const sys::UniqueFd& fd) {
  sys::UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy.ok()) return sys::ErrnoError(errno, "duplicate a descriptor");
  return copy;
}

class LibraryRuntime : public OciRuntime {
 public:
  explicit LibraryRuntime(RuntimeConfig config) : config_(std::move(config)) {}

  void Create(const ProgramStdio& stdio, bool terminal, Done<Spawned> done) override {
    done(CreateNow(stdio, terminal));
  }

  void Start(Done<std::vector<StepTiming>> done) override {
    const size_t before = container_->timings().size();
    const absl::Status status = container_->Start();
    if (!status.ok()) {
      done(status);
      return;
    }
    done(Copy(container_->timings(), before));
  }

  void Exec(const std::string&, const std::string& process, const ProgramStdio& stdio,
            bool terminal, Done<Spawned> done) override {
    done(ExecNow(process, stdio, terminal));
  }

  void Kill(int signal, bool all, DoneStatus done) override { done(container_->Kill(signal, all)); }
  void Pause(DoneStatus done) override { done(container_->Pause()); }
  void Resume(DoneStatus done) override { done(container_->Resume()); }

  void Update(const std::string& resources, DoneStatus done) override {
    const absl::StatusOr<oci::Resources> parsed = oci::ParseResources(resources);
    done(parsed.ok() ? container_->Update(*parsed) : parsed.status());
  }

  void Delete(bool force, DoneStatus done) override {
    if (!container_.has_value()) {
      done(absl::OkStatus());
      return;
    }
    std::vector<std::string> warnings;
    const absl::Status status = container_->Delete(force, &warnings);
    for (const std::string& warning : warnings) log::Warning("delete", {{"warning", warning}});
    done(status);
  }

  const cgroup::Cgroup& cgroup() const override { return container_->cgroup(); }
  bool has_own_pid_namespace() const override { return container_->has_own_pid_namespace(); }

 private:
  absl::StatusOr<Spawned> CreateNow(const ProgramStdio& stdio, bool terminal) {
    ASSIGN_OR_RETURN(const std::string json,
                     sys::ReadFile(absl::StrCat(config_.bundle, "/config.json")));
    ASSIGN_OR_RETURN(oci::Spec spec, oci::ParseSpec(json));
    // The request decides; containerd's clients write both alike.
    if (spec.process.has_value()) spec.process->terminal = terminal;
    runtime::CreateOptions options;
    options.id = config_.id;
    options.bundle = config_.bundle;
    options.state_root = StateRoot(config_);
    options.spec = &spec;
    options.stdio = {stdio.in, stdio.out, stdio.err};
    options.no_pivot = config_.options.no_pivot_root;
    options.no_new_keyring = config_.options.no_new_keyring;
    if (config_.options.systemd_cgroup) options.cgroup_manager = runtime::CgroupManager::kSystemd;
    options.seccomp_cache = config_.seccomp_cache;
    options.start_by_others = false;
    ASSIGN_OR_RETURN(runtime::Container container, runtime::Container::Create(options));
    container_.emplace(std::move(container));
    Spawned spawned;
    spawned.pid = container_->pid();
    ASSIGN_OR_RETURN(spawned.pidfd, Duplicate(container_->pidfd()));
    if (terminal) spawned.console = container_->TakeConsole();
    spawned.timings = Copy(container_->timings());
    return spawned;
  }

  absl::StatusOr<Spawned> ExecNow(const std::string& process, const ProgramStdio& stdio,
                                  bool terminal) {
    runtime::ExecOptions options;
    ASSIGN_OR_RETURN(options.process, oci::ParseProcess(process));
    options.process.terminal = terminal;
    options.stdio = {stdio.in, stdio.out, stdio.err};
    ASSIGN_OR_RETURN(runtime::ExecedProcess execed, container_->Exec(options));
    Spawned spawned;
    spawned.pid = execed.pid;
    spawned.pidfd = std::move(execed.pidfd);
    spawned.console = std::move(execed.console);
    spawned.timings = Copy(execed.timings);
    return spawned;
  }

  const RuntimeConfig config_;
  std::optional<runtime::Container> container_;
};

}  // namespace

std::unique_ptr<OciRuntime> MakeLibraryRuntime(RuntimeConfig config) {
  return std::make_unique<LibraryRuntime>(std::move(config));
}

}  // namespace gantry::shim
