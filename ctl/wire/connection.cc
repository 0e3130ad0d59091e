#include "ctl/wire/connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::wire {
namespace {

// RFC 9113, 6: frame types and flags.
enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kReset = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
constexpr uint8_t kEndStream = 0x1;
constexpr uint8_t kAck = 0x1;
constexpr uint8_t kEndHeaders = 0x4;
constexpr uint8_t kPadded = 0x8;
constexpr uint8_t kHasPriority = 0x20;

constexpr uint16_t kSettingEnablePush = 2;
constexpr uint16_t kSettingInitialWindow = 4;
constexpr uint16_t kSettingMaxFrame = 5;

constexpr uint32_t kErrorNone = 0;
constexpr uint32_t kErrorCancel = 8;

constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeaderBytes = 9;
constexpr uint32_t kDefaultWindow = 65535;
constexpr uint32_t kDefaultFrameBytes = 16384;
constexpr int64_t kLargestWindow = 0x7FFFFFFF;

// What we allow the peer. Windows are given back when half used, so a stream never stalls on us
// while it is read; the frame size saves headers on bulk streams (cp).
constexpr uint32_t kOurWindow = 4 << 20;
constexpr uint32_t kOurFrameBytes = 1 << 20;
constexpr size_t kReadBytes = 64 << 10;
// Small requests wait for their end; large ones leave when this much is gathered.
constexpr size_t kFlushBytes = 256 << 10;
constexpr size_t kHeaderBlockLimitBytes = 256 << 10;

void AppendBigEndian(uint32_t number, int bytes, std::string* out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(number >> shift));
  }
}

uint32_t ReadBigEndian(absl::string_view in, size_t at, int bytes) {
  uint32_t number = 0;
  for (int i = 0; i < bytes; ++i) {
    number = (number << 8) | static_cast<uint8_t>(in[at + static_cast<size_t>(i)]);
  }
  return number;
}

void AppendSetting(uint16_t name, uint32_t value, std::string* out) {
  AppendBigEndian(name, 2, out);
  AppendBigEndian(value, 4, out);
}

absl::Status Broken(absl::string_view what) {
  return absl::InternalError(absl::StrCat("the service does not speak HTTP/2 properly: ", what));
}

// Takes padding (and a HEADERS frame's priority) off a payload.
absl::Status Strip(uint8_t flags, bool may_have_priority, std::string* payload) {
  size_t front = 0;
  size_t back = 0;
  if ((flags & kPadded) != 0) {
    if (payload->empty()) return Broken("a padded frame without its padding length");
    back = static_cast<uint8_t>(payload->front());
    front = 1;
  }
  if (may_have_priority && (flags & kHasPriority) != 0) front += 5;
  if (front + back > payload->size()) return Broken("more padding than payload");
  payload->erase(payload->size() - back);
  payload->erase(0, front);
  return absl::OkStatus();
}

}  // namespace

Connection::Connection(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)),
      out_(kPreface),
      connection_window_(kDefaultWindow),
      peer_initial_window_(kDefaultWindow),
      peer_frame_bytes_(kDefaultFrameBytes) {
  std::string settings;
  AppendSetting(kSettingEnablePush, 0, &settings);
  AppendSetting(kSettingInitialWindow, kOurWindow, &settings);
  AppendSetting(kSettingMaxFrame, kOurFrameBytes, &settings);
  Append(kSettings, 0, 0, settings);
  AppendWindowUpdate(0, kOurWindow - kDefaultWindow);
}

void Connection::Append(uint8_t type, uint8_t flags, uint32_t stream, absl::string_view payload) {
  AppendBigEndian(static_cast<uint32_t>(payload.size()), 3, &out_);
  out_.push_back(static_cast<char>(type));
  out_.push_back(static_cast<char>(flags));
  AppendBigEndian(stream, 4, &out_);
  absl::StrAppend(&out_, payload);
}

void Connection::AppendWindowUpdate(uint32_t stream, uint32_t bytes) {
  std::string payload;
  AppendBigEndian(bytes, 4, &payload);
  Append(kWindowUpdate, 0, stream, payload);
}

absl::Status Connection::OpenStream(const std::vector<Header>& headers) {
  if (going_away_) return absl::UnavailableError("the service is stopping");
  std::string block;
  for (const Header& header : headers) AppendHeader(header.name, header.value, &block);
  if (block.size() > kDefaultFrameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("headers of the request take ", block.size(),
                                                   " bytes; at most ", kDefaultFrameBytes,
                                                   " are allowed"));
  }
  stream_ = next_stream_;
  next_stream_ += 2;
  we_ended_ = peer_ended_ = false;
  events_.clear();
  stream_window_ = peer_initial_window_;
  unreported_stream_bytes_ = 0;
  Append(kHeaders, kEndHeaders, stream_, block);
  return absl::OkStatus();
}

