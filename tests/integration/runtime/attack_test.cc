// The escapes that history knows, performed. Each test names the rule of SECURITY-RULES it is
// about.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/sys/file.h"
#include "lib/sys/unique_fd.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

class RuntimeAttackTest : public RuntimeTest {
 protected:
  void ReplaceByLink(const std::string& name, const std::string& target) {
    ASSERT_OK(sys::RemoveTree(rootfs(name)));
    ASSERT_EQ(::symlink(target.c_str(), rootfs(name).c_str()), 0);
  }
};

// Rule 13: an image whose /proc, /sys or /dev is a link would make the runtime mount, write or
// mknod somewhere else (CVE-2019-19921).
TEST_F(RuntimeAttackTest, LinksInPlaceOfProcSysAndDevAreRefused) {
  for (const char* name : {"/proc", "/sys", "/dev"}) {
    ReplaceByLink(name, "/tmp");
    CommandResult result = RunScript("true");
    EXPECT_NE(result.code, 0) << name;
    EXPECT_THAT(result.err, HasSubstr("symbolic link")) << name;
    ASSERT_EQ(::unlink(rootfs(name).c_str()), 0);
    ASSERT_OK(sys::MakeDirectories(rootfs(name), 0755));
  }
}

// Rule 8: a mount target that is a link out of the root stays in the root.
TEST_F(RuntimeAttackTest, MountTargetsCannotLeaveTheRoot) {
  ASSERT_OK(sys::MakeDirectories(path("outside"), 0755));
  ASSERT_EQ(::symlink(path("outside").c_str(), rootfs("/evil").c_str()), 0);
  ASSERT_EQ(::symlink("../../../../../../../../tmp", rootfs("/dots").c_str()), 0);
  spec_.mounts.push_back({.destination = "/evil/x", .type = "tmpfs", .source = "tmpfs"});
  spec_.mounts.push_back({.destination = "/dots/y", .type = "tmpfs", .source = "tmpfs"});
  CommandResult result = RunScript("grep -c '/y tmpfs' /proc/mounts");
  EXPECT_TRUE(sys::ListDirectory(path("outside"))->empty());
  EXPECT_FALSE(sys::Exists("/tmp/y"));
  EXPECT_EQ(result.out, "1\n") << result;
}

// Rule 11: a link that leads a mount onto /proc would let the image fake what is read and written
// there (CVE-2019-16884).
TEST_F(RuntimeAttackTest, LinksIntoProcAreNoMountTargets) {
  ASSERT_EQ(::symlink("/proc/self/attr", rootfs("/attr").c_str()), 0);
  spec_.mounts.push_back({.destination = "/attr", .type = "tmpfs", .source = "tmpfs"});
  CommandResult result = RunScript("true");
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, AnyOf(HasSubstr("leads into /proc"), HasSubstr("beneath")));
}

TEST_F(RuntimeAttackTest, NothingIsMountedOverProc) {
  for (const char* destination : {"/proc", "/proc/self/attr", "/proc/sys", "/tmp/../proc/1"}) {
    oci::Spec saved = spec_;
    spec_.mounts.push_back({.destination = destination, .type = "tmpfs", .source = "tmpfs"});
    CommandResult result = RunScript("true");
    EXPECT_NE(result.code, 0) << destination;
    EXPECT_THAT(result.err, HasSubstr("inside /proc")) << destination;
    spec_ = saved;
  }
}

// Rule 1: a descriptor of the host in the container is a way out (CVE-2016-9962, CVE-2024-21626).
TEST_F(RuntimeAttackTest, DescriptorsOfTheHostDoNotLeak) {
  spec_.process->args = {"/bin/sh", "-c", "ls /proc/self/fd"};
  WriteConfig();
  CommandResult result =
      RunShell(absl::StrCat(program_, " --root ", path("state"), " run --bundle ", path("bundle"),
                            " c 7</ 8</etc </dev/null"));
  EXPECT_EQ(result.code, 0) << result;
  // 3 is ls's own.
  EXPECT_THAT(std::vector<std::string>(absl::StrSplit(result.out, '\n', absl::SkipEmpty())),
              Each(AnyOf("0", "1", "2", "3")));
}

