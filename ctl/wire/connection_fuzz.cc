// Any bytes as what a server sends in answer to a call.

#include <google/protobuf/duration.pb.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "ctl/wire/channel.h"

namespace {

class BytesTransport final : public gantry::wire::Transport {
 public:
  explicit BytesTransport(absl::string_view bytes) : bytes_(bytes) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size, const gantry::wire::Deadline&) override {
    const size_t count = std::min<size_t>({size, bytes_.size(), 100});
    std::copy_n(bytes_.data(), count, buffer);
    bytes_.remove_prefix(count);
    return count;
  }
  absl::Status Write(absl::string_view, const gantry::wire::Deadline&) override {
    return absl::OkStatus();
  }

 private:
  absl::string_view bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gantry::wire::Channel channel(std::make_unique<BytesTransport>(
      absl::string_view(reinterpret_cast<const char*>(data), size)));
  google::protobuf::Duration message;
  for (int i = 0; i < 2; ++i) {
    auto call = channel.Open("/a.B/C", absl::InfiniteDuration());
    if (!call.ok()) break;
    if (!(*call)->Write(message, i == 0).ok()) break;
    absl::StatusOr<bool> more = true;
    while (more.ok() && *more) more = (*call)->Read(&message);
  }
  return 0;
}
