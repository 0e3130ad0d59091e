#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/oci/check.h"

namespace gantry::oci::check {

// Only what a namespace of the container's own holds may be set: anything else is the host's
// (SECURITY-RULES 22).
absl::Status CheckSysctl(const Linux& linux_config, const std::string& name,
                         const std::string& value) {
  const std::string at = absl::StrCat("linux.sysctl.", EscapeForTerminal(name));
  // Both "net.ipv4.ip_forward" and "net/ipv4/ip_forward" are in use; a slash first means that dots
  // belong to names (of interfaces).
  const bool slashes = name.find('/') != std::string::npos &&
                       (name.find('.') == std::string::npos || name.find('/') < name.find('.'));
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && !absl::StrContains("_.-/", c)) {
      return Wrong(at, "a sysctl's name has only letters, digits and _ . - /");
    }
  }
  for (absl::string_view part : absl::StrSplit(name, slashes ? '/' : '.')) {
    if (part.empty() || part == "." || part == "..") return Wrong(at, "is not a sysctl's name");
  }
  if (!slashes && absl::StrContains(name, "..")) return Wrong(at, "is not a sysctl's name");
  RETURN_IF_ERROR(CheckOneLine(at, value));

  const std::string dotted = slashes ? absl::StrJoin(absl::StrSplit(name, '/'), ".") : name;
  static constexpr absl::string_view kIpc[] = {
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"};
  std::string needed;
  if (std::find(std::begin(kIpc), std::end(kIpc), dotted) != std::end(kIpc) ||
      absl::StartsWith(dotted, "fs.mqueue.")) {
    needed = "ipc";
  } else if (absl::StartsWith(dotted, "net.")) {
    needed = "network";
  } else if (dotted == "kernel.domainname") {
    needed = "uts";
  } else if (dotted == "kernel.hostname") {
    return Wrong(at, "is set through the document's hostname");
  } else if (absl::StartsWith(dotted, "user.")) {
    needed = "user";
  } else {
    return Wrong(at, "is not in a separate kernel namespace");
  }
  if (linux_config.FindNamespace(needed) == nullptr) {
    return Wrong(at, absl::StrCat("is not allowed in the host's ", needed,
                                  " namespace; add one to linux.namespaces"));
  }
  return absl::OkStatus();
}

}  // namespace gantry::oci::check
