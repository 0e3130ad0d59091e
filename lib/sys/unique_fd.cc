#include "lib/sys/unique_fd.h"

#include <unistd.h>

namespace gantry::sys {

void UniqueFd::Reset(int fd) {
  // Linux closes the descriptor even when close() reports EINTR, so it is never repeated.
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

}  // namespace gantry::sys
