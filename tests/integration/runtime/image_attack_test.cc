// What an image, or somebody who writes to it while a container is made, may try.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RuntimeImageAttackTest : public RuntimeTest {};

// SECURITY-RULES 8, 9: between looking at a path and using it there is no second walk.
TEST_F(RuntimeImageAttackTest, ATargetThatIsSwappedForALinkStaysInTheRoot) {
  ASSERT_OK(sys::MakeDirectories(path("outside"), 0755));
  ASSERT_OK(sys::MakeDirectories(rootfs("/swap"), 0755));
  ASSERT_OK(sys::MakeSymlink(path("outside"), rootfs("/other")));
  spec_.mounts.push_back(
      {.destination = "/swap/deep/er", .type = "tmpfs", .source = "tmpfs", .options = {}});
  spec_.mounts.push_back(
      {.destination = "/swap/file", .type = "bind", .source = "/etc/passwd", .options = {"bind"}});
  WriteConfig();
  // Exchanges the directory and the link, atomically and without a pause.
  std::atomic<bool> over{false};
  std::thread swapper([&] {
    while (!over) {
      (void)::renameat2(AT_FDCWD, rootfs("/swap").c_str(), AT_FDCWD, rootfs("/other").c_str(),
                        RENAME_EXCHANGE);
    }
  });
  for (int i = 0; i < 40; ++i) {
    // Whether it fails does not matter, only where it works.
    (void)Runtime({"run", "--bundle", path("bundle"), "c"});
    (void)Runtime({"delete", "--force", "c"});
  }
  over = true;
  swapper.join();
  auto names = sys::ListDirectory(path("outside"));
  ASSERT_OK(names);
  EXPECT_TRUE(names->empty()) << "made outside of the root: " << names->front();
}

// SECURITY-RULES 7, 15: files of an image are read as plain files, with a limit, or not at all.
TEST_F(RuntimeImageAttackTest, APasswdThatIsNoFileDoesNotHang) {
  ASSERT_OK(sys::MakeFifo(rootfs("/etc/passwd"), 0644));
  EXPECT_EQ(RunScript("echo $HOME").out, "/\n") << "a fifo";
  ASSERT_OK(sys::Unlink(rootfs("/etc/passwd")));
  ASSERT_OK(sys::MakeSymlink("/dev/zero", rootfs("/etc/passwd")));
  EXPECT_EQ(RunScript("echo $HOME").out, "/\n") << "a device";
  ASSERT_OK(sys::Unlink(rootfs("/etc/passwd")));
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n", 0644));
  ASSERT_EQ(::truncate(rootfs("/etc/passwd").c_str(), 2 << 20), 0);
  EXPECT_EQ(RunScript("echo $HOME").out, "/\n") << "longer than one mebibyte";
}

// SECURITY-RULES 12: what hides a file is the null device, whatever is called so.
TEST_F(RuntimeImageAttackTest, AFalseNullDeviceHidesNothing) {
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/secret"), "secret\n", 0644));
  ASSERT_EQ(RunShell(absl::StrCat("mknod ", path("false"), " c 1 5")).code, 0);
  spec_.linux_.masked_paths = {"/secret"};
  WriteConfig();
  ASSERT_EQ(::mount(path("false").c_str(), "/dev/null", nullptr, MS_BIND, nullptr), 0);
  CommandResult result = Runtime({"run", "--bundle", path("bundle"), "c"});
  ::umount2("/dev/null", MNT_DETACH);
  EXPECT_EQ(result.code, 1) << result;
  EXPECT_THAT(result.err, HasSubstr("not the null device"));
}

// SECURITY-RULES 12: a terminal comes from a devpts, not from a file of that name.
TEST_F(RuntimeImageAttackTest, AFalsePtmxIsNotOpened) {
  ASSERT_OK(sys::MakeDirectories(path("pts"), 0755));
  ASSERT_EQ(RunShell(absl::StrCat("mknod ", path("pts/ptmx"), " c 5 2")).code, 0)
      << "the right number, elsewhere";
  for (oci::Mount& mount : spec_.mounts) {
    if (mount.destination != "/dev/pts") continue;
    mount = {.destination = "/dev/pts", .type = "bind", .source = path("pts"), .options = {"bind"}};
  }
  spec_.process->terminal = true;
  WriteConfig();
  CommandResult result =
      Runtime({"create", "--bundle", path("bundle"), "--console-socket", path("nowhere"), "c"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("is not a devpts' ptmx"));
}

// SECURITY-RULES 22: a sysctl of the host is refused, and was not touched.
TEST_F(RuntimeImageAttackTest, ASysctlOfTheHostIsRefused) {
  const std::string before = *sys::ReadFile("/proc/sys/kernel/core_pattern");
  for (const char* name : {"kernel.core_pattern", "kernel/core_pattern",
                           "kernel.shmmax.../core_pattern", "net.ipv4.../../kernel/core_pattern"}) {
    spec_.linux_.sysctl = {{name, "|/attack"}};
    CommandResult result = RunScript("true");
    EXPECT_EQ(result.code, 1) << name;
    EXPECT_THAT(result.err, HasSubstr("linux.sysctl.")) << name;
  }
  EXPECT_EQ(*sys::ReadFile("/proc/sys/kernel/core_pattern"), before);
}

// SECURITY-RULES 43: after a reboot the number in the record is somebody else's.
TEST_F(RuntimeImageAttackTest, ARecordOfAnotherBootSignalsNobody) {
  StartScript("c", "sleep 1000");
  const std::string record = path("state/c/state.json");
  const std::string text = *sys::ReadFile(record);
  std::string boot = *sys::ReadFile("/proc/sys/kernel/random/boot_id");
  boot.pop_back();
  ASSERT_OK(sys::WriteFileAtomically(
      record, absl::StrReplaceAll(text, {{boot, "00000000-0000-0000-0000-000000000000"}})));
  EXPECT_EQ(StateOf("c", "status"), "stopped");
  CommandResult killed = Runtime({"kill", "c", "KILL"});
  EXPECT_EQ(killed.code, 1);
  EXPECT_THAT(killed.err, HasSubstr("container not running"));
  ASSERT_OK(sys::WriteFileAtomically(record, text));
  EXPECT_EQ(StateOf("c", "status"), "running");
}

// SECURITY-RULES 11: nothing is mounted over parts of /proc, other than what tools put there.
TEST_F(RuntimeImageAttackTest, OnlyAFewFilesOfProcCanBeCovered) {
  ASSERT_OK(sys::WriteFileAtomically(path("file"), "1 2\n", 0644));
  const auto bind_over = [&](const std::string& destination) {
    spec_.mounts.push_back(
        {.destination = destination, .type = "bind", .source = path("file"), .options = {"bind"}});
    CommandResult result = RunScript("true");
    spec_.mounts.pop_back();
    return result;
  };
  EXPECT_EQ(bind_over("/proc/uptime").code, 0) << "as lxcfs does";
  EXPECT_NE(bind_over("/proc/self/attr/exec").code, 0);
  EXPECT_NE(bind_over("/proc/sys/kernel/core_pattern").code, 0);
  EXPECT_NE(bind_over("/proc/../proc/self/attr/exec").code, 0);
}

}  // namespace
}  // namespace gantry::testing
