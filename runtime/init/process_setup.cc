#include "runtime/init/process_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/init/capabilities.h"
#include "runtime/kernel.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

absl::Status WriteAttribute(const std::string& file, const std::string& value) {
  UniqueFd fd(::open(absl::StrCat("/proc/self/attr/", file).c_str(), O_WRONLY | O_CLOEXEC));
  struct statfs info = {};
  if (!fd.ok() || ::fstatfs(fd.get(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("open `/proc/self/attr/", file, "`"));
  }
  if (info.f_type != PROC_SUPER_MAGIC) {
    return absl::PermissionDeniedError(
        absl::StrCat("`/proc/self/attr/", file, "` is not on procfs"));
  }
  return Annotate(sys::WriteAll(fd, value), absl::StrCat("write `/proc/self/attr/", file, "`"));
}

}  // namespace

absl::Status JoinCgroups(const std::vector<UniqueFd>& tasks) {
  for (const UniqueFd& file : tasks) {
    if (::write(file.get(), "0", 1) != 1) return ErrnoError(errno, "join the cgroup");
  }
  return absl::OkStatus();
}

absl::Status ProcessSetup::Label() {
  const oci::Process& process = *plan_.process;
  if (!process.apparmor_profile.empty() && process.apparmor_profile != "unconfined") {
    const bool own = sys::Exists("/proc/self/attr/apparmor/exec");
    RETURN_IF_ERROR(WriteAttribute(own ? "apparmor/exec" : "exec",
                                   absl::StrCat("exec ", process.apparmor_profile)));
  }
  if (!process.selinux_label.empty())
    RETURN_IF_ERROR(WriteAttribute("exec", process.selinux_label));
  return absl::OkStatus();
}

absl::Status ProcessSetup::Become() {
  RETURN_IF_ERROR(FAILPOINT("runtime.process.before_ids"));
  const oci::Process& process = *plan_.process;
  const oci::User& user = process.user;
  if (process.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoError(errno, "set no_new_privs");
  }
  RETURN_IF_ERROR(LimitBoundingSet(process.capabilities ? process.capabilities->bounding
                                                        : std::vector<std::string>()));
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return ErrnoError(errno, "keep capabilities");
  const std::vector<gid_t> groups(user.additional_gids.begin(), user.additional_gids.end());
  if (!plan_.keep_groups && ::syscall(SYS_setgroups, groups.size(), groups.data()) != 0) {
    // A user namespace may forbid it ("setgroups" is "deny"): fine as long as none were asked for.
    if (!(errno == EPERM && groups.empty() && plan_.user_namespace)) {
      return ErrnoError(errno, "set the supplementary groups");
    }
  }
  if (::syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0) {
    return ErrnoError(errno, absl::StrCat("become group ", user.gid));
  }
  if (::syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0) {
    return ErrnoError(errno, absl::StrCat("become user ", user.uid));
  }
  // Changing ids gave the memory's dumpable flag its default back.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return ErrnoError(errno, "stay undumpable");
  return EnterWorkingDirectory();
}

absl::Status ProcessSetup::EnterWorkingDirectory() {
  const oci::Process& process = *plan_.process;
  if (::chdir(process.cwd.c_str()) != 0) {
    return ErrnoError(errno, absl::StrCat("chdir to cwd ('", EscapeForTerminal(process.cwd),
                                          "') set in config.json failed"));
  }
  // A directory outside of the root (CVE-2024-21626) shows as "(unreachable)…".
  char here[PATH_MAX] = {};
  if (::syscall(SYS_getcwd, here, sizeof here) < 0 || here[0] != '/') {
    return absl::PermissionDeniedError(
        absl::StrCat("the working directory '", EscapeForTerminal(process.cwd),
                     "' is outside of the container; refusing to run there"));
  }
  return absl::OkStatus();
}

// Everything but what the program shall have is closed by execve (SECURITY-RULES 1).
absl::Status ProcessSetup::LimitDescriptors() {
  const unsigned first = 3 + static_cast<unsigned>(plan_.kept_descriptors);
  if (kernel::CloseRange(first, ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) == 0)
    return absl::OkStatus();
  return ErrnoError(errno, "close the runtime's descriptors");
}

absl::Status ProcessSetup::Seal(UniqueFd* listener) {
  RETURN_IF_ERROR(FAILPOINT("runtime.process.before_capabilities"));
  RETURN_IF_ERROR(LimitDescriptors());
  const bool early =
      plan_.filter != nullptr && (!plan_.process->no_new_privileges || plan_.filter->notifies);
  if (early) {
    if (!plan_.process->no_new_privileges) {
      // Without no_new_privs the filter needs CAP_SYS_ADMIN, which leaving uid 0 took from the
      // effective set; the permitted one still has it.
      ASSIGN_OR_RETURN(CapabilitySets have, GetCapabilities());
      have.effective = have.permitted;
      RETURN_IF_ERROR(PutCapabilities(have));
    }
    ASSIGN_OR_RETURN(*listener, LoadSeccomp(*plan_.filter));
    filter_loaded_ = true;
  }
  return SetCapabilities(plan_.process->capabilities);
}

absl::Status ProcessSetup::Execute() {
  std::vector<char*> argv, envp;
  for (const std::string& word : plan_.process->args)
    argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (const std::string& entry : environment_) envp.push_back(const_cast<char*>(entry.c_str()));
  envp.push_back(nullptr);
  // Once more, for what was opened since Seal; a filter that is loaded may forbid it.
  absl::Status closed = LimitDescriptors();
  if (!filter_loaded_) RETURN_IF_ERROR(closed);
  if (plan_.filter != nullptr && !filter_loaded_) {
    RETURN_IF_ERROR(LoadSeccomp(*plan_.filter).status());
  }
  ::execve(program_.c_str(), argv.data(), envp.data());
  const int error = errno;
  return ErrnoError(error, absl::StrCat("exec: \"", EscapeForTerminal(program_), "\""));
}

}  // namespace gantry::runtime
