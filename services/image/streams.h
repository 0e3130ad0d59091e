// Streams beside another call (containerd's Streaming service): a client opens one under a name of
// its choice, and the call that is told the name (Transfer) picks it up and talks over it.
#pragma once

#include <google/protobuf/any.pb.h>
#include <google/protobuf/empty.pb.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "containerd/services/streaming/v1/streaming.grpc.pb.h"

namespace gantry::image {

// An Any as containerd's clients read it: the type is the bare name of the message.
google::protobuf::Any ToAny(const google::protobuf::Message& message);
// Whether `any` holds a `Message`, with or without a prefix before the bare name; fills it then.
bool FromAny(const google::protobuf::Any& any, google::protobuf::Message* message);

// One stream, between gRPC's reactor and whoever has picked it up. One thread at a time may read
// and one may write.
class Stream {
 public:
  // The client's next message; nullopt when it has said its last one.
  // Errors: Cancelled — `cancelled` says so, or the client is gone.
  absl::StatusOr<std::optional<google::protobuf::Any>> Read(const std::function<bool()>& cancelled);

  // What has come so far, without waiting.
  std::optional<google::protobuf::Any> TryRead();

  // Returns when the message is on its way. Errors: Cancelled, as above.
  absl::Status Write(const google::protobuf::Any& message,
                     const std::function<bool()>& cancelled = nullptr);

 private:
  friend class StreamHandle;
  friend class StreamReactor;
  friend class Streams;

  void Close(const grpc::Status& status);

  absl::Mutex mutex_;
  // gRPC's half; null once it is gone.
  class StreamReactor* reactor_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::optional<google::protobuf::Any> incoming_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;    // The client is gone.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // No call on the reactor any more.
  bool picked_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);  // After the write under way.
};

// A stream that was picked up; destruction ends it for the client, in good order. Move-only.
class StreamHandle {
 public:
  explicit StreamHandle(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  StreamHandle(StreamHandle&&) = default;
  StreamHandle& operator=(StreamHandle&& other) {
    End();
    stream_ = std::move(other.stream_);
    return *this;
  }
  ~StreamHandle() { End(); }
  Stream& operator*() const { return *stream_; }
  Stream* operator->() const { return stream_.get(); }

 private:
  void End() {
    if (stream_ != nullptr) stream_->Close(grpc::Status::OK);
  }
  std::shared_ptr<Stream> stream_;  // Shared with gRPC's reactor.
};

// Thread-safe.
class Streams final
    : public containerd::services::streaming::v1::Streaming::WithCallbackMethod_Stream<
          containerd::services::streaming::v1::Streaming::Service> {
 public:
  // Streams that wait to be picked up, over all clients.
  static constexpr size_t kMaxWaiting = 1024;

  grpc::ServerBidiReactor<google::protobuf::Any, google::protobuf::Any>* Stream(
      grpc::CallbackServerContext* context) override;

  // Takes the stream `id`; nobody else gets it then. Errors: NotFound.
  absl::StatusOr<StreamHandle> PickUp(const std::string& namespace_name, const std::string& id);

  // Ends those that nobody has picked up; later ones end at once.
  void Stop();

 private:
  friend class StreamReactor;
  using Key = std::pair<std::string, std::string>;  // Namespace, id.

  absl::Status Offer(const Key& key, const std::shared_ptr<image::Stream>& stream);
  void Withdraw(const Key& key, const image::Stream* stream);

  absl::Mutex mutex_;
  std::map<Key, std::shared_ptr<image::Stream>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::image
