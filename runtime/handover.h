// What the creator of a process gives to others: its number, its terminal, its pidfd, its seccomp
// listener.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

// Two connected ends that keep messages apart (SOCK_SEQPACKET).
absl::StatusOr<std::pair<sys::UniqueFd, sys::UniqueFd>> MakePair();

// The number without a newline, complete or not at all.
absl::Status WritePidFile(const std::string& path, pid_t pid);

// Connects to the stream socket at `socket_path` and sends `name` with a copy of `fd`.
absl::Status SendTo(const std::string& socket_path, absl::string_view name, int fd);

// The listener of `seccomp` to its listenerPath, with the container process state of the runtime
// specification. `state` is JSON.
absl::Status SendListener(const oci::Seccomp& seccomp, const std::string& oci_version, pid_t pid,
                          const std::string& state, const sys::UniqueFd& listener);

// What the caller asked for, else process.consoleSize.
TerminalSize SizeFor(const TerminalSize& asked, const oci::Process& process);

}  // namespace gantry::runtime
