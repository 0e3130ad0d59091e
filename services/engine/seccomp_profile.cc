#include <sys/utsname.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "services/engine/spec_builder.h"

namespace gantry::engine {
namespace {

constexpr size_t kMaxProfileBytes = 1 << 20;

#if defined(__x86_64__)
constexpr char kArchitecture[] = "SCMP_ARCH_X86_64";
constexpr char kArchitectureName[] = "amd64";
#elif defined(__aarch64__)
constexpr char kArchitecture[] = "SCMP_ARCH_AARCH64";
constexpr char kArchitectureName[] = "arm64";
#endif

// Whether this kernel is at least "major.minor".
bool KernelAtLeast(absl::string_view version) {
  struct utsname name = {};
  ::uname(&name);
  const auto parse = [](absl::string_view text) {
    std::pair<int, int> number = {0, 0};
    const std::vector<absl::string_view> parts = absl::StrSplit(text, '.');
    (void)absl::SimpleAtoi(parts[0], &number.first);
    if (parts.size() > 1)
      (void)absl::SimpleAtoi(parts[1].substr(0, parts[1].find('-')), &number.second);
    return number;
  };
  return parse(name.release) >= parse(version);
}

// Docker's conditions on a rule, in `includes` or `excludes`.
struct Condition {
  std::vector<std::string> caps, arches;
  std::string min_kernel;
};

absl::StatusOr<Condition> ReadCondition(const json::Value& rule, absl::string_view key) {
  Condition condition;
  std::optional<json::Value> found = rule.Find(key);
  if (!found.has_value()) return condition;
  RETURN_IF_ERROR(found->Optional("caps", &condition.caps));
  RETURN_IF_ERROR(found->Optional("arches", &condition.arches));
  RETURN_IF_ERROR(found->Optional("minKernel", &condition.min_kernel));
  return condition;
}

bool Contains(const std::vector<std::string>& list, absl::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool Applies(const Condition& includes, const Condition& excludes,
             const std::vector<std::string>& capabilities) {
  for (const std::string& capability : includes.caps) {
    if (!Contains(capabilities, capability)) return false;
  }
  if (!includes.arches.empty() && !Contains(includes.arches, kArchitectureName)) return false;
  if (!includes.min_kernel.empty() && !KernelAtLeast(includes.min_kernel)) return false;
  for (const std::string& capability : excludes.caps) {
    if (Contains(capabilities, capability)) return false;
  }
  if (Contains(excludes.arches, kArchitectureName)) return false;
  return excludes.min_kernel.empty() || !KernelAtLeast(excludes.min_kernel);
}

absl::Status ReadArchitectures(const json::Value& root, oci::Seccomp& seccomp) {
  RETURN_IF_ERROR(root.Optional("architectures", &seccomp.architectures));
  std::vector<json::Value> map;
  RETURN_IF_ERROR(root.Optional("archMap", &map));
  for (const json::Value& entry : map) {
    std::string architecture;
    RETURN_IF_ERROR(entry.Required("architecture", &architecture));
    if (architecture != kArchitecture) continue;
    std::vector<std::string> sub;
    RETURN_IF_ERROR(entry.Optional("subArchitectures", &sub));
    seccomp.architectures.push_back(architecture);
    seccomp.architectures.insert(seccomp.architectures.end(), sub.begin(), sub.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<oci::SeccompRule> ReadRule(const json::Value& value) {
  oci::SeccompRule rule;
  RETURN_IF_ERROR(value.Optional("names", &rule.names));
  std::string name;
  RETURN_IF_ERROR(value.Optional("name", &name));
  if (!name.empty()) rule.names.push_back(name);
  if (rule.names.empty()) return value.Error("a rule needs names");
  RETURN_IF_ERROR(value.Required("action", &rule.action));
  RETURN_IF_ERROR(value.Optional("errnoRet", &rule.errno_ret));
  std::vector<json::Value> args;
  RETURN_IF_ERROR(value.Optional("args", &args));
  for (const json::Value& arg : args) {
    oci::SeccompArg& parsed = rule.args.emplace_back();
    RETURN_IF_ERROR(arg.Required("index", &parsed.index));
    RETURN_IF_ERROR(arg.Required("value", &parsed.value));
    RETURN_IF_ERROR(arg.Optional("valueTwo", &parsed.value_two));
    RETURN_IF_ERROR(arg.Required("op", &parsed.op));
  }
  return rule;
}

}  // namespace

absl::StatusOr<oci::Seccomp> ParseSeccompProfile(absl::string_view json,
                                                 const std::vector<std::string>& capabilities) {
  absl::StatusOr<json::Document> document = json::Document::Parse(json, kMaxProfileBytes);
  if (!document.ok()) return Annotate(document.status(), "the seccomp profile is not right");
  const json::Value root = document->root();
  oci::Seccomp seccomp;
  RETURN_IF_ERROR(root.Required("defaultAction", &seccomp.default_action));
  RETURN_IF_ERROR(root.Optional("defaultErrnoRet", &seccomp.default_errno_ret));
  if (root.Find("flags")) RETURN_IF_ERROR(root.Optional("flags", &seccomp.flags.emplace()));
  RETURN_IF_ERROR(ReadArchitectures(root, seccomp));
  std::vector<json::Value> rules;
  RETURN_IF_ERROR(root.Optional("syscalls", &rules));
  for (const json::Value& value : rules) {
    ASSIGN_OR_RETURN(Condition includes, ReadCondition(value, "includes"));
    ASSIGN_OR_RETURN(Condition excludes, ReadCondition(value, "excludes"));
    ASSIGN_OR_RETURN(oci::SeccompRule rule, ReadRule(value));
    if (Applies(includes, excludes, capabilities)) seccomp.syscalls.push_back(std::move(rule));
  }
  return seccomp;
}

}  // namespace gantry::engine
