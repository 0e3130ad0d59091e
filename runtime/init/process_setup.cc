#include "runtime/init/process_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/kernel.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr size_t kPasswdLimitBytes = 1 << 20;
constexpr mode_t kDefaultUmask = 022;

struct NamedNumber {
  absl::string_view name;
  int number;
};
template <size_t N>
int Lookup(const NamedNumber (&table)[N], absl::string_view name, int otherwise) {
  for (const NamedNumber& row : table) {
    if (row.name == name) return row.number;
  }
  return otherwise;
}
constexpr NamedNumber kRlimits[] = {{"RLIMIT_AS", RLIMIT_AS},
                                    {"RLIMIT_CORE", RLIMIT_CORE},
                                    {"RLIMIT_CPU", RLIMIT_CPU},
                                    {"RLIMIT_DATA", RLIMIT_DATA},
                                    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
                                    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
                                    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
                                    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
                                    {"RLIMIT_NICE", RLIMIT_NICE},
                                    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
                                    {"RLIMIT_NPROC", RLIMIT_NPROC},
                                    {"RLIMIT_RSS", RLIMIT_RSS},
                                    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
                                    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
                                    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
                                    {"RLIMIT_STACK", RLIMIT_STACK}};
constexpr NamedNumber kPolicies[] = {{"SCHED_OTHER", 0},   {"SCHED_FIFO", 1}, {"SCHED_RR", 2},
                                     {"SCHED_BATCH", 3},   {"SCHED_ISO", 4},  {"SCHED_IDLE", 5},
                                     {"SCHED_DEADLINE", 6}};
constexpr NamedNumber kSchedulerFlags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", 0x01}, {"SCHED_FLAG_RECLAIM", 0x02},
    {"SCHED_FLAG_DL_OVERRUN", 0x04},    {"SCHED_FLAG_KEEP_POLICY", 0x08},
    {"SCHED_FLAG_KEEP_PARAMS", 0x10},   {"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20},
    {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40}};
constexpr NamedNumber kIoClasses[] = {
    {"IOPRIO_CLASS_RT", 1}, {"IOPRIO_CLASS_BE", 2}, {"IOPRIO_CLASS_IDLE", 3}};
constexpr NamedNumber kMemoryModes[] = {{"MPOL_DEFAULT", 0},
                                        {"MPOL_PREFERRED", 1},
                                        {"MPOL_BIND", 2},
                                        {"MPOL_INTERLEAVE", 3},
                                        {"MPOL_LOCAL", 4},
                                        {"MPOL_PREFERRED_MANY", 5},
                                        {"MPOL_WEIGHTED_INTERLEAVE", 6}};
constexpr NamedNumber kMemoryFlags[] = {{"MPOL_F_NUMA_BALANCING", 1 << 13},
                                        {"MPOL_F_RELATIVE_NODES", 1 << 14},
                                        {"MPOL_F_STATIC_NODES", 1 << 15}};

struct SchedulerAttributes {  // struct sched_attr of the kernel, which glibc does not have yet.
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};

uint64_t CapabilityMask(const std::vector<std::string>& names) {
  uint64_t mask = 0;
  for (const std::string& name : names) {
    absl::StatusOr<int> number = oci::CapabilityNumber(name);
    if (number.ok()) mask |= uint64_t{1} << *number;
  }
  return mask;
}

struct CapabilitySets {
  uint64_t effective = 0, permitted = 0, inheritable = 0;
};

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

// Bits of a list "0-3,7"; at most 4096 of them.
absl::StatusOr<std::vector<unsigned long>> ParseBits(const std::string& list) {
  constexpr int kMaxBits = 4096;
  constexpr int kWordBits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> words(kMaxBits / kWordBits);
  for (absl::string_view part : absl::StrSplit(list, absl::ByAnyChar(", "), absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    const bool single = !absl::StrContains(part, '-');
    if (!absl::SimpleAtoi(ends.first, &first) ||
        !absl::SimpleAtoi(single ? ends.first : ends.second, &last) || first < 0 || last < first ||
        last >= kMaxBits) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", EscapeForTerminal(list), "' is not a list such as 0-3,7"));
    }
    for (int bit = first; bit <= last; ++bit) words[bit / kWordBits] |= 1UL << (bit % kWordBits);
  }
  return words;
}

std::string EnvironmentValue(const std::vector<std::string>& environment, absl::string_view name) {
  for (absl::string_view entry : environment) {
    if (absl::ConsumePrefix(&entry, name) && absl::ConsumePrefix(&entry, "=")) {
      return std::string(entry);
    }
  }
  return "";
}

bool HasEnvironment(const std::vector<std::string>& environment, absl::string_view name) {
  return std::any_of(environment.begin(), environment.end(), [&](absl::string_view entry) {
    return absl::ConsumePrefix(&entry, name) && absl::StartsWith(entry, "=");
  });
}

