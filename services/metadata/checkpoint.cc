#include "services/metadata/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/metadata/redo_log.h"

namespace gantry::metadata {
namespace {

constexpr uint32_t kMagic = 0x314b4347;  // "GCK1"
// Room for two meta pages of up to 32 KiB each.
constexpr size_t kSlotBytes = 128 << 10;

struct Header {
  uint32_t magic;
  uint32_t meta_bytes;
  uint64_t epoch;
  uint32_t checksum;  // Of the fields above and the meta pages.
  uint32_t reserved;
};
static_assert(sizeof(Header) == 24);

uint32_t HeaderChecksum(const Header& header, absl::string_view meta_pages) {
  absl::string_view fields(reinterpret_cast<const char*>(&header), offsetof(Header, checksum));
  return Checksum(meta_pages, Checksum(fields));
}

std::optional<Checkpoint> Parse(absl::string_view slot) {
  Header header;
  std::memcpy(&header, slot.data(), sizeof(header));
  if (header.magic != kMagic || header.meta_bytes > slot.size() - sizeof(header))
    return std::nullopt;
  absl::string_view meta_pages = slot.substr(sizeof(header), header.meta_bytes);
  if (HeaderChecksum(header, meta_pages) != header.checksum) return std::nullopt;
  return Checkpoint{header.epoch, std::string(meta_pages)};
}

}  // namespace

absl::StatusOr<CheckpointFile> CheckpointFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(sys::UniqueFd file, sys::Open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  struct stat status;
  if (::fstat(file.get(), &status) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at '", path, "'"));
  }
  if (status.st_size < static_cast<off_t>(2 * kSlotBytes)) {
    const std::string zeros(2 * kSlotBytes - status.st_size, '\0');
    if (::pwrite(file.get(), zeros.data(), zeros.size(), status.st_size) !=
        static_cast<ssize_t>(zeros.size())) {
      return sys::ErrnoError(errno, absl::StrCat("make '", path, "'"));
    }
    RETURN_IF_ERROR(sys::Sync(file));
  }
  return CheckpointFile(std::move(file));
}

absl::StatusOr<std::optional<Checkpoint>> CheckpointFile::Newest() const {
  std::string bytes(2 * kSlotBytes, '\0');
  if (::pread(file_.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return sys::ErrnoError(errno, "read the checkpoints");
  }
  std::optional<Checkpoint> newest;
  bool written = false;
  for (size_t at : {size_t{0}, kSlotBytes}) {
    absl::string_view slot = absl::string_view(bytes).substr(at, kSlotBytes);
    written = written || slot.find_first_not_of('\0') != absl::string_view::npos;
    std::optional<Checkpoint> parsed = Parse(slot);
    if (parsed && (!newest || parsed->epoch > newest->epoch)) newest = std::move(parsed);
  }
  if (!newest && written) {
    return absl::DataLossError(
        "no checkpoint of the database is whole; restore a backup of the state directory");
  }
  return newest;
}

absl::Status CheckpointFile::Write(const Checkpoint& checkpoint) {
  Header header = {};
  header.magic = kMagic;
  header.meta_bytes = static_cast<uint32_t>(checkpoint.meta_pages.size());
  header.epoch = checkpoint.epoch;
  header.checksum = HeaderChecksum(header, checkpoint.meta_pages);
  std::string slot(reinterpret_cast<const char*>(&header), sizeof(header));
  slot.append(checkpoint.meta_pages);
  if (slot.size() > kSlotBytes)
    return absl::InternalError("LMDB's pages are too large for a checkpoint");
  RETURN_IF_ERROR(FAILPOINT("metadata.checkpoint.before_write"));
  const off_t at = static_cast<off_t>((checkpoint.epoch & 1) * kSlotBytes);
  if (::pwrite(file_.get(), slot.data(), slot.size(), at) != static_cast<ssize_t>(slot.size())) {
    return sys::ErrnoError(errno, "write a checkpoint");
  }
  RETURN_IF_ERROR(FAILPOINT("metadata.checkpoint.before_sync"));
  if (::fdatasync(file_.get()) != 0) return sys::ErrnoError(errno, "sync a checkpoint");
  return absl::OkStatus();
}

}  // namespace gantry::metadata
