// How a program runs beside others: scheduler, I/O priority, affinity, memory policy, personality,
// looked at from outside, by the process's pid.
#include <linux/ioprio.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RuntimePrioritiesTest : public RuntimeTest {
 protected:
  // A detached exec of `sleep` with these properties; its pid.
  int ExecSleep(const std::string& properties) {
    EXPECT_OK(sys::WriteFileAtomically(
        path("process.json"),
        absl::StrCat(R"({"args":["/bin/sleep","1000"],"cwd":"/","user":{"uid":0,"gid":0})",
                     properties, "}")));
    CommandResult result = RunShell(absl::StrCat(
        program_, " --root ", path("state"), " exec --process ", path("process.json"),
        " --detach --pid-file ", path("exec.pid"), " c </dev/null >", path("exec.out"), " 2>&1"));
    EXPECT_EQ(result.code, 0) << result;
    int pid = 0;
    EXPECT_TRUE(absl::SimpleAtoi(*sys::ReadFile(path("exec.pid")), &pid));
    return pid;
  }

  static std::string CpusOf(int pid) {
    cpu_set_t set;
    std::string text;
    if (::sched_getaffinity(pid, sizeof set, &set) != 0) return "?";
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) absl::StrAppend(&text, text.empty() ? "" : ",", i);
    }
    return text;
  }
  static long IoPriorityOf(int pid) { return ::syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid); }
};

TEST_F(RuntimePrioritiesTest, TheSchedulersPolicyAndNiceness) {
  spec_.process->scheduler = oci::Scheduler{.policy = "SCHED_BATCH", .nice = 5};
  StartScript("c", "sleep 1000");
  EXPECT_EQ(::sched_getscheduler(PidOf("c")), SCHED_BATCH);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(PidOf("c"))), 5);
  const int pid = ExecSleep(R"(,"scheduler":{"policy":"SCHED_IDLE"})");
  EXPECT_EQ(::sched_getscheduler(pid), SCHED_IDLE);
}

TEST_F(RuntimePrioritiesTest, TheIoPriority) {
  spec_.process->io_priority = oci::IoPriority{.priority_class = "IOPRIO_CLASS_BE", .priority = 6};
  StartScript("c", "sleep 1000");
  EXPECT_EQ(IoPriorityOf(PidOf("c")), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6));
  const int pid = ExecSleep(R"(,"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0})");
  EXPECT_EQ(IoPriorityOf(pid), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

TEST_F(RuntimePrioritiesTest, AnExecsAffinityIsTheFinalOne) {
  if (::sysconf(_SC_NPROCESSORS_ONLN) < 2) GTEST_SKIP() << "needs two processors";
  StartScript("c", "sleep 1000");
  EXPECT_EQ(CpusOf(ExecSleep(R"(,"execCPUAffinity":{"initial":"0","final":"1"})")), "1");
  EXPECT_EQ(CpusOf(ExecSleep(R"(,"execCPUAffinity":{"initial":"0"})")), "0");
  EXPECT_EQ(CpusOf(ExecSleep("")), CpusOf(::getpid())) << "none asked for";
}

TEST_F(RuntimePrioritiesTest, TheMemoryPolicy) {
  if (!sys::Exists("/proc/self/numa_maps")) GTEST_SKIP() << "needs a kernel with NUMA";
  spec_.linux_.memory_policy =
      oci::MemoryPolicy{.mode = "MPOL_BIND", .nodes = "0", .flags = {"MPOL_F_STATIC_NODES"}};
  StartScript("c", "sleep 1000");
  auto maps = sys::ReadFile(absl::StrCat("/proc/", PidOf("c"), "/numa_maps"));
  ASSERT_OK(maps);
  EXPECT_THAT(*maps, HasSubstr(" bind=static:0 "));
}

TEST_F(RuntimePrioritiesTest, AMemoryPolicyThatTheKernelRefusesIsNamed) {
  spec_.linux_.memory_policy = oci::MemoryPolicy{.mode = "MPOL_BIND", .nodes = "900"};
  CommandResult result = RunScript("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("MPOL_BIND"));
}

TEST_F(RuntimePrioritiesTest, ThePersonality) {
  spec_.linux_.personality = oci::Personality{.domain = "LINUX32"};
  StartScript("c", "sleep 1000");
  auto text = sys::ReadFile(absl::StrCat("/proc/", PidOf("c"), "/personality"));
  ASSERT_OK(text);
  EXPECT_EQ(absl::StripAsciiWhitespace(*text), "00000008");
  // And in processes that come later.
  EXPECT_THAT(Runtime({"exec", "c", "uname", "-m"}).out, HasSubstr("i686"));
}

}  // namespace
}  // namespace gantry::testing
