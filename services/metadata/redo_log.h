// The redo log: what makes a commit durable with one sync.
//
// A file of fixed size, written with zeros when it is made, so that appending changes no file
// system metadata and one fdatasync(2) of a few pages is all a commit waits for (COSTS section 4:
// 160 µs against 450 µs for LMDB's own commit). It cannot run out of disk space either.
//
// The log is cut into epochs. Each checkpoint of the database begins a new one at offset 0; records
// of older epochs that still lie behind are told apart by their epoch number.
// docs/formats/metadata.md has the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::metadata {

// CRC-32 (zlib's) of `bytes`, continuing `seed`.
uint32_t Checksum(absl::string_view bytes, uint32_t seed = 0);

// Thread-compatible: the database calls it from one writer at a time.
class RedoLog {
 public:
  // Opens or makes the log. Errors: ResourceExhausted — no space to make it.
  static absl::StatusOr<RedoLog> Open(const std::string& path, size_t size_bytes);

  RedoLog(RedoLog&&) = default;
  RedoLog& operator=(RedoLog&&) = default;

  // Hands the payloads of `epoch` to `apply`, in order. A torn last record was never acknowledged
  // and ends the replay. Errors: DataLoss — a record is damaged though later ones are whole;
  // whatever `apply` says.
  absl::Status Replay(uint64_t epoch,
                      absl::FunctionRef<absl::Status(absl::string_view)> apply) const;

  // Appends go to `epoch` from now on, from the start of the file.
  void Restart(uint64_t epoch);

  bool Fits(size_t payload_bytes) const;
  size_t used_bytes() const { return offset_; }

  // Durable once OK. Any error is fatal for the store (SECURITY-RULES 39): what reached the disk is
  // unknown.
  absl::Status Append(absl::string_view payload);

 private:
  RedoLog(sys::UniqueFd file, size_t size_bytes)
      : file_(std::move(file)), size_bytes_(size_bytes) {}

  sys::UniqueFd file_;
  size_t size_bytes_;
  size_t offset_ = 0;
  uint64_t epoch_ = 0;
  uint64_t next_index_ = 0;
};

}  // namespace gantry::metadata
