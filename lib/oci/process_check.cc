// The rules of config.json's `process`.
#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/oci/check.h"
#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

using namespace check;  // The words these rules are written in.

absl::Status CheckCapabilities(const Capabilities& sets, const std::string& path) {
  const std::pair<const char*, const std::vector<std::string>*> all[] = {
      {"bounding", &sets.bounding},
      {"permitted", &sets.permitted},
      {"effective", &sets.effective},
      {"inheritable", &sets.inheritable},
      {"ambient", &sets.ambient}};
  for (const auto& [name, set] : all) {
    for (size_t i = 0; i < set->size(); ++i) {
      // A well-formed name that we do not know is a newer kernel's; not having it is safe.
      absl::string_view rest = (*set)[i];
      const bool well_formed = absl::ConsumePrefix(&rest, "CAP_") && !rest.empty() &&
                               std::all_of(rest.begin(), rest.end(), [](char c) {
                                 return absl::ascii_isupper(c) || c == '_';
                               });
      if (!well_formed) {
        return Wrong(
            absl::StrCat(path, ".", name, "[", i, "]"),
            absl::StrCat(Quote((*set)[i]), " is not a capability's name, such as CAP_CHOWN"));
      }
    }
  }
  return absl::OkStatus();
}

constexpr absl::string_view kRlimits[] = {
    "RLIMIT_AS",     "RLIMIT_CORE",   "RLIMIT_CPU",        "RLIMIT_DATA",
    "RLIMIT_FSIZE",  "RLIMIT_LOCKS",  "RLIMIT_MEMLOCK",    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",   "RLIMIT_NOFILE", "RLIMIT_NPROC",      "RLIMIT_RSS",
    "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK"};

absl::Status CheckRlimits(const std::vector<Rlimit>& limits, const std::string& path) {
  std::set<std::string> seen;
  for (size_t i = 0; i < limits.size(); ++i) {
    const std::string at = absl::StrCat(path, "[", i, "]");
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), limits[i].type, kRlimits));
    if (!seen.insert(limits[i].type).second) {
      return Wrong(Key(at, "type"), absl::StrCat(limits[i].type, " is given twice"));
    }
    if (limits[i].soft > limits[i].hard) {
      return Wrong(Key(at, "soft"),
                   absl::StrCat(limits[i].soft, " is above the hard limit ", limits[i].hard));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScheduler(const Scheduler& scheduler, const std::string& path) {
  static constexpr absl::string_view kPolicies[] = {"SCHED_OTHER",   "SCHED_FIFO", "SCHED_RR",
                                                    "SCHED_BATCH",   "SCHED_ISO",  "SCHED_IDLE",
                                                    "SCHED_DEADLINE"};
  static constexpr absl::string_view kFlags[] = {
      "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM",     "SCHED_FLAG_DL_OVERRUN",
      "SCHED_FLAG_KEEP_POLICY",   "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
      "SCHED_FLAG_UTIL_CLAMP_MAX"};
  RETURN_IF_ERROR(CheckOneOf(Key(path, "policy"), scheduler.policy, kPolicies));
  for (size_t i = 0; i < scheduler.flags.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(path, ".flags[", i, "]"), scheduler.flags[i], kFlags));
  }
  if (scheduler.nice < -20 || scheduler.nice > 19) {
    return Wrong(Key(path, "nice"), absl::StrCat(scheduler.nice, " is not from -20 to 19"));
  }
  if (scheduler.priority != 0 && scheduler.policy != "SCHED_FIFO" &&
      scheduler.policy != "SCHED_RR") {
    return Wrong(Key(path, "priority"), "can only be given with SCHED_FIFO or SCHED_RR");
  }
  const bool deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
  if (deadline && scheduler.policy != "SCHED_DEADLINE") {
    return Wrong(Key(path, "runtime"), "runtime, deadline and period need SCHED_DEADLINE");
  }
  return absl::OkStatus();
}

absl::Status CheckIoPriority(const IoPriority& io, const std::string& path) {
  static constexpr absl::string_view kClasses[] = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
                                                   "IOPRIO_CLASS_IDLE"};
  RETURN_IF_ERROR(CheckOneOf(Key(path, "class"), io.priority_class, kClasses));
  if (io.priority < 0 || io.priority > 7) {
    return Wrong(Key(path, "priority"), absl::StrCat(io.priority, " is not from 0 to 7"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckProcess(const Process& process, absl::string_view path) {
  if (process.args.empty()) return Wrong(Key(path, "args"), "must name a program");
  RETURN_IF_ERROR(CheckNoNuls(Key(path, "args"), process.args));
  RETURN_IF_ERROR(CheckNoNuls(Key(path, "env"), process.env));
  if (process.cwd.empty()) return Wrong(Key(path, "cwd"), "must not be empty");
  RETURN_IF_ERROR(CheckAbsolute(Key(path, "cwd"), process.cwd));
  const User& user = process.user;
  if (user.uid > kMaxId) return Wrong(Key(path, "user.uid"), "is beyond 4294967294");
  if (user.gid > kMaxId) return Wrong(Key(path, "user.gid"), "is beyond 4294967294");
  if (user.umask.value_or(0) > 0777) return Wrong(Key(path, "user.umask"), "is above 0777");
  for (size_t i = 0; i < user.additional_gids.size(); ++i) {
    if (user.additional_gids[i] > kMaxId) {
      return Wrong(absl::StrCat(Key(path, "user.additionalGids"), "[", i, "]"),
                   "is beyond 4294967294");
    }
  }
  if (process.capabilities) {
    RETURN_IF_ERROR(CheckCapabilities(*process.capabilities, Key(path, "capabilities")));
  }
  RETURN_IF_ERROR(CheckRlimits(process.rlimits, Key(path, "rlimits")));
  if (process.oom_score_adj && (*process.oom_score_adj < -1000 || *process.oom_score_adj > 1000)) {
    return Wrong(Key(path, "oomScoreAdj"),
                 absl::StrCat(*process.oom_score_adj, " is not from -1000 to 1000"));
  }
  RETURN_IF_ERROR(CheckOneLine(Key(path, "apparmorProfile"), process.apparmor_profile));
  RETURN_IF_ERROR(CheckOneLine(Key(path, "selinuxLabel"), process.selinux_label));
  if (process.scheduler)
    RETURN_IF_ERROR(CheckScheduler(*process.scheduler, Key(path, "scheduler")));
  if (process.io_priority) {
    RETURN_IF_ERROR(CheckIoPriority(*process.io_priority, Key(path, "ioPriority")));
  }
  if (process.exec_cpu_affinity) {
    const std::string at = Key(path, "execCPUAffinity");
    const char* what = "a list of processors such as 0-3,7";
    RETURN_IF_ERROR(
        CheckCharacters(Key(at, "initial"), process.exec_cpu_affinity->initial, "-, ", what));
    RETURN_IF_ERROR(
        CheckCharacters(Key(at, "final"), process.exec_cpu_affinity->final, "-, ", what));
  }
  return absl::OkStatus();
}

}  // namespace gantry::oci
