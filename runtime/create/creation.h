// One container's creation, from config.json to an init that waits.
//
//   creation.cc        the order of the steps; configuration, id, record, seccomp, undoing
//   limits.cc          its cgroup: made, limited, owned, undone
//   plan.cc            what the new process is to do: namespaces, mounts, sockets
//   conversation.cc    clone, and the talk with the new process until it waits
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/annotations.h"
#include "runtime/container_impl.h"
#include "runtime/init/channel.h"
#include "runtime/init/init.h"
#include "runtime/init/mount_plan.h"
#include "runtime/new_process.h"
#include "runtime/record.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"
#include "runtime/timing.h"
#include "runtime/unit.h"

namespace gantry::runtime {

// Used once. Each member is made by a step of Run and undone by its owner on failure.
// Single-threaded.
class Creation {
 public:
  // `options` is borrowed.
  explicit Creation(const CreateOptions& options) : options_(options), last_(NowMicroseconds()) {}

  // Errors: as Container::Create. Nothing is left behind on failure.
  absl::StatusOr<std::unique_ptr<Container::Impl>> Run();

 private:
  absl::Status ReadConfiguration();
  absl::Status CheckConfiguration();
  absl::Status FindRoot();
  absl::Status Claim();
  void FillRecord();
  absl::Status PlanCgroup();
  absl::Status PrepareCgroup();
  absl::Status MakeCgroup();
  absl::Status StartUnit();
  absl::Status OwnCgroup();
  void UndoCgroup();
  absl::Status PrepareResctrl();
  absl::Status PrepareSeccomp();
  absl::Status Prepare();
  absl::Status Finish(NewProcess& process);
  std::unique_ptr<Container::Impl> HandOver(NewProcess& process);
  void Undo();

  absl::Status PrepareNamespaces();
  absl::Status JoinNamespace(const oci::Namespace& ns);
  absl::Status PrepareMounts();
  absl::Status MapMount(MountPlan& mount);
  void CloneTrees();
  absl::Status PrepareNotify();
  absl::Status PrepareStart();
  void PrepareProcess();

  absl::StatusOr<NewProcess> Clone();
  absl::Status Converse(NewProcess& process);
  absl::Status Answer(NewProcess& process, Received received);
  absl::Status SetUpFromOutside(const NewProcess& process);
  std::string StateJson(Status status, pid_t pid) const;
  std::string StateTemplate() const;

  void Lap(const char* step) {
    const int64_t now = NowMicroseconds();
    timings_.push_back({step, now - last_});
    last_ = now;
  }

  const oci::Spec& spec() const { return *spec_; }

  const CreateOptions& options_;
  std::string config_bytes_;
  oci::Spec parsed_;
  const oci::Spec* spec_ = nullptr;
  std::string directory_;
  bool claimed_ = false, resctrl_made_ = false, hooks_ran_ = false;
  Annotations annotations_;
  Record record_;
  cgroup::Cgroup cgroup_;
  cgroup::Layout layout_;
  cgroup::UnitName unit_name_;
  std::optional<NewUnit> new_unit_;
  bool unit_started_ = false;
  std::optional<SeccompFilter> filter_;
  InitPlan plan_;
  uint64_t clone_flags_ = 0;
  sys::UniqueFd joined_pid_namespace_;
  sys::UniqueFd channel_, child_channel_, start_end_, child_start_;
  sys::UniqueFd console_;
  std::vector<Timing> timings_;
  int64_t last_;
};

}  // namespace gantry::runtime
