// The kinds of namespaces, and entering those that only children can be born into.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// CLONE_NEWPID for "pid"; 0 for a word that is none.
int NamespaceFlag(absl::string_view name);

// What clone takes from this process's namespaces "for children", put back by the destructor.
class ChildNamespaces {
 public:
  // Children are born into this pid namespace. Errors: as setns(2).
  absl::Status Enter(const sys::UniqueFd& pid_namespace);

  // Children are born into a time namespace of their own, whose clocks run with `offsets`: they can
  // only be set while nobody is in it. Errors: as unshare(2); the kernel's for offsets that make a
  // clock negative.
  absl::Status NewTime(const std::map<std::string, oci::TimeOffset>& offsets);

  ~ChildNamespaces();

 private:
  sys::UniqueFd saved_pid_, saved_time_;
};

}  // namespace gantry::runtime
