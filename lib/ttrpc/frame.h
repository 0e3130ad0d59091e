// The wire of ttrpc: frames of ten header bytes and a body, and the two bodies of unary calls.
// Source: contracts/containerd/ttrpc-frame.tsv and ttrpc-messages.tsv.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::ttrpc {

inline constexpr size_t kHeaderBytes = 10;
// The limit of the protocol; longer bodies are discarded and answered with ResourceExhausted.
inline constexpr size_t kMaxBodyBytes = 4 << 20;

enum class MessageType : uint8_t { kRequest = 1, kResponse = 2, kData = 3 };

struct FrameHeader {
  uint32_t body_bytes = 0;
  uint32_t stream_id = 0;
  uint8_t type = 0;
  uint8_t flags = 0;
};

// `bytes` holds at least kHeaderBytes.
FrameHeader DecodeHeader(const char* bytes);

using Metadata = std::vector<std::pair<std::string, std::string>>;

// One call as the server sees it; views into the frame.
struct Request {
  absl::string_view service;
  absl::string_view method;
  absl::string_view payload;
  int64_t timeout_nanos = 0;  // 0: none.
  std::vector<std::pair<absl::string_view, absl::string_view>> metadata;
};

// Errors: InvalidArgument — not a ttrpc.Request.
absl::StatusOr<Request> DecodeRequest(absl::string_view body);

// A whole frame. Errors: ResourceExhausted — longer than kMaxBodyBytes.
absl::StatusOr<std::string> EncodeRequestFrame(uint32_t stream_id, const Request& request);
// An answer too long for a frame becomes the error that says so.
std::string EncodeResponseFrame(uint32_t stream_id, const absl::Status& status,
                                absl::string_view payload);

// The payload, or the status the server sent. Errors: Internal — not a ttrpc.Response.
absl::StatusOr<std::string> DecodeResponse(absl::string_view body);

// Collects bytes until a frame is whole. Bodies over the limit are skipped without being kept.
// Thread-compatible.
class FrameReader {
 public:
  struct Frame {
    FrameHeader header;
    std::string body;
    bool oversized = false;  // The body was discarded.
  };

  // Where to read into, and how much at most; then Commit() what arrived.
  std::pair<char*, size_t> Space();
  void Commit(size_t bytes);

  // Takes the next whole frame; false when more bytes are needed.
  bool Next(Frame* frame);

 private:
  std::string buffer_;
  size_t begin_ = 0;  // First byte not yet handed out.
  size_t end_ = 0;    // One past the last byte received.
  uint64_t discard_ = 0;
};

}  // namespace gantry::ttrpc
