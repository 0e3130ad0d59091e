// The floor of a container start: one small program that does what the kernel must be asked for,
// and nothing else. No document is parsed, nothing is checked, errors end it. What our runtime
// needs beyond this is ours.
//
//   start_floor ROOTFS PROGRAM [ARG...]
//
// Six namespaces, one cgroup in every v1 hierarchy with three limits, bind mount of the root, the
// standard mounts and devices, ten masked and five read-only paths, capabilities,
// no-new-privileges, a seccomp filter with Docker's number of instructions, pivot_root, exec, wait,
// clean-up. Prints microseconds from start to exec and to the end on stderr when START_FLOOR_TIMES
// is set. Source: the order of contracts/oci/RUNTIME.md 5.

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>

namespace {

constexpr const char* kHierarchies[] = {"cpu",     "cpuacct", "cpuset", "memory", "devices",
                                        "freezer", "blkio",   "pids",   "systemd"};
constexpr uint64_t kDockerCapabilities = 0xa80425fb;

void Need(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "start_floor: %s: %s\n", what, strerror(errno));
  _exit(125);
}

uint64_t Now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

void Write(const char* path, const char* value) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  Need(fd >= 0 && write(fd, value, strlen(value)) >= 0, path);
  close(fd);
}

class Cgroups {
 public:
  Cgroups() {
    for (const char* hierarchy : kHierarchies) {
      char path[128];
      snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gantry-floor-%d", hierarchy, getpid());
      Need(mkdir(path, 0755) == 0, path);
    }
    Copy("cpuset", "cpuset.cpus");
    Copy("cpuset", "cpuset.mems");
    Set("memory", "memory.limit_in_bytes", "268435456");
    Set("pids", "pids.max", "100");
    Set("cpu", "cpu.shares", "512");
    Set("devices", "devices.deny", "a");
    for (const char* rule : {"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
                             "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c *:* m", "b *:* m"}) {
      Set("devices", "devices.allow", rule);
    }
  }

  // A single-threaded process that writes 0 to `tasks` does not wait for an RCU grace period.
  void Join() const {
    for (const char* hierarchy : kHierarchies) Set(hierarchy, "tasks", "0");
  }

  void Remove() const {
    for (const char* hierarchy : kHierarchies) {
      char path[128];
      snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gantry-floor-%d", hierarchy, pid_);
      Need(rmdir(path) == 0, path);
    }
  }

 private:
  void Set(const char* hierarchy, const char* file, const char* value) const {
    char path[192];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gantry-floor-%d/%s", hierarchy, pid_, file);
    Write(path, value);
  }

  void Copy(const char* hierarchy, const char* file) const {
    char path[192];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", hierarchy, file);
    char value[128] = {};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    Need(fd >= 0 && read(fd, value, sizeof value - 1) > 0, path);
    close(fd);
    Set(hierarchy, file, value);
  }

  const pid_t pid_ = getpid();
};

void Mount(const char* source, const char* target, const char* type, unsigned long flags,
           const char* data) {
  Need(mount(source, target, type, flags, data) == 0, target);
}

void MakeDevices() {
  struct Node {
    const char* name;
    unsigned device_major;
    unsigned device_minor;
  };
  for (const Node& node :
       {Node{"dev/null", 1, 3}, Node{"dev/zero", 1, 5}, Node{"dev/full", 1, 7},
        Node{"dev/random", 1, 8}, Node{"dev/urandom", 1, 9}, Node{"dev/tty", 5, 0}}) {
    Need(mknod(node.name, S_IFCHR | 0666, makedev(node.device_major, node.device_minor)) == 0,
         node.name);
  }
  Need(symlink("/proc/self/fd", "dev/fd") == 0 && symlink("/proc/self/fd/0", "dev/stdin") == 0 &&
           symlink("/proc/self/fd/1", "dev/stdout") == 0 &&
           symlink("/proc/self/fd/2", "dev/stderr") == 0 && symlink("pts/ptmx", "dev/ptmx") == 0,
       "dev links");
}

