#include "tests/support/isolation.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/unique_fd.h"

namespace gantry::testing {
namespace {

absl::Status BringLoopbackUp() {
  sys::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  ::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
  if (::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0)
    return sys::ErrnoError(errno, "read lo's flags");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return sys::ErrnoError(errno, "bring lo up");
  return absl::OkStatus();
}

}  // namespace

absl::Status EnterPrivateNamespaces() {
  if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) {
    return sys::ErrnoError(errno, "unshare mount and network namespaces");
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return sys::ErrnoError(errno, "make all mounts private");
  }
  return BringLoopbackUp();
}

}  // namespace gantry::testing
