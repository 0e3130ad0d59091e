#include "tests/support/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::testing {

absl::StatusOr<PtyProgram> PtyProgram::Start(std::vector<std::string> argv,
                                             std::vector<std::string> environment, int rows,
                                             int columns) {
  PtyProgram program;
  program.master_ = sys::UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!program.master_.ok() || ::grantpt(program.master_.get()) != 0 ||
      ::unlockpt(program.master_.get()) != 0) {
    return sys::ErrnoError(errno, "open a pseudo terminal");
  }
  std::array<char, 64> name = {};
  if (::ptsname_r(program.master_.get(), name.data(), name.size()) != 0) {
    return sys::ErrnoError(errno, "name the pseudo terminal");
  }
  program.Resize(rows, columns);
  ASSIGN_OR_RETURN(program.slave_, sys::Open(name.data(), O_RDWR | O_NOCTTY));
  sys::SpawnOptions options;
  // setsid --ctty makes the slave the controlling terminal, as a login does.
  options.argv = {"/usr/bin/setsid", "--ctty", "--wait"};
  options.argv.insert(options.argv.end(), argv.begin(), argv.end());
  options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root"};
  options.environment.insert(options.environment.end(), environment.begin(), environment.end());
  const int slave = program.slave_.get();
  options.descriptors = {{slave, 0}, {slave, 1}, {slave, 2}};
  ASSIGN_OR_RETURN(program.child_, sys::Spawn(options));
  return program;
}

void PtyProgram::Type(const std::string& keys) { (void)sys::WriteAll(master_, keys); }

void PtyProgram::Resize(int rows, int columns) {
  winsize size = {};
  size.ws_row = static_cast<unsigned short>(rows);
  size.ws_col = static_cast<unsigned short>(columns);
  ::ioctl(master_.get(), TIOCSWINSZ, &size);
}

bool PtyProgram::Expect(const std::string& text, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const size_t found = output_.find(text, seen_);
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd ready = {master_.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
    std::array<char, 4096> buffer;
    const ssize_t count = ::read(master_.get(), buffer.data(), buffer.size());
    if (count <= 0) return false;
    output_.append(buffer.data(), static_cast<size_t>(count));
  }
}

absl::StatusOr<sys::ExitStatus> PtyProgram::Wait(absl::Duration timeout) {
  return child_.Wait(timeout);
}

bool PtyProgram::IsCooked() const {
  termios settings = {};
  return ::tcgetattr(slave_.get(), &settings) == 0 && (settings.c_lflag & ICANON) != 0 &&
         (settings.c_lflag & ECHO) != 0;
}

}  // namespace gantry::testing
