#include "shim/server.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/file.h"
#include "lib/ttrpc/server.h"
#include "shim/attach_hub.h"
#include "shim/copy_buffer.h"
#include "shim/publisher.h"
#include "shim/reaper.h"
#include "shim/sandbox_service.h"
#include "shim/task_service.h"

namespace gantry::shim {
namespace {

constexpr int kListenerFd = 3;
// The daemon gives a shutdown three seconds; events that are still unsent then stay unsent.
constexpr absl::Duration kFlushPatience = absl::Seconds(2);
// After this long without a call the memory that calls needed goes back.
constexpr absl::Duration kSettleAfter = absl::Milliseconds(250);

absl::StatusOr<std::string> ListenerPath() {
  sockaddr_un address = {};
  socklen_t size = sizeof address;
  if (::getsockname(kListenerFd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      address.sun_family != AF_UNIX) {
    return absl::InvalidArgumentError(
        "descriptor 3 is not a listening unix socket; use `start`, or hand one over");
  }
  return std::string(address.sun_path);
}

// The daemon holds the fifo open and copies it into its own log. For reading, too: then neither
// opening nor writing depends on the daemon.
void OpenLog(const Arguments& arguments) {
  log::Options options;
  if (arguments.debug) options.level = log::Level::kDebug;
  const int fifo = ::open("log", O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  struct stat info;
  if (fifo >= 0 && ::fstat(fifo, &info) == 0 && S_ISFIFO(info.st_mode)) {
    ::dup3(fifo, 2, O_CLOEXEC);
  }
  if (fifo > 2) ::close(fifo);
  log::Configure(options);
}

std::string EventAddress(const Arguments& arguments) {
  if (const char* address = ::getenv("TTRPC_ADDRESS"); address != nullptr) return address;
  if (arguments.address.empty()) return "";
  absl::string_view path = arguments.address;
  absl::ConsumePrefix(&path, "unix://");
  return absl::StrCat(path, ".ttrpc");
}

// Compiled filters depend on the profile only, so all containers of a daemon share them.
std::string SeccompCache(const Arguments& arguments) {
  absl::string_view path = arguments.address;
  absl::ConsumePrefix(&path, "unix://");
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos || slash == 0) return "";
  return absl::StrCat(path.substr(0, slash), "/gantry-seccomp");
}

// Unmaps one part of the program that is only read; it comes back from the page cache when it is
// used.
int ForgetPages(dl_phdr_info* info, size_t, void*) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W)) continue;
    const uintptr_t begin = (info->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const uintptr_t end = (info->dlpi_addr + segment.p_vaddr + segment.p_memsz) & ~(page - 1);
    if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

// Creating a container takes ten times the memory, and most of the code, that the rest of a shim's
// life needs; and there are hundreds of shims, most of which will not be called again for hours.
void Settle() {
  ::malloc_trim(0);
  ::madvise(copy_buffer, sizeof copy_buffer, MADV_DONTNEED);
  ::dl_iterate_phdr(ForgetPages, nullptr);
}

class ShimServer {
 public:
  ShimServer(sys::EventLoop& loop, Reaper& reaper, const Arguments& arguments)
      : loop_(loop),
        publisher_(loop, EventAddress(arguments), arguments.ns),
        tasks_(loop, reaper, publisher_, arguments.ns, SeccompCache(arguments), [this] { Stop(); }),
        sandboxes_(loop, reaper, tasks_, arguments.ns, SeccompCache(arguments), [this] { Stop(); }),
        server_(loop, [this](const ttrpc::Request& request,
                             const ttrpc::Responder& responder) { Handle(request, responder); }),
        door_(loop, [this](const attach::Hello& hello) { return tasks_.FindHub(hello); }) {
    server_.SetForeignHandler([this](sys::UniqueFd socket) { door_.Admit(std::move(socket)); });
  }

  absl::Status Listen(sys::UniqueFd listener) { return server_.Listen(std::move(listener)); }

 private:
  void Handle(const ttrpc::Request& request, const ttrpc::Responder& responder) {
    // Whoever calls us lives, and so may its event service.
    publisher_.Kick();
    if (request.service == kSandboxService) {
      sandboxes_.Handle(request, responder);
    } else {
      tasks_.Handle(request, responder);
    }
    SettleSoon();
  }

  void SettleSoon() {
    if (settling_) return;
    settling_ = true;
    loop_.After(kSettleAfter, [this] {
      settling_ = false;
      Settle();
    });
  }

  void Stop() {
    if (stopping_) return;
    stopping_ = true;
    server_.StopListening();
    publisher_.OnEmpty([this] { StopIfFlushed(); });
    loop_.After(kFlushPatience, [this] { loop_.Stop(); });
    loop_.Post([this] { StopIfFlushed(); });
  }

  void StopIfFlushed() {
    if (publisher_.empty() && server_.flushed()) loop_.Stop();
  }

  sys::EventLoop& loop_;
  bool stopping_ = false;
  bool settling_ = false;
  Publisher publisher_;
  TaskService tasks_;
  SandboxService sandboxes_;
  ttrpc::Server server_;
  AttachDoor door_;
};

}  // namespace

absl::Status Serve(const Arguments& arguments) {
  RETURN_IF_ERROR(CheckIdentifier("namespace", arguments.ns));
  ASSIGN_OR_RETURN(const std::string socket_path, ListenerPath());
  sys::UniqueFd listener(kListenerFd);
  if (::fcntl(kListenerFd, F_SETFD, FD_CLOEXEC) != 0 ||
      ::fcntl(kListenerFd, F_SETFL, ::fcntl(kListenerFd, F_GETFL) | O_NONBLOCK) != 0) {
    return sys::ErrnoError(errno, "set up the listening socket");
  }
  ::prctl(PR_SET_NAME, "containerd-shim");
  // Not 077 (SECURITY-RULES 32): foreign runtimes hand it on to the program, and `file://` logs are
  // for all.
  ::umask(022);
  // A terminal's hang-up or a service manager's stop is meant for the daemon: the container goes
  // on.
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE}) ::signal(signal, SIG_IGN);
  // Memory goes back to the kernel as soon as it can: there are many of us.
  ::mallopt(M_TRIM_THRESHOLD, 32 << 10);
  ::mallopt(M_MMAP_THRESHOLD, 64 << 10);
  OpenLog(arguments);
  ASSIGN_OR_RETURN(const std::unique_ptr<sys::EventLoop> loop, sys::EventLoop::Create());
  ASSIGN_OR_RETURN(const std::unique_ptr<Reaper> reaper, Reaper::Create(*loop));
  ShimServer server(*loop, *reaper, arguments);
  RETURN_IF_ERROR(server.Listen(std::move(listener)));
  const absl::Status status = loop->Run();
  (void)sys::Unlink(socket_path);
  return status;
}

}  // namespace gantry::shim
