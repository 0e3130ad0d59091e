#include "lib/archive/unpack.h"

#include <errno.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/block_ring.h"
#include "lib/archive/sha256.h"
#include "lib/archive/tar_reader.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::archive {
namespace {

constexpr size_t kBlockBytes = 256 << 10;
constexpr size_t kBlocks = 8;
constexpr uint64_t kFreeOfRatioBytes = uint64_t{256} << 20;

constexpr size_t kHashReader = 0;
constexpr size_t kTarReader = 1;

absl::Status CheckSize(uint64_t input, uint64_t output, const UnpackOptions& options) {
  if (output > options.max_tar_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the layer unpacks to more than ", options.max_tar_bytes, " bytes (max_layer_bytes)"));
  }
  if (output > kFreeOfRatioBytes && output / options.max_ratio > input) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the layer unpacks to more than ", options.max_ratio, " times its size (max_layer_ratio)"));
  }
  return absl::OkStatus();
}

// Reads at least four bytes, unless the stream is shorter, so that the compression can be told.
absl::StatusOr<size_t> ReadFirst(const ByteSource& source, char* buffer, size_t size) {
  size_t have = 0;
  while (have < 4) {
    ASSIGN_OR_RETURN(const size_t bytes, source(buffer + have, size - have));
    if (bytes == 0) break;
    have += bytes;
  }
  return have;
}

// Source to ring, inflating on the way.
absl::Status Inflate(const ByteSource& source, const UnpackOptions& options, BlockRing& ring,
                     uint64_t* tar_bytes) {
  auto input = std::make_unique<char[]>(kBlockBytes);
  ASSIGN_OR_RETURN(size_t have, ReadFirst(source, input.get(), kBlockBytes));
  const Compression compression =
      options.compression.value_or(DetectCompression(absl::string_view(input.get(), have)));
  ASSIGN_OR_RETURN(std::unique_ptr<Decompressor> decompressor, Decompressor::Create(compression));
  uint64_t input_bytes = 0;
  char* block = nullptr;
  size_t filled = 0;
  while (have > 0) {
    input_bytes += have;
    absl::string_view rest(input.get(), have);
    for (;;) {
      if (block == nullptr) {
        block = ring.Reserve();
        filled = 0;
        // Whoever cancelled has the better reason.
        if (block == nullptr) return absl::CancelledError("unpacking was stopped");
      }
      ASSIGN_OR_RETURN(const size_t bytes,
                       decompressor->Read(&rest, block + filled, ring.block_bytes() - filled));
      if (bytes == 0) break;
      filled += bytes;
      *tar_bytes += bytes;
      RETURN_IF_ERROR(CheckSize(input_bytes, *tar_bytes, options));
      if (filled == ring.block_bytes()) {
        ring.Publish(filled);
        block = nullptr;
      }
    }
    ASSIGN_OR_RETURN(have, source(input.get(), kBlockBytes));
  }
  RETURN_IF_ERROR(decompressor->Finish());
  if (block != nullptr && filled > 0) ring.Publish(filled);
  return absl::OkStatus();
}

absl::Status WriteFiles(BlockRing& ring, LayerSink& sink) {
  TarReader reader([&ring] { return ring.Next(kTarReader); });
  TarEntry entry;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&entry));
    if (!more) break;
    RETURN_IF_ERROR(
        sink.Add(entry, [&reader](const auto& consume) { return reader.ReadData(consume); }));
  }
  return sink.Finish();
}

}  // namespace

ByteSource FdSource(int fd) {
  return [fd](char* buffer, size_t size) -> absl::StatusOr<size_t> {
    for (;;) {
      const ssize_t bytes = ::read(fd, buffer, size);
      if (bytes >= 0) return static_cast<size_t>(bytes);
      if (errno != EINTR) return sys::ErrnoError(errno, "read the layer");
    }
  };
}

absl::StatusOr<UnpackResult> Unpack(const ByteSource& source, sys::UniqueFd root,
                                    const UnpackOptions& options) {
  BlockRing ring(2, kBlocks, kBlockBytes);
  UnpackResult result;
  absl::Status inflated;
  Sha256 hash;

  std::thread inflater([&] {
    inflated = Inflate(source, options, ring, &result.tar_bytes);
    ring.Close(inflated);
  });
  std::thread hasher([&] {
    for (;;) {
      absl::StatusOr<absl::string_view> block = ring.Next(kHashReader);
      if (!block.ok() || block->empty()) return;
      hash.Update(*block);
    }
  });

  LayerSink sink(std::move(root), options.whiteouts, options.limits);
  absl::Status written = WriteFiles(ring, sink);
  if (written.ok()) {
    // The digest covers what follows the end of the archive too.
    ring.Leave(kTarReader);
  } else {
    ring.Cancel(written);
  }
  inflater.join();
  hasher.join();

  // An error of the stream explains what the tar reader complained about.
  if (!inflated.ok() && !absl::IsCancelled(inflated)) return inflated;
  RETURN_IF_ERROR(written);
  result.diff_id = hash.digest();
  result.file_bytes = sink.file_bytes();
  result.entries = sink.entries();
  result.implicit_directories = sink.implicit_directories();
  result.opaque_directories = sink.opaque_directories();
  return result;
}

}  // namespace gantry::archive
