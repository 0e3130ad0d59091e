// The rules of config.json's `linux.resources`.
#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/oci/check.h"
#include "lib/oci/spec.h"

namespace gantry::oci {

using namespace check;  // The words these rules are written in.

absl::Status CheckResources(const Resources& resources, absl::string_view path) {
  static constexpr absl::string_view kDeviceTypes[] = {"", "a", "b", "c"};
  for (size_t i = 0; i < resources.devices.size(); ++i) {
    const DeviceRule& rule = resources.devices[i];
    const std::string at = absl::StrCat(Key(path, "devices"), "[", i, "]");
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), rule.type, kDeviceTypes));
    if (rule.major.value_or(-1) < -1 || rule.major.value_or(-1) > 4095) {
      return Wrong(Key(at, "major"), absl::StrCat(*rule.major, " is not from -1 to 4095"));
    }
    if (rule.minor.value_or(-1) < -1 || rule.minor.value_or(-1) > 1048575) {
      return Wrong(Key(at, "minor"), absl::StrCat(*rule.minor, " is not from -1 to 1048575"));
    }
    for (char c : rule.access) {
      if (!absl::StrContains("rwm", c)) {
        return Wrong(Key(at, "access"),
                     absl::StrCat(Quote(rule.access), " is not made of r, w, m"));
      }
    }
  }
  if (resources.cpu) {
    const char* what = "a list such as 0-3,7";
    RETURN_IF_ERROR(CheckCharacters(Key(path, "cpu.cpus"), resources.cpu->cpus, "-, ", what));
    RETURN_IF_ERROR(CheckCharacters(Key(path, "cpu.mems"), resources.cpu->mems, "-, ", what));
  }
  if (resources.memory && resources.memory->swappiness.value_or(0) > 100) {
    return Wrong(Key(path, "memory.swappiness"), "must be from 0 to 100");
  }
  for (size_t i = 0; i < resources.hugepages.size(); ++i) {
    absl::string_view size = resources.hugepages[i].page_size;
    const size_t digits = size.find_first_not_of("0123456789");
    const absl::string_view unit = digits == absl::string_view::npos ? "" : size.substr(digits);
    if (digits == 0 || size.empty() || size[0] == '0' ||
        (unit != "KB" && unit != "MB" && unit != "GB")) {
      return Wrong(absl::StrCat(Key(path, "hugepageLimits"), "[", i, "].pageSize"),
                   absl::StrCat(Quote(size), " is not a size such as 2MB"));
    }
  }
  if (resources.network) {
    for (size_t i = 0; i < resources.network->priorities.size(); ++i) {
      RETURN_IF_ERROR(CheckOneLine(absl::StrCat(Key(path, "network.priorities"), "[", i, "].name"),
                                   resources.network->priorities[i].name));
    }
  }
  for (const auto& [name, limit] : resources.rdma) {
    RETURN_IF_ERROR(CheckOneLine(Key(path, absl::StrCat("rdma.", EscapeForTerminal(name))), name));
  }
  for (const auto& [name, value] : resources.unified) {
    const std::string at = absl::StrCat(Key(path, "unified"), ".", EscapeForTerminal(name));
    const bool well_formed =
        absl::StrContains(name, '.') && !absl::StartsWith(name, ".") &&
        !absl::StartsWith(name, "cgroup.") && !absl::StrContains(name, "..") &&
        std::all_of(name.begin(), name.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("._-", c);
        });
    if (!well_formed) {
      return Wrong(at, "is not a controller's file, such as memory.high");
    }
    RETURN_IF_ERROR(CheckNoNul(at, value));
  }
  return absl::OkStatus();
}

}  // namespace gantry::oci
