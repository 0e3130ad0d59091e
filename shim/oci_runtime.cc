#include "shim/oci_runtime.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "runtime/runtime.h"
#include "shim/command_runtime.h"
#include "shim/library_runtime.h"

namespace gantry::shim {
namespace {

constexpr char kOptionsType[] = "containerd.runc.v1.Options";

std::string OptionsPath(const std::string& bundle) { return absl::StrCat(bundle, "/options.pb"); }

// A binary that cannot be found fails at its first use, with the reason.
std::string BinaryPath(const std::string& name) {
  absl::StatusOr<std::string> path = FindBinary(name);
  return path.ok() ? *std::move(path) : name;
}

}  // namespace

std::string StateRoot(const RuntimeConfig& config) {
  return config.options.root.empty() ? absl::StrCat(config.bundle, "/runtime")
                                     : absl::StrCat(config.options.root, "/", config.ns);
}

std::unique_ptr<OciRuntime> MakeRuntime(sys::EventLoop& loop, Reaper& reaper,
                                        RuntimeConfig config) {
  const std::string binary = config.options.binary_name;
  if (binary.empty()) return MakeLibraryRuntime(std::move(config));
  return MakeCommandRuntime(loop, reaper, BinaryPath(binary), std::move(config));
}

absl::Status ForceDelete(const RuntimeConfig& config) {
  if (config.options.binary_name.empty()) {
    return runtime::ForceDelete(StateRoot(config), config.id);
  }
  return ForceDeleteByCommand(BinaryPath(config.options.binary_name), config);
}

absl::Status SaveOptions(const std::string& bundle, const Any& options) {
  if (options.type_url != kOptionsType || options.value.empty()) return absl::OkStatus();
  return sys::WriteFileAtomically(OptionsPath(bundle), options.value, 0600);
}

absl::StatusOr<RuncOptions> LoadOptions(const std::string& bundle) {
  absl::StatusOr<std::string> bytes = sys::ReadFile(OptionsPath(bundle), 1 << 20);
  if (absl::IsNotFound(bytes.status())) return RuncOptions();
  RETURN_IF_ERROR(bytes.status());
  return ParseOptions({kOptionsType, *std::move(bytes)});
}

}  // namespace gantry::shim
