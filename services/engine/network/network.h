// The network of containers on this host: who gets which namespace, address and host ports.
//
// Terms
//   endpoint    what one container has of the network: a network namespace kept alive by a file,
//   and,
//               on the bridge, an interface "eth0" with an address, and published ports
//   sandbox     the namespace alone; its file lies in <run dir>/netns
//   published   a port of the host that leads to a port of the container
//   exposed     a port the image says it serves; published only when everything exposed is
//
// Life cycle: Adopt (once, at start) → Connect … Release. The engine keeps each Endpoint in the
// record of its container and hands the ones of containers that still run to Adopt, which keeps
// exactly those and frees whatever else an earlier process of this suite left behind, at whatever
// step it died.
//
// A container's namespace comes with `lo` up, IPv6 off on all interfaces but `lo`,
// net.ipv4.ip_unprivileged_port_start=0 and an open net.ipv4.ping_group_range, as people are used
// to from Docker; the OCI spec need not set these.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/rpc/audit.h"

namespace gantry::network {

enum class Mode : uint8_t {
  kBridge,  // Own namespace, joined to the host's bridge.
  kNone,    // Own namespace with nothing but `lo`.
  kHost,    // The host's namespace. An endpoint without namespace, address and ports.
};

// "bridge" (also "default" and ""), "none", "host". "container:ID" is the engine's to resolve,
// since then there is no endpoint of one's own. Errors: InvalidArgument, naming the modes there
// are.
absl::StatusOr<Mode> ParseMode(absl::string_view text);
absl::string_view ModeName(Mode mode);

enum class Protocol : uint8_t { kTcp, kUdp };

// "tcp" (also "") or "udp". Errors: InvalidArgument.
absl::StatusOr<Protocol> ParseProtocol(absl::string_view text);
absl::string_view ProtocolName(Protocol protocol);

struct PortRequest {
  Protocol protocol = Protocol::kTcp;
  uint16_t container_port = 0;
  std::string host_ip;         // Dotted IPv4; empty or "0.0.0.0": every address of the host.
  uint16_t host_port = 0;      // 0: a free one from 49153 up.
  uint16_t host_port_end = 0;  // Not 0: the first free one of host_port…host_port_end.
};

struct ExposedPort {
  Protocol protocol = Protocol::kTcp;
  uint16_t port = 0;
};

struct EndpointRequest {
  std::string container_id;
  Mode mode = Mode::kBridge;
  // Bridge only: with the other modes there is nothing to publish from, so these are dropped, as
  // Docker does. The engine may warn.
  std::vector<PortRequest> ports;
  bool publish_all = false;  // Every port of `exposed` not in `ports` gets a free host port.
  std::vector<ExposedPort> exposed;
  std::string ip;   // Empty: the next free one.
  std::string mac;  // Empty: made from the address, so that a neighbour's table stays right.
};

// A port as it is published.
struct Port {
  Protocol protocol = Protocol::kTcp;
  uint16_t container_port = 0;
  std::string host_ip;  // "0.0.0.0": every address of the host.
  uint16_t host_port = 0;

  bool operator==(const Port&) const = default;
};

// Everything needed to join the endpoint, to show it, and to find it again after a crash. The
// fields are those of gantry.engine.v1.NetworkSettings; nothing else has to be remembered.
struct Endpoint {
  std::string container_id;
  Mode mode = Mode::kBridge;
  std::string endpoint_id;  // 64 hex digits; names of files and interfaces are made from it.
  std::string network_id;   // 64 hex digits, the same for all endpoints of a mode on this host.
  std::string netns_path;   // The file to join. Empty with kHost.
  std::string sandbox_key;  // The same path, by the name `inspect` shows it under.
  std::string ip;           // The rest: empty unless kBridge.
  int prefix_length = 0;
  std::string gateway;
  std::string mac;
  std::string bridge;
  std::vector<Port> ports;  // In the order of the request, published exposed ones last.
};

// An endpoint given to Adopt that is not there any more.
struct LostEndpoint {
  std::string container_id;
  std::string reason;  // One clause.
};

struct AdoptReport {
  std::vector<LostEndpoint> lost;     // Their containers run without a network; restart them.
  std::vector<std::string> removed;   // What was freed: "netns 12ab…", "veth gt…".
  std::vector<std::string> problems;  // What could not be, and a bridge that cannot be used (yet).
};

// What `network inspect` and metrics show of the bridge network.
struct NetworkInfo {
  std::string id;
  std::string name;    // "bridge"
  std::string bridge;  // The interface; empty before Adopt.
  std::string subnet;  // "172.30.0.0/16"
  std::string gateway;
  uint64_t addresses_total = 0;
  uint64_t addresses_used = 0;  // By endpoints, and by namespaces made ready for the next ones.
  uint64_t endpoints = 0;
  uint64_t pool_ready = 0;   // Namespaces made ready, of both kinds.
  uint64_t pool_hits = 0;    // Endpoints served from the pool …
  uint64_t pool_misses = 0;  // … and those that had to be made on the spot.
  uint64_t teardowns_pending = 0;
  uint64_t firewall_repairs = 0;  // Times our table had been removed or changed by somebody else.
  std::vector<Endpoint> connected;
};

// The interface. Thread-safe; calls for one container must not overlap.
class Network {
 public:
  virtual ~Network() = default;

  // Gives the container an endpoint. After an error nothing of it is left.
  //
  // Errors: FailedPrecondition — Adopt has not run, or the host lacks something (named);
  // AlreadyExists — the container has an endpoint, or the address or a port is taken (holder
  // named); InvalidArgument — the request can never work (address outside the subnet, ports without
  // the bridge …); ResourceExhausted — no address or port is left. Not safe to retry blindly:
  // Release first, which is.
  virtual absl::StatusOr<Endpoint> Connect(const EndpointRequest& request) = 0;

  // Takes the endpoint back. Its ports are free for others on return; namespace, interface and
  // address follow in the background. Fine when there is none, so a retry is safe.
  virtual absl::Status Release(const std::string& container_id) = 0;

  // Called once, before anything else. After an error nothing works; the message says what to mend.
  virtual absl::StatusOr<AdoptReport> Adopt(const std::vector<Endpoint>& live) = 0;

  // Returns when everything released so far is gone from the kernel. For shutdown, tests and
  // audits.
  virtual void Settle() = 0;

  virtual NetworkInfo Info() const = 0;

  // Compares the records in memory with the kernel: namespace files, interfaces, the addresses on
  // them, the firewall table. Settles first.
  virtual absl::StatusOr<rpc::AuditReport> Audit() = 0;
};

}  // namespace gantry::network
