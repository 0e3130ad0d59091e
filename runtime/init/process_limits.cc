// ProcessSetup: limits and priorities.
#include <errno.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "runtime/init/process_setup.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;

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

}  // namespace

absl::Status SetCpuAffinity(const std::string& list) {
  if (list.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<unsigned long> mask, ParseBits(list));
  if (::syscall(SYS_sched_setaffinity, 0, mask.size() * sizeof mask[0], mask.data()) != 0) {
    return ErrnoError(errno, absl::StrCat("set the CPU affinity to '", list, "'"));
  }
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

}  // namespace gantry::runtime
