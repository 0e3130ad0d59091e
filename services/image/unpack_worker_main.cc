// gantry-unpack: one process per layer, which reads bytes from strangers and owns nothing but the
// directory it fills (SECURITY-RULES 23). Started by gantry-image only:
//
//   0  the layer, compressed or not     3  the directory     4  where the report goes
//
// It is a program of its own, not gantry-image once more: without gRPC and libcurl it starts in a
// millisecond and has less code to attack.
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/unpack.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/image/worker_report.h"

namespace gantry::image {
namespace {

constexpr int kInputFd = 0;
constexpr int kRootFd = 3;
constexpr int kReportFd = 4;
constexpr rlim_t kMaxDataBytes = rlim_t{512} << 20;  // A zstd window is 128 MiB, blocks are 2 MiB.

absl::Status Limit(__rlimit_resource_t resource, rlim_t value) {
  const struct rlimit limit = {value, value};
  if (::setrlimit(resource, &limit) != 0) return sys::ErrnoError(errno, "set a resource limit");
  return absl::OkStatus();
}

// What files of any owner and mode take, and no more.
absl::Status KeepCapabilities() {
  uint64_t kept = 0;
  for (int capability :
       {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP}) {
    kept |= uint64_t{1} << capability;
  }
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {};
  for (int word = 0; word < 2; ++word) {
    data[word].effective = data[word].permitted = static_cast<uint32_t>(kept >> (32 * word));
  }
  if (::syscall(SYS_capset, &header, data) != 0) return sys::ErrnoError(errno, "drop capabilities");
  return absl::OkStatus();
}

// Reading, writing files below the root, memory and threads. No socket, no exec, and neither open
// nor openat: with those libraries fetch configuration and code, which here would come from the
// image (SECURITY-RULES 7); our own code opens with openat2.
absl::Status FilterSystemCalls() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (filter == nullptr) return absl::ResourceExhaustedError("no memory for the seccomp filter");
  int result = 0;
  for (int call : {SCMP_SYS(read),
                   SCMP_SYS(write),
                   SCMP_SYS(pwrite64),
                   SCMP_SYS(openat2),
                   SCMP_SYS(close),
                   SCMP_SYS(fstat),
                   SCMP_SYS(newfstatat),
                   SCMP_SYS(statx),
                   SCMP_SYS(lseek),
                   SCMP_SYS(mkdirat),
                   SCMP_SYS(mknodat),
                   SCMP_SYS(symlinkat),
                   SCMP_SYS(linkat),
                   SCMP_SYS(unlinkat),
                   SCMP_SYS(fchown),
                   SCMP_SYS(fchownat),
                   SCMP_SYS(fchmod),
                   SCMP_SYS(fchmodat),
                   SCMP_SYS(fsetxattr),
                   SCMP_SYS(utimensat),
                   SCMP_SYS(ftruncate),
                   SCMP_SYS(getdents64),
                   SCMP_SYS(readlinkat),
                   SCMP_SYS(fcntl),
                   SCMP_SYS(mmap),
                   SCMP_SYS(munmap),
                   SCMP_SYS(mprotect),
                   SCMP_SYS(mremap),
                   SCMP_SYS(madvise),
                   SCMP_SYS(brk),
                   SCMP_SYS(futex),
                   SCMP_SYS(rt_sigprocmask),
                   SCMP_SYS(rt_sigaction),
                   SCMP_SYS(rt_sigreturn),
                   SCMP_SYS(set_robust_list),
                   SCMP_SYS(rseq),
                   SCMP_SYS(exit),
                   SCMP_SYS(exit_group),
                   SCMP_SYS(sched_yield),
                   SCMP_SYS(sched_getaffinity),
                   SCMP_SYS(sched_getparam),
                   SCMP_SYS(sched_getscheduler),
                   SCMP_SYS(getrandom),
                   SCMP_SYS(clock_gettime),
                   SCMP_SYS(gettid),
                   SCMP_SYS(getpid),
                   SCMP_SYS(tgkill),
                   SCMP_SYS(restart_syscall),
                   SCMP_SYS(prlimit64)}) {
    result |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  }
  // Threads of this process yes, other processes and namespaces no. clone3 hides its flags in
  // memory; as "not there" it makes the C library take clone.
  result |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  result |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (result == 0) result = seccomp_load(filter);
  seccomp_release(filter);
  if (result != 0) return sys::ErrnoError(-result, "load the seccomp filter");
  return absl::OkStatus();
}

absl::Status EnterSandbox() {
  // libarchive asks iconv about pax headers: let the C library read its own tables now, not those
  // of the image.
  if (iconv_t converter = ::iconv_open("ANSI_X3.4-1968", "UTF-8");
      converter != reinterpret_cast<iconv_t>(-1)) {
    ::iconv_close(converter);
  }
  ::umask(0);
  RETURN_IF_ERROR(Limit(RLIMIT_CORE, 0));
  RETURN_IF_ERROR(Limit(RLIMIT_NOFILE, 256));
  RETURN_IF_ERROR(Limit(RLIMIT_DATA, kMaxDataBytes));
  if (::fchdir(kRootFd) != 0 || ::chroot(".") != 0 || ::chdir("/") != 0) {
    return sys::ErrnoError(errno, "make the layer's directory the root");
  }
  if (::prctl(PR_SET_DUMPABLE, 0) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return sys::ErrnoError(errno, "give up privileges");
  }
  RETURN_IF_ERROR(KeepCapabilities());
  return FilterSystemCalls();
}

absl::StatusOr<archive::UnpackOptions> ParseArguments(int argc, char** argv) {
  archive::UnpackOptions options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const absl::string_view name = argv[i];
    const absl::string_view value = argv[i + 1];
    uint64_t number = 0;
    if (name == "--whiteouts") {
      ASSIGN_OR_RETURN(options.whiteouts, archive::ParseWhiteouts(value));
    } else if (name == "--compression") {
      if (value == "auto") continue;
      ASSIGN_OR_RETURN(options.compression, archive::ParseCompression(value));
    } else if (!absl::SimpleAtoi(value, &number)) {
      return absl::InvalidArgumentError(absl::StrCat("bad argument ", name, " ", value));
    } else if (name == "--max-bytes") {
      options.limits.max_bytes = number;
      options.max_tar_bytes = number + number / 4 + (uint64_t{1} << 30);  // Headers and padding.
    } else if (name == "--max-entries") {
      options.limits.max_entries = number;
    } else if (name == "--max-ratio") {
      options.max_ratio = number;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument ", name));
    }
  }
  return options;
}

absl::StatusOr<archive::UnpackResult> Run(int argc, char** argv) {
  ASSIGN_OR_RETURN(archive::UnpackOptions options, ParseArguments(argc, argv));
  RETURN_IF_ERROR(EnterSandbox());
  return archive::Unpack(archive::FdSource(kInputFd), sys::UniqueFd(kRootFd), options);
}

}  // namespace
}  // namespace gantry::image

int main(int argc, char** argv) {
  struct stat status = {};
  if (::fstat(3, &status) != 0 || !S_ISDIR(status.st_mode) || ::fcntl(4, F_GETFD) < 0) {
    ::fputs("gantry-unpack is started by gantry-image\n", stderr);
    return 2;
  }
  const absl::StatusOr<gantry::archive::UnpackResult> result = gantry::image::Run(argc, argv);
  const absl::Status written =
      gantry::sys::WriteAll(gantry::sys::UniqueFd(4), gantry::image::EncodeReport(result));
  ::_exit(result.ok() && written.ok() ? 0 : 1);
}
