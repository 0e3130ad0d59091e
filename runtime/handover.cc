#include "runtime/handover.h"

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoError(errno, "make a socket pair");
  }
  return std::make_pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_pid_file"));
  return Annotate(sys::WriteFileAtomically(path, absl::StrCat(pid), 0644), "write the pid file");
}

absl::Status SendTo(const std::string& socket_path, absl::string_view name, int fd) {
  ASSIGN_OR_RETURN(UniqueFd socket, sys::ConnectUnix(socket_path));
  return sys::SendDescriptors(socket, name, {fd});
}

absl::Status SendListener(const oci::Seccomp& seccomp, const std::string& oci_version, pid_t pid,
                          const std::string& state, const UniqueFd& listener) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersion", oci_version);
  writer.Member("fds", std::vector<std::string>{"seccompFd"});
  writer.Member("pid", static_cast<int32_t>(pid));
  if (!seccomp.listener_metadata.empty()) writer.Member("metadata", seccomp.listener_metadata);
  writer.Key("state");
  writer.WriteRaw(state);
  writer.EndObject();
  return Annotate(SendTo(seccomp.listener_path, writer.Take(), listener.get()),
                  "hand over the seccomp listener");
}

TerminalSize SizeFor(const TerminalSize& asked, const oci::Process& process) {
  if (asked.rows != 0 || asked.columns != 0 || !process.console_size) return asked;
  const auto narrow = [](uint64_t value) {
    return static_cast<uint16_t>(std::min<uint64_t>(value, UINT16_MAX));
  };
  return {narrow(process.console_size->height), narrow(process.console_size->width)};
}

}  // namespace gantry::runtime
