// events: the journal of the suite in Docker's words.

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "containerd/services/images/v1/images.pb.h"
#include "ctl/commands/commands.h"
#include "ctl/flag_values.h"
#include "ctl/names.h"
#include "ctl/table.h"
#include "ctl/template.h"
#include "ctl/value.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

namespace metadata = ::gantry::metadata::v1;

// One event in Docker's words.
struct DockerEvent {
  std::string type;    // container, image …
  std::string action;  // start, die …
  std::string id;
  std::map<std::string, std::string> attributes;
  absl::Time time;
};

template <typename Message>
std::optional<Message> Unpack(const metadata::JournalEntry& entry) {
  Message message;
  if (!message.ParseFromString(entry.envelope().event().value())) return std::nullopt;
  return message;
}

template <typename Message>
std::optional<DockerEvent> ImageEvent(const metadata::JournalEntry& entry, const char* action) {
  std::optional<Message> message = Unpack<Message>(entry);
  if (!message) return std::nullopt;
  const std::string name = FamiliarName(message->name());
  DockerEvent event{"image", action, name, {}, {}};
  event.attributes["name"] = name;
  return event;
}

// What the engine tells carries names, images and labels as they were then, so that a removed
// container is still known by its name.
std::optional<DockerEvent> EngineEvent(const metadata::JournalEntry& entry) {
  std::optional<engine::v1::Event> told = Unpack<engine::v1::Event>(entry);
  if (!told) return std::nullopt;
  DockerEvent event{told->type(), told->action(), told->id(), {}, {}};
  for (const auto& [key, value] : told->attributes()) event.attributes[key] = value;
  const auto image = event.attributes.find("image");
  if (image != event.attributes.end()) image->second = FamiliarName(image->second);
  return event;
}

std::optional<DockerEvent> Translate(const metadata::JournalEntry& entry) {
  const std::string& topic = entry.envelope().topic();
  if (absl::StartsWith(topic, "/gantry/")) return EngineEvent(entry);
  namespace images = ::containerd::services::images::v1;
  if (topic == "/images/create") return ImageEvent<images::ImageCreate>(entry, "tag");
  if (topic == "/images/update") return ImageEvent<images::ImageUpdate>(entry, "tag");
  if (topic == "/images/delete") return ImageEvent<images::ImageDelete>(entry, "untag");
  return std::nullopt;  // Tasks, snapshots, content: the machinery below, which Docker hides.
}

// The filters of E.5. Same key twice is or, different keys are and.
class EventFilter {
 public:
  static absl::StatusOr<EventFilter> Make(const std::vector<std::string>& filters) {
    EventFilter made;
    for (const std::string& text : filters) {
      auto [key, value] = SplitPair(text);
      if (key != "type" && key != "event" && key != "container" && key != "image" &&
          key != "volume" && key != "network" && key != "label" && key != "scope") {
        return absl::InvalidArgumentError(
            absl::StrCat("unknown filter '", EscapeForTerminal(key),
                         "': use type, event, container, image, volume, network, label or scope"));
      }
      made.wanted_[key].push_back(value);
    }
    return made;
  }

  bool Matches(const DockerEvent& event) const {
    return std::all_of(wanted_.begin(), wanted_.end(), [&](const auto& wanted) {
      return std::any_of(wanted.second.begin(), wanted.second.end(), [&](const std::string& value) {
        return MatchesOne(event, wanted.first, value);
      });
    });
  }

 private:
  static std::string Attribute(const DockerEvent& event, const std::string& key) {
    const auto found = event.attributes.find(key);
    return found == event.attributes.end() ? "" : found->second;
  }

  static bool MatchesOne(const DockerEvent& event, const std::string& key,
                         const std::string& value) {
    if (key == "type") return event.type == value;
    if (key == "scope") return value == "local";
    // "exec_start" means all of "exec_start: COMMAND".
    if (key == "event") {
      return event.action == value || absl::StartsWith(event.action, absl::StrCat(value, ": "));
    }
    if (key == "image") {
      const std::string image = event.type == "image" ? event.id : Attribute(event, "image");
      return image == value || SplitName(image).repository == value;
    }
    if (key == "label") {
      auto [label, wanted] = SplitPair(value);
      const auto found = event.attributes.find(label);
      return found != event.attributes.end() &&
             (!absl::StrContains(value, '=') || found->second == wanted);
    }
    // container, volume, network: by id, a beginning of it, or name.
    return event.type == key && !value.empty() &&
           (absl::StartsWith(event.id, value) || Attribute(event, "name") == value);
  }

  std::map<std::string, std::vector<std::string>> wanted_;
};

