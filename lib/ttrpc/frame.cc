#include "lib/ttrpc/frame.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::ttrpc {
namespace {

constexpr size_t kReadBytes = 4096;

uint32_t ReadBigEndian(const char* bytes) {
  const auto* at = reinterpret_cast<const uint8_t*>(bytes);
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

void WriteBigEndian(uint32_t value, char* bytes) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
}

// The header goes into the ten bytes kept free at the front of `frame`.
void FillHeader(uint32_t stream_id, MessageType type, std::string* frame) {
  WriteBigEndian(static_cast<uint32_t>(frame->size() - kHeaderBytes), frame->data());
  WriteBigEndian(stream_id, frame->data() + 4);
  (*frame)[8] = static_cast<char>(type);
  (*frame)[9] = 0;
}

absl::Status DecodeStatus(absl::string_view bytes) {
  uint64_t code = 0;
  absl::string_view message;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) code = reader.varint();
    if (reader.field() == 2) message = reader.bytes();
  }
  if (!reader.ok() || code > 16) {
    return absl::UnknownError(absl::StrCat("the peer sent a malformed status: ", message));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

}  // namespace

FrameHeader DecodeHeader(const char* bytes) {
  return {ReadBigEndian(bytes), ReadBigEndian(bytes + 4), static_cast<uint8_t>(bytes[8]),
          static_cast<uint8_t>(bytes[9])};
}

absl::StatusOr<Request> DecodeRequest(absl::string_view body) {
  Request request;
  pb::Reader reader(body);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        request.service = reader.bytes();
        break;
      case 2:
        request.method = reader.bytes();
        break;
      case 3:
        request.payload = reader.bytes();
        break;
      case 4:
        request.timeout_nanos = reader.signed_varint();
        break;
      case 5: {
        std::pair<absl::string_view, absl::string_view> entry;
        pb::Reader pair(reader.bytes());
        while (pair.Next()) {
          if (pair.field() == 1) entry.first = pair.bytes();
          if (pair.field() == 2) entry.second = pair.bytes();
        }
        if (!pair.ok()) return absl::InvalidArgumentError("malformed metadata in a ttrpc request");
        request.metadata.push_back(entry);
        break;
      }
    }
  }
  if (!reader.ok()) return absl::InvalidArgumentError("malformed ttrpc request");
  return request;
}

absl::StatusOr<std::string> EncodeRequestFrame(uint32_t stream_id, const Request& request) {
  std::string frame(kHeaderBytes, '\0');
  pb::Writer writer(&frame);
  writer.String(1, request.service);
  writer.String(2, request.method);
  writer.String(3, request.payload);
  writer.Varint(4, static_cast<uint64_t>(request.timeout_nanos));
  for (const auto& header : request.metadata) {  // Clang 14 captures no structured bindings.
    writer.Message(5, [&](pb::Writer& pair) {
      pair.String(1, header.first);
      pair.String(2, header.second);
    });
  }
  if (frame.size() - kHeaderBytes > kMaxBodyBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("request to ", request.service, "/", request.method, " has ",
                     frame.size() - kHeaderBytes, " bytes; ttrpc carries at most ", kMaxBodyBytes));
  }
  FillHeader(stream_id, MessageType::kRequest, &frame);
  return frame;
}

std::string EncodeResponseFrame(uint32_t stream_id, const absl::Status& status,
                                absl::string_view payload) {
  std::string frame(kHeaderBytes, '\0');
  pb::Writer writer(&frame);
  if (!status.ok()) {
    // A message longer than a frame would be no answer at all.
    const absl::string_view message = status.message().substr(0, kMaxBodyBytes / 2);
    writer.Message(1, [&](pb::Writer& inner) {
      inner.Varint(1, static_cast<uint64_t>(status.raw_code()));
      inner.String(2, message);
    });
  } else {
    writer.String(2, payload);
  }
  if (frame.size() - kHeaderBytes > kMaxBodyBytes) {
    return EncodeResponseFrame(
        stream_id,
        absl::ResourceExhaustedError(absl::StrCat("the answer has ", payload.size(),
                                                  " bytes; ttrpc carries at most ", kMaxBodyBytes)),
        "");
  }
  FillHeader(stream_id, MessageType::kResponse, &frame);
  return frame;
}

absl::StatusOr<std::string> DecodeResponse(absl::string_view body) {
  absl::Status status;
  std::string payload;
  pb::Reader reader(body);
  while (reader.Next()) {
    if (reader.field() == 1) status = DecodeStatus(reader.bytes());
    if (reader.field() == 2) payload = reader.text();
  }
  if (!reader.ok()) return absl::InternalError("the peer sent a malformed ttrpc response");
  RETURN_IF_ERROR(status);
  return payload;
}

std::pair<char*, size_t> FrameReader::Space() {
  if (begin_ == end_) begin_ = end_ = 0;
  size_t wanted = kReadBytes;
  if (end_ - begin_ >= kHeaderBytes) {
    const FrameHeader header = DecodeHeader(buffer_.data() + begin_);
    const size_t whole = kHeaderBytes + header.body_bytes;
    if (header.body_bytes <= kMaxBodyBytes && whole > end_ - begin_) {
      // Grown as bytes arrive, never by the declared size alone.
      wanted = std::min(whole - (end_ - begin_), std::max<size_t>(kReadBytes, end_ - begin_));
    }
  }
  if (begin_ > 0 && buffer_.size() - end_ < wanted) {
    memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() - end_ < wanted) buffer_.resize(end_ + wanted);
  return {buffer_.data() + end_, buffer_.size() - end_};
}

void FrameReader::Commit(size_t bytes) { end_ += bytes; }

bool FrameReader::Next(Frame* frame) {
  const size_t skipped = std::min<uint64_t>(discard_, end_ - begin_);
  discard_ -= skipped;
  begin_ += skipped;
  if (discard_ == 0 && end_ - begin_ >= kHeaderBytes) {
    const FrameHeader header = DecodeHeader(buffer_.data() + begin_);
    if (header.body_bytes > kMaxBodyBytes) {
      frame->header = header;
      frame->body.clear();
      frame->oversized = true;
      begin_ += kHeaderBytes;
      discard_ = header.body_bytes;
      return true;
    }
    if (end_ - begin_ >= kHeaderBytes + header.body_bytes) {
      frame->header = header;
      frame->body.assign(buffer_, begin_ + kHeaderBytes, header.body_bytes);
      frame->oversized = false;
      begin_ += kHeaderBytes + header.body_bytes;
      return true;
    }
  }
  // Idle: a shim waits for hours between calls and should not hold the memory of the last one.
  if (begin_ == end_ && !buffer_.empty()) {
    begin_ = end_ = 0;
    std::string().swap(buffer_);
  }
  return false;
}

}  // namespace gantry::ttrpc
