#include "services/metadata/event_streams.h"

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/metadata/service_call.h"

namespace gantry::metadata {
namespace {

constexpr size_t kPage = 64;

struct StreamOptions {
  uint64_t after = 0;
  bool follow = false;
  filter::Filter filter;
  absl::Time since = absl::InfinitePast();
  absl::Time until = absl::InfiniteFuture();
};

void Pack(Journal::Entry entry, containerd::types::Envelope* message) {
  *message = std::move(entry.envelope);
}

void Pack(Journal::Entry entry, v1::JournalEntry* message) {
  message->set_sequence(entry.sequence);
  *message->mutable_envelope() = std::move(entry.envelope);
}

// One reader of the journal: a cursor, and at most one message under way. Deletes itself when gRPC
// is done with it.
template <typename Message>
class EventStream final : public grpc::ServerWriteReactor<Message>, private Journal::Follower {
 public:
  EventStream(Journal& journal, absl::StatusOr<StreamOptions> options) : journal_(journal) {
    if (!options.ok()) {
      finished_ = true;
      this->Finish(rpc::ToGrpcStatus(options.status()));
      return;
    }
    options_ = *std::move(options);
    cursor_ = options_.after;
    // The client learns that it is subscribed: what happens from here on it will see.
    this->StartSendInitialMetadata();
    if (options_.follow) journal_.AddFollower(this);
    Pump();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) end_ = absl::CancelledError("the client went away");
    }
    Pump();
  }

  void OnCancel() override { End(absl::CancelledError("the client went away")); }

  void OnDone() override {
    journal_.RemoveFollower(this);
    delete this;
  }

 private:
  void OnNews() override { Pump(); }
  void OnStop() override {
    End(absl::UnavailableError("gantry-metadata is stopping; subscribe again"));
  }
  absl::Time WakeAt() const override { return options_.until; }

  void End(absl::Status status) {
    {
      absl::MutexLock lock(&mutex_);
      if (!end_) end_ = std::move(status);
    }
    Pump();
  }

  // Starts the next write, or finishes, or does nothing until there are news. gRPC is called
  // without the lock: after Finish this object may be gone.
  void Pump() {
    bool write = false;
    grpc::Status finish;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      std::optional<Journal::Entry> entry;
      if (!end_) entry = Next();
      if (entry) {
        Pack(*std::move(entry), &message_);
        writing_ = write = true;
      } else if (end_) {
        finished_ = true;
        finish = rpc::ToGrpcStatus(*end_);
      } else {
        return;
      }
    }
    if (write) {
      this->StartWrite(&message_);
    } else {
      this->Finish(finish);
    }
  }

  // The next entry that matches; nothing, with end_ set or to wait for news.
  std::optional<Journal::Entry> Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (true) {
      if (page_.empty()) {
        absl::StatusOr<std::vector<Journal::Entry>> page = journal_.Read(cursor_, kPage);
        if (!page.ok()) {
          end_ = page.status();
          return std::nullopt;
        }
        if (page->empty()) {
          if (!options_.follow || absl::Now() >= options_.until) end_ = absl::OkStatus();
          return std::nullopt;
        }
        cursor_ = page->back().sequence;
        page_.assign(std::make_move_iterator(page->begin()), std::make_move_iterator(page->end()));
      }
      Journal::Entry entry = std::move(page_.front());
      page_.pop_front();
      const absl::Time time = FromProto(entry.envelope.timestamp());
      if (time >= options_.since && time < options_.until &&
          MatchesEvent(options_.filter, entry.envelope)) {
        return entry;
      }
    }
  }

  Journal& journal_;
  StreamOptions options_;
  Message message_;
  absl::Mutex mutex_;
  uint64_t cursor_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Journal::Entry> page_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<StreamOptions> OptionsOf(const Journal& journal,
                                        const events_v1::SubscribeRequest& request) {
  StreamOptions options;
  ASSIGN_OR_RETURN(options.filter, filter::Filter::ParseAll(request.filters()));
  options.after = journal.last_sequence();
  options.follow = true;
  return options;
}

absl::StatusOr<StreamOptions> OptionsOf(const Journal& journal,
                                        const v1::ReadJournalRequest& request) {
  StreamOptions options;
  ASSIGN_OR_RETURN(options.filter, filter::Filter::ParseAll(request.filters()));
  options.after = request.from_now() ? journal.last_sequence() : request.after_sequence();
  options.follow = request.follow();
  if (request.has_since()) options.since = FromProto(request.since());
  if (request.has_until()) options.until = FromProto(request.until());
  if (options.after > journal.last_sequence()) {
    return absl::OutOfRangeError(absl::StrCat("the newest event is ", journal.last_sequence(),
                                              ", asked for those after ", options.after,
                                              "; this is another journal: list again"));
  }
  return options;
}

}  // namespace

grpc::Status EventsService::Publish(grpc::ServerContext* context,
                                    const events_v1::PublishRequest* request,
                                    google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) {
    containerd::types::Envelope envelope;
    *envelope.mutable_timestamp() = ToProto(absl::Now());
    envelope.set_namespace_(caller.namespace_name);
    envelope.set_topic(request->topic());
    *envelope.mutable_event() = request->event();
    return journal_.Append(envelope);
  });
}

grpc::Status EventsService::Forward(grpc::ServerContext*, const events_v1::ForwardRequest* request,
                                    google::protobuf::Empty*) {
  return rpc::ToGrpcStatus(journal_.Append(request->envelope()));
}

grpc::ServerWriteReactor<containerd::types::Envelope>* EventsService::Subscribe(
    grpc::CallbackServerContext*, const events_v1::SubscribeRequest* request) {
  return new EventStream<containerd::types::Envelope>(journal_, OptionsOf(journal_, *request));
}

grpc::ServerWriteReactor<v1::JournalEntry>* JournalService::Read(
    grpc::CallbackServerContext*, const v1::ReadJournalRequest* request) {
  return new EventStream<v1::JournalEntry>(journal_, OptionsOf(journal_, *request));
}

grpc::Status JournalService::Append(grpc::ServerContext*, const v1::AppendJournalRequest* request,
                                    v1::AppendJournalResponse*) {
  std::vector<const containerd::types::Envelope*> envelopes;
  for (const auto& envelope : request->envelopes()) envelopes.push_back(&envelope);
  return rpc::ToGrpcStatus(journal_.Append(envelopes));
}

grpc::Status JournalService::Status(grpc::ServerContext*, const v1::JournalStatusRequest*,
                                    v1::JournalStatusResponse* response) {
  absl::StatusOr<Journal::Range> range = journal_.GetRange();
  if (!range.ok()) return rpc::ToGrpcStatus(range.status());
  response->set_first_sequence(range->first);
  response->set_last_sequence(range->last);
  return grpc::Status::OK;
}

}  // namespace gantry::metadata
