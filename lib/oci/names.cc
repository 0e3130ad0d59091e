// Capabilities and signals by name.
#include <signal.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/text.h"
#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

constexpr absl::string_view kCapabilities[] = {"CAP_CHOWN",
                                               "CAP_DAC_OVERRIDE",
                                               "CAP_DAC_READ_SEARCH",
                                               "CAP_FOWNER",
                                               "CAP_FSETID",
                                               "CAP_KILL",
                                               "CAP_SETGID",
                                               "CAP_SETUID",
                                               "CAP_SETPCAP",
                                               "CAP_LINUX_IMMUTABLE",
                                               "CAP_NET_BIND_SERVICE",
                                               "CAP_NET_BROADCAST",
                                               "CAP_NET_ADMIN",
                                               "CAP_NET_RAW",
                                               "CAP_IPC_LOCK",
                                               "CAP_IPC_OWNER",
                                               "CAP_SYS_MODULE",
                                               "CAP_SYS_RAWIO",
                                               "CAP_SYS_CHROOT",
                                               "CAP_SYS_PTRACE",
                                               "CAP_SYS_PACCT",
                                               "CAP_SYS_ADMIN",
                                               "CAP_SYS_BOOT",
                                               "CAP_SYS_NICE",
                                               "CAP_SYS_RESOURCE",
                                               "CAP_SYS_TIME",
                                               "CAP_SYS_TTY_CONFIG",
                                               "CAP_MKNOD",
                                               "CAP_LEASE",
                                               "CAP_AUDIT_WRITE",
                                               "CAP_AUDIT_CONTROL",
                                               "CAP_SETFCAP",
                                               "CAP_MAC_OVERRIDE",
                                               "CAP_MAC_ADMIN",
                                               "CAP_SYSLOG",
                                               "CAP_WAKE_ALARM",
                                               "CAP_BLOCK_SUSPEND",
                                               "CAP_AUDIT_READ",
                                               "CAP_PERFMON",
                                               "CAP_BPF",
                                               "CAP_CHECKPOINT_RESTORE"};
static_assert(std::size(kCapabilities) == kLastCapability + 1);

struct NamedSignal {
  absl::string_view name;
  int number;
};
constexpr NamedSignal kSignals[] = {
    {"HUP", SIGHUP},       {"INT", SIGINT},     {"QUIT", SIGQUIT}, {"ILL", SIGILL},
    {"TRAP", SIGTRAP},     {"ABRT", SIGABRT},   {"IOT", SIGIOT},   {"BUS", SIGBUS},
    {"FPE", SIGFPE},       {"KILL", SIGKILL},   {"USR1", SIGUSR1}, {"SEGV", SIGSEGV},
    {"USR2", SIGUSR2},     {"PIPE", SIGPIPE},   {"ALRM", SIGALRM}, {"TERM", SIGTERM},
    {"STKFLT", SIGSTKFLT}, {"CHLD", SIGCHLD},   {"CLD", SIGCHLD},  {"CONT", SIGCONT},
    {"STOP", SIGSTOP},     {"TSTP", SIGTSTP},   {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},
    {"URG", SIGURG},       {"XCPU", SIGXCPU},   {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM},
    {"PROF", SIGPROF},     {"WINCH", SIGWINCH}, {"IO", SIGIO},     {"POLL", SIGPOLL},
    {"PWR", SIGPWR},       {"SYS", SIGSYS}};
// The kernel's range; glibc keeps the first two of 32..64 to itself, but a container need not be
// glibc.
constexpr int kRealTimeMin = 34;
constexpr int kLastSignal = 64;

}  // namespace

absl::StatusOr<int> CapabilityNumber(absl::string_view name) {
  std::string upper = absl::AsciiStrToUpper(name);
  if (!absl::StartsWith(upper, "CAP_")) upper = absl::StrCat("CAP_", upper);
  const auto* found = std::find(std::begin(kCapabilities), std::end(kCapabilities), upper);
  if (found == std::end(kCapabilities)) {
    return absl::NotFoundError(absl::StrCat("unknown capability '", EscapeForTerminal(name), "'"));
  }
  return static_cast<int>(found - std::begin(kCapabilities));
}

absl::string_view CapabilityName(int number) {
  return number < 0 || number > kLastCapability ? absl::string_view() : kCapabilities[number];
}

std::vector<std::string> AllCapabilities() {
  return std::vector<std::string>(std::begin(kCapabilities), std::end(kCapabilities));
}

absl::StatusOr<int> ParseSignal(absl::string_view text) {
  int number = 0;
  if (!text.empty() && absl::ascii_isdigit(text[0]) && absl::SimpleAtoi(text, &number)) {
    if (number >= 0 && number <= kLastSignal) return number;
    return absl::InvalidArgumentError(
        absl::StrCat("invalid signal '", text, "': give 1 to ", kLastSignal, " or a name"));
  }
  std::string name = absl::AsciiStrToUpper(text);
  absl::string_view bare = absl::StripPrefix(name, "SIG");
  for (const NamedSignal& signal : kSignals) {
    if (signal.name == bare) return signal.number;
  }
  if (bare == "RTMIN") return kRealTimeMin;
  if (bare == "RTMAX") return kLastSignal;
  absl::string_view offset = bare;
  if (absl::ConsumePrefix(&offset, "RTMIN+") && absl::SimpleAtoi(offset, &number) && number >= 0 &&
      kRealTimeMin + number <= kLastSignal) {
    return kRealTimeMin + number;
  }
  offset = bare;
  if (absl::ConsumePrefix(&offset, "RTMAX-") && absl::SimpleAtoi(offset, &number) && number >= 0 &&
      kLastSignal - number >= kRealTimeMin) {
    return kLastSignal - number;
  }
  return absl::InvalidArgumentError(absl::StrCat("invalid signal '", EscapeForTerminal(text),
                                                 "': give a number or a name such as TERM"));
}

}  // namespace gantry::oci
