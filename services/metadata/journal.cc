#include "services/metadata/journal.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxEventBytes = 1 << 20;
constexpr size_t kMaxEventsAtOnce = 1000;

absl::Status CheckTopic(absl::string_view topic) {
  absl::string_view rest = topic;
  if (topic.size() > 512 || !absl::ConsumePrefix(&rest, "/")) {
    return absl::InvalidArgumentError(
        "an event's topic must begin with '/' and have at most 512 bytes");
  }
  for (absl::string_view part : absl::StrSplit(rest, '/')) {
    RETURN_IF_ERROR(CheckIdentifier("component of the topic", part));
  }
  return absl::OkStatus();
}

absl::Status CheckEnvelope(const containerd::types::Envelope& envelope) {
  RETURN_IF_ERROR(CheckIdentifier("namespace of the event", envelope.namespace_()));
  RETURN_IF_ERROR(CheckTopic(envelope.topic()));
  if (!envelope.has_timestamp()) return absl::InvalidArgumentError("an event needs a timestamp");
  if (envelope.event().type_url().empty()) {
    return absl::InvalidArgumentError("an event needs a type url");
  }
  if (envelope.ByteSizeLong() > kMaxEventBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("an event may have at most ", kMaxEventBytes, " bytes"));
  }
  return absl::OkStatus();
}

// The text field that `path` from `at` on names; maps take the rest of the path as their key.
std::optional<std::string> TextOf(const Message& message, const std::vector<std::string>& path,
                                  size_t at) {
  if (at >= path.size()) return std::nullopt;
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(path[at]);
  if (field == nullptr) return std::nullopt;
  const google::protobuf::Reflection* reflection = message.GetReflection();
  if (field->is_map()) {
    const FieldDescriptor* key = field->message_type()->map_key();
    const FieldDescriptor* value = field->message_type()->map_value();
    if (key->type() != FieldDescriptor::TYPE_STRING ||
        value->type() != FieldDescriptor::TYPE_STRING)
      return std::nullopt;
    const std::string wanted = filter::JoinPath(path, at + 1);
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      const Message& entry = reflection->GetRepeatedMessage(message, field, i);
      if (entry.GetReflection()->GetString(entry, key) == wanted)
        return entry.GetReflection()->GetString(entry, value);
    }
    return std::nullopt;
  }
  if (field->is_repeated()) return std::nullopt;
  if (field->type() == FieldDescriptor::TYPE_MESSAGE) {
    return TextOf(reflection->GetMessage(message, field), path, at + 1);
  }
  if (field->type() != FieldDescriptor::TYPE_STRING || at + 1 != path.size()) return std::nullopt;
  std::string text = reflection->GetString(message, field);
  if (text.empty()) return std::nullopt;
  return text;
}

// The event itself, when it is of a type this program knows.
std::unique_ptr<Message> Decode(const google::protobuf::Any& any) {
  const google::protobuf::Descriptor* type =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(any.type_url());
  if (type == nullptr) return nullptr;
  std::unique_ptr<Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!message->ParseFromString(any.value())) return nullptr;
  return message;
}

}  // namespace

bool MatchesEvent(const filter::Filter& filter, const containerd::types::Envelope& envelope) {
  if (filter.matches_everything()) return true;
  std::unique_ptr<Message> event;
  bool decoded = false;
  return filter.Matches([&](const std::vector<std::string>& path) -> std::optional<std::string> {
    if (path.size() == 1 && path[0] == "namespace") return envelope.namespace_();
    if (path.size() == 1 && path[0] == "topic") return envelope.topic();
    if (path.size() < 2 || path[0] != "event") return std::nullopt;
    if (!std::exchange(decoded, true)) event = Decode(envelope.event());
    if (event == nullptr) return std::nullopt;
    return TextOf(*event, path, 1);
  });
}