// The home directory in the container's /etc/passwd, read as plain bytes: no name service, no
// devices, not more than a sensible size (SECURITY-RULES 7, 15).
std::string HomeOf(uint32_t uid) {
  const std::string otherwise = "/";
  UniqueFd file(::open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info = {};
  if (!file.ok() || ::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return otherwise;
  absl::StatusOr<std::string> text = sys::ReadAll(file, kPasswdLimitBytes);
  if (!text.ok()) return otherwise;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    uint32_t number = 0;
    if (fields.size() >= 6 && absl::SimpleAtoi(fields[2], &number) && number == uid &&
        !fields[5].empty()) {
      return std::string(fields[5]);
    }
  }
  return otherwise;
}

absl::Status WriteAttribute(const std::string& file, const std::string& value) {
  UniqueFd fd(::open(absl::StrCat("/proc/self/attr/", file).c_str(), O_WRONLY | O_CLOEXEC));
  struct statfs info = {};
  if (!fd.ok() || ::fstatfs(fd.get(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("open `/proc/self/attr/", file, "`"));
  }
  if (info.f_type != PROC_SUPER_MAGIC) {
    return absl::PermissionDeniedError(
        absl::StrCat("`/proc/self/attr/", file, "` is not on procfs"));
  }
  return Annotate(sys::WriteAll(fd, value), absl::StrCat("write `/proc/self/attr/", file, "`"));
}

}  // namespace

absl::Status JoinCgroups(const std::vector<UniqueFd>& tasks) {
  for (const UniqueFd& file : tasks) {
    if (::write(file.get(), "0", 1) != 1) return ErrnoError(errno, "join the cgroup");
  }
  return absl::OkStatus();
}

absl::Status SetCpuAffinity(const std::string& list) {
  if (list.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<unsigned long> mask, ParseBits(list));
  if (::syscall(SYS_sched_setaffinity, 0, mask.size() * sizeof mask[0], mask.data()) != 0) {
    return ErrnoError(errno, absl::StrCat("set the CPU affinity to '", list, "'"));
  }
  return absl::OkStatus();
}

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

namespace {

// The container's own ptmx. Looked at before it is opened for real, since the container may have
// put anything there, and again afterwards, since it may have changed it.
absl::StatusOr<UniqueFd> OpenPtmx(const UniqueFd& root) {
  UniqueFd master;
  for (const uint64_t flags : {uint64_t{O_PATH}, uint64_t{O_RDWR | O_NOCTTY}}) {
    open_how how = {};
    how.flags = flags | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    master.Reset(
        static_cast<int>(::syscall(SYS_openat2, root.get(), "/dev/pts/ptmx", &how, sizeof how)));
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

absl::Status ProcessSetup::Label() {
  const oci::Process& process = *plan_.process;
  if (!process.apparmor_profile.empty() && process.apparmor_profile != "unconfined") {
    const bool own = sys::Exists("/proc/self/attr/apparmor/exec");
    RETURN_IF_ERROR(WriteAttribute(own ? "apparmor/exec" : "exec",
                                   absl::StrCat("exec ", process.apparmor_profile)));
  }
  if (!process.selinux_label.empty())
    RETURN_IF_ERROR(WriteAttribute("exec", process.selinux_label));
  return absl::OkStatus();
}

absl::Status ProcessSetup::SetRlimits() {
  for (const oci::Rlimit& limit : plan_.process->rlimits) {
    const int resource = Lookup(kRlimits, limit.type, -1);
    if (resource < 0) return absl::InvalidArgumentError(absl::StrCat("unknown limit ", limit.type));
    rlimit64 wanted = {limit.soft, limit.hard};
    if (::prlimit64(0, static_cast<__rlimit_resource>(resource), &wanted, nullptr) == 0) continue;
    if (errno != EPERM) return ErrnoError(errno, absl::StrCat("set ", limit.type));
    // Raising a hard limit needs CAP_SYS_RESOURCE, which may not be there (SECURITY-RULES 44): as
    // much as there is, then.
    rlimit64 current = {};
    if (::prlimit64(0, static_cast<__rlimit_resource>(resource), nullptr, &current) != 0) {
      return ErrnoError(errno, absl::StrCat("read ", limit.type));
    }
    wanted.rlim_max = std::min<uint64_t>(wanted.rlim_max, current.rlim_max);
    wanted.rlim_cur = std::min<uint64_t>(wanted.rlim_cur, wanted.rlim_max);
    if (::prlimit64(0, static_cast<__rlimit_resource>(resource), &wanted, nullptr) != 0) {
      return ErrnoError(errno, absl::StrCat("set ", limit.type));
    }
  }
  return absl::OkStatus();
}

absl::Status ProcessSetup::SetScheduling() {
  const oci::Process& process = *plan_.process;
  if (process.scheduler) {
    const oci::Scheduler& wanted = *process.scheduler;
    SchedulerAttributes attributes = {};
    attributes.size = sizeof attributes;
    attributes.policy = static_cast<uint32_t>(Lookup(kPolicies, wanted.policy, 0));
    for (const std::string& flag : wanted.flags) {
      attributes.flags |= static_cast<uint64_t>(Lookup(kSchedulerFlags, flag, 0));
    }
    attributes.nice = wanted.nice;
    attributes.priority = static_cast<uint32_t>(wanted.priority);
    attributes.runtime = wanted.runtime;
    attributes.deadline = wanted.deadline;
    attributes.period = wanted.period;
    if (::syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) {
      return ErrnoError(errno, absl::StrCat("set the scheduling policy ", wanted.policy));
    }
  }
  if (process.io_priority) {
    const int io_class = Lookup(kIoClasses, process.io_priority->priority_class, 2);
    const int value = io_class << 13 | process.io_priority->priority;
    if (::syscall(SYS_ioprio_set, 1 /* this process */, 0, value) != 0) {
      return ErrnoError(errno, "set the I/O priority");
    }
  }
  return absl::OkStatus();
}

absl::Status ProcessSetup::SetMemoryPolicy() {
  if (plan_.linux_ == nullptr || !plan_.linux_->memory_policy) return absl::OkStatus();
  const oci::MemoryPolicy& policy = *plan_.linux_->memory_policy;
  int mode = Lookup(kMemoryModes, policy.mode, 0);
  for (const std::string& flag : policy.flags) mode |= Lookup(kMemoryFlags, flag, 0);
  absl::StatusOr<std::vector<unsigned long>> nodes = ParseBits(policy.nodes);
  RETURN_IF_ERROR(Annotate(nodes.status(), "linux.memoryPolicy.nodes"));
  const bool any = !policy.nodes.empty();
  if (::syscall(SYS_set_mempolicy, mode, any ? nodes->data() : nullptr,
                any ? nodes->size() * 8 * sizeof(unsigned long) : 0) != 0) {
    return ErrnoError(errno, absl::StrCat("set the memory policy ", policy.mode));
  }
  return absl::OkStatus();
}

absl::Status ProcessSetup::Limit() {
  RETURN_IF_ERROR(FAILPOINT("runtime.process.before_limits"));
  RETURN_IF_ERROR(SetScheduling());
  RETURN_IF_ERROR(SetMemoryPolicy());
  if (plan_.linux_ != nullptr && plan_.linux_->personality) {
    const bool narrow = plan_.linux_->personality->domain == "LINUX32";
    if (::personality(narrow ? PER_LINUX32 : PER_LINUX) < 0) {
      return ErrnoError(errno, "set the personality");
    }
  }
  RETURN_IF_ERROR(SetRlimits());
  ::umask(plan_.process->user.umask.value_or(kDefaultUmask));
  return absl::OkStatus();
}

absl::Status ProcessSetup::Become() {
  RETURN_IF_ERROR(FAILPOINT("runtime.process.before_ids"));
  const oci::Process& process = *plan_.process;
  const oci::User& user = process.user;
  if (process.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoError(errno, "set no_new_privs");
  }
  const uint64_t bounding =
      process.capabilities ? CapabilityMask(process.capabilities->bounding) : 0;
  for (int capability = 0; capability <= 63; ++capability) {
    if ((bounding >> capability & 1) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL) break;  // Beyond the last one of this kernel.
    // Without CAP_SETPCAP nothing can be dropped, and what is not there needs no dropping.
    if (errno == EPERM && ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 0) continue;
    return ErrnoError(errno, absl::StrCat("drop ", oci::CapabilityName(capability)));
  }
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return ErrnoError(errno, "keep capabilities");
  const std::vector<gid_t> groups(user.additional_gids.begin(), user.additional_gids.end());
  if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0) {
    // A user namespace may forbid it ("setgroups" is "deny"): fine as long as none were asked for.
    if (!(errno == EPERM && groups.empty() && plan_.user_namespace)) {
      return ErrnoError(errno, "set the supplementary groups");
    }
  }
  if (::syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0) {
    return ErrnoError(errno, absl::StrCat("become group ", user.gid));
  }
  if (::syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0) {
    return ErrnoError(errno, absl::StrCat("become user ", user.uid));
  }
  // Changing ids gave the memory's dumpable flag its default back.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return ErrnoError(errno, "stay undumpable");
  if (::chdir(process.cwd.c_str()) != 0) {
    return ErrnoError(errno, absl::StrCat("chdir to cwd ('", EscapeForTerminal(process.cwd),
                                          "') set in config.json failed"));
  }
  // A directory outside of the root (CVE-2024-21626) shows as "(unreachable)…".
  char here[PATH_MAX] = {};
  if (::syscall(SYS_getcwd, here, sizeof here) < 0 || here[0] != '/') {
    return absl::PermissionDeniedError(
        absl::StrCat("the working directory '", EscapeForTerminal(process.cwd),
                     "' is outside of the container; refusing to run there"));
  }
  return absl::OkStatus();
}

absl::Status ProcessSetup::FindProgram() {
  environment_ = plan_.process->env;
  environment_.insert(environment_.end(), plan_.extra_environment.begin(),
                      plan_.extra_environment.end());
  if (!HasEnvironment(environment_, "HOME")) {
    environment_.push_back(absl::StrCat("HOME=", HomeOf(plan_.process->user.uid)));
  }
  const std::string& name = plan_.process->args[0];
  const std::string quoted = absl::StrCat("exec: \"", EscapeForTerminal(name), "\": ");
  const auto check = [](const std::string& path) -> int {
    struct stat info = {};
    if (::stat(path.c_str(), &info) != 0) return errno;
    if (S_ISDIR(info.st_mode)) return EISDIR;
    return ::faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : EACCES;
  };
  if (absl::StrContains(name, '/')) {
    const int error = check(name);
    program_ = name;
    switch (error) {
      case 0:
        return absl::OkStatus();
      case ENOENT:
        return absl::NotFoundError(
            absl::StrCat(quoted, "stat ", EscapeForTerminal(name), ": no such file or directory"));
      case EISDIR:
        return absl::PermissionDeniedError(absl::StrCat(quoted, "is a directory"));
      case EACCES:
        return absl::PermissionDeniedError(absl::StrCat(quoted, "permission denied"));
      default:
        return ErrnoError(error, absl::StrCat(quoted, "stat ", EscapeForTerminal(name)));
    }
  }
  std::string path = EnvironmentValue(environment_, "PATH");
  if (path.empty() && !HasEnvironment(environment_, "PATH")) path = kDefaultPath;
  bool denied = false;
  for (absl::string_view directory : absl::StrSplit(path, ':')) {
    const std::string candidate = absl::StrCat(directory.empty() ? "." : directory, "/", name);
    const int error = name.empty() ? ENOENT : check(candidate);
    if (error == 0) {
      program_ = candidate;
      return absl::OkStatus();
    }
    denied = denied || error == EACCES;
  }
  if (denied) return absl::PermissionDeniedError(absl::StrCat(quoted, "permission denied"));
  return absl::NotFoundError(absl::StrCat(quoted, "executable file not found in $PATH"));
}

absl::Status ProcessSetup::SetCapabilities() {
  CapabilitySets wanted;
  uint64_t ambient = 0;
  if (const auto& sets = plan_.process->capabilities) {
    wanted = {CapabilityMask(sets->effective), CapabilityMask(sets->permitted),
              CapabilityMask(sets->inheritable)};
    ambient = CapabilityMask(sets->ambient);
  }
  // What this process does not have it cannot give: a machine whose root lacks a capability runs
  // containers without it.
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

absl::Status ProcessSetup::Seal(UniqueFd* listener) {
  RETURN_IF_ERROR(FAILPOINT("runtime.process.before_capabilities"));
  const bool early =
      plan_.filter != nullptr && (!plan_.process->no_new_privileges || plan_.filter->notifies);
  if (early) {
    if (!plan_.process->no_new_privileges) {
      // Without no_new_privs the filter needs CAP_SYS_ADMIN, which leaving uid 0 took from the
      // effective set; the permitted one still has it.
      ASSIGN_OR_RETURN(CapabilitySets have, GetCapabilities());
      have.effective = have.permitted;
      RETURN_IF_ERROR(PutCapabilities(have));
    }
    ASSIGN_OR_RETURN(*listener, LoadSeccomp(*plan_.filter));
    filter_loaded_ = true;
  }
  return SetCapabilities();
}

absl::Status ProcessSetup::Execute() {
  std::vector<char*> argv, envp;
  for (const std::string& word : plan_.process->args)
    argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (const std::string& entry : environment_) envp.push_back(const_cast<char*>(entry.c_str()));
  envp.push_back(nullptr);
  const unsigned first = 3 + static_cast<unsigned>(plan_.kept_descriptors);
  if (kernel::CloseRange(first, ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) != 0) {
    return ErrnoError(errno, "close the runtime's descriptors");
  }
  if (plan_.filter != nullptr && !filter_loaded_) {
    RETURN_IF_ERROR(LoadSeccomp(*plan_.filter).status());
  }
  ::execve(program_.c_str(), argv.data(), envp.data());
  const int error = errno;
  return ErrnoError(error, absl::StrCat("exec: \"", EscapeForTerminal(program_), "\""));
}

}  // namespace gantry::runtime
