#include "runtime/labels.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::runtime {

absl::Status CheckLabels(const oci::Process& process, const std::string& mount_label,
                         const std::string& sysfs) {
  if (!process.apparmor_profile.empty() && process.apparmor_profile != "unconfined") {
    absl::StatusOr<std::string> enabled =
        sys::ReadFile(absl::StrCat(sysfs, "/module/apparmor/parameters/enabled"), 16);
    if (!enabled.ok() || !absl::StartsWith(*enabled, "Y")) {
      return absl::FailedPreconditionError(
          absl::StrCat("process.apparmorProfile: the profile ", Quote(process.apparmor_profile),
                       " was asked for, but AppArmor is not enabled in this kernel"));
    }
  }
  const bool selinux = sys::Exists(absl::StrCat(sysfs, "/fs/selinux/enforce"));
  if (!process.selinux_label.empty() && !selinux) {
    return absl::FailedPreconditionError(
        "process.selinuxLabel: a label was asked for, but SELinux is not enabled in this kernel");
  }
  if (!mount_label.empty() && !selinux) {
    return absl::FailedPreconditionError(
        "linux.mountLabel: a label was asked for, but SELinux is not enabled in this kernel");
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
