// HostPorts::BindHostPort: the socket that holds a published port, and the search for who else has
// it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/network/host_ports.h"

namespace gantry::network {
namespace {

// The inode of a socket on `port` in a table of /proc/net, where a line is
// "sl local:port remote:port state … uid timeout inode". "" when there is none. Reading a big table
// is slow; this runs only to explain an error.
std::string SocketInode(const std::string& table, Protocol protocol, uint16_t port) {
  absl::StatusOr<std::string> text = sys::ReadFile(table);
  if (!text.ok()) return "";
  // TCP: only listeners (0A) hold a port against us. UDP: any bound socket does (07 is "closed").
  const absl::string_view wanted_state = protocol == Protocol::kTcp ? "0A" : "07";
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (fields.size() < 10 || fields[3] != wanted_state) continue;
    uint32_t found_port = 0;
    const size_t colon = fields[1].rfind(':');
    if (colon == absl::string_view::npos ||
        !absl::SimpleHexAtoi(fields[1].substr(colon + 1), &found_port)) {
      continue;
    }
    if (found_port == port) return std::string(fields[9]);
  }
  return "";
}

// "process 123 ('nginx')" for the process that has the socket open, or "".
std::string ProcessWithSocket(const std::string& inode) {
  const std::string wanted = absl::StrCat("socket:[", inode, "]");
  absl::StatusOr<std::vector<std::string>> processes = sys::ListDirectory("/proc");
  if (!processes.ok()) return "";
  for (const std::string& pid : *processes) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string directory = absl::StrCat("/proc/", pid, "/fd");
    absl::StatusOr<std::vector<std::string>> descriptors = sys::ListDirectory(directory);
    if (!descriptors.ok()) continue;  // Ended meanwhile.
    for (const std::string& fd : *descriptors) {
      char target[64];
      const ssize_t size =
          ::readlink(absl::StrCat(directory, "/", fd).c_str(), target, sizeof(target));
      if (size <= 0 || absl::string_view(target, size) != wanted) continue;
      absl::StatusOr<std::string> name = sys::ReadFile(absl::StrCat("/proc/", pid, "/comm"));
      const std::string shown = name.ok() ? name->substr(0, name->find('\n')) : "";
      return absl::StrCat("process ", pid, " ('", EscapeForTerminal(shown), "')");
    }
  }
  return "";
}

std::string WhoHas(Protocol protocol, uint16_t port) {
  const std::string base = absl::StrCat("/proc/thread-self/net/", ProtocolName(protocol));
  for (const std::string& table : {base, absl::StrCat(base, "6")}) {
    const std::string inode = SocketInode(table, protocol, port);
    if (inode.empty()) continue;
    const std::string process = ProcessWithSocket(inode);
    if (!process.empty()) return process;
  }
  return "a program of the host";
}

}  // namespace

absl::StatusOr<sys::UniqueFd> HostPorts::BindHostPort(Protocol protocol, netlink::Ipv4Address ip,
                                                      uint16_t port) {
  const std::string what =
      absl::StrCat("'", ip.ToString(), ":", port, "/", ProtocolName(protocol), "'");
  const int type = protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM;
  sys::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  if (!socket.ok()) return sys::ErrnoError(errno, absl::StrCat("take host port ", what));

  // For TCP the bind ignores connections in TIME_WAIT, which do not matter to us; afterwards the
  // mark is taken back, so that nobody who sets it too can listen on top of us.
  const int on = 1;
  const int off = 0;
  if (protocol == Protocol::kTcp) {
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(ip.value);
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    if (error == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat("host port ", what, " is already in use by ",
                                                   WhoHas(protocol, port),
                                                   "; stop it or choose another port"));
    }
    if (error == EADDRNOTAVAIL) {
      return absl::InvalidArgumentError(absl::StrCat("take host port ", what, ": '", ip.ToString(),
                                                     "' is not an address of this host"));
    }
    return sys::ErrnoError(error, absl::StrCat("take host port ", what));
  }
  if (protocol == Protocol::kTcp) {
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
  }
  return socket;
}

}  // namespace gantry::network
