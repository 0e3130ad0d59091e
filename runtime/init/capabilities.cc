#include "runtime/init/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::runtime {

using sys::ErrnoError;

namespace {

uint64_t CapabilityMask(const std::vector<std::string>& names) {
  uint64_t mask = 0;
  for (const std::string& name : names) {
    absl::StatusOr<int> number = oci::CapabilityNumber(name);
    if (number.ok()) mask |= uint64_t{1} << *number;
  }
  return mask;
}

}  // namespace

absl::StatusOr<CapabilitySets> GetCapabilities() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return ErrnoError(errno, "read the capabilities");
  const auto join = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  return CapabilitySets{join(data[0].effective, data[1].effective),
                        join(data[0].permitted, data[1].permitted),
                        join(data[0].inheritable, data[1].inheritable)};
}

absl::Status PutCapabilities(const CapabilitySets& sets) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    data[half].effective = static_cast<uint32_t>(sets.effective >> (32 * half));
    data[half].permitted = static_cast<uint32_t>(sets.permitted >> (32 * half));
    data[half].inheritable = static_cast<uint32_t>(sets.inheritable >> (32 * half));
  }
  if (::syscall(SYS_capset, &header, data) != 0) return ErrnoError(errno, "set the capabilities");
  return absl::OkStatus();
}

absl::Status LimitBoundingSet(const std::vector<std::string>& kept) {
  const uint64_t bounding = CapabilityMask(kept);
  for (int capability = 0; capability <= 63; ++capability) {
    if ((bounding >> capability & 1) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL) break;  // Beyond the last one of this kernel.
    // Without CAP_SETPCAP nothing can be dropped, and what is not there needs no dropping.
    if (errno == EPERM && ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 0) continue;
    return ErrnoError(errno, absl::StrCat("drop ", oci::CapabilityName(capability)));
  }
  return absl::OkStatus();
}

absl::Status SetCapabilities(const std::optional<oci::Capabilities>& asked) {
  CapabilitySets wanted;
  uint64_t ambient = 0;
  if (asked) {
    wanted = {CapabilityMask(asked->effective), CapabilityMask(asked->permitted),
              CapabilityMask(asked->inheritable)};
    ambient = CapabilityMask(asked->ambient);
  }
  ASSIGN_OR_RETURN(CapabilitySets have, GetCapabilities());
  wanted.permitted &= have.permitted;
  wanted.effective &= wanted.permitted;
  wanted.inheritable &= have.permitted | have.inheritable;
  RETURN_IF_ERROR(PutCapabilities(wanted));
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) {
    return ErrnoError(errno, "clear the ambient capabilities");
  }
  ambient &= wanted.permitted & wanted.inheritable;
  for (int capability = 0; capability <= oci::kLastCapability; ++capability) {
    if ((ambient >> capability & 1) == 0) continue;
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0) {
      return ErrnoError(errno, absl::StrCat("raise ", oci::CapabilityName(capability), " ambient"));
    }
  }
  ASSIGN_OR_RETURN(CapabilitySets now, GetCapabilities());
  if (now.effective != wanted.effective || now.permitted != wanted.permitted ||
      now.inheritable != wanted.inheritable) {
    return absl::InternalError("the kernel did not set the capabilities that were asked for");
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
