// Messages between the creator and the new process until its program runs: one SOCK_SEQPACKET pair.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

enum class Message : char {
  kError = 'E',    // The status that ended the child.
  kMapMe = 'U',    // In its user namespace: write the id maps, then kGo.
  kPid = 'P',      // A grandchild is the init: its pid, its pidfd.
  kHooks = 'H',    // Mounts are there: run prestart and createRuntime hooks, then kGo.
  kConsole = 'C',  // The pty's master.
  kSeccomp = 'S',  // The seccomp listener; kGo when it is delivered.
  kReady = 'R',    // Everything done; the payload is its timings.
  kGo = 'G',
};

struct Received {
  Message kind = Message::kError;
  std::string payload;
  sys::UniqueFd fd;
};

// Blocking. Errors: Unavailable — the other side is gone.
absl::Status SendMessage(int socket, Message kind, absl::string_view payload = "", int fd = -1);
absl::StatusOr<Received> ReceiveMessage(int socket);

// A status in a payload and back.
std::string EncodeStatus(const absl::Status& status);
absl::Status DecodeStatus(absl::string_view payload);

}  // namespace gantry::runtime