absl::Status Connection::SendData(absl::string_view bytes, bool end, const Deadline& deadline) {
  // Once the peer has answered in full (an early error), nobody reads what we send.
  while (!peer_ended_) {
    const int64_t window = std::min(connection_window_, stream_window_);
    if (!bytes.empty() && window <= 0) {
      RETURN_IF_ERROR(Flush(deadline));
      RETURN_IF_ERROR(Advance(deadline));
      continue;
    }
    const size_t count = std::min({bytes.size(), static_cast<size_t>(std::max<int64_t>(window, 0)),
                                   static_cast<size_t>(peer_frame_bytes_)});
    const bool last = count == bytes.size();
    Append(kData, last && end ? kEndStream : 0, stream_, bytes.substr(0, count));
    bytes.remove_prefix(count);
    connection_window_ -= static_cast<int64_t>(count);
    stream_window_ -= static_cast<int64_t>(count);
    if (out_.size() >= kFlushBytes) RETURN_IF_ERROR(Flush(deadline));
    if (last) break;
  }
  we_ended_ = we_ended_ || end;
  return absl::OkStatus();
}

absl::Status Connection::Flush(const Deadline& deadline) {
  if (out_.empty()) return absl::OkStatus();
  // Cleared also after an error: half a frame was sent then, and the connection is lost.
  const std::string bytes = std::exchange(out_, std::string());
  return transport_->Write(bytes, deadline);
}

absl::StatusOr<StreamEvent> Connection::Next(const Deadline& deadline) {
  while (events_.empty()) {
    RETURN_IF_ERROR(Flush(deadline));
    RETURN_IF_ERROR(Advance(deadline));
  }
  StreamEvent event = std::move(events_.front());
  events_.erase(events_.begin());
  return event;
}

void Connection::CloseStream() {
  if (stream_ == 0) return;
  if (!we_ended_ || !peer_ended_) {
    std::string payload;
    AppendBigEndian(peer_ended_ ? kErrorNone : kErrorCancel, 4, &payload);
    Append(kReset, 0, stream_, payload);
  }
  stream_ = 0;
  events_.clear();
}

