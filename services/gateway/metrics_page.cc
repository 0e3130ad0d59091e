#include "services/gateway/metrics_page.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace gantry::gateway {
namespace {

struct Family {
  std::string help;
  std::string type;
  std::string samples;
};

// "name{a="b"} 1" or "name 1" with `process` as the first label; empty when it is no sample.
std::string WithProcess(absl::string_view line, absl::string_view process) {
  const size_t end = line.find_first_of("{ ");
  if (end == 0 || end == absl::string_view::npos) return "";
  const absl::string_view name = line.substr(0, end);
  const std::string label = absl::StrCat("process=\"", process, "\"");
  if (line[end] == ' ') return absl::StrCat(name, "{", label, "}", line.substr(end), "\n");
  const absl::string_view rest = line.substr(end + 1);
  return absl::StrCat(name, "{", label, absl::StartsWith(rest, "}") ? "" : ",", rest, "\n");
}

// The family of a comment "# HELP name …", or empty.
absl::string_view FamilyOf(absl::string_view comment) {
  std::vector<absl::string_view> words = absl::StrSplit(comment, absl::MaxSplits(' ', 3));
  return words.size() >= 3 ? words[2] : "";
}

// Samples follow the comments of their family, so the last family named is theirs (Prometheus'
// exposition format: all lines of a metric form one group).
void AddPage(absl::string_view process, absl::string_view text,
             std::map<std::string, Family>& families) {
  Family* current = nullptr;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    const bool help = absl::StartsWith(line, "# HELP ");
    if (help || absl::StartsWith(line, "# TYPE ")) {
      current = &families[std::string(FamilyOf(line))];
      std::string& slot = help ? current->help : current->type;
      if (slot.empty()) slot = absl::StrCat(line, "\n");
    } else if (!absl::StartsWith(line, "#") && current != nullptr) {
      current->samples += WithProcess(line, process);
    }
  }
}

}  // namespace

std::string MergePages(const std::vector<std::pair<std::string, std::string>>& pages) {
  std::map<std::string, Family> families;
  for (const auto& [process, text] : pages) AddPage(process, text, families);
  std::string page;
  for (const auto& [name, family] : families) {
    if (!family.samples.empty()) absl::StrAppend(&page, family.help, family.type, family.samples);
  }
  return page;
}

}  // namespace gantry::gateway
