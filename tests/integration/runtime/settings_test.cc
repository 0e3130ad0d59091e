// What config.json asks for is what the program finds.
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class RuntimeSettingsTest : public RuntimeTest {};

TEST_F(RuntimeSettingsTest, NamesLimitsAndEnvironment) {
  spec_.hostname = "box";
  spec_.domainname = "example";
  spec_.process->env.push_back("COLOUR=blue");
  spec_.process->rlimits = {{.type = "RLIMIT_NOFILE", .soft = 100, .hard = 200}};
  spec_.process->cwd = "/srv/deep";
  spec_.process->user.umask = 077;
  spec_.process->oom_score_adj = 500;
  CommandResult result = RunScript(
      "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; echo $COLOUR $HOME; "
      "grep 'open files' /proc/self/limits; pwd; umask; cat /proc/self/oom_score_adj");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("box\nexample\nblue /\n"));
  EXPECT_THAT(result.out, ::testing::ContainsRegex("open files +100 +200"));
  EXPECT_THAT(result.out, HasSubstr("/srv/deep\n0077\n500\n"));
}

TEST_F(RuntimeSettingsTest, HomeComesFromTheImagesPasswd) {
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/etc/passwd"),
                                     "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:\n", 0644));
  spec_.process->user = {.uid = 1000, .gid = 1000};
  EXPECT_EQ(RunScript("echo $HOME").out, "/home/u\n");
}

TEST_F(RuntimeSettingsTest, ReadOnlyRootAndBindMounts) {
  ASSERT_OK(sys::MakeDirectories(path("volume/sub"), 0755));
  ASSERT_OK(sys::WriteFileAtomically(path("volume/file"), "data\n", 0644));
  spec_.root->readonly = true;
  spec_.mounts.push_back({.destination = "/volume",
                          .type = "bind",
                          .source = path("volume"),
                          .options = {"rbind", "rw"}});
  spec_.mounts.push_back({.destination = "/frozen",
                          .type = "bind",
                          .source = path("volume"),
                          .options = {"bind", "ro"}});
  spec_.mounts.push_back(
      {.destination = "/one", .type = "bind", .source = path("volume/file"), .options = {"bind"}});
  CommandResult result = RunScript("touch /x; touch /frozen/x; touch /volume/made; cat /one");
  EXPECT_THAT(result.err, HasSubstr("/x: Read-only file system"));
  EXPECT_THAT(result.err, HasSubstr("/frozen/x: Read-only file system"));
  EXPECT_EQ(result.out, "data\n");
  EXPECT_TRUE(sys::Exists(path("volume/made")));
}

TEST_F(RuntimeSettingsTest, RecursiveReadOnlyCoversMountsBelow) {
  ASSERT_OK(sys::MakeDirectories(path("volume/sub"), 0755));
  ASSERT_EQ(RunCommand({"mount", "-t", "tmpfs", "tmpfs", path("volume/sub")}).code, 0);
  spec_.mounts.push_back({.destination = "/plain",
                          .type = "bind",
                          .source = path("volume"),
                          .options = {"rbind", "ro"}});
  spec_.mounts.push_back({.destination = "/deep",
                          .type = "bind",
                          .source = path("volume"),
                          .options = {"rbind", "rro"}});
  CommandResult result =
      RunScript("touch /plain/sub/a && echo plain; touch /deep/sub/b && echo deep");
  RunCommand({"umount", path("volume/sub")});
  EXPECT_EQ(result.out, "plain\n") << result;
}

TEST_F(RuntimeSettingsTest, TmpfsTakesOverTheModeAndCopiesUp) {
  ASSERT_OK(sys::MakeDirectories(rootfs("/data/deep"), 0755));
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/data/deep/file"), "kept\n", 0640));
  ASSERT_EQ(::chmod(rootfs("/data").c_str(), 01750), 0);
  spec_.mounts.push_back(
      {.destination = "/data", .type = "tmpfs", .source = "tmpfs", .options = {"tmpcopyup"}});
  CommandResult result =
      RunScript("stat -c %a /data; cat /data/deep/file; stat -c %a /data/deep/file");
  EXPECT_EQ(result.out, "1750\nkept\n640\n") << result;
}

