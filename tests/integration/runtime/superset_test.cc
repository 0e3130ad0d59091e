// What crun has beside runc: mounts add and remove, run.oci annotations, journal and syslog; and
// what is refused because this machine lacks it.
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RuntimeSupersetTest : public RuntimeTest {
 protected:
  CommandResult Mounts(const std::string& action, const std::string& json) {
    EXPECT_OK(sys::WriteFileAtomically(path("mounts.json"), json));
    return Runtime({"mounts", action, "c", path("mounts.json")});
  }

  // A datagram socket in a directory of ours that is mounted over the directory of `at`.
  sys::UniqueFd ListenAt(const std::string& at, const std::string& name) {
    EXPECT_OK(sys::MakeDirectories(path(name), 0755));
    sys::UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string place = path(name + "/" + at.substr(at.rfind('/') + 1));
    place.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return socket;
  }

  static std::string Receive(const sys::UniqueFd& socket) {
    pollfd poll = {socket.get(), POLLIN, 0};
    if (::poll(&poll, 1, 10000) != 1) return "nothing came";
    char bytes[4096];
    const ssize_t size = ::recv(socket.get(), bytes, sizeof bytes, 0);
    return size < 0 ? "" : std::string(bytes, static_cast<size_t>(size));
  }
};

TEST_F(RuntimeSupersetTest, MountsAreAddedAndRemovedWhileItRuns) {
  ASSERT_OK(sys::MakeDirectories(path("volume"), 0755));
  ASSERT_OK(sys::WriteFileAtomically(path("volume/file"), "inside\n", 0644));
  StartScript("c", "sleep 1000");
  CommandResult added = Mounts(
      "add",
      absl::StrCat(R"([{"destination":"/late/deep","type":"bind","source":")", path("volume"),
                   R"(","options":["bind","ro"]},{"destination":"/scratch","type":"tmpfs",)"
                   R"("source":"tmpfs","options":["size=64k"]}])"));
  ASSERT_EQ(added.code, 0) << added;
  EXPECT_EQ(Runtime({"exec", "c", "cat", "/late/deep/file"}).out, "inside\n");
  EXPECT_NE(Runtime({"exec", "c", "touch", "/late/deep/new"}).code, 0) << "read-only";
  EXPECT_EQ(Runtime({"exec", "c", "touch", "/scratch/new"}).code, 0);
  EXPECT_FALSE(sys::Exists(rootfs("/scratch/new"))) << "it is a mount";
  CommandResult removed =
      Mounts("remove", R"([{"destination":"/late/deep"},{"destination":"/scratch"}])");
  ASSERT_EQ(removed.code, 0) << removed;
  EXPECT_NE(Runtime({"exec", "c", "cat", "/late/deep/file"}).code, 0);
  EXPECT_THAT(Mounts("remove", R"([{"destination":"/late/deep"}])").err,
              HasSubstr("nothing that could be removed is mounted on '/late/deep'"));
}

TEST_F(RuntimeSupersetTest, AMountThatIsAddedCannotLeaveTheRoot) {
  ASSERT_OK(sys::MakeDirectories(path("outside"), 0755));
  StartScript("c", absl::StrCat("ln -s ", path("outside"), " /way; ln -s /proc/self /proclink; ",
                                "sleep 1000"));
  ASSERT_TRUE(Eventually([&] {
    return ::access(rootfs("/proclink").c_str(), F_OK) == 0 ||
           sys::ReadSymlink(rootfs("/proclink")).ok();
  }));
  EXPECT_EQ(Mounts("add", R"([{"destination":"/way","type":"tmpfs","source":"x"}])").code, 0);
  EXPECT_EQ(RunShell(absl::StrCat("grep -c ' ", path("outside"), " ' /proc/self/mountinfo")).out,
            "0\n");
  EXPECT_NE(Mounts("add", R"([{"destination":"/proclink","type":"tmpfs","source":"x"}])").code, 0);
  EXPECT_NE(Mounts("add", R"([{"destination":"/proc/sys","type":"tmpfs","source":"x"}])").code, 0);
  EXPECT_NE(Mounts("remove", R"([{"destination":"/"}])").code, 0);
  EXPECT_THAT(Mounts("add", R"([{"destination":"/x","type":7}])").err, HasSubstr("[0].type"));
}

TEST_F(RuntimeSupersetTest, HooksWriteWhereTheAnnotationsSay) {
  spec_.annotations = {{"run.oci.hooks.stdout", path("hook.out")},
                       {"run.oci.hooks.stderr", path("hook.err")}};
  oci::Hook hook = {.path = "/bin/sh", .args = {"sh", "-c", "echo said; echo wrong >&2"}};
  spec_.hooks.create_runtime = {hook};
  spec_.hooks.poststart = {hook};
  spec_.hooks.poststop = {hook};
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(*sys::ReadFile(path("hook.out")), "said\nsaid\nsaid\n");
  EXPECT_EQ(*sys::ReadFile(path("hook.err")), "wrong\nwrong\nwrong\n");
}