TEST_F(RuntimeAttackTest, AWaitingInitHoldsNoDescriptorOfTheHost) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  CommandResult result =
      RunShell(absl::StrCat(program_, " --root ", path("state"), " create --bundle ",
                            path("bundle"), " c 7</ 8</etc </dev/null >/dev/null 2>&1"));
  ASSERT_EQ(result.code, 0) << result;
  CommandResult links =
      RunShell(absl::StrCat("for f in /proc/", PidOf("c"), "/fd/*; do readlink $f; done"));
  for (absl::string_view link : absl::StrSplit(links.out, '\n', absl::SkipEmpty())) {
    EXPECT_THAT(std::string(link), AnyOf("/dev/null", ::testing::StartsWith("socket:")));
  }
}

// Rule 4: a working directory through a leaked descriptor (CVE-2024-21626).
TEST_F(RuntimeAttackTest, AWorkingDirectoryOutsideIsRefused) {
  for (int fd = 3; fd < 12; ++fd) {
    spec_.process->cwd = absl::StrCat("/proc/self/fd/", fd);
    spec_.process->args = {"/bin/sh", "-c", "pwd; ls ../../../../etc/shadow"};
    WriteConfig();
    CommandResult result = RunShell(
        absl::StrCat(program_, " --root ", path("state"), " run --preserve-fds 9 --bundle ",
                     path("bundle"), " c 3</ 4</ 5</ 6</ 7</ 8</ 9</ 10</ 11</ </dev/null"));
    EXPECT_NE(result.code, 0) << fd << ": " << result;
    EXPECT_THAT(result.out, Not(HasSubstr("shadow"))) << fd;
    CommandResult plain =
        RunShell(absl::StrCat(program_, " --root ", path("state"), " run --bundle ", path("bundle"),
                              " c 7</ </dev/null"));
    EXPECT_NE(plain.code, 0) << fd << ": " << plain;
  }
}

// Rule 4: from within a chroot pivot_root leaves the host's root the namespace's, and exec in it.
TEST_F(RuntimeAttackTest, ACallerInAChrootIsRefused) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  const std::string chroot = absl::StrCat(
      "d=$(mktemp -d) && unshare --mount sh -c 'mount --rbind / '$d' && exec chroot '$d' ",
      program_, " --root ", path("state"), " create --bundle ", path("bundle"),
      " c </dev/null >/dev/null'", "; code=$?; rmdir $d; exit $code");
  CommandResult result = RunShell(chroot);
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("(chroot)"));
  EXPECT_NE(Runtime({"state", "c"}).code, 0) << "something is left";
}

