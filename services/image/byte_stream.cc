#include "services/image/byte_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "containerd/types/transfer/transfer.pb.h"
#include "lib/base/status.h"

namespace gantry::image {
namespace {

namespace transfer = containerd::types::transfer;

// What a client may have on the way to us.
constexpr int32_t kWindowBytes = 4 << 20;
constexpr size_t kMessageBytes = 64 << 10;

}  // namespace

absl::StatusOr<absl::string_view> ByteReader::Next() {
  for (;;) {
    if (allowed_ <= kWindowBytes / 2) {
      transfer::WindowUpdate update;
      update.set_update(kWindowBytes);
      RETURN_IF_ERROR(stream_->Write(ToAny(update), cancelled_));
      allowed_ += kWindowBytes;
    }
    ASSIGN_OR_RETURN(const std::optional<google::protobuf::Any> message, stream_->Read(cancelled_));
    if (!message) return absl::string_view();
    transfer::Data data;
    if (!FromAny(*message, &data)) {
      return absl::InvalidArgumentError(
          "the client's stream holds something else than containerd.types.transfer.Data");
    }
    allowed_ -= static_cast<int64_t>(data.data().size());
    if (allowed_ < 0) {
      return absl::InvalidArgumentError(
          "the client sends more than the window it was given (containerd.types.transfer."
          "WindowUpdate)");
    }
    piece_ = std::move(*data.mutable_data());
    if (!piece_.empty()) return absl::string_view(piece_);
  }
}

absl::Status ByteWriter::Write(absl::string_view bytes) {
  if (pending_.size() + bytes.size() < kMessageBytes) {
    pending_.append(bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Flush());
  return Send(bytes);
}

absl::Status ByteWriter::Flush() {
  const std::string bytes = std::exchange(pending_, "");
  return Send(bytes);
}

absl::Status ByteWriter::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    RETURN_IF_ERROR(WaitForRoom());
    const size_t size = std::min({bytes.size(), kMessageBytes, static_cast<size_t>(allowed_)});
    transfer::Data data;
    data.set_data(bytes.data(), size);
    RETURN_IF_ERROR(stream_->Write(ToAny(data), cancelled_));
    allowed_ -= static_cast<int64_t>(size);
    bytes.remove_prefix(size);
  }
  return absl::OkStatus();
}

absl::Status ByteWriter::WaitForRoom() {
  std::optional<google::protobuf::Any> message = stream_->TryRead();
  while (message || allowed_ <= 0) {
    if (!message) {
      ASSIGN_OR_RETURN(message, stream_->Read(cancelled_));
      if (!message) return absl::CancelledError("the client wants no more of the stream");
    }
    transfer::WindowUpdate update;
    if (!FromAny(*message, &update) || update.update() < 0) {
      return absl::InvalidArgumentError(
          "the client answers something else than containerd.types.transfer.WindowUpdate");
    }
    allowed_ += update.update();
    message = stream_->TryRead();
  }
  return absl::OkStatus();
}

}  // namespace gantry::image
