#include "runtime/resctrl.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;

constexpr char kUsualPlace[] = "/sys/fs/resctrl";
constexpr long kResctrlMagic = 0x7655821;

bool IsResctrl(const std::string& path) {
  struct statfs info = {};
  return ::statfs(path.c_str(), &info) == 0 && info.f_type == kResctrlMagic;
}

// The lines that the document asks for, in the order the specification gives. With a memBwSchema,
// bandwidth lines of the cache schema do not count.
std::vector<std::string> WantedLines(const oci::IntelRdt& rdt) {
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(rdt.l3_cache_schema, '\n', absl::SkipEmpty())) {
    if (rdt.mem_bw_schema.empty() || !absl::StartsWith(line, "MB:")) lines.emplace_back(line);
  }
  if (!rdt.mem_bw_schema.empty()) lines.push_back(rdt.mem_bw_schema);
  lines.insert(lines.end(), rdt.schemata.begin(), rdt.schemata.end());
  return lines;
}

// One resource's settings by domain, as the kernel prints them or people write them: "L3:0=00f;1=f"
// is the same as "L3: 1=f ; 0=f".
struct Schema {
  std::string resource;
  std::vector<std::pair<std::string, std::string>> domains;  // Sorted.
};

Schema ParseSchema(absl::string_view line) {
  Schema schema;
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(':', 1));
  schema.resource = std::string(absl::StripAsciiWhitespace(halves.first));
  for (absl::string_view domain : absl::StrSplit(halves.second, ';', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> setting =
        absl::StrSplit(domain, absl::MaxSplits('=', 1));
    absl::string_view value = absl::StripAsciiWhitespace(setting.second);
    while (value.size() > 1 && value[0] == '0') value.remove_prefix(1);
    schema.domains.emplace_back(std::string(absl::StripAsciiWhitespace(setting.first)),
                                absl::AsciiStrToLower(value));
  }
  std::sort(schema.domains.begin(), schema.domains.end());
  return schema;
}

// Whether an existing group has every setting that is asked for.
bool Agrees(absl::string_view existing, const std::vector<std::string>& wanted) {
  std::vector<Schema> present;
  for (absl::string_view line : absl::StrSplit(existing, '\n', absl::SkipEmpty()))
    present.push_back(ParseSchema(line));
  return std::all_of(wanted.begin(), wanted.end(), [&](const std::string& line) {
    const Schema asked = ParseSchema(line);
    return std::any_of(present.begin(), present.end(), [&](const Schema& schema) {
      return schema.resource == asked.resource &&
             std::includes(schema.domains.begin(), schema.domains.end(), asked.domains.begin(),
                           asked.domains.end());
    });
  });
}

absl::Status WriteLine(const std::string& group, absl::string_view line) {
  absl::Status status =
      sys::WriteControlFile(absl::StrCat(group, "/schemata"), absl::StrCat(line, "\n"));
  return Annotate(status, absl::StrCat("linux.intelRdt: set ", Quote(line), " of ", Quote(group),
                                       " (the reason is in /sys/fs/resctrl/info/"
                                       "last_cmd_status)"));
}

absl::Status MakeGroup(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return absl::OkStatus();
  // ENOSPC: the processor has no class or monitoring id left.
  return ErrnoError(errno, absl::StrCat("linux.intelRdt: make the group ", Quote(path)));
}

}  // namespace

absl::StatusOr<std::string> FindResctrl() {
  if (IsResctrl(kUsualPlace)) return std::string(kUsualPlace);
  absl::StatusOr<std::string> table = sys::ReadFile("/proc/self/mountinfo");
  RETURN_IF_ERROR(table.status());
  for (absl::string_view line : absl::StrSplit(*table, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> halves = absl::StrSplit(line, " - ");
    if (halves.size() < 2 || !absl::StartsWith(halves[1], "resctrl ")) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(halves[0], ' ');
    if (fields.size() > 4) return std::string(fields[4]);
  }
  return absl::FailedPreconditionError(
      "linux.intelRdt: this machine has no resctrl file system mounted at /sys/fs/resctrl; mount "
      "it "
      "(mount -t resctrl resctrl /sys/fs/resctrl), or leave intelRdt out where the processor or "
      "the "
      "kernel lacks it");
}

absl::StatusOr<ResctrlPlan> PlanResctrl(const oci::IntelRdt& rdt, const std::string& id,
                                        const std::string& resctrl) {
  ResctrlPlan plan;
  const std::string& name = rdt.clos_id.empty() ? id : rdt.clos_id;
  plan.group = name == "/" ? resctrl : absl::StrCat(resctrl, "/", name);
  if (rdt.enable_monitoring) plan.monitor = absl::StrCat(plan.group, "/mon_groups/", id);
  const std::vector<std::string> wanted = WantedLines(rdt);
  absl::StatusOr<std::string> existing = sys::ReadFile(absl::StrCat(plan.group, "/schemata"));
  if (existing.ok()) {
    if (Agrees(*existing, wanted)) return plan;
    return absl::FailedPreconditionError(absl::StrCat(
        "linux.intelRdt: the group ", Quote(plan.group),
        " exists with other schemata than asked for; use another closID, or change the group"));
  }
  if (!absl::IsNotFound(existing.status())) return existing.status();
  if (!rdt.clos_id.empty() && wanted.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("linux.intelRdt.closID: the group ", Quote(plan.group),
                     " does not exist, and no schemata say how to make it"));
  }
  plan.owned = true;
  return plan;
}

absl::Status MakeResctrl(const oci::IntelRdt& rdt, const ResctrlPlan& plan) {
  RETURN_IF_ERROR(FAILPOINT("runtime.resctrl.before_group"));
  absl::Cleanup undo = [&plan] { (void)RemoveResctrl(plan); };
  if (plan.owned) {
    RETURN_IF_ERROR(MakeGroup(plan.group));
    for (const std::string& line : WantedLines(rdt)) RETURN_IF_ERROR(WriteLine(plan.group, line));
  }
  if (!plan.monitor.empty()) RETURN_IF_ERROR(MakeGroup(plan.monitor));
  std::move(undo).Cancel();
  return absl::OkStatus();
}

absl::Status JoinResctrl(const ResctrlPlan& plan, pid_t pid) {
  for (const std::string& directory : {plan.group, plan.monitor}) {
    if (directory.empty()) continue;
    RETURN_IF_ERROR(
        Annotate(sys::WriteControlFile(absl::StrCat(directory, "/tasks"), absl::StrCat(pid)),
                 absl::StrCat("linux.intelRdt: move the process into ", Quote(directory))));
  }
  return absl::OkStatus();
}

absl::Status UpdateResctrl(const ResctrlPlan& plan, absl::string_view l3_cache_schema,
                           absl::string_view mem_bw_schema) {
  if (plan.empty()) {
    return absl::FailedPreconditionError(
        "the container has no resctrl group; it was created without linux.intelRdt");
  }
  for (absl::string_view text : {l3_cache_schema, mem_bw_schema}) {
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      RETURN_IF_ERROR(WriteLine(plan.group, line));
    }
  }
  return absl::OkStatus();
}

absl::Status RemoveResctrl(const ResctrlPlan& plan) {
  absl::Status status;
  for (const std::string& directory : {plan.monitor, plan.owned ? plan.group : std::string()}) {
    if (directory.empty() || ::rmdir(directory.c_str()) == 0 || errno == ENOENT) continue;
    status = FirstError(
        status, ErrnoError(errno, absl::StrCat("remove the resctrl group ", Quote(directory))));
  }
  return status;
}

}  // namespace gantry::runtime