Journal::Journal(Database& database) : database_(database) {
  database_.OnJournal([this](uint64_t newest) {
    absl::MutexLock lock(&news_mutex_);
    newest_ = newest;
    changed_ = true;
  });
  thread_ = std::thread([this] { Loop(); });
}

Journal::~Journal() { Stop(); }

void Journal::Stop() {
  {
    absl::MutexLock lock(&news_mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Journal::Append(const Envelope& envelope) {
  return Append(std::vector<const Envelope*>{&envelope});
}

absl::Status Journal::Append(const std::vector<const Envelope*>& envelopes) {
  if (envelopes.size() > kMaxEventsAtOnce) {
    return absl::InvalidArgumentError(
        absl::StrCat("at most ", kMaxEventsAtOnce, " events at once, not ", envelopes.size()));
  }
  std::vector<std::string> entries;
  for (const Envelope* envelope : envelopes) {
    RETURN_IF_ERROR(CheckEnvelope(*envelope));
    entries.push_back(envelope->SerializeAsString());
  }
  RETURN_IF_ERROR(FAILPOINT("metadata.journal.before_append"));
  // Exits must be journaled on a full disk too; retention bounds what they take.
  return database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    for (const std::string& entry : entries) RETURN_IF_ERROR(writer.Journal(entry));
    return absl::OkStatus();
  });
}

absl::StatusOr<Journal::Range> Journal::GetRange() const {
  const uint64_t last = last_sequence();
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto first, reader.FirstKey(Table::kJournal));
  Range range;
  if (!first || last == 0) return range;
  range.first = DecodeNumber(*first);
  range.last = last;
  return range;
}

absl::StatusOr<std::vector<Journal::Entry>> Journal::Read(uint64_t after, size_t limit) const {
  const uint64_t last = last_sequence();
  std::vector<Entry> entries;
  if (after >= last) return entries;
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  uint64_t expected = after == 0 ? 0 : after + 1;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    Entry entry;
    entry.sequence = DecodeNumber(key);
    if (entry.sequence > last) return false;  // Not durable yet.
    if (expected != 0 && entry.sequence != expected) {
      return absl::OutOfRangeError(absl::StrCat("events after ", after,
                                                " were dropped; the oldest kept is ",
                                                entry.sequence, "; list again"));
    }
    expected = entry.sequence + 1;
    RETURN_IF_ERROR(ParseStored(Table::kJournal, key, value, entry.envelope));
    entries.push_back(std::move(entry));
    return entries.size() < limit;
  };
  RETURN_IF_ERROR(reader.Scan(Table::kJournal, "", visit, EncodeNumber(after + 1)));
  return entries;
}

void Journal::AddFollower(Follower* follower) {
  absl::MutexLock lock(&mutex_);
  followers_.insert(follower);
  // Clients that the stop sent away subscribe again at once, on connections that still live.
  if (stopped_) return follower->OnStop();
  absl::MutexLock news(&news_mutex_);
  changed_ = true;
}

void Journal::RemoveFollower(Follower* follower) {
  absl::MutexLock lock(&mutex_);
  followers_.erase(follower);
}

void Journal::Loop() {
  while (true) {
    absl::Time wake = absl::InfiniteFuture();
    {
      absl::MutexLock lock(&mutex_);
      for (const Follower* follower : followers_) wake = std::min(wake, follower->WakeAt());
    }
    bool stopping;
    {
      absl::MutexLock lock(&news_mutex_);
      auto news = [this]()
                      ABSL_EXCLUSIVE_LOCKS_REQUIRED(news_mutex_) { return stopping_ || changed_; };
      news_mutex_.AwaitWithDeadline(absl::Condition(&news), wake);
      changed_ = false;
      stopping = stopping_;
    }
    absl::MutexLock lock(&mutex_);
    for (Follower* follower : followers_) stopping ? follower->OnStop() : follower->OnNews();
    stopped_ = stopping;
    if (stopping) return;
  }
}

}  // namespace gantry::metadata
