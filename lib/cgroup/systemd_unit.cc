#include "lib/cgroup/systemd_unit.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/dbus/variant_text.h"

namespace gantry::cgroup {
namespace {

constexpr size_t kMaxUnitBytes = 255;
constexpr uint32_t kMaxMaskBits = 8192;  // As many processors as Linux can be built for.
constexpr char kAnnotationPrefix[] = "org.systemd.property.";

bool IsUnitText(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || absl::StrContains(":_.\\-@", static_cast<char>(c));
  });
}

// "a-b.slice": parts between dashes, none of them empty.
bool IsSlice(absl::string_view name) {
  if (!absl::ConsumeSuffix(&name, ".slice") || !IsUnitText(name)) return false;
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '-');
  return std::none_of(parts.begin(), parts.end(), [](absl::string_view p) { return p.empty(); });
}

absl::Status WrongPath(absl::string_view path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "linux.cgroupsPath: '", EscapeForTerminal(path), "': ", why,
      "; the systemd cgroup driver takes 'slice:prefix:name', such as 'system.slice:gantry:web'"));
}

}  // namespace

bool UnitName::is_slice() const { return absl::EndsWith(unit, ".slice"); }

absl::StatusOr<UnitName> ParseUnitPath(absl::string_view path, absl::string_view id, bool user) {
  UnitName name;
  name.slice = user ? "user.slice" : "system.slice";
  if (path.empty()) {
    name.unit = absl::StrCat("gantry-", id, ".scope");
  } else {
    const std::vector<absl::string_view> parts = absl::StrSplit(path, ':');
    if (parts.size() != 3) return WrongPath(path, "does not have three parts");
    if (!parts[0].empty()) name.slice = std::string(parts[0]);
    if (parts[2].empty()) return WrongPath(path, "has no name");
    name.unit = absl::EndsWith(parts[2], ".slice") ? std::string(parts[2])
                : parts[1].empty()                 ? absl::StrCat(parts[2], ".scope")
                                   : absl::StrCat(parts[1], "-", parts[2], ".scope");
  }
  if (name.slice == "-.slice") {
    name.slice.clear();
  } else if (!IsSlice(name.slice)) {
    return WrongPath(path, "its first part is not the name of a slice");
  }
  const bool valid = name.is_slice() ? IsSlice(name.unit) : IsUnitText(name.unit);
  if (!valid || name.unit.size() > kMaxUnitBytes || name.unit[0] == '.') {
    return WrongPath(
        path, absl::StrCat("'", EscapeForTerminal(name.unit), "' cannot be the name of a unit"));
  }
  return name;
}

std::string ExpandSlice(absl::string_view slice) {
  std::string path;
  absl::string_view name = absl::StripSuffix(slice, ".slice");
  for (size_t dash = name.find('-');; dash = name.find('-', dash + 1)) {
    if (name.empty()) return path;
    absl::StrAppend(&path, "/", name.substr(0, dash), ".slice");
    if (dash == absl::string_view::npos) return path;
  }
}

absl::StatusOr<std::string> BitMask(absl::string_view list) {
  std::string mask;
  for (absl::string_view part : absl::StrSplit(list, ',')) {
    part = absl::StripAsciiWhitespace(part);
    const std::vector<absl::string_view> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    uint32_t first = 0, last = 0;
    const bool read = absl::SimpleAtoi(ends[0], &first) && absl::SimpleAtoi(ends.back(), &last);
    if (!read || first > last || last >= kMaxMaskBits) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", EscapeForTerminal(list), "' is not a list such as '0-2,7'"));
    }
    if (mask.size() <= last / 8) mask.resize(last / 8 + 1, '\0');
    for (uint32_t bit = first; bit <= last; ++bit) {
      mask[bit / 8] = static_cast<char>(mask[bit / 8] | (1 << (bit % 8)));
    }
  }
  return mask;
}

absl::StatusOr<std::vector<UnitProperty>> AnnotationProperties(const oci::StringMap& annotations) {
  std::vector<UnitProperty> properties;
  for (const auto& [key, text] : annotations) {
    absl::string_view name = key;
    if (!absl::ConsumePrefix(&name, kAnnotationPrefix)) continue;
    const bool letters = name.size() >= 3 && std::all_of(name.begin(), name.end(), [](char c) {
                           return absl::ascii_isalpha(static_cast<unsigned char>(c));
                         });
    const std::string where = absl::StrCat("annotations: '", EscapeForTerminal(key), "'");
    if (!letters) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": a property's name has at least three letters and nothing else"));
    }
    absl::StatusOr<dbus::Value> value = dbus::ParseVariantText(text);
    if (!value.ok()) return Annotate(value.status(), where);
    std::string property(name);
    if (absl::EndsWith(name, "Sec") && !absl::EndsWith(name, "USec")) {
      if (value->signature.size() != 1 || !absl::StrContains("nqiuxtd", value->signature)) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": needs a number of seconds"));
      }
      double seconds = static_cast<double>(static_cast<int64_t>(value->number));
      if (value->signature == "d") memcpy(&seconds, &value->number, sizeof seconds);
      if (!(seconds >= 0 && seconds <= 1e12)) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": not a time"));
      }
      property = absl::StrCat(absl::StripSuffix(name, "Sec"), "USec");
      value = dbus::Value::Uint64(static_cast<uint64_t>(seconds * 1e6));
    }
    properties.push_back({std::move(property), *std::move(value)});
  }
  return properties;
}

}  // namespace gantry::cgroup
