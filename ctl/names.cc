#include "ctl/names.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

using engine::v1::ContainerState;

// Where a published port listens, as people write it: an empty address is every address.
std::string ListenAddress(const engine::v1::PortBinding& binding) {
  if (binding.host_ip().empty()) return "0.0.0.0";
  if (absl::StrContains(binding.host_ip(), ':')) return absl::StrCat("[", binding.host_ip(), "]");
  return binding.host_ip();
}

std::string Range(uint32_t first, uint32_t last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
}

}  // namespace

std::string FamiliarName(absl::string_view full_name) {
  if (absl::ConsumePrefix(&full_name, "docker.io/")) absl::ConsumePrefix(&full_name, "library/");
  return std::string(full_name);
}

NameParts SplitName(absl::string_view name) {
  NameParts parts;
  const size_t at = name.find('@');
  if (at != name.npos) {
    parts.digest = std::string(name.substr(at + 1));
    name = name.substr(0, at);
  }
  // A colon before the last slash belongs to a port.
  const size_t colon = name.rfind(':');
  const size_t slash = name.rfind('/');
  if (colon != name.npos && (slash == name.npos || colon > slash)) {
    parts.tag = std::string(name.substr(colon + 1));
    name = name.substr(0, colon);
  }
  parts.repository = std::string(name);
  return parts;
}

absl::Time ToTime(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

std::string StateName(ContainerState::Status status) {
  switch (status) {
    case ContainerState::CREATED:
      return "created";
    case ContainerState::RUNNING:
      return "running";
    case ContainerState::PAUSED:
      return "paused";
    case ContainerState::RESTARTING:
      return "restarting";
    case ContainerState::EXITED:
      return "exited";
    case ContainerState::REMOVING:
      return "removing";
    case ContainerState::DEAD:
      return "dead";
    default:
      return "unknown";
  }
}

std::string StatusText(const ContainerState& state, absl::Time now) {
  const auto since = [&](const google::protobuf::Timestamp& time) {
    return HumanDuration(now - ToTime(time));
  };
  switch (state.status()) {
    case ContainerState::CREATED:
      return "Created";
    case ContainerState::RUNNING:
      return absl::StrCat("Up ", since(state.started_at()));
    case ContainerState::PAUSED:
      return absl::StrCat("Up ", since(state.started_at()), " (Paused)");
    case ContainerState::RESTARTING:
      return absl::StrCat("Restarting (", state.exit_code(), ") ", since(state.finished_at()),
                          " ago");
    case ContainerState::EXITED:
      return absl::StrCat("Exited (", state.exit_code(), ") ", since(state.finished_at()), " ago");
    case ContainerState::REMOVING:
      return "Removal In Progress";
    case ContainerState::DEAD:
      return "Dead";
    default:
      return "Unknown";
  }
}

std::string AgeText(absl::Time time, absl::Time now) {
  if (time <= absl::UnixEpoch()) return "N/A";
  return absl::StrCat(HumanDuration(now - time), " ago");
}

std::string CreatedText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S +0000 UTC", time, absl::UTCTimeZone());
}

std::string PortsText(const engine::v1::ContainerSummary& container) {
  std::vector<std::string> texts;
  const auto& ports = container.ports();
  for (int i = 0; i < ports.size();) {
    // A run: the same address and protocol, both sides growing by one.
    int end = i + 1;
    while (end < ports.size() && ports[end].host_ip() == ports[i].host_ip() &&
           ports[end].protocol() == ports[i].protocol() &&
           ports[end].host_port() == ports[end - 1].host_port() + 1 &&
           ports[end].container_port() == ports[end - 1].container_port() + 1) {
      ++end;
    }
    texts.push_back(absl::StrCat(ListenAddress(ports[i]), ":",
                                 Range(ports[i].host_port(), ports[end - 1].host_port()), "->",
                                 Range(ports[i].container_port(), ports[end - 1].container_port()),
                                 "/", ports[i].protocol()));
    i = end;
  }
  for (const std::string& port : container.exposed_ports()) texts.push_back(port);
  return absl::StrJoin(texts, ", ");
}

}  // namespace gantry::ctl
