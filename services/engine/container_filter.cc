#include "services/engine/container_filter.h"

#include <re2/re2.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"

namespace gantry::engine {
namespace {

const std::set<std::string>& KnownKeys() {
  static const auto* const keys = new std::set<std::string>{
      "id",    "name",   "label",   "exited",  "status", "ancestor", "before",
      "since", "volume", "network", "publish", "expose", "health"};
  return *keys;
}

absl::string_view StatusText(v1::ContainerState::Status status) {
  switch (status) {
    case v1::ContainerState::CREATED:
      return "created";
    case v1::ContainerState::RUNNING:
      return "running";
    case v1::ContainerState::PAUSED:
      return "paused";
    case v1::ContainerState::RESTARTING:
      return "restarting";
    case v1::ContainerState::EXITED:
      return "exited";
    case v1::ContainerState::REMOVING:
      return "removing";
    case v1::ContainerState::DEAD:
      return "dead";
    default:
      return "";
  }
}

// "80", "80/tcp", "8000-8010" against one port.
bool PortMatches(absl::string_view pattern, uint32_t port, absl::string_view protocol) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(pattern, absl::MaxSplits('/', 1));
  if (parts.second.empty() ? protocol != "tcp" : parts.second != protocol) return false;
  const std::pair<absl::string_view, absl::string_view> range =
      absl::StrSplit(parts.first, absl::MaxSplits('-', 1));
  uint32_t first = 0, last = 0;
  return absl::SimpleAtoi(range.first, &first) &&
         absl::SimpleAtoi(range.second.empty() ? range.first : range.second, &last) &&
         port >= first && port <= last;
}

// The image as it was named, by id, or without its tag.
bool IsAncestor(absl::string_view wanted, const v1::ContainerSummary& summary) {
  absl::string_view id = summary.image_id();
  if (id == wanted || summary.image() == wanted) return true;
  absl::ConsumePrefix(&id, "sha256:");
  absl::string_view bare = wanted;
  absl::ConsumePrefix(&bare, "sha256:");
  if (bare.size() >= 6 && absl::StartsWith(id, bare)) return true;
  return absl::StrCat(wanted, ":latest") == summary.image() ||
         absl::StrCat(summary.image(), ":latest") == wanted;
}

}  // namespace

absl::StatusOr<ContainerFilter> ContainerFilter::Parse(const std::vector<std::string>& texts) {
  ContainerFilter filter;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const std::string key = text.substr(0, equals);
    if (equals == std::string::npos || KnownKeys().count(key) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("invalid filter '", text, "': use one of ",
                                                     absl::StrJoin(KnownKeys(), ", "),
                                                     " and '=' and a value"));
    }
    const std::string value = text.substr(equals + 1);
    int32_t code = 0;
    if (key == "exited" && !absl::SimpleAtoi(value, &code)) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid filter '", text, "': an exit code is a number"));
    }
    static const auto* const states = new std::set<std::string>{
        "created", "running", "paused", "restarting", "exited", "removing", "dead"};
    if (key == "status" && states->count(value) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid filter '", text, "': a status is ", absl::StrJoin(*states, ", ")));
    }
    // No container has a health check yet, so none is anything but "none".
    if (key == "health" && value != "none" && value != "starting" && value != "healthy" &&
        value != "unhealthy") {
      return absl::InvalidArgumentError(absl::StrCat(
          "invalid filter '", text, "': health is healthy, none, starting or unhealthy"));
    }
    if (key == "name" && !RE2(value, RE2::Quiet).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid filter '", text, "': not a regular expression"));
    }
    filter.values_[key].insert(value);
  }
  return filter;
}

absl::Status ContainerFilter::Bind(const ContainerIndex& index) {
  for (const char* key : {"before", "since"}) {
    auto found = values_.find(key);
    if (found == values_.end()) continue;
    for (const std::string& reference : found->second) {
      ASSIGN_OR_RETURN(ContainerPtr container, index.Find(reference));
      bounds_[reference] = {FromProto(container->definition().created_at()), container->id()};
    }
  }
  return absl::OkStatus();
}

bool ContainerFilter::Matches(const Container& container,
                              const v1::ContainerSummary& summary) const {
  return std::all_of(values_.begin(), values_.end(), [&](const auto& item) {
    return std::any_of(item.second.begin(), item.second.end(), [&](const std::string& value) {
      return MatchesKey(item.first, value, container, summary);
    });
  });
}

bool ContainerFilter::MatchesKey(const std::string& key, const std::string& value,
                                 const Container& container,
                                 const v1::ContainerSummary& summary) const {
  const v1::ContainerConfig& config = container.config();
  if (key == "id") return absl::StartsWith(summary.id(), value);
  if (key == "name") {
    return RE2::PartialMatch(summary.name(), RE2(value, RE2::Quiet)) ||
           RE2::PartialMatch(absl::StrCat("/", summary.name()), RE2(value, RE2::Quiet));
  }
  if (key == "label") {
    const size_t equals = value.find('=');
    auto found = summary.labels().find(value.substr(0, equals));
    return found != summary.labels().end() &&
           (equals == std::string::npos || found->second == value.substr(equals + 1));
  }
  if (key == "status") return StatusText(summary.state().status()) == value;
  if (key == "exited") {
    return summary.state().status() == v1::ContainerState::EXITED &&
           absl::StrCat(summary.state().exit_code()) == value;
  }
  if (key == "ancestor") return IsAncestor(value, summary);
  if (key == "before" || key == "since") {
    auto bound = bounds_.find(value);
    if (bound == bounds_.end()) return false;
    const absl::Time created = FromProto(container.definition().created_at());
    return key == "before" ? created < bound->second.first : created > bound->second.first;
  }
  if (key == "volume") {
    return std::any_of(summary.mounts().begin(), summary.mounts().end(), [&](const v1::Mount& m) {
      return m.source() == value || m.target() == value;
    });
  }
  if (key == "network") return summary.network() == value;
  if (key == "health") return value == "none";
  if (key == "publish") {
    return std::any_of(
        summary.ports().begin(), summary.ports().end(), [&](const v1::PortBinding& port) {
          return port.host_port() != 0 && PortMatches(value, port.host_port(), port.protocol());
        });
  }
  // expose: what is published is exposed too.
  for (const v1::PortBinding& port : config.ports()) {
    if (PortMatches(value, port.container_port(), port.protocol())) return true;
  }
  return std::any_of(config.expose().begin(), config.expose().end(), [&](const std::string& text) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(text, absl::MaxSplits('/', 1));
    uint32_t port = 0;
    return absl::SimpleAtoi(parts.first, &port) &&
           PortMatches(value, port, parts.second.empty() ? "tcp" : parts.second);
  });
}

}  // namespace gantry::engine
