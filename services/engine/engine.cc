#include "services/engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "services/engine/shared_memory.h"

namespace gantry::engine {

v1::NetworkSettings ToProto(const network::Endpoint& endpoint) {
  v1::NetworkSettings settings;
  settings.set_network(std::string(network::ModeName(endpoint.mode)));
  settings.set_sandbox_key(endpoint.sandbox_key);
  settings.set_ip_address(endpoint.ip);
  settings.set_ip_prefix_length(static_cast<uint32_t>(endpoint.prefix_length));
  settings.set_gateway(endpoint.gateway);
  settings.set_mac_address(endpoint.mac);
  settings.set_bridge(endpoint.bridge);
  settings.set_network_id(endpoint.network_id);
  settings.set_endpoint_id(endpoint.endpoint_id);
  for (const network::Port& port : endpoint.ports) {
    v1::PortBinding* binding = settings.add_ports();
    binding->set_host_ip(port.host_ip);
    binding->set_host_port(port.host_port);
    binding->set_container_port(port.container_port);
    binding->set_protocol(std::string(network::ProtocolName(port.protocol)));
  }
  return settings;
}

network::Endpoint FromProto(const std::string& container_id, const v1::NetworkSettings& settings,
                            const std::string& mode) {
  network::Endpoint endpoint;
  endpoint.container_id = container_id;
  endpoint.mode = network::ParseMode(mode).value_or(network::Mode::kNone);
  endpoint.endpoint_id = settings.endpoint_id();
  endpoint.network_id = settings.network_id();
  // The two are the same path (network.h); the wire has one field for it.
  endpoint.netns_path = settings.sandbox_key();
  endpoint.sandbox_key = settings.sandbox_key();
  endpoint.ip = settings.ip_address();
  endpoint.prefix_length = static_cast<int>(settings.ip_prefix_length());
  endpoint.gateway = settings.gateway();
  endpoint.mac = settings.mac_address();
  endpoint.bridge = settings.bridge();
  for (const v1::PortBinding& binding : settings.ports()) {
    endpoint.ports.push_back(
        {network::ParseProtocol(binding.protocol()).value_or(network::Protocol::kTcp),
         static_cast<uint16_t>(binding.container_port()), binding.host_ip(),
         static_cast<uint16_t>(binding.host_port())});
  }
  return endpoint;
}

Engine::Engine(EngineOptions options, MetadataClient& metadata, ImageClient& images,
               TaskClient& tasks, network::Network& network, metrics::Registry& metrics)
    : options_(std::move(options)),
      places_{options_.state_directory, options_.runtime_directory, options_.cgroup_parent,
              options_.init_path},
      metadata_(metadata),
      images_(images),
      tasks_(tasks),
      network_(network),
      metrics_(metrics),
      volumes_(metadata, absl::StrCat(options_.state_directory, "/volumes")),
      events_(metadata, executor_, options_.namespace_name) {}

Engine::~Engine() { Stop(); }

void Engine::BeginStop() {
  stopping_ = true;
  for (const ContainerPtr& container : index_.All()) container->CancelAllWaits();
}

void Engine::Stop() {
  BeginStop();
  metadata_.StopWatching();
  tasks_.CancelWaits();
  executor_.Stop();
  events_.Flush();
}

std::string Engine::StateDirectory(const std::string& id) const {
  return ContainerDirectory(options_.state_directory, id);
}

std::string Engine::RuntimeDirectory(const std::string& id) const {
  return ContainerDirectory(options_.runtime_directory, id);
}

absl::Status Engine::RemoveRuntimeDirectory(const std::string& id) {
  RETURN_IF_ERROR(UnmountSharedMemory(SharedMemoryDirectory(places_, id)));
  return sys::RemoveTree(RuntimeDirectory(id));
}

std::string Engine::RunFilePath(const std::string& id) const {
  return absl::StrCat(RuntimeDirectory(id), "/run");
}

std::string Engine::LogPath(const Container& container) const {
  if (container.config().log().driver() == "none") return "";
  return absl::StrCat(StateDirectory(container.id()), "/", container.id(), "-json.log");
}

v1::AttachAddress Engine::AddressOf(const Container& container) const {
  v1::AttachAddress address;
  address.set_socket_path(container.run().shim_socket);
  address.set_container_id(container.id());
  return address;
}

void Engine::CountAction(absl::string_view action, absl::Time began) {
  metrics_
      .GetHistogram("gantry_engine_action_seconds", "Time that actions on containers took",
                    {{"action", std::string(action)}})
      .Observe(absl::Now() - began);
}

void Engine::UpdateGauges() {
  std::map<State, int> counts;
  for (const ContainerPtr& container : index_.All()) ++counts[container->state()];
  for (State state : {State::kCreated, State::kRunning, State::kPaused, State::kRestarting,
                      State::kExited, State::kRemoving, State::kDead}) {
    metrics_
        .GetGauge("gantry_engine_containers", "Containers by state",
                  {{"state", std::string(StateName(state))}})
        .Set(counts[state]);
  }
}

}  // namespace gantry::engine
