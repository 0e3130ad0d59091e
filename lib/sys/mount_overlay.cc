// Overlays with more layers than fit into a page of options.
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/mount_ways.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys::mount_ways {
namespace {

// fsconfig(2) copies strings of up to 256 bytes with their terminator.
constexpr size_t kMaxFsconfigBytes = 255;

// mount(2) copies one page of data at most, its last byte being the terminator.
constexpr size_t kMaxDataBytes = 4095;
int Fsopen(const char* type) {
  return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

int Fsconfig(const UniqueFd& context, unsigned command, const char* key, const char* value) {
  return static_cast<int>(::syscall(SYS_fsconfig, context.get(), command, key, value, 0));
}

unsigned MountAttributes(unsigned long flags) {
  unsigned attributes = 0;
  if (flags & MS_RDONLY) attributes |= MOUNT_ATTR_RDONLY;
  if (flags & MS_NOSUID) attributes |= MOUNT_ATTR_NOSUID;
  if (flags & MS_NODEV) attributes |= MOUNT_ATTR_NODEV;
  if (flags & MS_NOEXEC) attributes |= MOUNT_ATTR_NOEXEC;
  if (flags & MS_NODIRATIME) attributes |= MOUNT_ATTR_NODIRATIME;
  if (flags & MS_NOATIME) attributes |= MOUNT_ATTR_NOATIME;
  if (flags & MS_STRICTATIME) attributes |= MOUNT_ATTR_STRICTATIME;
  return attributes;
}

struct RelativeMount {
  const char* directory;
  const char* source;
  const char* target;
  unsigned long flags;
  const char* data;
  int error;
};

// Runs in a child that shares our memory but has a working directory of its own.
int RunRelativeMount(void* argument) {
  RelativeMount& plan = *static_cast<RelativeMount*>(argument);
  if (::chdir(plan.directory) != 0 ||
      ::mount(plan.source, plan.target, "overlay", plan.flags, plan.data) != 0) {
    plan.error = errno;
  }
  ::_exit(0);
}

// The longest directory ("…/") that all of `paths` begin with; at least "/".
std::string CommonDirectory(const std::vector<std::string>& paths) {
  std::string common = paths.front();
  for (const std::string& path : paths) {
    const size_t limit = std::min(common.size(), path.size());
    size_t same = 0;
    while (same < limit && common[same] == path[same]) ++same;
    common.resize(same);
  }
  const size_t slash = common.rfind('/');
  return slash == std::string::npos ? std::string() : common.substr(0, slash + 1);
}

}  // namespace

OverlayLayers TakeLayers(const std::vector<std::string>& data) {
  OverlayLayers layers;
  for (const std::string& option : data) {
    absl::string_view view = option;
    if (absl::ConsumePrefix(&view, "lowerdir=")) {
      layers.lower = absl::StrSplit(view, ':');
    } else if (absl::ConsumePrefix(&view, "upperdir=")) {
      layers.upper = std::string(view);
    } else if (absl::ConsumePrefix(&view, "workdir=")) {
      layers.work = std::string(view);
    } else {
      layers.rest.push_back(option);
    }
  }
  return layers;
}

bool MountOverlayByLayer(const OverlayLayers& layers, unsigned long flags,
                         const std::string& source, const std::string& target) {
  UniqueFd context(Fsopen("overlay"));
  if (!context.ok()) return false;
  const auto set = [&](const char* key, const std::string& value) {
    return value.size() <= kMaxFsconfigBytes &&
           Fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str()) == 0;
  };
  if (!set("source", source.empty() ? "overlay" : source)) return false;
  for (const std::string& layer : layers.lower) {
    if (!set("lowerdir+", layer)) return false;
  }
  if (!layers.upper.empty() && !set("upperdir", layers.upper)) return false;
  if (!layers.work.empty() && !set("workdir", layers.work)) return false;
  for (const std::string& option : layers.rest) {
    const size_t equals = option.find('=');
    const bool ok = equals == std::string::npos
                        ? Fsconfig(context, FSCONFIG_SET_FLAG, option.c_str(), nullptr) == 0
                        : set(option.substr(0, equals).c_str(), option.substr(equals + 1));
    if (!ok) return false;
  }
  if ((flags & MS_RDONLY) && Fsconfig(context, FSCONFIG_SET_FLAG, "ro", nullptr) != 0) return false;
  if (Fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) return false;
  UniqueFd mount(static_cast<int>(
      ::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MountAttributes(flags))));
  return mount.ok() && ::syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, target.c_str(),
                                 MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

absl::Status MountOverlayRelative(OverlayLayers layers, const MountOptions& options,
                                  const MountSpec& mount, const std::string& target) {
  const std::string common = CommonDirectory(layers.lower);
  if (common.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(mount, target), ": lower directories must be absolute paths"));
  }
  for (std::string& layer : layers.lower) layer = layer.substr(common.size());
  if (std::any_of(layers.lower.begin(), layers.lower.end(),
                  [](const std::string& layer) { return layer.empty(); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(mount, target), ": a lower directory is empty or holds another"));
  }
  std::vector<std::string> words = {absl::StrCat("lowerdir=", absl::StrJoin(layers.lower, ":"))};
  if (!layers.upper.empty()) words.push_back(absl::StrCat("upperdir=", layers.upper));
  if (!layers.work.empty()) words.push_back(absl::StrCat("workdir=", layers.work));
  words.insert(words.end(), layers.rest.begin(), layers.rest.end());
  const std::string data = absl::StrJoin(words, ",");
  if (data.size() > kMaxDataBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Describe(mount, target), ": ", layers.lower.size(), " layers need ",
                     data.size(), " bytes of options and this kernel takes ", kMaxDataBytes,
                     "; use an image with fewer layers or Linux 6.8"));
  }
  constexpr size_t kStackBytes = 64 << 10;
  void* stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoError(errno, "allocate a stack");
  RelativeMount plan = {common.c_str(), mount.source.c_str(), target.c_str(),
                        options.flags,  data.c_str(),         0};
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  // No exit signal: nobody's SIGCHLD handling sees this child, and __WCLONE finds it.
  const int pid = ::clone(RunRelativeMount, static_cast<char*>(stack) + kStackBytes,
                          CLONE_VM | CLONE_VFORK, &plan);
  const int clone_error = errno;
  if (pid > 0) {
    while (::waitpid(pid, nullptr, __WCLONE) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  ::munmap(stack, kStackBytes);
  if (pid < 0) return ErrnoError(clone_error, "start a child that mounts");
  if (plan.error != 0) return ErrnoError(plan.error, Describe(mount, target));
  return absl::OkStatus();
}

}  // namespace gantry::sys::mount_ways