TEST_F(RuntimeSettingsTest, SysctlsOfTheContainersNamespaces) {
  spec_.linux_.sysctl = {{"net.ipv4.ip_forward", "1"}, {"kernel.shmmni", "99"}};
  EXPECT_EQ(RunScript("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni").out, "1\n99\n");
}

TEST_F(RuntimeSettingsTest, DevicesWithOwnerAndMode) {
  spec_.linux_.devices = {{.type = "c",
                           .path = "/dev/mine",
                           .major = 1,
                           .minor = 3,
                           .file_mode = 0640,
                           .uid = 5,
                           .gid = 6}};
  EXPECT_EQ(RunScript("stat -c '%t:%T %a %u %g' /dev/mine").out, "1:3 640 5 6\n");
}

TEST_F(RuntimeSettingsTest, JoinsANamespaceByPath) {
  StartScript("c", "sleep 1000");
  const int pid = PidOf("c");
  spec_.linux_.FindNamespace("network")->path = absl::StrCat("/proc/", pid, "/ns/net");
  spec_.linux_.FindNamespace("ipc")->path = absl::StrCat("/proc/", pid, "/ns/ipc");
  spec_.linux_.FindNamespace("pid")->path = absl::StrCat("/proc/", pid, "/ns/pid");
  spec_.linux_.cgroups_path = cgroup_ + "/second";
  spec_.process->args = {
      "/bin/sh", "-c",
      "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ls -d /proc/1; echo $$"};
  WriteConfig();
  CommandResult result = Runtime({"run", "--bundle", path("bundle"), "d"});
  EXPECT_EQ(result.code, 0) << result;
  const CommandResult host =
      RunShell(absl::StrCat("readlink /proc/", pid, "/ns/net /proc/", pid, "/ns/ipc"));
  EXPECT_THAT(result.out, HasSubstr(host.out));
  EXPECT_THAT(result.out, Not(HasSubstr("\n1\n")))
      << "not the first process of the joined namespace";
  spec_.linux_.cgroups_path = cgroup_ + "/leaf";
  for (const char* wrong : {"/proc/self/ns/uts", "/etc/passwd"}) {
    spec_.linux_.FindNamespace("network")->path = wrong;
    WriteConfig();
    CommandResult refused = Runtime({"run", "--bundle", path("bundle"), "d"});
    EXPECT_NE(refused.code, 0);
    EXPECT_THAT(refused.err, HasSubstr("is not a network namespace"));
  }
}

TEST_F(RuntimeSettingsTest, UserNamespaceMapsIds) {
  spec_.linux_.namespaces.push_back({"user"});
  spec_.linux_.uid_mappings =
      spec_.linux_.gid_mappings = {{.container_id = 0, .host_id = 100000, .size = 65536}};
  CommandResult result = RunScript(
      "id; cat /proc/self/uid_map; cat /dev/null; touch /tmp/made 2>/dev/null; stat -c %u /dev");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("uid=0 gid=0"));
}

TEST_F(RuntimeSettingsTest, TimeNamespaceHasItsOffset) {
  spec_.linux_.namespaces.push_back({"time"});
  spec_.linux_.time_offsets = {{"boottime", {.seconds = 1000000}}};
  CommandResult result = RunScript("cat /proc/uptime");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_GT(atof(result.out.c_str()), 1000000.0);
}

TEST_F(RuntimeSettingsTest, SchedulingAndPersonality) {
  spec_.process->scheduler = oci::Scheduler{.policy = "SCHED_BATCH", .nice = 5};
  spec_.process->io_priority = oci::IoPriority{.priority_class = "IOPRIO_CLASS_IDLE"};
  spec_.linux_.personality = oci::Personality{.domain = "LINUX32"};
  CommandResult result = RunScript(
      "head -c 4000 /proc/self/sched | grep policy; uname -m; cut -d' ' -f19 /proc/self/stat");
  EXPECT_THAT(result.out, HasSubstr("i686")) << result;
}

