#include "services/metadata/redo_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::metadata {
namespace {

constexpr uint32_t kMagic = 0x314c5247;  // "GRL1"
constexpr size_t kAlignment = 8;

struct Header {
  uint32_t magic;
  uint32_t payload_bytes;
  uint64_t epoch;
  uint64_t index;     // Counts the records of an epoch from 0.
  uint32_t checksum;  // Of the fields above and the payload.
  uint32_t reserved;
};
static_assert(sizeof(Header) == 32);

size_t RecordBytes(size_t payload_bytes) {
  return (sizeof(Header) + payload_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

uint32_t HeaderChecksum(const Header& header, absl::string_view payload) {
  absl::string_view fields(reinterpret_cast<const char*>(&header), offsetof(Header, checksum));
  return Checksum(payload, Checksum(fields));
}

// The payload of the record at `offset` when it is whole and of `epoch`.
std::optional<absl::string_view> RecordAt(absl::string_view log, size_t offset, uint64_t epoch,
                                          uint64_t* index) {
  if (log.size() - offset < sizeof(Header)) return std::nullopt;
  Header header;
  std::memcpy(&header, log.data() + offset, sizeof(header));
  if (header.magic != kMagic || header.epoch != epoch) return std::nullopt;
  if (header.payload_bytes > log.size() - offset - sizeof(Header)) return std::nullopt;
  absl::string_view payload = log.substr(offset + sizeof(Header), header.payload_bytes);
  if (HeaderChecksum(header, payload) != header.checksum) return std::nullopt;
  *index = header.index;
  return payload;
}

absl::Status FillWithZeros(const sys::UniqueFd& file, size_t from, size_t size_bytes) {
  const std::string zeros(1 << 20, '\0');
  for (size_t done = from; done < size_bytes;) {
    size_t step = std::min(zeros.size(), size_bytes - done);
    ssize_t written = ::pwrite(file.get(), zeros.data(), step, static_cast<off_t>(done));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return sys::ErrnoError(errno, "make the redo log");
    done += static_cast<size_t>(written);
  }
  return sys::Sync(file);
}

}  // namespace

uint32_t Checksum(absl::string_view bytes, uint32_t seed) {
  if (bytes.empty()) return seed;  // zlib takes a null pointer for "start anew".
  return static_cast<uint32_t>(
      ::crc32_z(seed, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

absl::StatusOr<RedoLog> RedoLog::Open(const std::string& path, size_t size_bytes) {
  ASSIGN_OR_RETURN(sys::UniqueFd file, sys::Open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  struct stat status;
  if (::fstat(file.get(), &status) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at the redo log '", path, "'"));
  }
  // A log of another size (a new version, or making it was interrupted) keeps its records: it
  // grows.
  size_t present = static_cast<size_t>(status.st_size);
  if (present < size_bytes) RETURN_IF_ERROR(FillWithZeros(file, present, size_bytes));
  return RedoLog(std::move(file), std::max(size_bytes, present));
}

absl::Status RedoLog::Replay(uint64_t epoch,
                             absl::FunctionRef<absl::Status(absl::string_view)> apply) const {
  std::string log(size_bytes_, '\0');
  for (size_t done = 0; done < log.size();) {
    ssize_t count =
        ::pread(file_.get(), log.data() + done, log.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys::ErrnoError(errno, "read the redo log");
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }

  size_t offset = 0;
  uint64_t expected = 0, index = 0;
  while (offset < log.size()) {
    std::optional<absl::string_view> payload = RecordAt(log, offset, epoch, &index);
    if (!payload || index != expected) break;
    RETURN_IF_ERROR(apply(*payload));
    offset += RecordBytes(payload->size());
    ++expected;
  }
  // Appends wait for one another, so behind a torn record there is never a whole one.
  for (size_t at = offset; at + sizeof(Header) <= log.size(); at += kAlignment) {
    if (RecordAt(log, at, epoch, &index) && index >= expected) {
      return absl::DataLossError(absl::StrCat("redo log: record ", expected, " of epoch ", epoch,
                                              " is damaged, record ", index,
                                              " behind it is whole; restore a backup"));
    }
  }
  return absl::OkStatus();
}

void RedoLog::Restart(uint64_t epoch) {
  epoch_ = epoch;
  next_index_ = 0;
  offset_ = 0;
}

bool RedoLog::Fits(size_t payload_bytes) const {
  return payload_bytes <= UINT32_MAX && offset_ + RecordBytes(payload_bytes) <= size_bytes_;
}

absl::Status RedoLog::Append(absl::string_view payload) {
  if (!Fits(payload.size())) return absl::InternalError("redo log: record does not fit");
  Header header = {};
  header.magic = kMagic;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.epoch = epoch_;
  header.index = next_index_;
  header.checksum = HeaderChecksum(header, payload);
  std::string record(RecordBytes(payload.size()), '\0');
  std::memcpy(record.data(), &header, sizeof(header));
  std::memcpy(record.data() + sizeof(header), payload.data(), payload.size());

  RETURN_IF_ERROR(FAILPOINT("metadata.redo_log.before_append"));
  for (size_t done = 0; done < record.size();) {
    ssize_t count = ::pwrite(file_.get(), record.data() + done, record.size() - done,
                             static_cast<off_t>(offset_ + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys::ErrnoError(errno, "append to the redo log");
    done += static_cast<size_t>(count);
  }
  RETURN_IF_ERROR(FAILPOINT("metadata.redo_log.before_sync"));
  if (::fdatasync(file_.get()) != 0) return sys::ErrnoError(errno, "sync the redo log");
  offset_ += record.size();
  ++next_index_;
  return absl::OkStatus();
}

}  // namespace gantry::metadata
