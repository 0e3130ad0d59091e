#include "lib/archive/compression.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace gantry::archive {
namespace {

constexpr int kMaxZstdWindowLog = 27;  // 128 MiB, what the zstd program accepts without a flag.
constexpr int kZstdLevel = 3;
constexpr int kGzipLevel = 1;
constexpr size_t kOutputChunkBytes = 128 << 10;

// gzip allows several members in a row and zero padding at the end, as tape tools write it.
class GzipDecompressor : public Decompressor {
 public:
  GzipDecompressor() : state_(std::make_unique<inflate_state>()) {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;
  }

  absl::StatusOr<size_t> Read(absl::string_view* input, char* out, size_t size) override {
    size_t written = 0;
    while (written < size && (!input->empty() || pending_)) {
      if (ended_) {
        if (!StartNextMember(input)) return absl::DataLossError(kTrailing);
        if (ended_) break;
      }
      started_ = true;
      const size_t offered = std::min<size_t>(input->size(), UINT32_MAX);
      const size_t room = std::min<size_t>(size - written, UINT32_MAX);
      state_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(input->data()));
      state_->avail_in = static_cast<uint32_t>(offered);
      state_->next_out = reinterpret_cast<uint8_t*>(out + written);
      state_->avail_out = static_cast<uint32_t>(room);
      const int result = isal_inflate(state_.get());
      input->remove_prefix(offered - state_->avail_in);
      const size_t produced = room - state_->avail_out;
      written += produced;
      if (result < 0 && result != ISAL_END_INPUT) {
        return absl::DataLossError(absl::StrCat("the gzip stream is damaged (", result, ")"));
      }
      ended_ = state_->block_state == ISAL_BLOCK_FINISH;
      // A full output buffer may leave bytes inside the state even when the input is used up.
      pending_ = !ended_ && state_->avail_out == 0;
      if (produced == 0 && offered == state_->avail_in && !ended_) {
        pending_ = false;
        if (!input->empty()) return absl::DataLossError("the gzip stream makes no progress");
      }
    }
    return written;
  }

  absl::Status Finish() override {
    if (!started_ || !ended_) return absl::DataLossError("the gzip stream ends too early");
    return absl::OkStatus();
  }

 private:
  static constexpr char kTrailing[] = "something follows the end of the gzip stream";

  // After a member: either another one begins or only zeros are left, which are taken.
  bool StartNextMember(absl::string_view* input) {
    if (!padding_ && !input->empty() && (*input)[0] == '\x1f') {
      isal_inflate_reset(state_.get());
      state_->crc_flag = ISAL_GZIP;
      ended_ = false;
      return true;
    }
    padding_ = true;
    const size_t end = input->find_first_not_of('\0');
    if (end != absl::string_view::npos) return false;
    input->remove_prefix(input->size());
    return true;
  }

  std::unique_ptr<inflate_state> state_;
  bool started_ = false;
  bool ended_ = false;
  bool padding_ = false;
  bool pending_ = false;
};

class ZstdDecompressor : public Decompressor {
 public:
  ZstdDecompressor() : context_(ZSTD_createDCtx(), &ZSTD_freeDCtx) {
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }

  absl::StatusOr<size_t> Read(absl::string_view* input, char* out, size_t size) override {
    ZSTD_outBuffer output = {out, size, 0};
    while (output.pos < size && (!input->empty() || pending_)) {
      ZSTD_inBuffer in = {input->data(), input->size(), 0};
      const size_t before = output.pos;
      const size_t result = ZSTD_decompressStream(context_.get(), &output, &in);
      input->remove_prefix(in.pos);
      if (ZSTD_isError(result)) {
        return absl::DataLossError(
            absl::StrCat("the zstd stream is damaged (", ZSTD_getErrorName(result), ")"));
      }
      ended_ = result == 0;
      pending_ = !ended_ && output.pos == size;
      if (in.pos == 0 && output.pos == before) {
        pending_ = false;
        if (!input->empty()) return absl::DataLossError("the zstd stream makes no progress");
      }
    }
    return output.pos;
  }

  absl::Status Finish() override {
    if (!ended_) return absl::DataLossError("the zstd stream ends too early");
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context_;
  bool ended_ = false;
  bool pending_ = false;
};

class NoDecompressor : public Decompressor {
 public:
  absl::StatusOr<size_t> Read(absl::string_view* input, char* out, size_t size) override {
    const size_t bytes = std::min(size, input->size());
    std::memcpy(out, input->data(), bytes);
    input->remove_prefix(bytes);
    return bytes;
  }
  absl::Status Finish() override { return absl::OkStatus(); }
};

class GzipCompressor : public Compressor {
 public:
  GzipCompressor()
      : stream_(std::make_unique<isal_zstream>()), level_buffer_(ISAL_DEF_LVL1_DEFAULT) {
    isal_deflate_init(stream_.get());
    stream_->gzip_flag = IGZIP_GZIP;
    stream_->level = kGzipLevel;
    stream_->level_buf = level_buffer_.data();
    stream_->level_buf_size = static_cast<uint32_t>(level_buffer_.size());
  }

