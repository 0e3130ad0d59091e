#include "services/engine/network/hosts_files.h"

#include <arpa/inet.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::network {
namespace {

constexpr absl::string_view kStandingHosts =
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n";

// Where systemd-resolved's stub listens; a file naming only it is useless outside the host.
constexpr absl::string_view kResolvedStub = "127.0.0.53";

bool IsAddress(const std::string& text) {
  in6_addr ignored;
  // A link-local server carries its interface: "fe80::1%eth0".
  const std::string plain = text.substr(0, text.find('%'));
  return ::inet_pton(AF_INET, plain.c_str(), &ignored) == 1 ||
         ::inet_pton(AF_INET6, plain.c_str(), &ignored) == 1;
}

bool IsLoopback(absl::string_view server) {
  return absl::StartsWith(server, "127.") || server == "::1";
}

absl::Status CheckWord(absl::string_view what, absl::string_view word) {
  bool clean = !word.empty() && word.size() <= 255;
  for (char c : word) clean = clean && absl::ascii_isgraph(static_cast<unsigned char>(c));
  if (clean) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " '", EscapeForTerminal(word), "' must be 1 to 255 visible characters"));
}

// What a resolv.conf says, as far as it concerns a container.
struct Resolv {
  std::vector<std::string> servers;
  std::vector<std::string> search;
  std::vector<std::string> options;
};

Resolv ParseResolvConf(absl::string_view text) {
  Resolv resolv;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = line.substr(0, line.find_first_of("#;"));
    std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.size() < 2) continue;
    const std::string keyword = words[0];
    words.erase(words.begin());
    if (keyword == "nameserver" && IsAddress(words[0])) resolv.servers.push_back(words[0]);
    if (keyword == "search" || keyword == "domain") resolv.search = words;  // The last one counts.
    if (keyword == "options") {
      resolv.options.insert(resolv.options.end(), words.begin(), words.end());
    }
  }
  return resolv;
}

}  // namespace

absl::Status CheckHostname(absl::string_view hostname) {
  bool valid = !hostname.empty() && hostname.size() <= 64;
  for (absl::string_view label : absl::StrSplit(hostname, '.')) {
    valid = valid && !label.empty() && label.size() <= 63 && label.front() != '-' &&
            label.back() != '-';
    for (char c : label) {
      valid = valid && (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_');
    }
  }
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "host name '", EscapeForTerminal(hostname),
      "' must be letters, digits and inner hyphens, labels joined by dots, at most 64 bytes"));
}

absl::StatusOr<std::string> RenderHosts(const HostsRequest& request) {
  std::string text(kStandingHosts);
  for (const std::string& entry : request.extra_hosts) {
    // The first colon ends the name; an IPv6 address has more of them, in brackets or not.
    std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits(':', 1));
    auto& [name, address] = parts;
    RETURN_IF_ERROR(
        Annotate(CheckHostname(name), absl::StrCat("extra host '", EscapeForTerminal(entry), "'")));
    if (address == "host-gateway") address = request.gateway;
    if (address.size() > 2 && address.front() == '[' && address.back() == ']') {
      address = address.substr(1, address.size() - 2);
    }
    if (!IsAddress(address)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "extra host '", EscapeForTerminal(entry), "' has no address; write it as name:address",
          parts.second.empty() && request.gateway.empty() ? " (host-gateway needs network 'bridge')"
                                                          : ""));
    }
    absl::StrAppend(&text, address, "\t", name, "\n");
  }
  if (request.ip.empty()) return text;

  std::vector<std::string> names;
  if (!request.hostname.empty()) {
    RETURN_IF_ERROR(CheckHostname(request.hostname));
    if (!request.domainname.empty()) {
      RETURN_IF_ERROR(CheckHostname(request.domainname));
      names.push_back(absl::StrCat(request.hostname, ".", request.domainname));
    }
    names.push_back(request.hostname);
  }
  for (const std::string& alias : request.aliases) {
    RETURN_IF_ERROR(CheckHostname(alias));
    names.push_back(alias);
  }
  if (!names.empty()) absl::StrAppend(&text, request.ip, "\t", absl::StrJoin(names, " "), "\n");
  return text;
}

absl::StatusOr<std::string> RenderResolvConf(const ResolvRequest& request) {
  Resolv resolv = ParseResolvConf(request.host_file);
  if (!request.host_network) {
    std::erase_if(resolv.servers, [](const std::string& server) { return IsLoopback(server); });
    if (resolv.servers.empty()) resolv.servers = {"8.8.8.8", "8.8.4.4"};
  }
  if (!request.servers.empty()) resolv.servers = request.servers;
  if (!request.search.empty()) resolv.search = request.search;
  if (resolv.search == std::vector<std::string>{"."}) resolv.search.clear();
  if (!request.options.empty()) resolv.options = request.options;

  std::string text;
  for (const std::string& server : resolv.servers) {
    if (!IsAddress(server)) {
      return absl::InvalidArgumentError(absl::StrCat("DNS server '", EscapeForTerminal(server),
                                                     "' is not an address; write it as 10.0.0.53"));
    }
    absl::StrAppend(&text, "nameserver ", server, "\n");
  }
  for (const std::string& domain : resolv.search) {
    RETURN_IF_ERROR(CheckWord("DNS search domain", domain));
  }
  for (const std::string& option : resolv.options) RETURN_IF_ERROR(CheckWord("DNS option", option));
  if (!resolv.search.empty()) {
    absl::StrAppend(&text, "search ", absl::StrJoin(resolv.search, " "), "\n");
  }
  if (!resolv.options.empty()) {
    absl::StrAppend(&text, "options ", absl::StrJoin(resolv.options, " "), "\n");
  }
  return text;
}

std::string HostResolvConf() {
  return HostResolvConf("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf");
}

std::string HostResolvConf(const std::string& etc_file, const std::string& resolved_file) {
  const std::string text = sys::ReadFile(etc_file, 64 << 10).value_or("");
  const Resolv resolv = ParseResolvConf(text);
  if (resolv.servers != std::vector<std::string>{std::string(kResolvedStub)}) return text;
  return sys::ReadFile(resolved_file, 64 << 10).value_or(text);
}

std::string RenderHostname(absl::string_view hostname) { return absl::StrCat(hostname, "\n"); }

}  // namespace gantry::network
