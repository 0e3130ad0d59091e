#include "services/image/streams.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::image {
namespace {

using google::protobuf::Any;

constexpr absl::Duration kCancelCheck = absl::Milliseconds(200);

absl::Status Gone() { return absl::CancelledError("the client's stream has ended"); }

}  // namespace

Any ToAny(const google::protobuf::Message& message) {
  Any any;
  any.set_type_url(message.GetDescriptor()->full_name());
  message.SerializeToString(any.mutable_value());
  return any;
}

bool FromAny(const Any& any, google::protobuf::Message* message) {
  absl::string_view type = any.type_url();
  const size_t slash = type.rfind('/');
  if (slash != absl::string_view::npos) type.remove_prefix(slash + 1);
  return type == message->GetDescriptor()->full_name() && message->ParseFromString(any.value());
}

// gRPC's half of a stream. Calls on it are made without the stream's lock: gRPC may react within
// them. It deletes itself in OnDone; whoever calls it holds off OnDone by an operation under way or
// by Finish not having been called yet.
class StreamReactor final : public grpc::ServerBidiReactor<Any, Any> {
 public:
  StreamReactor(Streams& streams, absl::StatusOr<std::string> namespace_name)
      : streams_(streams), stream_(std::make_shared<Stream>()) {
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->reactor_ = this;
    }
    if (!namespace_name.ok()) {
      stream_->Close(rpc::ToGrpcStatus(namespace_name.status()));
      return;
    }
    key_.first = *std::move(namespace_name);
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->reading_ = true;
    }
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (key_.second.empty()) return Begin(ok);
    absl::MutexLock lock(&stream_->mutex_);
    stream_->reading_ = false;
    if (ok) {
      stream_->incoming_ = std::move(request_);
    } else {
      stream_->read_ended_ = true;
    }
  }

  void OnWriteDone(bool ok) override {
    std::optional<grpc::Status> end;
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->writing_ = false;
      if (!ok) stream_->broken_ = true;
      end = std::exchange(stream_->end_, std::nullopt);
    }
    if (end) Finish(*end);
  }

  void OnCancel() override {
    bool picked = false;
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->broken_ = true;
      picked = stream_->picked_;
    }
    // Nobody else would end it.
    if (!picked) stream_->Close(grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone"));
  }

  void OnDone() override {
    streams_.Withdraw(key_, stream_.get());
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->reactor_ = nullptr;
      stream_->broken_ = true;
    }
    delete this;
  }

 private:
  friend class Stream;

  // The first message names the stream; an empty one acknowledges it.
  void Begin(bool ok) {
    containerd::services::streaming::v1::StreamInit init;
    {
      absl::MutexLock lock(&stream_->mutex_);
      stream_->reading_ = false;
    }
    absl::Status named = absl::InvalidArgumentError(
        "a stream begins with a message of the type containerd.services.streaming.v1.StreamInit");
    if (ok && FromAny(request_, &init)) {
      named = CheckKey("stream id", init.id());
      if (named.ok()) {
        key_.second = init.id();
        named = streams_.Offer(key_, stream_);
      }
    }
    if (!named.ok()) return stream_->Close(rpc::ToGrpcStatus(named));
    response_ = ToAny(google::protobuf::Empty());
    {
      absl::MutexLock lock(&stream_->mutex_);
      if (stream_->finished_) return;
      stream_->writing_ = true;
    }
    StartWrite(&response_);
  }

  Streams& streams_;
  const std::shared_ptr<Stream> stream_;
  Streams::Key key_;
  Any request_;
  Any response_;
};

std::optional<Any> Stream::TryRead() {
  StreamReactor* reactor = nullptr;
  std::optional<Any> message;
  {
    absl::MutexLock lock(&mutex_);
    message = std::exchange(incoming_, std::nullopt);
    if (!reading_ && !read_ended_ && !finished_ && reactor_ != nullptr) {
      reading_ = true;
      reactor = reactor_;
    }
  }
  if (reactor != nullptr) reactor->StartRead(&reactor->request_);
  return message;
}

absl::StatusOr<std::optional<Any>> Stream::Read(const std::function<bool()>& cancelled) {
  for (;;) {
    if (std::optional<Any> message = TryRead()) return message;
    absl::MutexLock lock(&mutex_);
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return incoming_.has_value() || read_ended_ || broken_;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&ready), kCancelCheck);
    if (incoming_.has_value()) continue;
    // An end in good order and a client that is gone look alike to a read; a cancellation tells.
    if (broken_) return Gone();
    if (read_ended_) return std::optional<Any>();
    if (cancelled && cancelled()) return absl::CancelledError("the transfer was cancelled");
  }
}

absl::Status Stream::Write(const Any& message, const std::function<bool()>& cancelled) {
  StreamReactor* reactor = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    const auto free = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_ || broken_; };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&free), kCancelCheck)) {
      if (cancelled && cancelled()) return absl::CancelledError("the transfer was cancelled");
    }
    if (broken_ || finished_ || reactor_ == nullptr) return Gone();
    writing_ = true;
    reactor = reactor_;
  }
  reactor->response_ = message;
  reactor->StartWrite(&reactor->response_);
  return absl::OkStatus();
}

void Stream::Close(const grpc::Status& status) {
  StreamReactor* reactor = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(finished_, true) || reactor_ == nullptr) return;
    if (writing_) {  // gRPC takes the status after the messages, not beside one.
      end_ = status;
      return;
    }
    reactor = reactor_;
  }
  reactor->Finish(status);
}

grpc::ServerBidiReactor<Any, Any>* Streams::Stream(grpc::CallbackServerContext* context) {
  return new StreamReactor(*this, rpc::RequestNamespace(*context));
}

absl::Status Streams::Offer(const Key& key, const std::shared_ptr<image::Stream>& stream) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the image service is stopping");
  if (waiting_.size() >= kMaxWaiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxWaiting, " streams wait to be picked up; end some"));
  }
  if (!waiting_.emplace(key, stream).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("stream '", EscapeForTerminal(key.second), "' is open already"));
  }
  return absl::OkStatus();
}

void Streams::Withdraw(const Key& key, const image::Stream* stream) {
  absl::MutexLock lock(&mutex_);
  auto found = waiting_.find(key);
  if (found != waiting_.end() && found->second.get() == stream) waiting_.erase(found);
}

absl::StatusOr<StreamHandle> Streams::PickUp(const std::string& namespace_name,
                                             const std::string& id) {
  absl::MutexLock lock(&mutex_);
  auto found = waiting_.find(Key(namespace_name, id));
  if (found == waiting_.end()) {
    return absl::NotFoundError(absl::StrCat("stream '", EscapeForTerminal(id),
                                            "' is not open; open it with Streaming first"));
  }
  const std::shared_ptr<image::Stream> stream = found->second;
  waiting_.erase(found);
  absl::MutexLock stream_lock(&stream->mutex_);
  if (stream->broken_ || stream->finished_) return Gone();
  stream->picked_ = true;
  return StreamHandle(stream);
}

void Streams::Stop() {
  std::vector<std::shared_ptr<image::Stream>> left;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [key, stream] : waiting_) left.push_back(stream);
    waiting_.clear();
  }
  for (const auto& stream : left) {
    stream->Close(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the image service is stopping"));
  }
}

}  // namespace gantry::image
