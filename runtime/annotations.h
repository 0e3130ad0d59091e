// crun's annotations of config.json ("run.oci.…") that have an effect here. A container's owner may
// have written them: whoever passes annotations of strangers on must filter these (features says
// so).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "runtime/hooks.h"

namespace gantry::runtime {

struct Annotations {
  // run.oci.hooks.stdout, run.oci.hooks.stderr: files that hooks' output is appended to.
  std::string hooks_stdout, hooks_stderr;
  // run.oci.keep_original_groups=1: the program keeps the caller's supplementary groups.
  bool keep_original_groups = false;
  // run.oci.seccomp_fail_unknown_syscall=1: a profile may not name system calls that libseccomp
  // does not know.
  bool fail_unknown_syscall = false;
  // run.oci.pidfd_receiver: a socket that gets init's pidfd, as --pidfd-socket does.
  std::string pidfd_receiver;
};

// Others are left alone, apart from those that would run something else, or confine it otherwise,
// than the document says: ignoring them would be a surprise. Errors: InvalidArgument with the key.
absl::StatusOr<Annotations> ParseAnnotations(const oci::StringMap& annotations);

// Opens the files of hooks_stdout and hooks_stderr. Errors: as open(2), with the key.
absl::StatusOr<HookOutput> OpenHookOutput(const Annotations& annotations);

}  // namespace gantry::runtime