TEST_F(RuntimeSettingsTest, IdMappedMountsShowOtherOwners) {
  ASSERT_OK(sys::MakeDirectories(path("volume"), 0755));
  ASSERT_OK(sys::WriteFileAtomically(path("volume/file"), "x", 0644));
  spec_.mounts.push_back({.destination = "/mapped",
                          .type = "bind",
                          .source = path("volume"),
                          .options = {"bind", "idmap"},
                          .uid_mappings = {{.container_id = 0, .host_id = 5000, .size = 10}},
                          .gid_mappings = {{.container_id = 0, .host_id = 6000, .size = 10}}});
  spec_.mounts.push_back(
      {.destination = "/plain", .type = "bind", .source = path("volume"), .options = {"bind"}});
  CommandResult result = RunScript("stat -c %u:%g /mapped/file /plain/file");
  if (result.err.find("does its file system support") != std::string::npos)
    GTEST_SKIP() << result.err;
  EXPECT_EQ(result.out, "5000:6000\n0:0\n") << result;
  spec_.mounts.pop_back();
  spec_.mounts.back().uid_mappings.clear();
  spec_.mounts.back().gid_mappings.clear();
  EXPECT_THAT(RunScript("true").err, HasSubstr("linux.uidMappings")) << "nothing to map by";
}

TEST_F(RuntimeSettingsTest, ADetachedStartWaitsUntilTheContainerIsReady) {
  // busybox cannot send a datagram; its end ends the waiting just as well.
  spec_.process->args = {"/bin/sh", "-c",
                         "echo $NOTIFY_SOCKET; ls -l /run/notify/notify.sock; sleep 1"};
  WriteConfig();
  CommandResult result = RunShell(
      absl::StrCat("export NOTIFY_SOCKET=", path("host.sock"), "; ", program_, " --root ",
                   path("state"), " create --bundle ", path("bundle"), " c </dev/null >",
                   path("out"), " 2>&1 && ", program_, " --root ", path("state"), " start c"));
  EXPECT_EQ(result.code, 0) << result << Output();
  EXPECT_THAT(Output(), HasSubstr("/run/notify/notify.sock\nsrwxrwxrwx"));
  EXPECT_EQ(StateOf("c", "status"), "stopped") << "start went on waiting until init had ended";
}

TEST_F(RuntimeSettingsTest, NetDevicesMoveWithTheirAddresses) {
  ASSERT_EQ(RunShell("ip link add gtest0 type veth peer name gtest1 && ip addr add 10.9.8.7/24 dev "
                     "gtest0 && ip -6 addr add "
                     "fd00::5/64 dev gtest0 nodad && ip link set gtest0 up")
                .code,
            0)
      << "needs veth pairs";
  spec_.linux_.net_devices = {{"gtest0", "inner0"}};
  CommandResult result = RunScript("cat /proc/net/dev /proc/net/fib_trie /proc/net/if_inet6");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("inner0:"));
  EXPECT_THAT(result.out, HasSubstr("10.9.8.7"));
  EXPECT_THAT(result.out, HasSubstr("fd000000000000000000000000000005"));
  EXPECT_NE(RunShell("ip link show gtest0").code, 0);
  spec_.linux_.net_devices = {{"nonesuch0", ""}};
  EXPECT_THAT(RunScript("true").err, HasSubstr("linux.netDevices.nonesuch0"));
}