absl::Status Connection::Fill(size_t bytes, const Deadline& deadline) {
  if (in_begin_ > 0 && in_begin_ == in_.size()) {
    in_.clear();
    in_begin_ = 0;
  }
  while (in_.size() - in_begin_ < bytes) {
    const size_t used = in_.size();
    in_.resize(used + kReadBytes);
    absl::StatusOr<size_t> count = transport_->Read(in_.data() + used, kReadBytes, deadline);
    in_.resize(used + (count.ok() ? *count : 0));
    if (!count.ok()) return count.status();
    if (*count == 0) {
      return absl::UnavailableError("the service closed the connection before it had answered");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Connection::Frame> Connection::ReadFrame(const Deadline& deadline) {
  // Bytes leave in_ only when the frame is complete, so that a deadline in the middle of one does
  // no harm.
  RETURN_IF_ERROR(Fill(kFrameHeaderBytes, deadline));
  const uint32_t length = ReadBigEndian(in_, in_begin_, 3);
  if (length > kOurFrameBytes) return Broken(absl::StrCat("a frame of ", length, " bytes"));
  RETURN_IF_ERROR(Fill(kFrameHeaderBytes + length, deadline));
  Frame frame;
  frame.type = static_cast<uint8_t>(in_[in_begin_ + 3]);
  frame.flags = static_cast<uint8_t>(in_[in_begin_ + 4]);
  frame.stream = ReadBigEndian(in_, in_begin_ + 5, 4) & 0x7FFFFFFF;
  frame.payload = in_.substr(in_begin_ + kFrameHeaderBytes, length);
  in_begin_ += kFrameHeaderBytes + length;
  if (in_begin_ > kOurWindow) {
    in_.erase(0, in_begin_);
    in_begin_ = 0;
  }
  return frame;
}

absl::Status Connection::Advance(const Deadline& deadline) {
  ASSIGN_OR_RETURN(Frame frame, ReadFrame(deadline));
  return OnFrame(std::move(frame), deadline);
}

absl::Status Connection::OnFrame(Frame frame, const Deadline& deadline) {
  switch (frame.type) {
    case kData:
      return OnData(std::move(frame));
    case kHeaders:
      return OnHeaders(std::move(frame), deadline);
    case kReset:
      return OnReset(frame);
    case kSettings:
      return OnSettings(frame);
    case kPing:
      if (frame.payload.size() != 8) return Broken("a ping of the wrong size");
      // Answered at once: gRPC servers measure the path with pings and close silent connections.
      if ((frame.flags & kAck) == 0) {
        Append(kPing, kAck, 0, frame.payload);
        return Flush(deadline);
      }
      return absl::OkStatus();
    case kGoAway:
      return OnGoAway(frame);
    case kWindowUpdate:
      return OnWindowUpdate(frame);
    case kPushPromise:
      return Broken("a push we have forbidden");
    case kContinuation:
      return Broken("a continuation of nothing");
    default:  // Priority, and types that later revisions add, are ignored (RFC 9113, 5.5).
      return absl::OkStatus();
  }
}

absl::Status Connection::OnData(Frame frame) {
  if (frame.stream == 0) return Broken("data without a stream");
  // Padding counts for flow control, so the size is taken before it goes.
  unreported_connection_bytes_ += frame.payload.size();
  if (unreported_connection_bytes_ > kOurWindow) return Broken("more data than the window allows");
  if (unreported_connection_bytes_ >= kOurWindow / 2) {
    AppendWindowUpdate(0, static_cast<uint32_t>(std::exchange(unreported_connection_bytes_, 0)));
  }
  if (frame.stream != stream_) return absl::OkStatus();  // A call that was given up.
  if (peer_ended_) return Broken("data after the end of the stream");
  unreported_stream_bytes_ += frame.payload.size();
  peer_ended_ = (frame.flags & kEndStream) != 0;
  if (unreported_stream_bytes_ >= kOurWindow / 2 && !peer_ended_) {
    AppendWindowUpdate(stream_, static_cast<uint32_t>(std::exchange(unreported_stream_bytes_, 0)));
  }
  RETURN_IF_ERROR(Strip(frame.flags, false, &frame.payload));
  events_.push_back({StreamEvent::Kind::kData, {}, std::move(frame.payload), 0, peer_ended_});
  return absl::OkStatus();
}

absl::Status Connection::OnHeaders(Frame frame, const Deadline& deadline) {
  if (frame.stream == 0) return Broken("headers without a stream");
  RETURN_IF_ERROR(Strip(frame.flags, true, &frame.payload));
  std::string block = std::move(frame.payload);
  bool complete = (frame.flags & kEndHeaders) != 0;
  while (!complete) {
    // Nothing may come between the frames of one block. A deadline that passes here loses the
    // block, so the connection is closed to further calls.
    absl::StatusOr<Frame> next = ReadFrame(deadline);
    if (!next.ok()) {
      going_away_ = true;
      return next.status();
    }
    if (next->type != kContinuation || next->stream != frame.stream) {
      return Broken("a header block that is not continued");
    }
    absl::StrAppend(&block, next->payload);
    if (block.size() > kHeaderBlockLimitBytes) return Broken("a header block without end");
    complete = (next->flags & kEndHeaders) != 0;
  }
  // Decoded also for a stream that was given up: the table must stay in step.
  absl::StatusOr<std::vector<Header>> headers = decoder_.Decode(block);
  if (!headers.ok()) return Broken(headers.status().message());
  if (frame.stream != stream_) return absl::OkStatus();
  if (peer_ended_) return Broken("headers after the end of the stream");
  peer_ended_ = (frame.flags & kEndStream) != 0;
  events_.push_back({StreamEvent::Kind::kHeaders, *std::move(headers), "", 0, peer_ended_});
  return absl::OkStatus();
}

absl::Status Connection::OnSettings(const Frame& frame) {
  if ((frame.flags & kAck) != 0) return absl::OkStatus();
  if (frame.stream != 0 || frame.payload.size() % 6 != 0) return Broken("malformed settings");
  for (size_t at = 0; at < frame.payload.size(); at += 6) {
    const uint32_t name = ReadBigEndian(frame.payload, at, 2);
    const uint32_t value = ReadBigEndian(frame.payload, at + 2, 4);
    if (name == kSettingInitialWindow) {
      if (value > kLargestWindow) return Broken("a window over 2 GiB");
      stream_window_ += static_cast<int64_t>(value) - peer_initial_window_;
      peer_initial_window_ = value;
    } else if (name == kSettingMaxFrame) {
      if (value < kDefaultFrameBytes || value > 0xFFFFFF) return Broken("a wrong frame size");
      peer_frame_bytes_ = value;
    }
  }
  Append(kSettings, kAck, 0, "");
  return absl::OkStatus();
}

absl::Status Connection::OnWindowUpdate(const Frame& frame) {
  if (frame.payload.size() != 4) return Broken("a malformed window update");
  const uint32_t bytes = ReadBigEndian(frame.payload, 0, 4) & 0x7FFFFFFF;
  if (frame.stream != 0 && frame.stream != stream_) return absl::OkStatus();
  int64_t& window = frame.stream == 0 ? connection_window_ : stream_window_;
  if (bytes == 0 || window + bytes > kLargestWindow) return Broken("a window update out of range");
  window += bytes;
  return absl::OkStatus();
}

absl::Status Connection::OnReset(const Frame& frame) {
  if (frame.payload.size() != 4 || frame.stream == 0) return Broken("a malformed reset");
  // After the end of its answer a server resets what it did not care to read: no news.
  if (frame.stream != stream_ || peer_ended_) return absl::OkStatus();
  we_ended_ = peer_ended_ = true;
  events_.push_back({StreamEvent::Kind::kReset, {}, "", ReadBigEndian(frame.payload, 0, 4), true});
  return absl::OkStatus();
}

absl::Status Connection::OnGoAway(const Frame& frame) {
  if (frame.payload.size() < 8) return Broken("a malformed farewell");
  going_away_ = true;
  const uint32_t last = ReadBigEndian(frame.payload, 0, 4) & 0x7FFFFFFF;
  if (stream_ > last) return absl::UnavailableError("the service is stopping");
  return absl::OkStatus();  // It still answers the call it has.
}

}  // namespace gantry::wire
