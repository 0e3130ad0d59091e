// The frames of docs/formats/attach.md, for both ends.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::attach {

inline constexpr char kMagic[] = "GAT1";
inline constexpr size_t kMagicBytes = 4;
inline constexpr size_t kFrameHeaderBytes = 8;
inline constexpr size_t kMaxPayloadBytes = 64 << 10;

enum class FrameType : uint8_t {
  kHello = 0x01,
  kOk = 0x02,
  kError = 0x03,
  kStdin = 0x10,
  kStdout = 0x11,
  kStderr = 0x12,
  kResize = 0x13,
  kCloseStdin = 0x14,
  kDetach = 0x15,
  kLost = 0x16,
  kExit = 0x17,
};

// What a client wants of which process.
struct Hello {
  std::string container_id;
  std::string exec_id;  // Empty: the container's init.
  bool want_stdin = false;
  bool want_stdout = true;
  bool want_stderr = true;
  // Output is never lost for this client: the process waits for it, as for the reader of a pipe.
  bool flow_control = false;
  bool close_stdin_at_end = false;  // When this connection ends, however it ends.
  uint16_t columns = 0;             // 0: leave the terminal's size alone.
  uint16_t rows = 0;
};

// The shim's answer.
struct Accepted {
  bool terminal = false;
  bool stdin_open = false;
  int pid = 0;  // 0: not started yet.
};

struct Exit {
  int code = 0;  // 128 + signal when a signal ended it.
  int signal = 0;
  absl::Time time;
  std::string reason;  // "exited", "signalled", "oom".
};

// Appends a frame. `payload` must have at most kMaxPayloadBytes.
void AppendFrame(FrameType type, absl::string_view payload, std::string* out);
// Bytes of any length as as many frames as they need.
void AppendBytes(FrameType type, absl::string_view bytes, std::string* out);
void AppendHello(const Hello& hello, std::string* out);  // Without the magic.
void AppendAccepted(const Accepted& accepted, std::string* out);
void AppendError(const absl::Status& status, std::string* out);
void AppendResize(uint16_t columns, uint16_t rows, std::string* out);
void AppendLost(uint64_t bytes, std::string* out);
void AppendExit(const Exit& exit, std::string* out);

// Payloads back. Errors: InvalidArgument — not what docs/formats/attach.md says.
absl::StatusOr<Hello> ParseHello(absl::string_view payload);
absl::StatusOr<Accepted> ParseAccepted(absl::string_view payload);
absl::Status ParseError(absl::string_view payload);  // The error that was sent; never OK.
absl::StatusOr<std::pair<uint16_t, uint16_t>> ParseResize(absl::string_view payload);
absl::StatusOr<uint64_t> ParseLost(absl::string_view payload);
absl::StatusOr<Exit> ParseExit(absl::string_view payload);

struct Frame {
  FrameType type;
  absl::string_view payload;  // Valid until the next call on the parser.
};

// Finds frames in bytes as they arrive. Thread-compatible.
class FrameParser {
 public:
  void Append(absl::string_view bytes);
  // Takes the next whole frame; false when more bytes are needed.
  // Errors: InvalidArgument — a header that no frame has; the connection is beyond repair.
  absl::StatusOr<bool> Next(Frame* frame);
  size_t buffered_bytes() const { return buffer_.size() - begin_; }

 private:
  std::string buffer_;
  size_t begin_ = 0;
};

}  // namespace gantry::attach
