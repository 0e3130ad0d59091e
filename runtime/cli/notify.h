// sd_notify: a container that tells when it is ready, to whoever started the runtime.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "lib/sys/unique_fd.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

// Nothing happens without NOTIFY_SOCKET in the environment, or when the container was created
// without.
class Notify {
 public:
  // Binds the socket that the container sees as /run/notify/notify.sock. Before Start.
  absl::Status Begin(const std::string& state_root, const std::string& id);

  // Waits for READY= (or the end of init), passes it on with MAINPID, and makes sure by BARRIER=1
  // that it was read before this process goes away.
  absl::Status Await(const Container& container);

 private:
  std::string host_;
  sys::UniqueFd socket_;
};

}  // namespace gantry::runtime