TEST_F(RuntimeSettingsTest, ReadyIsPassedOnWithTheMainPid) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  sys::UniqueFd host(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address_of = [](const std::string& name) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
  };
  sockaddr_un at = address_of(path("host"));
  ASSERT_EQ(::bind(host.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  const std::string runtime = absl::StrCat("export NOTIFY_SOCKET=", path("host"), "; ", program_,
                                           " --root ", path("state"));
  ASSERT_EQ(RunShell(absl::StrCat(runtime, " create --bundle ", path("bundle"), " c </dev/null >",
                                  path("out"), " 2>&1"))
                .code,
            0)
      << Output();
  auto start = sys::Spawn({.argv = {program_, "--root", path("state"), "start", "c"},
                           .environment = {"NOTIFY_SOCKET=" + path("host")}});
  ASSERT_OK(start);
  ASSERT_TRUE(Eventually([&] { return sys::Exists(path("state/c/notify/notify.sock")); }));

  sys::UniqueFd program(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un inside = address_of(path("state/c/notify/notify.sock"));
  ASSERT_EQ(::sendto(program.get(), "STATUS=x\nREADY=1\n", 17, 0,
                     reinterpret_cast<const sockaddr*>(&inside), sizeof inside),
            17);
  auto ready = sys::ReceiveDescriptors(host, 4096);
  ASSERT_OK(ready);
  EXPECT_EQ(ready->bytes, absl::StrCat("READY=1\nMAINPID=", PidOf("c")));
  auto barrier = sys::ReceiveDescriptors(host, 4096);
  ASSERT_OK(barrier);
  EXPECT_EQ(barrier->bytes, "BARRIER=1");
  EXPECT_TRUE(start->running());
  EXPECT_FALSE(start->Wait(absl::Milliseconds(50)).ok()) << "it waits until the barrier is closed";
  barrier->descriptors.clear();
  auto status = start->Wait(absl::Seconds(10));
  ASSERT_OK(status);
  EXPECT_EQ(status->code, 0);
}

TEST_F(RuntimeSettingsTest, TheSeccompListenerGetsItsDescriptor) {
  auto listener = sys::ListenUnix(path("agent"));
  ASSERT_OK(listener);
  oci::Seccomp& profile = spec_.linux_.seccomp.emplace();
  profile.default_action = "SCMP_ACT_ALLOW";
  profile.listener_path = path("agent");
  profile.listener_metadata = "for the agent";
  profile.syscalls = {{.names = {"mkdir"}, .action = "SCMP_ACT_NOTIFY"}};
  spec_.process->args = {"/bin/sh", "-c", "mkdir /tmp/asked 2>&1; echo $?"};
  ASSERT_EQ(Create("c").code, 0) << Output();
  auto connection = sys::Accept(*listener);
  ASSERT_OK(connection);
  auto message = sys::ReceiveDescriptors(*connection, 65536);
  ASSERT_OK(message);
  ASSERT_EQ(message->descriptors.size(), 1u);
  auto state = json::Document::Parse(message->bytes);
  ASSERT_OK(state);
  std::string metadata;
  ASSERT_OK(state->root().Required("metadata", &metadata));
  EXPECT_EQ(metadata, "for the agent");

  ASSERT_EQ(Runtime({"start", "c"}).code, 0);
  seccomp_notif request = {};
  ASSERT_EQ(::ioctl(message->descriptors[0].get(), SECCOMP_IOCTL_NOTIF_RECV, &request), 0);
  EXPECT_EQ(request.data.nr, SYS_mkdir);
  seccomp_notif_resp answer = {.id = request.id, .val = 0, .error = -EXDEV, .flags = 0};
  ASSERT_EQ(::ioctl(message->descriptors[0].get(), SECCOMP_IOCTL_NOTIF_SEND, &answer), 0);

  EXPECT_TRUE(Eventually([&] {
    return Output().find("cross-device") != std::string::npos ||
           Output().find("Invalid cross") != std::string::npos;
  })) << Output();
}

TEST_F(RuntimeSettingsTest, CgroupMountShowsOnlyTheOwnSubtree) {
  CommandResult result = RunScript(
      "ls /sys/fs/cgroup/memory /sys/fs/cgroup 2>/dev/null | grep -c gantry-rt; "
      "d=/sys/fs/cgroup/pids; test -d $d || d=/sys/fs/cgroup; mkdir $d/x 2>&1");
  EXPECT_THAT(result.out, ::testing::StartsWith("0\n"));
  EXPECT_THAT(result.out, HasSubstr("Read-only"));
}

TEST_F(RuntimeSettingsTest, LabelsThatThisKernelLacksAreRefused) {
  if (sys::Exists("/sys/fs/selinux/enforce")) GTEST_SKIP() << "needs a kernel without SELinux";
  spec_.process->selinux_label = "system_u:system_r:container_t:s0";
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("process.selinuxLabel"));
}

TEST_F(RuntimeSettingsTest, NoPivotEntersTheRootToo) {
  spec_.process->args = {"/bin/sh", "-c", "ls -d /bin; ls /etc/shadow 2>/dev/null; true"};
  WriteConfig();
  CommandResult result = Runtime({"run", "--no-pivot", "--bundle", path("bundle"), "c"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "/bin\n");
}

TEST_F(RuntimeSettingsTest, SharedPropagationIsAskedFor) {
  spec_.linux_.rootfs_propagation = "shared";
  CommandResult result =
      RunScript("grep ' / / ' /proc/self/mountinfo; head -1 /proc/self/mountinfo");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("shared:"));
}

}  // namespace
}  // namespace gantry::testing
