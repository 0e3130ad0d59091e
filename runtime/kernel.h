// Kernel calls of the mount and process API that glibc 2.36 does not wrap, and constants newer than
// its headers. Thin: no policy.
#pragma once

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace gantry::runtime::kernel {

inline int OpenTree(int directory, const char* path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_open_tree, directory, path, flags | OPEN_TREE_CLOEXEC));
}
inline int MoveMount(int from, int to) {  // Both by descriptor alone.
  return static_cast<int>(::syscall(SYS_move_mount, from, "", to, "",
                                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}
inline int OpenFilesystem(const char* type) {
  return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}
inline int Configure(int context, unsigned command, const char* key, const char* value) {
  return static_cast<int>(::syscall(SYS_fsconfig, context, command, key, value, 0));
}
inline int MountFilesystem(int context, unsigned attributes) {
  return static_cast<int>(::syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
}
inline int SetMountAttributes(int mount, unsigned flags, uint64_t set, uint64_t clear,
                              uint64_t propagation = 0, int user_namespace = -1) {
  struct mount_attr attributes = {};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  attributes.propagation = propagation;
  if (user_namespace >= 0) attributes.userns_fd = static_cast<uint64_t>(user_namespace);
  return static_cast<int>(::syscall(SYS_mount_setattr, mount, "", flags | AT_EMPTY_PATH,
                                    &attributes, sizeof attributes));
}
inline int CloseRange(unsigned first, unsigned last, unsigned flags) {
  return static_cast<int>(::syscall(SYS_close_range, first, last, flags));
}
// clone3(2): 0 in the child, the pid in the parent. The child continues on a copy of the stack.
inline pid_t Clone(uint64_t flags, int* pidfd, int exit_signal, int cgroup = -1) {
  struct clone_args arguments = {};
  arguments.flags = flags | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0);
  arguments.pidfd = reinterpret_cast<uint64_t>(pidfd);
  arguments.exit_signal = static_cast<uint64_t>(exit_signal);
  if (cgroup >= 0) arguments.cgroup = static_cast<uint64_t>(cgroup);
  return static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
}

}  // namespace gantry::runtime::kernel
