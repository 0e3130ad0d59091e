#include "ctl/wire/channel.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::wire {
namespace {

constexpr size_t kPrefixBytes = 5;  // Compression flag and length.

// Codes of RFC 9113, 7, as gRPC maps them.
absl::Status ResetStatus(uint32_t error_code) {
  switch (error_code) {
    case 7:  // REFUSED_STREAM
      return absl::UnavailableError("the service refused the call; try again");
    case 8:  // CANCEL
      return absl::CancelledError("the service cancelled the call");
    case 11:  // ENHANCE_YOUR_CALM
      return absl::ResourceExhaustedError("the service asks for fewer calls");
    default:
      return absl::InternalError(
          absl::StrCat("the service broke the call off (HTTP/2 error ", error_code, ")"));
  }
}

std::string Serialize(const google::protobuf::MessageLite& message) {
  const size_t length = message.ByteSizeLong();
  std::string bytes(kPrefixBytes, '\0');
  for (int i = 0; i < 4; ++i) {
    bytes[1 + static_cast<size_t>(i)] = static_cast<char>(length >> (24 - 8 * i));
  }
  message.AppendToString(&bytes);
  return bytes;
}

// gRPC's codes and Abseil's are the same numbers.
std::optional<absl::StatusCode> ParseCode(absl::string_view text) {
  int code;
  if (!absl::SimpleAtoi(text, &code) || code < 0 || code > 16) return std::nullopt;
  return static_cast<absl::StatusCode>(code);
}

}  // namespace

std::string FormatTimeout(absl::Duration timeout) {
  struct Unit {
    absl::Duration length;
    char name;
  };
  static const Unit kUnits[] = {{absl::Milliseconds(1), 'm'},
                                {absl::Seconds(1), 'S'},
                                {absl::Minutes(1), 'M'},
                                {absl::Hours(1), 'H'}};
  for (const Unit& unit : kUnits) {
    const int64_t count = absl::Ceil(timeout, unit.length) / unit.length;
    if (count <= 99999999) return absl::StrCat(count, std::string(1, unit.name));
  }
  return "99999999H";
}

std::string DecodePercent(absl::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
        absl::ascii_isxdigit(text[i + 2])) {
      uint32_t byte = 0;
      if (absl::SimpleHexAtoi(text.substr(i + 1, 2), &byte)) {
        decoded.push_back(static_cast<char>(byte));
        i += 2;
        continue;
      }
    }
    decoded.push_back(text[i]);
  }
  return decoded;
}

absl::StatusOr<std::unique_ptr<Channel>> Channel::Connect(const std::string& socket_path) {
  ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport, ConnectSocket(socket_path));
  return std::make_unique<Channel>(std::move(transport));
}

void Channel::AddMetadata(absl::string_view name, absl::string_view value) {
  metadata_.push_back({absl::AsciiStrToLower(name), std::string(value)});
}

absl::StatusOr<std::unique_ptr<Call>> Channel::Open(absl::string_view method,
                                                    absl::Duration timeout) {
  std::vector<Header> headers = {
      {":method", "POST"},         {":scheme", "http"}, {":path", std::string(method)},
      {":authority", "localhost"}, {"te", "trailers"},  {"content-type", "application/grpc"},
      {"user-agent", "gantryctl"}};
  const Deadline deadline = Deadline::After(timeout);
  if (!deadline.never()) headers.push_back({"grpc-timeout", FormatTimeout(timeout)});
  headers.insert(headers.end(), metadata_.begin(), metadata_.end());
  RETURN_IF_ERROR(connection_.OpenStream(headers));
  // Its constructor is private, so std::make_unique cannot call it.
  return std::unique_ptr<Call>(new Call(*this, deadline));
}

