#include "lib/attach/protocol.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::attach {
namespace {

constexpr uint64_t kFlagStdin = 1;
constexpr uint64_t kFlagStdout = 2;
constexpr uint64_t kFlagStderr = 4;
constexpr uint64_t kFlagFlowControl = 8;
constexpr uint64_t kFlagCloseStdin = 16;

// Bytes of a message we write ourselves; ids and error texts are far below it.
constexpr size_t kMaxTextBytes = 32 << 10;

void AppendBigEndian(uint64_t value, int bytes, std::string* out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

uint64_t ReadBigEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

uint16_t Clamp16(uint64_t value) { return static_cast<uint16_t>(std::min<uint64_t>(value, 65535)); }

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed attach frame: ", what));
}

}  // namespace

void AppendFrame(FrameType type, absl::string_view payload, std::string* out) {
  out->push_back(static_cast<char>(type));
  out->append(3, '\0');
  AppendBigEndian(payload.size(), 4, out);
  out->append(payload.data(), payload.size());
}

void AppendBytes(FrameType type, absl::string_view bytes, std::string* out) {
  while (!bytes.empty()) {
    const absl::string_view piece = bytes.substr(0, kMaxPayloadBytes);
    AppendFrame(type, piece, out);
    bytes.remove_prefix(piece.size());
  }
}

void AppendHello(const Hello& hello, std::string* out) {
  std::string payload;
  pb::Writer writer(&payload);
  writer.String(1, hello.container_id);
  writer.String(2, hello.exec_id);
  writer.Varint(3, (hello.want_stdin ? kFlagStdin : 0) | (hello.want_stdout ? kFlagStdout : 0) |
                       (hello.want_stderr ? kFlagStderr : 0) |
                       (hello.flow_control ? kFlagFlowControl : 0) |
                       (hello.close_stdin_at_end ? kFlagCloseStdin : 0));
  writer.Varint(4, hello.columns);
  writer.Varint(5, hello.rows);
  AppendFrame(FrameType::kHello, payload, out);
}

void AppendAccepted(const Accepted& accepted, std::string* out) {
  std::string payload;
  pb::Writer writer(&payload);
  writer.Bool(1, accepted.terminal);
  writer.Bool(2, accepted.stdin_open);
  writer.Varint(3, static_cast<uint64_t>(accepted.pid));
  AppendFrame(FrameType::kOk, payload, out);
}

void AppendError(const absl::Status& status, std::string* out) {
  std::string payload;
  pb::Writer writer(&payload);
  writer.Varint(1, static_cast<uint64_t>(status.raw_code()));
  writer.String(2, status.message().substr(0, kMaxTextBytes));
  AppendFrame(FrameType::kError, payload, out);
}

void AppendResize(uint16_t columns, uint16_t rows, std::string* out) {
  std::string payload;
  AppendBigEndian(columns, 2, &payload);
  AppendBigEndian(rows, 2, &payload);
  AppendFrame(FrameType::kResize, payload, out);
}

void AppendLost(uint64_t bytes, std::string* out) {
  std::string payload;
  AppendBigEndian(bytes, 8, &payload);
  AppendFrame(FrameType::kLost, payload, out);
}