  absl::Status Write(absl::string_view input, std::string* out) override {
    while (!input.empty()) {
      const size_t bytes = std::min<size_t>(input.size(), 1 << 30);
      RunDeflate(input.substr(0, bytes), false, out);
      input.remove_prefix(bytes);
    }
    return absl::OkStatus();
  }

  absl::Status Finish(std::string* out) override {
    RunDeflate("", true, out);
    return absl::OkStatus();
  }

 private:
  void RunDeflate(absl::string_view input, bool last, std::string* out) {
    stream_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(input.data()));
    stream_->avail_in = static_cast<uint32_t>(input.size());
    stream_->end_of_stream = last ? 1 : 0;
    stream_->flush = NO_FLUSH;
    do {
      const size_t used = out->size();
      out->resize(used + kOutputChunkBytes);
      stream_->next_out = reinterpret_cast<uint8_t*>(&(*out)[used]);
      stream_->avail_out = kOutputChunkBytes;
      isal_deflate(stream_.get());
      out->resize(used + kOutputChunkBytes - stream_->avail_out);
    } while (stream_->avail_out == 0 || (last && stream_->internal_state.state != ZSTATE_END));
  }

  std::unique_ptr<isal_zstream> stream_;
  std::vector<uint8_t> level_buffer_;
};

class ZstdCompressor : public Compressor {
 public:
  ZstdCompressor() : context_(ZSTD_createCCtx(), &ZSTD_freeCCtx) {
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, kZstdLevel);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }
  absl::Status Write(absl::string_view input, std::string* out) override {
    return Compress(input, ZSTD_e_continue, out);
  }
  absl::Status Finish(std::string* out) override { return Compress("", ZSTD_e_end, out); }

 private:
  absl::Status Compress(absl::string_view input, ZSTD_EndDirective mode, std::string* out) {
    ZSTD_inBuffer in = {input.data(), input.size(), 0};
    size_t left = 0;
    do {
      const size_t used = out->size();
      out->resize(used + kOutputChunkBytes);
      ZSTD_outBuffer output = {&(*out)[used], kOutputChunkBytes, 0};
      left = ZSTD_compressStream2(context_.get(), &output, &in, mode);
      out->resize(used + output.pos);
      if (ZSTD_isError(left)) {
        return absl::InternalError(absl::StrCat("compress: ", ZSTD_getErrorName(left)));
      }
    } while (in.pos < in.size || (mode == ZSTD_e_end && left != 0));
    return absl::OkStatus();
  }

  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_;
};

class NoCompressor : public Compressor {
 public:
  absl::Status Write(absl::string_view input, std::string* out) override {
    out->append(input.data(), input.size());
    return absl::OkStatus();
  }
  absl::Status Finish(std::string*) override { return absl::OkStatus(); }
};

absl::Status UnknownCompression() { return absl::InternalError("no such compression"); }

}  // namespace

absl::string_view CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return "none";
    case Compression::kGzip:
      return "gzip";
    case Compression::kZstd:
      return "zstd";
  }
  return "none";
}

absl::StatusOr<Compression> ParseCompression(absl::string_view name) {
  for (Compression candidate : {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    if (name == CompressionName(candidate)) return candidate;
  }
  return absl::InvalidArgumentError(absl::StrCat("no such compression: '", name, "'"));
}

Compression DetectCompression(absl::string_view first_bytes) {
  if (first_bytes.substr(0, 3) == absl::string_view("\x1f\x8b\x08", 3)) return Compression::kGzip;
  if (first_bytes.substr(0, 4) == absl::string_view("\x28\xb5\x2f\xfd", 4)) {
    return Compression::kZstd;
  }
  return Compression::kNone;
}

absl::StatusOr<std::unique_ptr<Decompressor>> Decompressor::Create(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return std::unique_ptr<Decompressor>(std::make_unique<NoDecompressor>());
    case Compression::kGzip:
      return std::unique_ptr<Decompressor>(std::make_unique<GzipDecompressor>());
    case Compression::kZstd:
      return std::unique_ptr<Decompressor>(std::make_unique<ZstdDecompressor>());
  }
  return UnknownCompression();
}

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::Create(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return std::unique_ptr<Compressor>(std::make_unique<NoCompressor>());
    case Compression::kGzip:
      return std::unique_ptr<Compressor>(std::make_unique<GzipCompressor>());
    case Compression::kZstd:
      return std::unique_ptr<Compressor>(std::make_unique<ZstdCompressor>());
  }
  return UnknownCompression();
}

}  // namespace gantry::archive
