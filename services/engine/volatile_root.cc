#include "services/engine/volatile_root.h"

#include <stdio.h>
#include <sys/utsname.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::engine {
namespace {

bool KernelKnowsVolatile() {
  static const bool known = [] {
    utsname name = {};
    int major = 0, minor = 0;
    if (::uname(&name) != 0 || ::sscanf(name.release, "%d.%d", &major, &minor) != 2) return false;
    return major > 5 || (major == 5 && minor >= 10);
  }();
  return known;
}

}  // namespace

absl::Status MakeVolatile(std::vector<containerd::types::Mount>& rootfs) {
  if (!KernelKnowsVolatile()) return absl::OkStatus();
  for (containerd::types::Mount& mount : rootfs) {
    if (mount.type() != "overlay") continue;
    std::string work;
    for (const std::string& option : mount.options()) {
      absl::string_view value = option;
      if (absl::ConsumePrefix(&value, "workdir=")) work = std::string(value);
    }
    if (work.empty()) continue;  // Nothing is written here.
    RETURN_IF_ERROR(Annotate(sys::RemoveTree(absl::StrCat(work, "/work/incompat")),
                             "use a container's root file system again"));
    mount.add_options("volatile");
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