Value EventValue(const DockerEvent& event) {
  Value actor = Value::Object();
  actor.Set("ID", event.id).Set("Attributes", Value::MapOf(event.attributes));
  Value value = Value::Object();
  value.Set("status", event.action).Set("id", event.id);
  const auto image = event.attributes.find("image");
  if (image != event.attributes.end()) value.Set("from", image->second);
  return value.Set("Type", event.type)
      .Set("Action", event.action)
      .Set("Actor", actor)
      .Set("scope", "local")
      .Set("time", absl::ToUnixSeconds(event.time))
      .Set("timeNano", absl::ToUnixNanos(event.time));
}

std::string EventLine(const DockerEvent& event) {
  std::vector<std::string> attributes;
  for (const auto& [key, value] : event.attributes) {
    attributes.push_back(absl::StrCat(EscapeForTerminal(key), "=", EscapeForTerminal(value)));
  }
  return absl::StrCat(
      FormatRfc3339Nano(event.time), " ", event.type, " ", event.action, " ",
      EscapeForTerminal(event.id),
      attributes.empty() ? "" : absl::StrCat(" (", absl::StrJoin(attributes, ", "), ")"));
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  timestamp->set_seconds(seconds);
  timestamp->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

// The request, and how long we listen.
struct JournalRequest {
  metadata::ReadJournalRequest request;
  absl::Duration timeout = absl::InfiniteDuration();
};

absl::StatusOr<JournalRequest> BuildRequest(const Arguments& arguments, absl::Time now) {
  JournalRequest made;
  made.request.set_follow(true);
  if (arguments.Has("since")) {
    ASSIGN_OR_RETURN(absl::Time since, ParseMoment(arguments.Text("since"), now));
    SetTimestamp(since, made.request.mutable_since());
  } else {
    made.request.set_from_now(!arguments.Has("until"));
  }
  if (!arguments.Has("until")) return made;
  ASSIGN_OR_RETURN(absl::Time until, ParseMoment(arguments.Text("until"), now));
  SetTimestamp(until, made.request.mutable_until());
  if (until <= now) {
    made.request.set_follow(false);
  } else {
    made.timeout = until - now;
    made.request.set_from_now(!arguments.Has("since"));
  }
  return made;
}

absl::Status PrintEvents(Context& context, const Arguments& arguments) {
  ASSIGN_OR_RETURN(EventFilter filter, EventFilter::Make(arguments.List("filter")));
  const std::string format = arguments.Text("format");
  std::optional<Template> line_template;
  if (!format.empty() && format != "json") {
    ASSIGN_OR_RETURN(line_template, Template::Parse(UnescapeFormat(format)));
  }
  ASSIGN_OR_RETURN(JournalRequest journal, BuildRequest(arguments, absl::Now()));
  ASSIGN_OR_RETURN(Stream stream,
                   context.suite().Open("metadata", "/gantry.metadata.v1.Journal/Read",
                                        &journal.request, journal.timeout));
  metadata::JournalEntry entry;
  while (true) {
    entry.Clear();
    absl::StatusOr<bool> more = stream.call->Read(&entry);
    // --until in the future: the time has come.
    if (absl::IsDeadlineExceeded(more.status())) return absl::OkStatus();
    RETURN_IF_ERROR(more.status());
    if (!*more) return absl::OkStatus();
    std::optional<DockerEvent> event = Translate(entry);
    if (!event || entry.envelope().namespace_() != context.suite().namespace_name()) continue;
    event->time = ToTime(entry.envelope().timestamp());
    if (!filter.Matches(*event)) continue;
    std::string line;
    if (format.empty()) {
      line = EventLine(*event);
    } else if (format == "json") {
      line = EventValue(*event).ToJson();
    } else {
      ASSIGN_OR_RETURN(line, line_template->Execute(EventValue(*event)));
    }
    context.out().Write(absl::StrCat(line, "\n"));
    context.out().Flush();
  }
}

int Events(Context& context, const Arguments& arguments) {
  const absl::Status status = PrintEvents(context, arguments);
  return status.ok() ? kExitOk : context.Fail("cannot read events", status);
}

constexpr FlagSpec kEventsFlags[] = {
    {"filter", 'f', FlagKind::kList, "filter",
     "Only those that match: type event container image volume network label scope"},
    {"format", 0, FlagKind::kText, "string", "'json' or a template"},
    {"since", 0, FlagKind::kText, "time", "Begin in the past: RFC 3339, seconds, or an age (10m)"},
    {"until", 0, FlagKind::kText, "time", "End at this time"},
};

}  // namespace

absl::Span<const CommandSpec> EventCommands() {
  static const CommandSpec kCommands[] = {
      {"events", "[OPTIONS]", "Show what happens, as it happens", kEventsFlags, 0, 0, false,
       "gantryctl events --since 10m --until 0s --filter event=die", Events},
  };
  return kCommands;
}

}  // namespace gantry::ctl
