// A network without a kernel: hands out addresses and ports as the real one does, touches nothing.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/network/address_pool.h"
#include "services/engine/network/host_ports.h"
#include "services/engine/network/network.h"

namespace gantry::network {

// Behaves as Network says and passes the same suite as HostNetwork (network_suite.h). Thread-safe.
class FakeNetwork : public Network {
 public:
  explicit FakeNetwork(const std::string& subnet = "172.30.0.0/16");

  absl::StatusOr<Endpoint> Connect(const EndpointRequest& request) override;
  absl::Status Release(const std::string& container_id) override;
  absl::StatusOr<AdoptReport> Adopt(const std::vector<Endpoint>& live) override;
  void Settle() override {}
  NetworkInfo Info() const override;
  absl::StatusOr<rpc::AuditReport> Audit() override;

  // Faults. The next Connect or Release fails with this; nothing has changed then.
  void FailNextConnect(absl::Status status);
  void FailNextRelease(absl::Status status);
  // A program of the host holds this port.
  void OccupyHostPort(Protocol protocol, uint16_t port);
  // Adopt reports the endpoint of this container as lost.
  void Lose(const std::string& container_id);

  // The containers connected now.
  std::vector<std::string> Connected() const;

 private:
  absl::StatusOr<sys::UniqueFd> Bind(Protocol protocol, uint16_t port);
  absl::Status TakeAddress(const EndpointRequest& request, Endpoint* endpoint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  bool adopted_ ABSL_GUARDED_BY(mutex_) = false;
  AddressPool addresses_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Endpoint> endpoints_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<Protocol, uint16_t>> occupied_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> lost_ ABSL_GUARDED_BY(mutex_);
  absl::Status next_connect_ ABSL_GUARDED_BY(mutex_);
  absl::Status next_release_ ABSL_GUARDED_BY(mutex_);
  HostPorts ports_;  // Has its own lock; never called with ours held.
};

}  // namespace gantry::network