void MountAll(const char* rootfs) {
  constexpr unsigned long kSafe = MS_NOSUID | MS_NOEXEC | MS_NODEV;
  Mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  Mount(rootfs, rootfs, nullptr, MS_BIND | MS_REC, nullptr);
  Need(chdir(rootfs) == 0, rootfs);
  Mount("proc", "proc", "proc", kSafe, nullptr);
  Mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
  Need(mkdir("dev/pts", 0755) == 0 && mkdir("dev/shm", 0755) == 0 && mkdir("dev/mqueue", 0755) == 0,
       "dev");
  Mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5");
  Mount("shm", "dev/shm", "tmpfs", kSafe, "mode=1777,size=65536k");
  Mount("mqueue", "dev/mqueue", "mqueue", kSafe, nullptr);
  Mount("sysfs", "sys", "sysfs", kSafe | MS_RDONLY, nullptr);
  Mount("tmpfs", "sys/fs/cgroup", "tmpfs", kSafe, "mode=755");
  MakeDevices();
  for (const char* path : {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"}) {
    if (mount(path, path, nullptr, MS_BIND | MS_REC, nullptr) != 0) continue;
    Mount(nullptr, path, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | kSafe, nullptr);
  }
  for (const char* path : {"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
                           "proc/sched_debug", "proc/interrupts"}) {
    (void)mount("dev/null", path, nullptr, MS_BIND, nullptr);
  }
  for (const char* path : {"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware"}) {
    (void)mount("tmpfs", path, "tmpfs", MS_RDONLY, nullptr);
  }
  Need(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
  Need(umount2(".", MNT_DETACH) == 0, "detach the old root");
  Need(chdir("/") == 0, "/");
}

void DropPrivileges() {
  for (int capability = 0; capability <= 40; ++capability) {
    if ((kDockerCapabilities >> capability & 1) == 0) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].effective = data[0].permitted = static_cast<uint32_t>(kDockerCapabilities);
  Need(syscall(SYS_capset, &header, data) == 0, "capset");
  Need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
}

// As many instructions as an interval filter of Docker's profile has: load, compare, jump.
void LoadFilter() {
  constexpr int kPairs = 46;
  sock_filter code[kPairs * 2 + 4];
  int length = 0;
  code[length++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
  code[length++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  for (int i = 0; i < kPairs; ++i) {
    code[length++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000u + static_cast<unsigned>(i), 0, 1);
    code[length++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1);
  }
  code[length++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_fprog program = {static_cast<unsigned short>(length), code};
  Need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: start_floor ROOTFS PROGRAM [ARG...]\n");
    return 2;
  }
  const uint64_t began = Now();
  const Cgroups cgroups;
  int exec_pipe[2];
  Need(pipe2(exec_pipe, O_CLOEXEC) == 0, "pipe");
  clone_args arguments = {};
  arguments.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC;
  arguments.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
  Need(pid >= 0, "clone3");
  if (pid == 0) {
    cgroups.Join();
    Need(unshare(CLONE_NEWCGROUP) == 0, "unshare the cgroup namespace");
    Need(sethostname("floor", 5) == 0, "sethostname");
    MountAll(argv[1]);
    DropPrivileges();
    LoadFilter();
    char* const environment[] = {const_cast<char*>("PATH=/bin:/usr/bin"), nullptr};
    execve(argv[2], argv + 2, environment);
    Need(false, argv[2]);
  }
  close(exec_pipe[1]);
  char byte;
  (void)!read(exec_pipe[0], &byte, 1);  // Ends when the child has exec'd.
  const uint64_t executed = Now();
  int status = 0;
  Need(waitpid(static_cast<pid_t>(pid), &status, 0) == pid, "wait");
  cgroups.Remove();
  if (getenv("START_FLOOR_TIMES") != nullptr) {
    fprintf(stderr, "exec %lu us, end %lu us\n", static_cast<unsigned long>(executed - began),
            static_cast<unsigned long>(Now() - began));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
