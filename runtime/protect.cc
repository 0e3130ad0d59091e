// CVE-2019-5736: a container whose program is "#!/proc/self/exe", or that opens /proc/PID/exe of a
// process entering it, gets hold of the runtime's own file and can write to it once no process runs
// it. Executing from a read-only clone of the mount closes that: a write fails with EROFS, and the
// clone is in no mount namespace, so nobody can remount it.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/kernel.h"
#include "runtime/runtime.h"

namespace gantry::runtime {
namespace {

constexpr char kSelf[] = "/proc/self/exe";
constexpr int kAllSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

bool IsProtected() {
  struct statfs info = {};
  if (::statfs(kSelf, &info) == 0 && (info.f_flags & ST_RDONLY) != 0) return true;
  sys::UniqueFd self(::open(kSelf, O_RDONLY | O_CLOEXEC));
  const int seals = ::fcntl(self.get(), F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_WRITE) != 0;
}

absl::StatusOr<sys::UniqueFd> CloneReadOnly() {
  sys::UniqueFd tree(kernel::OpenTree(AT_FDCWD, kSelf, OPEN_TREE_CLONE));
  if (!tree.ok()) return sys::ErrnoError(errno, "clone the mount of /proc/self/exe");
  if (kernel::SetMountAttributes(tree.get(), 0, MOUNT_ATTR_RDONLY, 0) != 0) {
    return sys::ErrnoError(errno, "make the clone of /proc/self/exe read-only");
  }
  return tree;
}

// Where cloning a mount is not permitted (rootless): a copy in memory that cannot be changed.
absl::StatusOr<sys::UniqueFd> CopyToMemory() {
  sys::UniqueFd memory(::memfd_create("gantry-runtime", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.ok()) return sys::ErrnoError(errno, "make a file in memory");
  ASSIGN_OR_RETURN(sys::UniqueFd self, sys::Open(kSelf, O_RDONLY));
  struct stat info = {};
  if (::fstat(self.get(), &info) != 0) return sys::ErrnoError(errno, "stat /proc/self/exe");
  off_t offset = 0;
  while (offset < info.st_size) {
    const ssize_t sent =
        ::sendfile(memory.get(), self.get(), &offset, static_cast<size_t>(info.st_size - offset));
    if (sent <= 0 && errno != EINTR) return sys::ErrnoError(errno, "copy /proc/self/exe");
  }
  if (::fchmod(memory.get(), 0555) != 0 || ::fcntl(memory.get(), F_ADD_SEALS, kAllSeals) != 0) {
    return sys::ErrnoError(errno, "seal the copy of /proc/self/exe");
  }
  return memory;
}

}  // namespace

absl::StatusOr<sys::UniqueFd> OpenProtectedExecutable() {
  if (absl::StatusOr<sys::UniqueFd> tree = CloneReadOnly(); tree.ok()) return tree;
  return CopyToMemory();
}

absl::Status ProtectSelf(char** argv) {
  if (::prctl(PR_SET_DUMPABLE, 0) != 0)
    return sys::ErrnoError(errno, "make this process undumpable");
  if (IsProtected()) return absl::OkStatus();
  // Two tries: a file system may ignore "read-only" for statfs, but a sealed copy always shows.
  absl::StatusOr<sys::UniqueFd> executable = CloneReadOnly();
  struct statfs info = {};
  if (!executable.ok() || ::fstatfs(executable->get(), &info) != 0 ||
      (info.f_flags & ST_RDONLY) == 0) {
    executable = CopyToMemory();
  }
  if (!executable.ok()) return executable.status();
  ::syscall(SYS_execveat, executable->get(), "", argv, environ, AT_EMPTY_PATH);
  return sys::ErrnoError(errno, "execute the protected copy of this program");
}

}  // namespace gantry::runtime
