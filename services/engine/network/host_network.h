// The network in the kernel: namespaces, interface pairs, a bridge, and a packet filter table of
// our own.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/network/address_pool.h"
#include "services/engine/network/bridge.h"
#include "services/engine/network/firewall.h"
#include "services/engine/network/host_ports.h"
#include "services/engine/network/network.h"
#include "services/engine/network/sandbox.h"
#include "services/engine/network/sandbox_pool.h"

namespace gantry::network {

// What the section [engine] of the configuration says about the network.
struct HostNetworkOptions {
  std::string run_dir;             // Namespace files lie in <run_dir>/netns; also who we are.
  std::string bridge = "gantry0";  // network_bridge
  std::string subnet;              // network_subnet; empty: the first free one of our candidates
  int pool_size = 4;               // network_pool_size, 0…64; half as many for mode none
};

// Thread-safe. A host on which the bridge cannot be made (no nftables, no free subnet) still serves
// the modes none and host; Connect for the bridge tries again and says what is missing.
//
// The destructor leaves the endpoints alone, for their containers live on; what was only made ready
// goes, and with no endpoint left the bridge and the table go too.
class HostNetwork : public Network {
 public:
  // Touches nothing yet. Errors: InvalidArgument — the options, naming the key.
  static absl::StatusOr<std::unique_ptr<HostNetwork>> Create(const HostNetworkOptions& options);
  ~HostNetwork() override;

  absl::StatusOr<Endpoint> Connect(const EndpointRequest& request) override;
  absl::Status Release(const std::string& container_id) override;
  absl::StatusOr<AdoptReport> Adopt(const std::vector<Endpoint>& live) override;
  void Settle() override;
  NetworkInfo Info() const override;
  absl::StatusOr<rpc::AuditReport> Audit() override;

 private:
  struct Record {
    Endpoint endpoint;
    Sandbox sandbox;
    bool connected = false;  // False while Connect is at work.
  };

  explicit HostNetwork(const HostNetworkOptions& options);

  // Connect's steps.
  absl::Status Begin(const std::string& container_id);
  absl::Status EnsureBridgeReady();
  absl::StatusOr<Sandbox> ObtainSandbox(const EndpointRequest& request);
  absl::StatusOr<Sandbox> ObtainWithAddress(const EndpointRequest& request);
  absl::Status TakeAddress(netlink::Ipv4Address ip);
  absl::StatusOr<Sandbox> MakeFresh(bool bridged);
  absl::StatusOr<Sandbox> MakeWith(Sandbox sandbox);
  void Forget(const std::string& container_id);
  Endpoint Describe(const EndpointRequest& request, const Sandbox& sandbox) const;

  // Adopt's steps.
  absl::Status SetUpBridge(std::optional<netlink::Ipv4Prefix> in_use);
  absl::Status BuildFirewall();
  absl::Status Keep(const Endpoint& endpoint, const SandboxStore::Inventory& inventory);
  absl::Status RemoveStrayBridges(const SandboxStore::Inventory& inventory, AdoptReport* report);
  void RemoveStrays(const SandboxStore::Inventory& inventory, AdoptReport* report);
  absl::Status ReattachLinks(const SandboxStore::Inventory& inventory);
  absl::Status StartPool(bool bridge_ready);

  // The pool's hooks.
  // Answers those that are left.
  std::vector<Sandbox> RemoveSandboxes(std::vector<Sandbox> sandboxes);
  void MendFirewall();

  // Audit's steps.
  absl::Status AuditSandboxes(rpc::AuditReport* report);
  absl::Status AuditAddresses(rpc::AuditReport* report);
  absl::Status AuditFirewall(rpc::AuditReport* report);

  void GiveAddress(const Sandbox& sandbox);
  SandboxPool::Sizes PoolSizes(bool bridge_ready) const;
  std::vector<Record> Records() const;

  const HostNetworkOptions options_;
  const SandboxStore store_;
  const std::string bridge_network_id_;
  HostPorts ports_;

  std::atomic<uint64_t> pool_hits_{0};
  std::atomic<uint64_t> pool_misses_{0};
  std::atomic<uint64_t> firewall_repairs_{0};

  // Held while the bridge is set up, over the kernel's answers: everybody who wants the bridge has
  // to wait for that anyway. Taken before mutex_.
  absl::Mutex setup_mutex_;

  mutable absl::Mutex mutex_;
  bool adopted_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status bridge_status_ ABSL_GUARDED_BY(mutex_);
  BridgeState bridge_ ABSL_GUARDED_BY(mutex_);
  std::optional<AddressPool> addresses_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Record> records_ ABSL_GUARDED_BY(mutex_);

  // Made by Adopt, then never changed. The pool comes last: its thread uses all the others.
  std::unique_ptr<Firewall> firewall_;
  std::unique_ptr<SandboxPool> pool_;
};

}  // namespace gantry::network
