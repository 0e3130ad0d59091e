#include "runtime/annotations.h"

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::runtime {
namespace {

constexpr char kHooksStdout[] = "run.oci.hooks.stdout";
constexpr char kHooksStderr[] = "run.oci.hooks.stderr";

absl::Status Wrong(const std::string& key, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("annotations.", key, ": ", why));
}

absl::Status TakePath(const std::string& key, const std::string& value, std::string* out) {
  if (value.empty() || value[0] != '/') {
    return Wrong(key, absl::StrCat(Quote(value), " is not an absolute path"));
  }
  *out = value;
  return absl::OkStatus();
}

absl::Status TakeOne(const std::string& key, const std::string& value, Annotations* out) {
  if (key == kHooksStdout) return TakePath(key, value, &out->hooks_stdout);
  if (key == kHooksStderr) return TakePath(key, value, &out->hooks_stderr);
  if (key == "run.oci.pidfd_receiver") return TakePath(key, value, &out->pidfd_receiver);
  if (key == "run.oci.keep_original_groups") {
    out->keep_original_groups = value == "1";
  } else if (key == "run.oci.seccomp_fail_unknown_syscall") {
    out->fail_unknown_syscall = value == "1";
  } else if (key == "run.oci.handler" || key == "run.oci.seccomp.plugins" ||
             key == "run.oci.seccomp_bpf_file" || key == "run.oci.delegate-cgroup") {
    return Wrong(key, "crun does this, gantry-runtime does not; remove it, or use crun");
  }
  return absl::OkStatus();
}

absl::StatusOr<sys::UniqueFd> OpenAppending(const char* key, const std::string& path) {
  if (path.empty()) return sys::UniqueFd();
  absl::StatusOr<sys::UniqueFd> file =
      sys::Open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY, 0600);
  if (!file.ok()) return Annotate(file.status(), absl::StrCat("annotations.", key));
  return file;
}

}  // namespace

absl::StatusOr<Annotations> ParseAnnotations(const oci::StringMap& annotations) {
  Annotations result;
  // Sorted, so that what is not ours costs nothing.
  for (auto at = annotations.lower_bound("run.oci.");
       at != annotations.end() && at->first.compare(0, 8, "run.oci.") == 0; ++at) {
    RETURN_IF_ERROR(TakeOne(at->first, at->second, &result));
  }
  return result;
}

absl::StatusOr<HookOutput> OpenHookOutput(const Annotations& annotations) {
  HookOutput output;
  ASSIGN_OR_RETURN(output.out, OpenAppending(kHooksStdout, annotations.hooks_stdout));
  ASSIGN_OR_RETURN(output.err, OpenAppending(kHooksStderr, annotations.hooks_stderr));
  return output;
}

}  // namespace gantry::runtime