TEST_F(RuntimeSupersetTest, AnAnnotationCanKeepTheCallersGroups) {
  spec_.process->args = {"/bin/sh", "-c", "id -G"};
  spec_.process->user = {.uid = 1000, .gid = 1000, .additional_gids = {77}};
  const auto run = [&] {
    WriteConfig();
    return RunShell(absl::StrCat("setpriv --groups 4242,4343 ", program_, " --root ", path("state"),
                                 " run --bundle ", path("bundle"), " c"));
  };
  EXPECT_EQ(run().out, "1000 77\n");
  spec_.annotations = {{"run.oci.keep_original_groups", "1"}};
  EXPECT_EQ(run().out, "1000 4242 4343\n");
}

TEST_F(RuntimeSupersetTest, AnAnnotationMakesUnknownSystemCallsAnError) {
  oci::Seccomp& profile = spec_.linux_.seccomp.emplace();
  profile.default_action = "SCMP_ACT_ALLOW";
  profile.syscalls = {{.names = {"mkdir", "no_such_call"}, .action = "SCMP_ACT_ERRNO"}};
  EXPECT_EQ(RunScript("true").code, 0);
  spec_.annotations = {{"run.oci.seccomp_fail_unknown_syscall", "1"}};
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("linux.seccomp.syscalls[0].names[1]"));
}

TEST_F(RuntimeSupersetTest, WhatOnlyCrunDoesIsRefused) {
  for (const char* key : {"run.oci.handler", "run.oci.seccomp_bpf_file"}) {
    spec_.annotations = {{key, "krun"}};
    CommandResult result = RunScript("true");
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr(absl::StrCat("annotations.", key)));
  }
  EXPECT_EQ(Runtime({"list", "-q"}).out, "");
}

TEST_F(RuntimeSupersetTest, LogsToTheJournal) {
  sys::UniqueFd journal = ListenAt("/run/systemd/journal/socket", "journal");
  ASSERT_EQ(RunShell("mkdir -p /run/systemd/journal").code, 0);
  ASSERT_EQ(::mount(path("journal").c_str(), "/run/systemd/journal", nullptr, MS_BIND, nullptr), 0);
  CommandResult result = Runtime({"--log", "journald:box", "state", "nonesuch"});
  ::umount2("/run/systemd/journal", MNT_DETACH);
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("does not exist")) << "and on stderr";
  EXPECT_EQ(Receive(journal),
            "PRIORITY=3\nSYSLOG_IDENTIFIER=box\nMESSAGE=container 'nonesuch' does not exist\n");
}

TEST_F(RuntimeSupersetTest, ALogThatNobodyReadsIsAnError) {
  ASSERT_OK(sys::MakeDirectories(path("empty"), 0755));
  ASSERT_EQ(RunShell("mkdir -p /run/systemd/journal").code, 0);
  ASSERT_EQ(::mount(path("empty").c_str(), "/run/systemd/journal", nullptr, MS_BIND, nullptr), 0);
  CommandResult result = Runtime({"--log=journald:", "list"});
  ::umount2("/run/systemd/journal", MNT_DETACH);
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("/run/systemd/journal/socket"));
}

TEST_F(RuntimeSupersetTest, IntelRdtIsRefusedWhereThereIsNone) {
  struct stat info = {};
  if (::stat("/sys/fs/resctrl/schemata", &info) == 0) GTEST_SKIP() << "needs a machine without it";
  spec_.linux_.intel_rdt = oci::IntelRdt{.l3_cache_schema = "L3:0=f"};
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("linux.intelRdt"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(RuntimeSupersetTest, CheckpointSaysWhatIsMissing) {
  EXPECT_THAT(Runtime({"checkpoint", "--image-path", path("image"), "c"}).err,
              HasSubstr("container 'c' does not exist"));
  StartScript("c", "sleep 1000");
  const auto checkpoint = [&](const std::string& criu) {
    CommandResult result =
        Runtime({"--criu", criu, "checkpoint", "--image-path", path("image"), "c"});
    EXPECT_EQ(result.code, 1);
    return result.err;
  };
  EXPECT_THAT(checkpoint(path("nowhere")), HasSubstr("install the package 'criu'"));
  // One that fails as Debian's does on a kernel newer than it.
  ASSERT_OK(sys::WriteFileAtomically(
      path("criu"), "#!/bin/sh\necho 'Warn x' >&2\necho 'Error (vdso.c:1): bounds' >&2\nexit 1\n",
      0755));
  EXPECT_THAT(checkpoint(path("criu")), HasSubstr("check` says: Error (vdso.c:1): bounds"));
  EXPECT_EQ(StateOf("c", "status"), "running");
}

TEST_F(RuntimeSupersetTest, ADeviceThatVanishedIsNamed) {
  // In a user namespace nodes are the host's, bound: one that is not there is said so.
  spec_.linux_.namespaces.push_back({.type = "user"});
  spec_.linux_.uid_mappings = {{.container_id = 0, .host_id = 0, .size = 65536}};
  spec_.linux_.gid_mappings = {{.container_id = 0, .host_id = 0, .size = 65536}};
  spec_.linux_.devices.push_back(
      {.type = "c", .path = "/dev/vanished0", .major = 240, .minor = 17});
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("'/dev/vanished0'"));
  EXPECT_THAT(result.err, HasSubstr("the host has no such device"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

}  // namespace
}  // namespace gantry::testing
