// The new process of a container between clone and execve.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/hooks.h"
#include "runtime/init/process_setup.h"
#include "runtime/init/rootfs.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {

// A namespace to join: its descriptor and CLONE_NEW… type.
struct JoinedNamespace {
  sys::UniqueFd fd;
  int type = 0;
};

// Everything the init of a new container needs, prepared before clone: the child has a copy of it.
struct InitPlan {
  const oci::Spec* spec = nullptr;
  std::string id;
  int channel = -1;       // To the creator.
  int start_socket = -1;  // Start sends the other end of a pair here; see runtime-state.md.
  bool start_by_others = false;
  cgroup::Cgroup::JoinDescriptors cgroups;
  bool awaits_attachment = false;  // Others move it into its cgroup before it goes on.
  std::vector<JoinedNamespace> joined;
  bool new_user_namespace = false;
  bool new_cgroup_namespace = false;
  // With a user namespace that is joined, the others must be made inside it: CLONE_NEW… for
  // unshare, then the init is a second child (CLONE_PARENT).
  uint64_t late_namespaces = 0;
  bool no_new_keyring = false;
  Stdio stdio;
  TerminalSize terminal_size;
  RootfsPlan rootfs;
  ProcessPlan process;
  HookOutput hook_output;
  std::string state_template;  // The state for hooks; "@PID@" and "@STATUS@" are filled in.
};

// Never returns; errors go to the creator, or after the start to the starter.
[[noreturn]] void RunInit(InitPlan& plan);

// As RunInit for one more process in a container that runs.
struct ExecPlan {
  int channel = -1;  // Close-on-exec: its end is the success.
  cgroup::Cgroup::JoinDescriptors cgroups;
  bool awaits_attachment = false;  // As in InitPlan.
  sys::UniqueFd init_pidfd;
  int namespaces = 0;  // CLONE_NEW… of the container to join here.
  // With a user namespace the pid namespace can only be joined from inside it, and takes effect for
  // a second child (CLONE_PARENT), whose pid this one reports.
  bool second_child = false;
  std::string keyring;  // The container whose session keyring to join; empty: stay in ours.
  bool terminal = false;
  std::string cpu_affinity_initial, cpu_affinity_final;
  Stdio stdio;
  TerminalSize terminal_size;
  ProcessPlan process;
};
[[noreturn]] void RunExec(ExecPlan& plan);

}  // namespace gantry::runtime
