// Bytes over a Stream: messages of data one way, permission for more the other way.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/image/streams.h"

namespace gantry::image {

// Bytes that a client sends. Thread-compatible.
class ByteReader {
 public:
  ByteReader(StreamHandle stream, std::function<bool()> cancelled)
      : stream_(std::move(stream)), cancelled_(std::move(cancelled)) {}

  // The next piece, valid until the next call; empty at the end.
  // Errors: Cancelled; InvalidArgument — the client sends something else, or more than it may.
  absl::StatusOr<absl::string_view> Next();

 private:
  StreamHandle stream_;
  const std::function<bool()> cancelled_;
  int64_t allowed_ = 0;  // Bytes the client may still send.
  std::string piece_;
};

// Bytes for a client, as fast as it asks for them. Thread-compatible.
class ByteWriter {
 public:
  ByteWriter(StreamHandle stream, std::function<bool()> cancelled)
      : stream_(std::move(stream)), cancelled_(std::move(cancelled)) {}

  absl::Status Write(absl::string_view bytes);
  // Sends what Write has kept back for a larger message. The end is told by destruction.
  absl::Status Flush();

 private:
  absl::Status Send(absl::string_view bytes);
  absl::Status WaitForRoom();

  StreamHandle stream_;
  const std::function<bool()> cancelled_;
  int64_t allowed_ = 0;
  std::string pending_;
};

}  // namespace gantry::image
