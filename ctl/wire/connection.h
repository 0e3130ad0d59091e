// One HTTP/2 connection, client side (RFC 9113), as far as gRPC over a unix socket needs it: one
// stream after the other, each the peer's only one at its time. Frames, settings, pings, flow
// control in both directions, header blocks that span frames, resets and going away.
//
// Nothing is sent until the first request is complete or large: preface, settings, headers and a
// small message leave in one write, which is what makes a short command short.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ctl/wire/hpack.h"
#include "ctl/wire/transport.h"

namespace gantry::wire {

// What arrives on the open stream.
struct StreamEvent {
  enum class Kind { kHeaders, kData, kReset };
  Kind kind = Kind::kData;
  std::vector<Header> headers;  // kHeaders: those of the answer, or the trailers.
  std::string data;             // kData.
  uint32_t error_code = 0;      // kReset: RFC 9113, 7.
  bool end = false;             // The peer sends no more.
};

// Thread-compatible. After an error that is not DeadlineExceeded the connection is of no more use.
class Connection {
 public:
  explicit Connection(std::unique_ptr<Transport> transport);

  // Begins a stream; the former one must be over (CloseStream). Sent with the first data or Flush.
  // Errors: Unavailable — the peer is going away.
  absl::Status OpenStream(const std::vector<Header>& headers);

  // Sends bytes as the peer's windows allow, reading frames while they do not. With `end` we send
  // no more. Bytes may wait in the buffer until Flush or Next.
  absl::Status SendData(absl::string_view bytes, bool end, const Deadline& deadline);

  // Sends what is buffered.
  absl::Status Flush(const Deadline& deadline);

  // The next event of the open stream. Errors: DeadlineExceeded; Unavailable — the connection
  // broke; Internal — the peer broke the protocol.
  absl::StatusOr<StreamEvent> Next(const Deadline& deadline);

  // Forgets the stream; tells the peer when it was not over.
  void CloseStream();

 private:
  struct Frame {
    uint8_t type = 0;
    uint8_t flags = 0;
    uint32_t stream = 0;
    std::string payload;
  };

  void Append(uint8_t type, uint8_t flags, uint32_t stream, absl::string_view payload);
  void AppendWindowUpdate(uint32_t stream, uint32_t bytes);
  absl::StatusOr<Frame> ReadFrame(const Deadline& deadline);
  absl::Status Fill(size_t bytes, const Deadline& deadline);
  // Reads and acts on one frame; what concerns the stream goes to events_.
  absl::Status Advance(const Deadline& deadline);
  absl::Status OnFrame(Frame frame, const Deadline& deadline);
  absl::Status OnData(Frame frame);
  absl::Status OnHeaders(Frame frame, const Deadline& deadline);
  absl::Status OnSettings(const Frame& frame);
  absl::Status OnWindowUpdate(const Frame& frame);
  absl::Status OnReset(const Frame& frame);
  absl::Status OnGoAway(const Frame& frame);

  std::unique_ptr<Transport> transport_;
  std::string out_;  // Frames that are not sent yet.
  std::string in_;   // Bytes read and not yet used, from in_begin_.
  size_t in_begin_ = 0;
  HeaderDecoder decoder_;

  uint32_t stream_ = 0;  // The open stream; 0: none.
  uint32_t next_stream_ = 1;
  bool we_ended_ = false;
  bool peer_ended_ = false;
  std::vector<StreamEvent> events_;  // Oldest first; never more than a few.

  // Send windows are signed: a settings change may push them below zero (RFC 9113, 6.9.2).
  int64_t connection_window_;
  int64_t stream_window_ = 0;
  int64_t peer_initial_window_;
  uint32_t peer_frame_bytes_;
  uint64_t unreported_connection_bytes_ = 0;  // Received and not yet given back to the peer.
  uint64_t unreported_stream_bytes_ = 0;
  bool going_away_ = false;
};

}  // namespace gantry::wire
