// Docker's default seccomp profile, from the table default_seccomp.tsv that CMake embeds.
#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

// Columns: syscall, action, errno, when, args.
constexpr char kTable[] =
#include "default_seccomp.inc"
    ;

#if defined(__x86_64__)
constexpr absl::string_view kMachine[] = {"amd64", "x32", "x86"};
const std::vector<std::string> kArchitectures = {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86",
                                                 "SCMP_ARCH_X32"};
#elif defined(__aarch64__)
constexpr absl::string_view kMachine[] = {"arm64", "arm"};
const std::vector<std::string> kArchitectures = {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"};
#else
#error "name this machine's architecture and those it runs besides"
#endif

bool NamesThisMachine(absl::string_view list) {
  for (absl::string_view name : absl::StrSplit(list, ',')) {
    if (std::find(std::begin(kMachine), std::end(kMachine), name) != std::end(kMachine))
      return true;
  }
  return false;
}

bool Holds(absl::string_view condition, const std::vector<std::string>& capabilities) {
  const auto has = [&](absl::string_view name) {
    return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
  };
  if (absl::ConsumePrefix(&condition, "cap:")) return has(condition);
  if (absl::ConsumePrefix(&condition, "no-cap:")) return !has(condition);
  if (absl::ConsumePrefix(&condition, "arch:")) return NamesThisMachine(condition);
  if (absl::ConsumePrefix(&condition, "not-arch:")) return !NamesThisMachine(condition);
  return true;  // "always", and "kernel>=4.8", which every kernel we run on is.
}

// "arg0 SCMP_CMP_EQ value=8 valueTwo=0"
SeccompArg ParseArg(absl::string_view text) {
  SeccompArg arg;
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (absl::ConsumePrefix(&word, "valueTwo=")) {
      (void)absl::SimpleAtoi(word, &arg.value_two);
    } else if (absl::ConsumePrefix(&word, "value=")) {
      (void)absl::SimpleAtoi(word, &arg.value);
    } else if (absl::ConsumePrefix(&word, "arg")) {
      (void)absl::SimpleAtoi(word, &arg.index);
    } else {
      arg.op = std::string(word);
    }
  }
  return arg;
}

}  // namespace

Seccomp DefaultSeccomp(const std::vector<std::string>& capabilities) {
  Seccomp profile;
  profile.default_action = "SCMP_ACT_ERRNO";
  profile.default_errno_ret = 1;  // EPERM
  profile.architectures = kArchitectures;
  // Names that share action, errno and arguments share one rule, which keeps config.json short.
  std::map<std::tuple<std::string, std::string, std::string>, SeccompRule> rules;
  for (absl::string_view line : absl::StrSplit(kTable, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> columns = absl::StrSplit(line, '\t');
    if (columns.size() != 5 || columns[0] == "syscall") continue;
    bool holds = true;
    for (absl::string_view condition : absl::StrSplit(columns[3], ' ')) {
      holds = holds && Holds(condition, capabilities);
    }
    if (!holds) continue;
    SeccompRule& rule =
        rules[{std::string(columns[1]), std::string(columns[2]), std::string(columns[4])}];
    rule.action = std::string(columns[1]);
    uint32_t number = 0;
    if (absl::SimpleAtoi(columns[2], &number)) rule.errno_ret = number;
    if (!columns[4].empty()) rule.args = {ParseArg(columns[4])};
    if (rule.names.empty() || rule.names.back() != columns[0]) rule.names.emplace_back(columns[0]);
  }
  for (auto& [key, rule] : rules) profile.syscalls.push_back(std::move(rule));
  return profile;
}

}  // namespace gantry::oci
