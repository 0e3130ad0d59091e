// A seccomp profile as the BPF program the kernel takes: compiled by libseccomp once, kept on disk.
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

struct SeccompFilter {
  std::vector<sock_filter> program;
  unsigned flags = 0;  // SECCOMP_FILTER_FLAG_*
  bool notifies = false;
};

// From `cache_directory` when this very profile was compiled before by this libseccomp, else
// compiled and stored there (failing to store is no error). System calls that libseccomp does not
// know are left to the default action; those newer than all that the profile names answer ENOSYS,
// so that programs fall back instead of failing on EPERM. Errors: InvalidArgument.
absl::StatusOr<SeccompFilter> CompileSeccomp(const oci::Seccomp& profile,
                                             const std::string& cache_directory);

// Puts the calling process under the filter. With `notifies` the listener is returned.
absl::StatusOr<sys::UniqueFd> LoadSeccomp(const SeccompFilter& filter);

// What `features` reports of this kernel.
std::vector<std::string> SupportedSeccompFlags();
std::string LibseccompVersion();

// Every system call of the profile must be one that libseccomp knows; otherwise unknown ones are
// skipped. Errors: InvalidArgument with the key.
absl::Status CheckSyscallNames(const oci::Seccomp& profile);

}  // namespace gantry::runtime
