#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/oci/check.h"

namespace gantry::oci::check {
namespace {

constexpr uint32_t kMaxErrno = 4095;

constexpr absl::string_view kSeccompActions[] = {
    "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",  "SCMP_ACT_ERRNO",        "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW", "SCMP_ACT_LOG",          "SCMP_ACT_NOTIFY"};
constexpr absl::string_view kSeccompOperators[] = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
    "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};
constexpr absl::string_view kSeccompFlags[] = {
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"};
constexpr absl::string_view kSeccompArchitectures[] = {
    "SCMP_ARCH_X86",         "SCMP_ARCH_X86_64",      "SCMP_ARCH_X32",    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",     "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",   "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",      "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",         "SCMP_ARCH_PPC64",  "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",        "SCMP_ARCH_S390X",       "SCMP_ARCH_SH",     "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",      "SCMP_ARCH_PARISC64",    "SCMP_ARCH_RISCV64"};

// The new process hands its listener over under its own filter: a call that it needs for that would
// wait for an answer that nobody can give yet.
absl::Status CheckNotified(const SeccompRule& rule, const std::string& path) {
  for (const std::string& name : rule.names) {
    for (const char* needed : {"write", "sendmsg", "recvmsg", "close"}) {
      if (name != needed) continue;
      return Wrong(path,
                   absl::StrCat("SCMP_ACT_NOTIFY for ", Quote(name),
                                " would stop the runtime, which needs it to hand the listener "
                                "over"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSeccomp(const Seccomp& seccomp) {
  const std::string at = "linux.seccomp";
  RETURN_IF_ERROR(CheckOneOf(Key(at, "defaultAction"), seccomp.default_action, kSeccompActions));
  if (seccomp.default_action == "SCMP_ACT_NOTIFY") {
    return Wrong(Key(at, "defaultAction"), "SCMP_ACT_NOTIFY would stop the runtime itself");
  }
  if (seccomp.default_errno_ret.value_or(0) > kMaxErrno) {
    return Wrong(Key(at, "defaultErrnoRet"), "is not an errno (at most 4095)");
  }
  for (size_t i = 0; i < seccomp.architectures.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(at, ".architectures[", i, "]"),
                               seccomp.architectures[i], kSeccompArchitectures));
  }
  const std::vector<std::string> flags = seccomp.flags.value_or(std::vector<std::string>());
  for (size_t i = 0; i < flags.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(at, ".flags[", i, "]"), flags[i], kSeccompFlags));
  }
  bool notifies = false;
  for (size_t i = 0; i < seccomp.syscalls.size(); ++i) {
    const SeccompRule& rule = seccomp.syscalls[i];
    const std::string here = absl::StrCat(at, ".syscalls[", i, "]");
    if (rule.names.empty()) return Wrong(Key(here, "names"), "must name at least one system call");
    RETURN_IF_ERROR(CheckNoNuls(Key(here, "names"), rule.names));
    RETURN_IF_ERROR(CheckOneOf(Key(here, "action"), rule.action, kSeccompActions));
    if (rule.action == "SCMP_ACT_NOTIFY") {
      RETURN_IF_ERROR(CheckNotified(rule, Key(here, "names")));
      notifies = true;
    }
    if (rule.errno_ret.value_or(0) > kMaxErrno) {
      return Wrong(Key(here, "errnoRet"), "is not an errno (at most 4095)");
    }
    for (size_t j = 0; j < rule.args.size(); ++j) {
      const std::string arg = absl::StrCat(here, ".args[", j, "]");
      if (rule.args[j].index > 5) return Wrong(Key(arg, "index"), "must be from 0 to 5");
      RETURN_IF_ERROR(CheckOneOf(Key(arg, "op"), rule.args[j].op, kSeccompOperators));
    }
  }
  if (notifies && seccomp.listener_path.empty()) {
    return Wrong(Key(at, "listenerPath"), "SCMP_ACT_NOTIFY needs it");
  }
  if (!seccomp.listener_path.empty()) {
    RETURN_IF_ERROR(CheckAbsolute(Key(at, "listenerPath"), seccomp.listener_path));
  }
  if (!seccomp.listener_metadata.empty() && seccomp.listener_path.empty()) {
    return Wrong(Key(at, "listenerMetadata"), "needs listenerPath");
  }
  return absl::OkStatus();
}

}  // namespace gantry::oci::check
