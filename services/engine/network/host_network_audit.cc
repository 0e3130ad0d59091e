// HostNetwork::Audit: what the records say against what the kernel has.
#include <linux/netlink.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/route.h"
#include "services/engine/network/host_network.h"

namespace gantry::network {
namespace {

constexpr char kRestart[] = "restart the container";
constexpr char kRestartEngine[] = "restart gantry-engine, which frees what nobody owns";

void Add(rpc::AuditReport* report, absl::string_view kind, std::string object, std::string problem,
         absl::string_view remedy) {
  report->findings.push_back(
      {std::string(kind), std::move(object), std::move(problem), std::string(remedy)});
}

}  // namespace

absl::StatusOr<rpc::AuditReport> HostNetwork::Audit() {
  {
    absl::MutexLock lock(&mutex_);
    if (!adopted_) return absl::FailedPreconditionError("the network is not ready yet");
  }
  Settle();
  rpc::AuditReport report;
  RETURN_IF_ERROR(AuditSandboxes(&report));
  RETURN_IF_ERROR(AuditAddresses(&report));
  RETURN_IF_ERROR(AuditFirewall(&report));
  return report;
}

absl::Status HostNetwork::AuditSandboxes(rpc::AuditReport* report) {
  std::set<std::string> files;
  std::set<std::string> links;
  const auto expect = [&](const Sandbox& sandbox) {
    files.insert(SandboxStore::ShortName(sandbox.endpoint_id));
    if (sandbox.ip.has_value()) links.insert(SandboxStore::LinkName(sandbox.endpoint_id));
  };
  // Read first: what is made ready in between is then not taken for a stray.
  ASSIGN_OR_RETURN(SandboxStore::Inventory inventory, store_.List());
  for (const Record& record : Records()) {
    if (record.endpoint.mode != Mode::kHost) expect(record.sandbox);
  }
  for (const Sandbox& sandbox : pool_->Ready()) expect(sandbox);

  for (const std::string& file : inventory.files) {
    ++report->checked["netns"];
    const std::string path = absl::StrCat(store_.directory(), "/", file);
    if (files.erase(file) == 0) {
      Add(report, "netns", path, "belongs to no container", kRestartEngine);
    } else if (absl::Status there = netlink::OpenNamespace(path).status(); !there.ok()) {
      Add(report, "netns", path, std::string(there.message()), kRestart);
    }
  }
  for (const std::string& file : files) {
    Add(report, "netns", absl::StrCat(store_.directory(), "/", file), "is missing", kRestart);
  }
  for (const netlink::Link& link : inventory.links) {
    ++report->checked["veth"];
    if (links.erase(link.name) == 0) {
      Add(report, "veth", link.name, "belongs to no container", kRestartEngine);
    }
  }
  for (const std::string& link : links) Add(report, "veth", link, "is missing", kRestart);
  return absl::OkStatus();
}

absl::Status HostNetwork::AuditAddresses(rpc::AuditReport* report) {
  uint64_t expected = 0;
  for (const Sandbox& sandbox : pool_->Ready()) expected += sandbox.ip.has_value() ? 1 : 0;
  for (const Record& record : Records()) {
    if (!record.sandbox.ip.has_value()) continue;
    ++expected;
    ++report->checked["address"];
    absl::StatusOr<sys::UniqueFd> opened = netlink::OpenNamespace(record.endpoint.netns_path);
    if (!opened.ok()) continue;  // Reported with the sandboxes.
    bool found = false;
    RETURN_IF_ERROR(netlink::RunInNamespace(*opened, [&]() -> absl::Status {
      ASSIGN_OR_RETURN(netlink::Socket inside, netlink::Socket::Open(NETLINK_ROUTE));
      ASSIGN_OR_RETURN(std::vector<netlink::InterfaceAddress> addresses,
                       netlink::ListAddresses(inside));
      for (const netlink::InterfaceAddress& address : addresses) {
        found = found || address.address.address == *record.sandbox.ip;
      }
      return absl::OkStatus();
    }));
    if (!found) {
      Add(report, "address", record.endpoint.ip,
          absl::StrCat("is not on the interface of container '", record.endpoint.container_id, "'"),
          kRestart);
    }
  }
  absl::MutexLock lock(&mutex_);
  if (addresses_.has_value() && addresses_->used() != expected) {
    Add(report, "address", addresses_->subnet().ToString(),
        absl::StrCat(addresses_->used(), " addresses are marked as used, ", expected, " are"),
        kRestartEngine);
  }
  return absl::OkStatus();
}

absl::Status HostNetwork::AuditFirewall(rpc::AuditReport* report) {
  for (const Record& record : Records()) report->checked["port"] += record.endpoint.ports.size();
  ASSIGN_OR_RETURN(std::vector<std::string> differences, firewall_->Differences());
  for (std::string& difference : differences) {
    Add(report, "nftables", firewall_->table(), std::move(difference),
        "publish or release any port, or restart gantry-engine");
  }
  return absl::OkStatus();
}

}  // namespace gantry::network