absl::Status Channel::Unary(absl::string_view method, const google::protobuf::MessageLite& request,
                            google::protobuf::MessageLite* response, absl::Duration timeout) {
  ASSIGN_OR_RETURN(std::unique_ptr<Call> call, Open(method, timeout));
  RETURN_IF_ERROR(call->Write(request, true));
  ASSIGN_OR_RETURN(bool answered, call->Read(response));
  if (!answered) return absl::InternalError("the service answered without a message");
  // The status stands in the trailers, after the message.
  ASSIGN_OR_RETURN(bool another, call->Read(nullptr));
  if (another) return absl::InternalError("the service answered twice");
  return absl::OkStatus();
}

Call::~Call() {
  channel_.connection_.CloseStream();
  // A cancellation is a courtesy: it must not keep a command that is done waiting.
  (void)channel_.connection_.Flush(Deadline::After(absl::ZeroDuration()));
}

absl::Status Call::Write(const google::protobuf::MessageLite& message, bool last) {
  RETURN_IF_ERROR(channel_.connection_.SendData(Serialize(message), last, deadline_));
  return last ? channel_.connection_.Flush(deadline_) : absl::OkStatus();
}

absl::StatusOr<bool> Call::TakeMessage(google::protobuf::MessageLite* message) {
  const absl::string_view bytes = absl::string_view(buffer_).substr(begin_);
  if (bytes.size() < kPrefixBytes) return false;
  if (bytes[0] != 0) return absl::InternalError("the service sent a compressed message");
  size_t length = 0;
  for (size_t i = 1; i < kPrefixBytes; ++i) length = (length << 8) | static_cast<uint8_t>(bytes[i]);
  if (length > kMaxMessageBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the service sent a message of ", length,
                                                     " bytes; at most ", kMaxMessageBytes,
                                                     " are allowed"));
  }
  if (bytes.size() < kPrefixBytes + length) return false;
  if (message != nullptr &&
      !message->ParseFromArray(bytes.data() + kPrefixBytes, static_cast<int>(length))) {
    return absl::InternalError(
        absl::StrCat("the service sent bytes that are no ", message->GetTypeName()));
  }
  begin_ += kPrefixBytes + length;
  if (begin_ == buffer_.size()) {
    buffer_.clear();
    begin_ = 0;
  }
  return true;
}

absl::StatusOr<bool> Call::Read(google::protobuf::MessageLite* message) {
  while (true) {
    ASSIGN_OR_RETURN(bool taken, TakeMessage(message));
    if (taken) return true;
    if (ended_) {
      RETURN_IF_ERROR(status_);
      if (begin_ != buffer_.size()) {
        return absl::InternalError("the service ended the call in the middle of a message");
      }
      return false;
    }
    ASSIGN_OR_RETURN(StreamEvent event, channel_.connection_.Next(deadline_));
    ended_ = event.end;
    switch (event.kind) {
      case StreamEvent::Kind::kHeaders:
        RETURN_IF_ERROR(OnHeaders(event.headers, event.end));
        break;
      case StreamEvent::Kind::kData:
        if (!saw_headers_) return absl::InternalError("the service sent data before headers");
        buffer_.erase(0, std::exchange(begin_, 0));
        absl::StrAppend(&buffer_, event.data);
        break;
      case StreamEvent::Kind::kReset:
        status_ = ResetStatus(event.error_code);
        break;
    }
  }
}

absl::Status Call::OnHeaders(const std::vector<Header>& headers, bool end) {
  std::optional<absl::StatusCode> code;
  std::string message;
  for (const Header& header : headers) {
    if (header.name == ":status" && header.value != "200") {
      return absl::UnavailableError(absl::StrCat("the service answered with HTTP status ",
                                                 header.value, ", which no gRPC service does"));
    }
    if (header.name == "grpc-status") {
      code = ParseCode(header.value);
      if (!code) code = absl::StatusCode::kUnknown;
    }
    if (header.name == "grpc-message") message = DecodePercent(header.value);
  }
  saw_headers_ = true;
  if (end && code) status_ = absl::Status(*code, message);
  return absl::OkStatus();
}

}  // namespace gantry::wire
