// From the name of a runtime to the binary of its shim.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gantry::task {

inline constexpr char kOwnRuntime[] = "io.containerd.gantry.v2";

// Where to look, in this order for our own shim: beside this program, then PATH; for others the
// other way round, as containerd does.
struct BinarySearch {
  std::string own_directory;      // Of this program.
  std::vector<std::string> path;  // The directories of PATH.
};
BinarySearch BinarySearchOfThisProcess();

// "containerd-shim-runc-v2" for "io.containerd.runc.v2". Errors: InvalidArgument — no such form.
absl::StatusOr<std::string> ShimBinaryName(const std::string& runtime);

// An absolute path of the shim. `runtime` is an absolute path or dotted text whose last two parts
// name the shim. Errors: InvalidArgument — a relative path, or not such text; NotFound — no such
// binary, naming where it was looked for.
absl::StatusOr<std::string> FindShimBinary(const std::string& runtime, const BinarySearch& search);

// Whether `binary` is our own shim, by its file name.
bool IsOwnShim(const std::string& binary);

}  // namespace gantry::task
