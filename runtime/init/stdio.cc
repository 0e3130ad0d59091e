#include "runtime/init/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "runtime/init/rootfs_path.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

// The container's own ptmx. Looked at before it is opened for real, since the container may have
// put anything there, and again afterwards, since it may have changed it.
absl::StatusOr<UniqueFd> OpenPtmx(const UniqueFd& root) {
  UniqueFd master;
  for (const int flags : {O_PATH, O_RDWR | O_NOCTTY}) {
    master.Reset(OpenIn(root, "/dev/pts/ptmx", flags));
    struct stat info = {};
    struct statfs file_system = {};
    if (!master.ok() || ::fstat(master.get(), &info) != 0 ||
        ::fstatfs(master.get(), &file_system) != 0) {
      return ErrnoError(errno, "open '/dev/pts/ptmx' of the container, which a terminal needs");
    }
    if (file_system.f_type != DEVPTS_SUPER_MAGIC || !S_ISCHR(info.st_mode) ||
        info.st_rdev != ::makedev(5, 2)) {
      return absl::PermissionDeniedError("'/dev/pts/ptmx' of the container is not a devpts' ptmx");
    }
  }
  return master;
}

}  // namespace

absl::Status InstallStdio(const Stdio& stdio, uid_t uid) {
  const int wanted[3] = {stdio.in, stdio.out, stdio.err};
  int moved[3] = {-1, -1, -1};
  // Out of the way first: 1 may be asked for as 0.
  for (int i = 0; i < 3; ++i) {
    if (wanted[i] >= 0 && ::fcntl(wanted[i], F_GETFD) >= 0) {
      moved[i] = ::fcntl(wanted[i], F_DUPFD_CLOEXEC, 3);
    } else {
      moved[i] = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    if (moved[i] < 0) return ErrnoError(errno, absl::StrCat("open descriptor ", i));
  }
  for (int i = 0; i < 3; ++i) {
    struct stat info = {};
    const bool pipe =
        ::fstat(moved[i], &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
    if (pipe && info.st_uid != uid) (void)::fchown(moved[i], uid, static_cast<gid_t>(-1));
    if (::dup2(moved[i], i) < 0) return ErrnoError(errno, absl::StrCat("install descriptor ", i));
    ::close(moved[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<Terminal> OpenTerminal(const UniqueFd& root, const TerminalSize& size) {
  Terminal terminal;
  ASSIGN_OR_RETURN(terminal.master, OpenPtmx(root));
  int unlock = 0;
  if (::ioctl(terminal.master.get(), TIOCSPTLCK, &unlock) != 0) {
    return ErrnoError(errno, "unlock the terminal");
  }
  terminal.slave.Reset(::ioctl(terminal.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.slave.ok()) return ErrnoError(errno, "open the terminal's other end");
  if (size.rows != 0 || size.columns != 0) {
    winsize window = {size.rows, size.columns, 0, 0};
    if (::ioctl(terminal.master.get(), TIOCSWINSZ, &window) != 0) {
      return ErrnoError(errno, "set the terminal's size");
    }
  }
  return terminal;
}

absl::Status InstallTerminal(const UniqueFd& slave, const oci::User& user) {
  // Not mapped in a user namespace: then it stays as it is, which the user can still use.
  (void)::fchown(slave.get(), user.uid, static_cast<gid_t>(-1));
  if (::ioctl(slave.get(), TIOCSCTTY, 0) != 0)
    return ErrnoError(errno, "make the terminal the controlling one");
  for (int i = 0; i < 3; ++i) {
    if (::dup2(slave.get(), i) < 0) return ErrnoError(errno, "install the terminal");
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
