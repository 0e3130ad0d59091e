#include "lib/dbus/message.h"

#include <string.h>

#include <bit>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::dbus {
namespace {

constexpr char kByteOrder = std::endian::native == std::endian::little ? 'l' : 'B';
constexpr uint8_t kProtocolVersion = 1;
constexpr size_t kBodyLengthAt = 4, kFieldsLengthAt = 12;

enum Field : uint8_t {
  kPath = 1,
  kInterface = 2,
  kMember = 3,
  kErrorName = 4,
  kReplySerial = 5,
  kDestination = 6,
  kSender = 7,
  kSignature = 8,
};

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("D-Bus message: ", what));
}

uint32_t NumberAt(absl::string_view bytes, size_t at) {
  uint32_t number;
  memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

size_t RoundUp(size_t size) { return (size + 7) & ~size_t{7}; }

void AddField(std::vector<Value>& fields, Field field, char type, const std::string& text) {
  if (text.empty()) return;
  fields.push_back(
      Value::Struct({{.signature = "y", .number = field},
                     Value::Variant({.signature = std::string(1, type), .text = text})}));
}

absl::Status TakeField(const Value& entry, Message& message) {
  const Value& value = entry.members[1].members[0];
  const auto text = [&](const char* signature, std::string& out) -> absl::Status {
    if (value.signature != signature) return Malformed("a header field is of the wrong type");
    out = value.text;
    return absl::OkStatus();
  };
  switch (entry.members[0].number) {
    case kPath:
      return text("o", message.path);
    case kInterface:
      return text("s", message.interface);
    case kMember:
      return text("s", message.member);
    case kErrorName:
      return text("s", message.error_name);
    case kReplySerial:
      if (value.signature != "u") return Malformed("a header field is of the wrong type");
      message.reply_serial = static_cast<uint32_t>(value.number);
      return absl::OkStatus();
    case kDestination:
      return text("s", message.destination);
    case kSender:
      return text("s", message.sender);
    case kSignature:
      return text("g", message.signature);
    default:
      return absl::OkStatus();  // Fields of the future are to be ignored.
  }
}

absl::Status CheckRequired(const Message& message) {
  switch (message.type) {
    case MessageType::kCall:
      if (message.path.empty() || message.member.empty())
        return Malformed("a call names no method");
      return absl::OkStatus();
    case MessageType::kSignal:
      if (message.path.empty() || message.interface.empty() || message.member.empty()) {
        return Malformed("a signal has no name");
      }
      return absl::OkStatus();
    case MessageType::kError:
      if (message.error_name.empty()) return Malformed("an error has no name");
      [[fallthrough]];
    case MessageType::kReply:
      if (message.reply_serial == 0) return Malformed("a reply is to no call");
      return absl::OkStatus();
    default:
      return absl::OkStatus();  // Types of the future are to be ignored.
  }
}

}  // namespace

std::string WriteMessage(const Message& message, const std::vector<Value>& body) {
  std::string body_bytes, signature;
  for (const Value& value : body) {
    signature += value.signature;
    Append(value, body_bytes);
  }
  std::vector<Value> fields;
  AddField(fields, kPath, 'o', message.path);
  AddField(fields, kInterface, 's', message.interface);
  AddField(fields, kMember, 's', message.member);
  AddField(fields, kErrorName, 's', message.error_name);
  AddField(fields, kDestination, 's', message.destination);
  AddField(fields, kSignature, 'g', signature);
  if (message.reply_serial != 0) {
    fields.push_back(Value::Struct({{.signature = "y", .number = kReplySerial},
                                    Value::Variant(Value::Uint32(message.reply_serial))}));
  }
  std::string out = {kByteOrder, static_cast<char>(message.type), 0, kProtocolVersion};
  Append(Value::Uint32(static_cast<uint32_t>(body_bytes.size())), out);
  Append(Value::Uint32(message.serial), out);
  Append(Value::Array("(yv)", std::move(fields)), out);
  out.resize(RoundUp(out.size()), '\0');
  return out + body_bytes;
}

absl::StatusOr<size_t> MessageLength(absl::string_view fixed_header) {
  if (fixed_header.size() < kFixedHeaderBytes) return Malformed("the header is cut off");
  if (fixed_header[0] != kByteOrder) return Malformed("not in this machine's byte order");
  if (fixed_header[3] != kProtocolVersion) return Malformed("not of protocol version 1");
  const uint64_t fields = NumberAt(fixed_header, kFieldsLengthAt);
  const uint64_t length =
      RoundUp(kFixedHeaderBytes + fields) + uint64_t{NumberAt(fixed_header, kBodyLengthAt)};
  if (length > kMaxMessageBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("D-Bus message: ", length,
                                                     " bytes are more than the ", kMaxMessageBytes,
                                                     " that are read"));
  }
  return static_cast<size_t>(length);
}

absl::StatusOr<Message> ReadMessage(absl::string_view bytes) {
  ASSIGN_OR_RETURN(const size_t length, MessageLength(bytes));
  if (length != bytes.size()) return Malformed("its length is not what its header says");
  Message message;
  message.type = static_cast<MessageType>(bytes[1]);
  if (message.type == MessageType::kInvalid) return Malformed("its type is invalid");
  message.serial = NumberAt(bytes, 8);
  if (message.serial == 0) return Malformed("its serial is 0");
  size_t at = kFieldsLengthAt;
  ASSIGN_OR_RETURN(Value fields, Read(bytes, "a(yv)", &at));
  for (const Value& entry : fields.members) RETURN_IF_ERROR(TakeField(entry, message));
  RETURN_IF_ERROR(CheckRequired(message));
  for (; at % 8 != 0; ++at) {
    if (at >= bytes.size() || bytes[at] != '\0') return Malformed("padding is not zero");
  }
  message.body = std::string(bytes.substr(at));
  if (message.body.size() != NumberAt(bytes, kBodyLengthAt)) {
    return Malformed("its header is longer than it says");
  }
  return message;
}

}  // namespace gantry::dbus
