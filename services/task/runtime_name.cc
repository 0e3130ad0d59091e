#include "services/task/runtime_name.h"

#include <unistd.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::task {
namespace {

constexpr char kOwnBinary[] = "containerd-shim-gantry-v2";

bool IsRunnable(const std::string& path) { return ::access(path.c_str(), X_OK) == 0; }

bool IsNamePart(absl::string_view part) {
  if (part.empty()) return false;
  for (const char c : part) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-') return false;
  }
  return true;
}

}  // namespace

BinarySearch BinarySearchOfThisProcess() {
  BinarySearch search;
  if (absl::StatusOr<std::string> self = sys::ReadSymlink("/proc/self/exe"); self.ok()) {
    search.own_directory = self->substr(0, self->rfind('/'));
  }
  const char* path = std::getenv("PATH");
  const std::string directories =
      path != nullptr ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  search.path = absl::StrSplit(directories, ':', absl::SkipEmpty());
  return search;
}

absl::StatusOr<std::string> ShimBinaryName(const std::string& runtime) {
  const std::vector<std::string> parts = absl::StrSplit(runtime, '.');
  const size_t count = parts.size();
  if (count < 2 || runtime.size() > 255 || !IsNamePart(parts[count - 2]) ||
      !IsNamePart(parts[count - 1])) {
    return absl::InvalidArgumentError(
        absl::StrCat("runtime '", runtime,
                     "' is neither an absolute path nor a name such as 'io.containerd.runc.v2'"));
  }
  return absl::StrCat("containerd-shim-", parts[count - 2], "-", parts[count - 1]);
}

absl::StatusOr<std::string> FindShimBinary(const std::string& runtime, const BinarySearch& search) {
  if (absl::StartsWith(runtime, "/")) {
    if (IsRunnable(runtime)) return runtime;
    return absl::NotFoundError(
        absl::StrCat("runtime '", runtime, "' is not a program that can be run"));
  }
  if (absl::StrContains(runtime, "/")) {
    return absl::InvalidArgumentError(
        absl::StrCat("runtime '", runtime, "' is a relative path; give an absolute one"));
  }
  ASSIGN_OR_RETURN(const std::string name, ShimBinaryName(runtime));
  std::vector<std::string> directories = search.path;
  // A suite run from its build folder uses the shim built with it, not an installed one.
  directories.insert(name == kOwnBinary ? directories.begin() : directories.end(),
                     search.own_directory);
  for (const std::string& directory : directories) {
    const std::string candidate = absl::StrCat(directory, "/", name);
    if (absl::StartsWith(candidate, "/") && IsRunnable(candidate)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("runtime '", runtime, "': no '", name, "' in ",
                                          absl::StrJoin(directories, ":"), "; install it"));
}

bool IsOwnShim(const std::string& binary) {
  return binary.substr(binary.rfind('/') + 1) == kOwnBinary;
}

}  // namespace gantry::task
