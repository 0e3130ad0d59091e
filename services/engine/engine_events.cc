// Engine: what is told about containers and volumes, in Docker's words.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/engine/engine.h"

namespace gantry::engine {

void Engine::Tell(const Container& container, absl::string_view action,
                  std::vector<std::pair<std::string, std::string>> details) {
  TellAt(container, action, std::move(details), absl::Now());
}

void Engine::TellAt(const Container& container, absl::string_view action,
                    std::vector<std::pair<std::string, std::string>> details, absl::Time at) {
  v1::Event event;
  event.set_type("container");
  event.set_action(std::string(action));
  event.set_id(container.id());
  auto& attributes = *event.mutable_attributes();
  for (const auto& [key, value] : container.config().labels()) attributes[key] = value;
  // After the labels: what the container is must not be hidden by what it calls itself.
  attributes["name"] = container.name();
  attributes["image"] = container.config().image();
  for (auto& [key, value] : details) attributes[key] = std::move(value);
  events_.Add(std::move(event), at);
}

void Engine::TellKill(const Container& container, int signal) {
  Tell(container, "kill", {{"signal", absl::StrCat(signal)}});
}

void Engine::TellResources(const Container& container, bool joined) {
  const absl::Time now = absl::Now();
  for (const v1::MountPoint& point : container.definition().mounts()) {
    if (point.type() != "volume") continue;
    v1::Event event;
    event.set_type("volume");
    event.set_action(joined ? "mount" : "unmount");
    event.set_id(point.name());
    auto& attributes = *event.mutable_attributes();
    attributes["container"] = container.id();
    attributes["driver"] = "local";
    if (joined) {
      attributes["destination"] = point.destination();
      attributes["read/write"] = point.rw() ? "true" : "false";
      attributes["propagation"] = point.propagation();
    }
    events_.Add(std::move(event), now);
  }
  const v1::NetworkSettings network = container.run().network;
  if (network.network_id().empty()) return;
  v1::Event event;
  event.set_type("network");
  event.set_action(joined ? "connect" : "disconnect");
  event.set_id(network.network_id());
  auto& attributes = *event.mutable_attributes();
  attributes["container"] = container.id();
  attributes["name"] = network.network();
  attributes["type"] = network.network();
  events_.Add(std::move(event), now);
}

void Engine::TellVolume(const std::string& name, absl::string_view action) {
  v1::Event event;
  event.set_type("volume");
  event.set_action(std::string(action));
  event.set_id(name);
  (*event.mutable_attributes())["driver"] = "local";
  events_.Add(std::move(event), absl::Now());
}

void Engine::TellCopy(absl::string_view reference, absl::string_view path, bool into) {
  absl::StatusOr<ContainerPtr> container = index_.Find(reference);
  if (!container.ok()) return;
  Tell(**container, into ? "extract-to-dir" : "archive-path", {{"path", std::string(path)}});
}

}  // namespace gantry::engine