// Rule 2: writing to the runtime through /proc/PID/exe (CVE-2019-5736).
TEST_F(RuntimeAttackTest, TheRuntimesFileCannotBeReachedThroughProcExe) {
  spec_.process->args = {"/bin/sleep", "1000"};
  ASSERT_EQ(Create("c").code, 0) << Output();
  const std::string exe = absl::StrCat("/proc/", PidOf("c"), "/exe");
  const int held = ::open(exe.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(held, 0);
  ASSERT_EQ(Runtime({"delete", "--force", "c"}).code, 0);

  // "Text file busy" protects nothing: it lasts only as long as somebody (another test) executes
  // it.
  int error = 0;
  EXPECT_TRUE(Eventually([&] {
    const sys::UniqueFd writable(
        ::open(absl::StrCat("/proc/self/fd/", held).c_str(), O_WRONLY | O_CLOEXEC));
    error = writable.ok() ? 0 : errno;
    return error != ETXTBSY;
  }));
  EXPECT_THAT(error, AnyOf(EROFS, EPERM, EACCES)) << strerror(error);
  ::close(held);
}

TEST_F(RuntimeAttackTest, AProgramThatIsProcSelfExeGetsAReadOnlyRuntime) {
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/script"), "#!/proc/self/exe --version\n", 0755));
  ASSERT_EQ(::symlink("/proc/self/exe", rootfs("/link").c_str()), 0);
  auto before = sys::ReadFile(program_, 64 << 20);
  for (const char* program : {"/script", "/link", "/proc/self/exe"}) {
    spec_.process->args = {program, "features"};
    WriteConfig();
    (void)Runtime({"run", "--bundle", path("bundle"), "c"});
  }
  EXPECT_EQ(*sys::ReadFile(program_, 64 << 20), *before);
}

// Rule 12: what is masked by a link's path hides the target, inside the root only.
TEST_F(RuntimeAttackTest, MaskedPathsThatAreLinksStayInTheRoot) {
  ASSERT_OK(sys::WriteFileAtomically(path("secret"), "host secret\n"));
  ASSERT_EQ(::symlink(path("secret").c_str(), rootfs("/masked").c_str()), 0);
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/real"), "image secret\n"));
  ASSERT_EQ(::symlink("/real", rootfs("/alias").c_str()), 0);
  spec_.linux_.masked_paths.push_back("/masked");
  spec_.linux_.masked_paths.push_back("/alias");
  CommandResult result =
      RunScript("cat /real /alias; cat /proc/kcore | head -c 10; ls /sys/firmware");
  EXPECT_EQ(result.out, "") << result;
  EXPECT_EQ(*sys::ReadFile(path("secret")), "host secret\n");
}

TEST_F(RuntimeAttackTest, ReadOnlyPathsCannotBeWrittenOrMadeWritable) {
  CommandResult result = RunScript(
      "echo 1 >/proc/sys/kernel/panic; mount -o remount,rw /proc/sys; "
      "umount /proc/sys; echo 1 >/proc/sys/kernel/panic && echo written");
  EXPECT_THAT(result.out, Not(HasSubstr("written"))) << result;
}

// Rule 21: a device node that root in the container makes is of no use.
TEST_F(RuntimeAttackTest, DevicesThatAreNotAllowedCannotBeOpened) {
  // The host's own disk, which root could read.
  CommandResult disk = RunShell(
      "for d in /sys/block/*; do n=$(cat $d/dev) && head -c 1 /dev/${d##*/} >/dev/null 2>&1 && "
      "echo "
      "${n%:*} ${n#*:} && break; done");
  if (disk.out.empty()) GTEST_SKIP() << "needs a block device";
  disk.out.pop_back();
  CommandResult result = RunScript(absl::StrCat(
      "mknod /tmp/disk b ", disk.out, " 2>/dev/null; head -c 1 /tmp/disk >/dev/null && echo read"));
  EXPECT_EQ(result.out, "") << result;
  EXPECT_NE(result.code, 0);
}

// Rules 17, 18, 20.
TEST_F(RuntimeAttackTest, PrivilegesAreExactlyWhatWasAskedFor) {
  oci::Capabilities& sets = spec_.process->capabilities.emplace();
  sets.bounding = {"CAP_KILL", "CAP_CHOWN"};
  sets.permitted = sets.effective = {"CAP_KILL"};
  spec_.process->no_new_privileges = true;
  spec_.process->user = {.uid = 0, .gid = 0, .additional_gids = {5, 6}};
  CommandResult result = RunScript("grep -E 'Cap|NoNew|Seccomp:|Groups' /proc/self/status");
  EXPECT_THAT(result.out, HasSubstr("CapInh:\t0000000000000000"));
  EXPECT_THAT(result.out, HasSubstr("CapBnd:\t0000000000000021"));
  EXPECT_THAT(result.out, HasSubstr("CapAmb:\t0000000000000000"));
  EXPECT_THAT(result.out, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(result.out, HasSubstr("Seccomp:\t2"));
  EXPECT_THAT(result.out, HasSubstr("Groups:\t5 6"));
}

TEST_F(RuntimeAttackTest, AMissingCapabilitySetMeansNone) {
  spec_.process->capabilities.reset();
  CommandResult result = RunScript("grep CapBnd /proc/self/status; grep CapEff /proc/self/status");
  EXPECT_THAT(result.out, HasSubstr("CapBnd:\t0000000000000000"));
  EXPECT_THAT(result.out, HasSubstr("CapEff:\t0000000000000000"));
}

// Execve gives root its bounding set anyway; until then init has what was asked for.
TEST_F(RuntimeAttackTest, AWaitingInitHasOnlyItsCapabilities) {
  const std::vector<std::string> few = {"CAP_CHOWN", "CAP_KILL"};
  oci::Capabilities& sets = spec_.process->capabilities.emplace();
  sets.bounding = few;
  sets.effective = few;
  sets.permitted = few;
  spec_.process->args = {"/bin/sleep", "1000"};
  ASSERT_EQ(Create("c").code, 0) << Output();
  auto status = sys::ReadFile(absl::StrCat("/proc/", PidOf("c"), "/status"));
  ASSERT_OK(status);
  for (const char* set : {"CapPrm", "CapEff", "CapBnd"}) {
    EXPECT_THAT(*status, HasSubstr(absl::StrCat(set, ":\t0000000000000021\n")));
  }
  EXPECT_THAT(*status, HasSubstr("CapInh:\t0000000000000000\n"));
  EXPECT_THAT(*status, HasSubstr("CapAmb:\t0000000000000000\n"));
}

TEST_F(RuntimeAttackTest, MountIsDeniedToAnOrdinaryContainer) {
  CommandResult result = RunScript("mount -t tmpfs none /tmp && echo mounted");
  EXPECT_THAT(result.out, Not(HasSubstr("mounted"))) << result;
}

// Rule 10: mounts of the container are not the host's.
TEST_F(RuntimeAttackTest, MountsDoNotReachTheHost) {
  spec_.mounts.push_back({.destination = "/mnt-of-container", .type = "tmpfs", .source = "tmpfs"});
  StartScript("c", "sleep 1000");
  auto table = sys::ReadFile("/proc/self/mountinfo");
  ASSERT_OK(table);
  EXPECT_THAT(*table, Not(HasSubstr("mnt-of-container")));
}

// Rule 3: what enters the container cannot be traced or read from inside.
TEST_F(RuntimeAttackTest, AWaitingInitIsNotDumpable) {
  spec_.process->args = {"/bin/sleep", "1000"};
  spec_.process->user = {.uid = 1000, .gid = 1000};
  ASSERT_EQ(Create("c").code, 0) << Output();
  struct stat info = {};
  ASSERT_EQ(::stat(absl::StrCat("/proc/", PidOf("c"), "/environ").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0u) << "files of an undumpable process belong to root";
}

// Rule 5: a record whose pid is somebody else's by now does not kill that one.
TEST_F(RuntimeAttackTest, AReusedPidIsNotSignalled) {
  // Older than the container by some ticks of the clock that start times are counted in.
  CommandResult other = RunShell("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; sleep 0.05");
  StartScript("c", "sleep 1000");
  const std::string pid = std::string(absl::StripSuffix(other.out, "\n"));
  auto record = sys::ReadFile(path("state/c/state.json"));
  ASSERT_OK(record);
  const std::string old = absl::StrCat("\"pid\":", PidOf("c"));
  const int real = PidOf("c");
  std::string forged = *record;
  forged.replace(forged.find(old), old.size(), absl::StrCat("\"pid\":", pid));
  ASSERT_OK(sys::WriteFileAtomically(path("state/c/state.json"), forged));

  EXPECT_NE(Runtime({"kill", "c", "KILL"}).code, 0);
  EXPECT_EQ(RunShell("kill -0 " + pid).code, 0) << "the innocent one lives";

  RunShell("kill -9 " + pid);
  ::kill(real, SIGKILL);
}

}  // namespace
}  // namespace gantry::testing
