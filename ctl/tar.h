// Tar archives for `cp`: a stream of entries read or written, and trees of files made from or into
// one.
//
// Read: ustar, pax extended headers, GNU long names and base-256 numbers. Written: ustar, with pax
// headers where a name or size does not fit. Extraction never leaves its directory, whatever the
// archive and the links in it say: it comes from a container, which may be hostile.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::ctl {

struct TarEntry {
  enum class Type { kFile, kHardLink, kSymlink, kDirectory, kSpecial };
  Type type = Type::kFile;
  std::string name;
  std::string link;  // Target of a hard or symbolic link.
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size_bytes = 0;
  int64_t modified_seconds = 0;
};

// Up to `size` bytes into `buffer`; 0: the end.
using TarSource = std::function<absl::StatusOr<size_t>(char* buffer, size_t size)>;
// All of the bytes.
using TarSink = std::function<absl::Status(absl::string_view bytes)>;

// Thread-compatible.
class TarReader {
 public:
  explicit TarReader(TarSource source) : source_(std::move(source)) {}

  // The next entry, skipping what is left of the one before; nothing at the end of the archive.
  // Errors: InvalidArgument — not a tar, cut short, or an extended header over 1 MiB.
  absl::StatusOr<std::optional<TarEntry>> Next();

  // Bytes of the current entry; empty when it has no more.
  absl::StatusOr<absl::string_view> ReadData();

  // Reads the source to its end: what follows the archive's end mark.
  absl::Status Drain();

 private:
  absl::StatusOr<bool> ReadBlock(char* block);
  absl::Status Skip();
  absl::StatusOr<std::string> ReadExtension(uint64_t size);

  TarSource source_;
  uint64_t left_ = 0;     // Bytes of the current entry not read yet.
  uint64_t padding_ = 0;  // What fills its last block.
  std::vector<char> buffer_;
};

// Thread-compatible.
class TarWriter {
 public:
  explicit TarWriter(TarSink sink) : sink_(std::move(sink)) {}

  // Announces an entry; a file's bytes follow through Data, exactly size_bytes of them.
  absl::Status Entry(const TarEntry& entry);
  absl::Status Data(absl::string_view bytes);
  // Pads what Data wrote to a whole block.
  absl::Status EndData();
  // The end mark.
  absl::Status Finish();

 private:
  TarSink sink_;
  uint64_t data_bytes_ = 0;
};

struct PackOptions {
  // Name of the top entry in the archive; "." for the contents of a directory alone.
  std::string top;
  // Follow `path` itself when it is a link (cp -L); links inside of it never are.
  bool follow_link = false;
};

// Writes the file or tree at `path` to `sink`, end mark included. Sockets are left out. Answers the
// bytes of file content.
absl::StatusOr<uint64_t> PackTree(const std::string& path, const PackOptions& options,
                                  const TarSink& sink);

// Copies an archive, the first component of every name (and of hard links' targets) replaced by
// `top`; devices, pipes and sockets are left out. Answers the bytes of file content.
absl::StatusOr<uint64_t> ForwardTree(TarReader& reader, const std::string& top,
                                     const TarSink& sink);

struct UnpackOptions {
  // Takes the place of the first component of every name; empty: the component falls away; unset:
  // names stay as they are.
  std::optional<std::string> top;
  // Owners as in the archive (cp -a), and the set-id bits, which mean nothing good without them.
  bool keep_owners = false;
};

struct UnpackResult {
  uint64_t bytes = 0;
  std::vector<std::string> skipped;  // Devices, pipes and sockets.
};

// Unpacks into the directory. Existing files are replaced, directories are merged.
// Errors: InvalidArgument — the archive; PermissionDenied — a name that leads out of the directory;
// FailedPrecondition — a directory stands where a file should go, or the other way round.
absl::StatusOr<UnpackResult> UnpackTree(TarReader& reader, const std::string& directory,
                                        const UnpackOptions& options);

}  // namespace gantry::ctl