void AppendExit(const Exit& exit, std::string* out) {
  std::string payload;
  pb::Writer writer(&payload);
  const int64_t nanos = absl::ToUnixNanos(exit.time);
  writer.Varint(1, static_cast<uint64_t>(exit.code));
  writer.Varint(2, static_cast<uint64_t>(nanos / 1'000'000'000));
  writer.Varint(3, static_cast<uint64_t>(nanos % 1'000'000'000));
  writer.String(4, exit.reason);
  writer.Varint(5, static_cast<uint64_t>(exit.signal));
  AppendFrame(FrameType::kExit, payload, out);
}

absl::StatusOr<Hello> ParseHello(absl::string_view payload) {
  Hello hello;
  uint64_t flags = 0;
  pb::Reader reader(payload);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        hello.container_id = reader.text();
        break;
      case 2:
        hello.exec_id = reader.text();
        break;
      case 3:
        flags = reader.varint();
        break;
      case 4:
        hello.columns = Clamp16(reader.varint());
        break;
      case 5:
        hello.rows = Clamp16(reader.varint());
        break;
    }
  }
  if (!reader.ok()) return Malformed("HELLO");
  if (hello.container_id.empty()) return Malformed("HELLO without a container id");
  hello.want_stdin = flags & kFlagStdin;
  hello.want_stdout = flags & kFlagStdout;
  hello.want_stderr = flags & kFlagStderr;
  hello.flow_control = flags & kFlagFlowControl;
  hello.close_stdin_at_end = flags & kFlagCloseStdin;
  return hello;
}

absl::StatusOr<Accepted> ParseAccepted(absl::string_view payload) {
  Accepted accepted;
  pb::Reader reader(payload);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        accepted.terminal = reader.boolean();
        break;
      case 2:
        accepted.stdin_open = reader.boolean();
        break;
      case 3:
        accepted.pid = static_cast<int>(reader.varint());
        break;
    }
  }
  if (!reader.ok()) return Malformed("OK");
  return accepted;
}

absl::Status ParseError(absl::string_view payload) {
  uint64_t code = 0;
  std::string message;
  pb::Reader reader(payload);
  while (reader.Next()) {
    if (reader.field() == 1) code = reader.varint();
    if (reader.field() == 2) message = reader.text();
  }
  if (!reader.ok()) return Malformed("ERROR");
  if (code == 0 || code > 16) code = static_cast<uint64_t>(absl::StatusCode::kUnknown);
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

absl::StatusOr<std::pair<uint16_t, uint16_t>> ParseResize(absl::string_view payload) {
  if (payload.size() != 4) return Malformed("RESIZE");
  return std::make_pair(static_cast<uint16_t>(ReadBigEndian(payload.substr(0, 2))),
                        static_cast<uint16_t>(ReadBigEndian(payload.substr(2))));
}

absl::StatusOr<uint64_t> ParseLost(absl::string_view payload) {
  if (payload.size() != 8) return Malformed("LOST");
  return ReadBigEndian(payload);
}

absl::StatusOr<Exit> ParseExit(absl::string_view payload) {
  Exit exit;
  uint64_t seconds = 0;
  uint64_t nanos = 0;
  pb::Reader reader(payload);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        exit.code = static_cast<int>(reader.varint());
        break;
      case 2:
        seconds = reader.varint();
        break;
      case 3:
        nanos = reader.varint();
        break;
      case 4:
        exit.reason = reader.text();
        break;
      case 5:
        exit.signal = static_cast<int>(reader.varint());
        break;
    }
  }
  // Nanoseconds of an absl::Time must fit 63 bits, until the year 2262.
  if (!reader.ok() || seconds > 9'000'000'000 || nanos >= 1'000'000'000) return Malformed("EXIT");
  exit.time = absl::FromUnixSeconds(static_cast<int64_t>(seconds)) +
              absl::Nanoseconds(static_cast<int64_t>(nanos));
  return exit;
}

void FrameParser::Append(absl::string_view bytes) {
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  buffer_.append(bytes.data(), bytes.size());
}

absl::StatusOr<bool> FrameParser::Next(Frame* frame) {
  const absl::string_view rest = absl::string_view(buffer_).substr(begin_);
  if (rest.size() < kFrameHeaderBytes) return false;
  const uint64_t size = ReadBigEndian(rest.substr(4, 4));
  if (rest[1] != 0 || rest[2] != 0 || rest[3] != 0) return Malformed("reserved bytes are not zero");
  if (size > kMaxPayloadBytes) {
    return Malformed(absl::StrCat("payload of ", size, " bytes, at most ", kMaxPayloadBytes));
  }
  if (rest.size() < kFrameHeaderBytes + size) return false;
  frame->type = static_cast<FrameType>(static_cast<uint8_t>(rest[0]));
  frame->payload = rest.substr(kFrameHeaderBytes, size);
  begin_ += kFrameHeaderBytes + size;
  return true;
}

}  // namespace gantry::attach
