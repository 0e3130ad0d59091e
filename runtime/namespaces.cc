#include "runtime/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace gantry::runtime {
namespace {

using sys::ErrnoError;

struct NamespaceType {
  const char* name;
  int flag;
};
constexpr NamespaceType kNamespaceTypes[] = {{"user", CLONE_NEWUSER},     {"mount", CLONE_NEWNS},
                                             {"pid", CLONE_NEWPID},       {"network", CLONE_NEWNET},
                                             {"ipc", CLONE_NEWIPC},       {"uts", CLONE_NEWUTS},
                                             {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};

}  // namespace

int NamespaceFlag(absl::string_view name) {
  for (const NamespaceType& type : kNamespaceTypes) {
    if (name == type.name) return type.flag;
  }
  return 0;
}

absl::Status ChildNamespaces::Enter(const sys::UniqueFd& pid_namespace) {
  saved_pid_.Reset(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
  if (!saved_pid_.ok() || ::setns(pid_namespace.get(), CLONE_NEWPID) != 0) {
    return ErrnoError(errno, "join the pid namespace");
  }
  return absl::OkStatus();
}

absl::Status ChildNamespaces::NewTime(const std::map<std::string, oci::TimeOffset>& offsets) {
  saved_time_.Reset(::open("/proc/self/ns/time", O_RDONLY | O_CLOEXEC));
  if (!saved_time_.ok() || ::unshare(CLONE_NEWTIME) != 0)
    return ErrnoError(errno, "make a time namespace");
  std::string text;
  for (const auto& [clock, offset] : offsets) {
    absl::StrAppend(&text, clock, " ", offset.seconds, " ", offset.nanoseconds, "\n");
  }
  if (text.empty()) return absl::OkStatus();
  return Annotate(sys::WriteControlFile("/proc/self/timens_offsets", text), "linux.timeOffsets");
}

ChildNamespaces::~ChildNamespaces() {
  if (saved_pid_.ok()) (void)::setns(saved_pid_.get(), CLONE_NEWPID);
  if (saved_time_.ok()) (void)::setns(saved_time_.get(), CLONE_NEWTIME);
}

}  // namespace gantry::runtime
