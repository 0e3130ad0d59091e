// Further processes in a container that runs.
#include "absl/strings/str_cat.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RuntimeExecTest : public RuntimeTest {};

TEST_F(RuntimeExecTest, RunsInTheContainerWithItsOwnSettings) {
  spec_.hostname = "inside";
  StartScript("c", "sleep 1000");
  CommandResult result =
      Runtime({"exec", "--user", "1000:1001", "-e", "X=y", "--cwd", "/tmp", "c", "/bin/sh", "-c",
               "id; pwd; echo $X; cat /proc/sys/kernel/hostname; exit 9"});
  EXPECT_EQ(result.code, 9) << result;
  EXPECT_EQ(result.out, "uid=1000 gid=1001\n/tmp\ny\ninside\n");
}

TEST_F(RuntimeExecTest, SeesTheContainersProcessesAndCgroup) {
  StartScript("c", "sleep 1000");
  CommandResult result =
      Runtime({"exec", "c", "/bin/sh", "-c", "ls -d /proc/1; cat /proc/self/cgroup"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("/proc/1"));
  auto layout = cgroup::Layout::Detect();
  ASSERT_OK(layout);
  EXPECT_THAT(result.out, HasSubstr(layout->mode == cgroup::Mode::kV2 ? "0::/\n" : ":pids:/\n"))
      << "the root of the container's cgroup namespace";
}

TEST_F(RuntimeExecTest, TakesAProcessDocumentAndDetaches) {
  StartScript("c", "sleep 1000");
  oci::Process process;
  process.args = {"/bin/sleep", "500"};
  process.env = {"PATH=/bin"};
  ASSERT_OK(sys::WriteFileAtomically(path("process.json"), oci::WriteProcess(process)));
  CommandResult result = RunShell(absl::StrCat(
      program_, " --root ", path("state"), " exec --detach --process ", path("process.json"),
      " --pid-file ", path("pid"), " c </dev/null >/dev/null 2>&1"));
  EXPECT_EQ(result.code, 0) << result;
  auto pid = sys::ReadFile(path("pid"));
  ASSERT_OK(pid);
  EXPECT_THAT(Runtime({"ps", "--format", "json", "c"}).out, HasSubstr(*pid));
}

TEST_F(RuntimeExecTest, RefusesWhatCannotWork) {
  StartScript("c", "sleep 1000");
  CommandResult missing = Runtime({"exec", "c", "nonesuch"});
  EXPECT_EQ(missing.code, 255);
  EXPECT_THAT(missing.err, HasSubstr("exec: \"nonesuch\": executable file not found in $PATH"));
  EXPECT_EQ(Runtime({"exec", "c"}).code, 255);
  EXPECT_EQ(Runtime({"exec", "--user", "root", "c", "/bin/true"}).code, 255)
      << "only numbers are users";
  EXPECT_EQ(Runtime({"exec", "--user", "4294967295", "c", "/bin/true"}).code, 255);
  ASSERT_EQ(Runtime({"pause", "c"}).code, 0);
  CommandResult paused = Runtime({"exec", "c", "/bin/true"});
  EXPECT_THAT(paused.err, HasSubstr("paused container"));
  ASSERT_EQ(Runtime({"resume", "c"}).code, 0);
  ASSERT_EQ(Runtime({"kill", "c", "KILL"}).code, 0);
  ASSERT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
  CommandResult stopped = Runtime({"exec", "c", "/bin/true"});
  EXPECT_EQ(stopped.code, 255);
  EXPECT_THAT(stopped.err, HasSubstr("cannot exec in a stopped container"));
}

TEST_F(RuntimeExecTest, HasTheContainersKeyringNotOurs) {
  if (!sys::Exists("/proc/keys")) GTEST_SKIP() << "needs a kernel with keyrings";
  spec_.linux_.masked_paths.clear();
  StartScript("c", "cat /proc/keys; sleep 1000");
  EXPECT_TRUE(Eventually([&] { return Output().find("_ses.c") != std::string::npos; })) << Output();
  CommandResult result = Runtime({"exec", "c", "/bin/cat", "/proc/keys"});
  EXPECT_THAT(result.out, HasSubstr("_ses.c"));
}

TEST_F(RuntimeExecTest, EntersAUserNamespaceAsItsRoot) {
  spec_.linux_.namespaces.push_back({"user"});
  spec_.linux_.uid_mappings =
      spec_.linux_.gid_mappings = {{.container_id = 0, .host_id = 100000, .size = 65536}};
  spec_.process->no_new_privileges = true;
  StartScript("c", "sleep 1000");
  CommandResult result =
      Runtime({"exec", "c", "/bin/sh", "-c", "id; cat /proc/self/uid_map; ls -d /proc/1"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("uid=0 gid=0"));
  EXPECT_THAT(result.out, HasSubstr("100000"));
}

}  // namespace
}  // namespace gantry::testing
