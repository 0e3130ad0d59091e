// Tar archives as entries, read by libarchive with its tar reader and no filter: other formats
// would read files of the host, other filters would start programs (SECURITY-RULES 24).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::archive {

enum class EntryType {
  kRegular,
  kDirectory,
  kSymlink,
  kHardLink,
  kCharacterDevice,
  kBlockDevice,
  kFifo,
};

// One member. Names are bytes as the archive has them: nothing is checked or cleaned yet.
struct TarEntry {
  EntryType type = EntryType::kRegular;
  std::string path;
  std::string link_target;  // Of symlinks and hard links.
  mode_t permissions = 0;   // The lower twelve bits.
  int64_t uid = 0;
  int64_t gid = 0;
  uint64_t size_bytes = 0;
  absl::Time modified;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

// Thread-compatible.
class TarReader {
 public:
  // Answers the next piece of the archive, empty at its end. The piece must stay valid until the
  // next call.
  using Source = std::function<absl::StatusOr<absl::string_view>()>;

  explicit TarReader(Source source);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  // Reads the next header into `*entry`; false at the end of the archive. What was not read of the
  // entry before is skipped. Errors: InvalidArgument — not a tar archive, or a damaged one;
  // whatever `source` answered.
  absl::StatusOr<bool> Next(TarEntry* entry);

  // Hands the data of the current entry over, piece by piece; holes of sparse files are left out.
  absl::Status ReadData(
      const std::function<absl::Status(uint64_t offset, absl::string_view bytes)>& consume);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gantry::archive
