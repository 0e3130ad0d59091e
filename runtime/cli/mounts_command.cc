// mounts add, mounts remove: crun's.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {

absl::StatusOr<int> RunMounts(const Global& global, const Arguments& arguments) {
  const std::string& action = arguments.operands()[0];
  if (action != "add" && action != "remove") {
    return absl::InvalidArgumentError(
        absl::StrCat("mounts: ", Quote(action), " is neither add nor remove"));
  }
  RETURN_IF_ERROR(CheckContainerId(arguments.operands()[1]));
  const std::string& path = arguments.operands()[2];
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(path));
  absl::StatusOr<std::vector<oci::Mount>> mounts = oci::ParseMounts(bytes);
  if (!mounts.ok()) return Annotate(mounts.status(), path);
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[1]));
  RETURN_IF_ERROR(action == "add" ? container.AddMounts(*mounts) : container.RemoveMounts(*mounts));
  return 0;
}

}  // namespace gantry::runtime
