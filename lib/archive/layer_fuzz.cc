// Any bytes as a layer: the whole way through inflate, tar and the sink, into a directory that must
// keep everything in.
#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/archive/unpack.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gantry;  // NOLINT: a fuzz target is one function.
  absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create();
  if (!directory.ok()) std::abort();
  const std::string root = directory->path() + "/root";
  if (!sys::MakeDirectories(root).ok()) std::abort();
  if (!sys::WriteFileAtomically(directory->path() + "/outside", "untouched").ok()) std::abort();

  archive::UnpackOptions options;
  options.limits.max_bytes = 1 << 20;
  options.limits.max_entries = 100;
  options.max_tar_bytes = 4 << 20;
  options.whiteouts = static_cast<archive::Whiteouts>(size % 4);
  size_t offset = 0;
  sys::UniqueFd fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  (void)archive::Unpack(
      [&](char* buffer, size_t room) -> absl::StatusOr<size_t> {
        const size_t count = std::min(room, size - offset);
        std::copy(data + offset, data + offset + count, buffer);
        offset += count;
        return count;
      },
      std::move(fd), options);

  // Nothing but the two names, and the file beside the root as it was.
  absl::StatusOr<std::string> outside = sys::ReadFile(directory->path() + "/outside");
  if (!outside.ok() || *outside != "untouched") std::abort();
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(directory->path());
  if (!names.ok() || names->size() != 2) std::abort();
  return 0;
}
