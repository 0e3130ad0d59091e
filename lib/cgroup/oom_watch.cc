#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/control_file.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::cgroup {

absl::StatusOr<OomWatch> OomWatch::Open(const Cgroup& cgroup) {
  const std::string memory = cgroup.DirectoryOf("memory");
  if (memory.empty()) {
    return absl::NotFoundError("watch for lack of memory: no memory controller is mounted");
  }
  OomWatch watch;
  watch.unified_ = cgroup.mode() == Mode::kV2;
  if (watch.unified_) {
    watch.fd_.Reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!watch.fd_.ok()) return sys::ErrnoError(errno, "watch for lack of memory");
    const std::string events = absl::StrCat(memory, "/memory.events");
    if (::inotify_add_watch(watch.fd_.get(), events.c_str(), IN_MODIFY | IN_DELETE_SELF) < 0) {
      return sys::ErrnoError(errno, absl::StrCat("watch '", events, "'"));
    }
    ASSIGN_OR_RETURN(watch.counter_, sys::Open(events, O_RDONLY));
  } else {
    ASSIGN_OR_RETURN(watch.counter_,
                     sys::Open(absl::StrCat(memory, "/memory.oom_control"), O_RDONLY));
    watch.fd_.Reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!watch.fd_.ok()) return sys::ErrnoError(errno, "watch for lack of memory");
    RETURN_IF_ERROR(WriteControl(memory, "cgroup.event_control",
                                 absl::StrCat(watch.fd_.get(), " ", watch.counter_.get())));
  }
  watch.seen_ = watch.ReadKills();
  return watch;
}

uint64_t OomWatch::ReadKills() const {
  char text[512];
  const ssize_t size = ::pread(counter_.get(), text, sizeof text, 0);
  if (size <= 0) return seen_;
  return ValueOf(ParseNamed(absl::string_view(text, static_cast<size_t>(size))), "oom_kill");
}

uint64_t OomWatch::Drain() {
  char bytes[512];
  bool ticked = false;
  while (true) {
    const ssize_t size = ::read(fd_.get(), bytes, sizeof bytes);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    ticked = true;
    // inotify: the watched file went with its cgroup.
    if (unified_) {
      for (ssize_t at = 0; at + static_cast<ssize_t>(sizeof(inotify_event)) <= size;) {
        const auto* event = reinterpret_cast<const inotify_event*>(bytes + at);
        if ((event->mask & (IN_DELETE_SELF | IN_IGNORED)) != 0) gone_ = true;
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
  }
  if (!unified_) {
    // v1 signals the eventfd once more when the cgroup is removed; its file then fails to read.
    char probe;
    if (::pread(counter_.get(), &probe, 1, 0) < 0) gone_ = true;
  }
  const uint64_t now = ReadKills();
  uint64_t news = now - std::min(seen_, now);
  // v1 ticks when it begins to look for a victim, so the count may follow later.
  if (!unified_ && ticked && !gone_) news = std::max<uint64_t>(news, 1);
  seen_ += news;
  return news;
}

}  // namespace gantry::cgroup
