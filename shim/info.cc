#include "shim/info.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "lib/base/status.h"
#include "lib/base/version.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "runtime/features.h"
#include "runtime/runtime.h"
#include "shim/command_runtime.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

constexpr absl::Duration kCommandPatience = absl::Seconds(5);
constexpr size_t kMaxFeaturesBytes = 1 << 20;

// Older runtimes have no `features`.
absl::StatusOr<std::string> FeaturesOf(const std::string& binary_name) {
  ASSIGN_OR_RETURN(const std::string binary, FindBinary(binary_name));
  const sys::UniqueFd output(::memfd_create("features", MFD_CLOEXEC));
  if (!output.ok()) return sys::ErrnoError(errno, "make a file for the runtime's answer");
  sys::SpawnOptions spawn;
  spawn.argv = {binary, "features"};
  spawn.descriptors = {{output.get(), 1}};
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  ASSIGN_OR_RETURN(const sys::ExitStatus exit, child.Wait(kCommandPatience));
  if (exit.code != 0) return absl::UnimplementedError("the runtime has no `features`");
  if (::lseek(output.get(), 0, SEEK_SET) != 0) return sys::ErrnoError(errno, "rewind a file");
  ASSIGN_OR_RETURN(std::string text, sys::ReadAll(output, kMaxFeaturesBytes));
  RETURN_IF_ERROR(json::Document::Parse(text).status());
  return text;
}

}  // namespace

absl::StatusOr<std::string> RuntimeInfo(absl::string_view input) {
  ASSIGN_OR_RETURN(const Any any, ParseAny(input));
  ASSIGN_OR_RETURN(const RuncOptions options, ParseOptions(any));
  const absl::StatusOr<std::string> features =
      options.binary_name.empty() ? runtime::WriteFeatures() : FeaturesOf(options.binary_name);
  std::string info;
  pb::Writer writer(&info);
  writer.String(1, "io.containerd.gantry.v2");
  writer.Message(2, [](pb::Writer& version) { version.String(1, Version()); });
  if (!any.type_url.empty()) WriteAny(writer, 3, any.type_url, any.value);
  if (features.ok()) {
    WriteAny(writer, 4, "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
             *features);
  }
  return info;
}

}  // namespace gantry::shim
