// The three files of a container that tell it who it is and whom to ask: /etc/hosts,
// /etc/resolv.conf and /etc/hostname. Only their text: the engine writes them on the host's side
// and has them bind-mounted (SECURITY-RULES 14).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::network {

struct HostsRequest {
  std::string ip;  // The container's own; empty (none, host): no line for it.
  std::string hostname;
  std::string domainname;
  std::vector<std::string> aliases;
  // "name:address". The address "host-gateway" stands for `gateway`.
  std::vector<std::string> extra_hosts;
  std::string gateway;
};

// Docker's order: localhost, IPv6's standing names, extra hosts, the container itself.
// Errors: InvalidArgument — an entry is not "name:address", a name or an address is malformed.
absl::StatusOr<std::string> RenderHosts(const HostsRequest& request);

struct ResolvRequest {
  // The host's resolv.conf (HostResolvConf()); where servers, search and options come from unless
  // given.
  std::string host_file;
  std::vector<std::string> servers;  // --dns
  std::vector<std::string> search;   // --dns-search; "." alone: none at all.
  std::vector<std::string> options;  // --dns-option
  // The container shares the host's network: its loopback servers work there and are kept.
  bool host_network = false;
};

// Loopback servers of the host (a local resolver) are left out, since 127.0.0.1 inside is the
// container. When no server is left, 8.8.8.8 and 8.8.4.4 stand in, as with Docker. Errors:
// InvalidArgument — a server is not an address, a word contains white space.
absl::StatusOr<std::string> RenderResolvConf(const ResolvRequest& request);

// The host's file to read for the above: systemd-resolved's own list of servers where
// /etc/resolv.conf only names its loopback stub. Missing files read as empty.
std::string HostResolvConf();
std::string HostResolvConf(const std::string& etc_file, const std::string& resolved_file);

// "name\n".
std::string RenderHostname(absl::string_view hostname);

// RFC 1123: labels of letters, digits and inner hyphens (underscores pass, people use them), 63
// bytes each, 64 bytes in all because the kernel takes no more. Errors: InvalidArgument.
absl::Status CheckHostname(absl::string_view hostname);

}  // namespace gantry::network
