// `gantryctl run` as people use it: what the program sees inside.

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::StartsWith;

class RunTest : public testing::SuiteTest {};

TEST_F(RunTest, PrintsWhatTheProgramPrints) {
  const CommandResult result = Run({}, {"sh", "-c", "echo out; echo err >&2"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
}

TEST_F(RunTest, ExitCodesComeThrough) {
  EXPECT_EQ(Run({}, {"sh", "-c", "exit 42"}).code, 42);
  EXPECT_EQ(Run({"--init"}, {"sh", "-c", "kill -9 $$"}).code, 137);
  EXPECT_EQ(Run({"--init"}, {"no-such-program"}).code, 127);
  EXPECT_EQ(Run({}, {"sh", "-c", "kill -15 $$"}).code, 0) << "pid 1 ignores TERM without a handler";
}

TEST_F(RunTest, ErrorsHaveDockersExitCodes) {
  const CommandResult missing = Run({}, {"no-such-program"});
  EXPECT_EQ(missing.code, 127) << missing;
  EXPECT_THAT(missing.err, HasSubstr("executable file not found"));
  EXPECT_EQ(Run({}, {"/etc/passwd"}).code, 126);
  EXPECT_EQ(Run({}, {"/etc"}).code, 126);
  const CommandResult flag = Ctl({"run", "--frobnicate", Image()});
  EXPECT_EQ(flag.code, 125) << flag;
  const CommandResult image = Ctl({"run", "--rm", registry_->address() + "/no/such:image", "true"});
  EXPECT_EQ(image.code, 125) << image;
  EXPECT_THAT(image.err, HasSubstr("Unable to find image"));
}

TEST_F(RunTest, StdinIsGivenAndEnds) {
  CommandOptions options;
  options.input = "one\ntwo\n";
  const CommandResult result = Run({"-i"}, {"cat"}, options);
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "one\ntwo\n");
}

TEST_F(RunTest, MegabytesComeThroughWhole) {
  const CommandResult result =
      Run({}, {"sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' 'x'"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.size(), 8u << 20);
}

TEST_F(RunTest, NamespacesAreItsOwn) {
  const CommandResult result = Run(
      {"--hostname", "web"},
      {"sh", "-c",
       "hostname; echo $$; cat /proc/self/cgroup; ps | wc -l; mount | head -1; ls /sys/class/net"});
  EXPECT_EQ(result.code, 0) << result;
  const std::vector<std::string> lines = Lines(result.out);
  ASSERT_GT(lines.size(), 3u);
  EXPECT_EQ(lines[0], "web");
  EXPECT_EQ(lines[1], "1");
  EXPECT_THAT(result.out, HasSubstr("overlay on / type overlay"));
  EXPECT_THAT(lines[2], ContainsRegex(":/$"));
  EXPECT_THAT(result.out, AllOf(HasSubstr("eth0"), HasSubstr("lo")));
}

TEST_F(RunTest, HostnameDefaultsToTheShortId) {
  const std::string id = RunDetached({}, {"sleep", "600"});
  EXPECT_EQ(id.size(), 64u);
  const CommandResult result = Ctl({"exec", id, "hostname"});
  EXPECT_EQ(absl::StripAsciiWhitespace(result.out), id.substr(0, 12)) << result;
}

TEST_F(RunTest, TheDefaultsAreSafe) {
  const CommandResult result =
      Run({}, {"sh", "-c",
               "grep -E 'Cap(Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp:' /proc/1/status;"
               "ls -la /proc/self/fd | wc -l;"
               "cat /proc/kcore 2>&1 | head -c 1 | wc -c; ls /proc/acpi 2>&1 | wc -l;"
               "echo x > /proc/sys/kernel/hostname && echo WRITABLE;"
               "mount -t tmpfs none /mnt 2>&1; mknod /tmp/sda b 8 0 && "
               "cat /tmp/sda 2>&1 | head -c 100"});
  EXPECT_THAT(result.out, HasSubstr("CapEff:\t00000000a80425fb"));
  EXPECT_THAT(result.out, HasSubstr("CapBnd:\t00000000a80425fb"));
  EXPECT_THAT(result.out, HasSubstr("CapInh:\t0000000000000000"));
  EXPECT_THAT(result.out, HasSubstr("Seccomp:\t2"));
  EXPECT_THAT(result.out, Not(HasSubstr("WRITABLE")));
  EXPECT_THAT(result.out, ContainsRegex("(not permitted|denied)"));
}

TEST_F(RunTest, UsersAreResolvedFromTheImage) {
  EXPECT_EQ(Run({"-u", "app"}, {"id", "-u"}).out, "1000\n");
  EXPECT_EQ(Run({"-u", "app"}, {"id", "-G"}).out, "1000 29\n");
  EXPECT_EQ(Run({"-u", "123:456"}, {"sh", "-c", "id -u; id -g"}).out, "123\n456\n");
  EXPECT_EQ(Run({"-u", "app:audio"}, {"id", "-g"}).out, "29\n");
  const CommandResult nobody = Run({"-u", "no-such-user"}, {"id"});
  EXPECT_NE(nobody.code, 0);
  EXPECT_THAT(nobody.err, HasSubstr("no-such-user"));
}

TEST_F(RunTest, EnvironmentAndWorkingDirectory) {
  const CommandResult result =
      Run({"-e", "A=1", "-e", "FROM_CALLER", "-w", "/var/made"},
          {"sh", "-c", "echo $A $FROM_CALLER; pwd; echo $PATH"}, {"", {"FROM_CALLER=yes"}});
  EXPECT_EQ(result.out,
            "1 yes\n/var/made\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")
      << result;
}

TEST_F(RunTest, LimitsReachTheCgroup) {
  const CommandResult result =
      Run({"-m", "64m", "--pids-limit", "50", "--cpus", "0.5"},
          {"sh", "-c",
           "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null;"
           "cat pids/pids.max pids.max 2>/dev/null; cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null"});
  EXPECT_THAT(result.out, HasSubstr("67108864")) << result;
  EXPECT_THAT(result.out, HasSubstr("50\n")) << result;
  EXPECT_THAT(result.out, HasSubstr("50000")) << result;
}

TEST_F(RunTest, OutOfMemoryIsSeenAndSaid) {
  const std::string id = RunDetached({"-m", "32m", "--memory-swap", "32m"},
                                     {"sh", "-c", "a=x; while true; do a=$a$a$a$a; done"});
  const CommandResult wait = Ctl({"wait", id});
  EXPECT_EQ(wait.out, "137\n") << wait;
  EXPECT_TRUE(Eventually("[ \"$($CTL inspect -f '{{.State.OOMKilled}}' " + id + ")\" = true ]"));
}

TEST_F(RunTest, TooManyProcessesAreRefused) {
  const CommandResult result =
      Run({"--pids-limit", "5"}, {"sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"});
  EXPECT_THAT(result.err, HasSubstr("fork")) << result;
}

TEST_F(RunTest, ReadOnlyRootAndTmpfs) {
  const CommandResult result =
      Run({"--read-only", "--tmpfs", "/run:size=1m"},
          {"sh", "-c", "touch /x; touch /run/y && echo tmpfs; df /run | tail -1"});
  EXPECT_THAT(result.err, HasSubstr("Read-only file system")) << result;
  EXPECT_THAT(result.out, AllOf(HasSubstr("tmpfs"), HasSubstr("1024")));
}

TEST_F(RunTest, DevicesAreTheStandardOnes) {
  const CommandResult result =
      Run({}, {"sh", "-c", "ls /dev | tr '\\n' ' '; head -c 4 /dev/urandom | wc -c"});
  for (const char* device : {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm",
                             "mqueue", "fd", "stdin", "stdout", "stderr", "ptmx"}) {
    EXPECT_THAT(result.out, HasSubstr(device)) << result;
  }
  EXPECT_THAT(result.out, HasSubstr("4\n"));
}

TEST_F(RunTest, CapabilitiesAndPrivileged) {
  EXPECT_THAT(Run({"--cap-drop", "ALL"}, {"grep", "CapEff", "/proc/self/status"}).out,
              HasSubstr("0000000000000000"));
  EXPECT_THAT(Run({"--cap-add", "NET_ADMIN"}, {"ip", "link", "set", "lo", "mtu", "1400"}).code, 0);
  const CommandResult privileged = Run({"--privileged"}, {"mount", "-t", "tmpfs", "none", "/tmp"});
  EXPECT_EQ(privileged.code, 0) << privileged;
  const CommandResult unknown = Run({"--cap-add", "FLY"}, {"true"});
  EXPECT_EQ(unknown.code, 125) << unknown;
}

TEST_F(RunTest, UlimitsSysctlsAndShm) {
  const CommandResult result =
      Run({"--ulimit", "nofile=123:456", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99",
           "--shm-size", "2m"},
          {"sh", "-c",
           "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; df -k "
           "/dev/shm | tail -1"});
  EXPECT_THAT(result.out, StartsWith("123\n456\n99\n")) << result;
  EXPECT_THAT(result.out, HasSubstr("2048"));
  EXPECT_EQ(Run({"--sysctl", "kernel.panic=1"}, {"true"}).code, 125);
}

TEST_F(RunTest, AnInitReapsOrphans) {
  const CommandResult result = Run(
      {"--init"},
      {"sh", "-c", "(sleep 0.1 &) ; sleep 0.5; ps -o pid,stat,comm | grep -c Z; cat /proc/1/comm"});
  EXPECT_THAT(result.out, StartsWith("0\n")) << result;
  EXPECT_THAT(result.out, Not(HasSubstr("sh\n"))) << result;
}

TEST_F(RunTest, TimingTellsTheSteps) {
  const absl::Time began = absl::Now();
  const CommandResult result = Run({"--timing"}, {"true"});
  const absl::Duration wall = absl::Now() - began;
  EXPECT_EQ(result.code, 0) << result;
  // The steps of the whole command add up; those of the engine and the shim lie within them.
  double sum = 0, total = 0;
  std::set<std::string> steps;
  for (const std::string& line : Lines(result.err)) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    double milliseconds = 0;
    if (words.size() != 3 || !absl::SimpleAtod(words[1], &milliseconds)) continue;
    steps.insert(words[0]);
    if (words[0] == "total") {
      total = milliseconds;
    } else if (!absl::StartsWith(line, " ")) {
      sum += milliseconds;
    }
  }
  EXPECT_THAT(steps, IsSupersetOf({"client", "request", "create", "task_run", "clone", "session",
                                   "removal", "total"}))
      << result;
  EXPECT_NEAR(total, sum, 0.01) << result;
  EXPECT_GT(total, 0);
  EXPECT_LT(total, absl::ToDoubleMilliseconds(wall)) << result;
}

TEST_F(RunTest, CidfileNameAndDuplicateNames) {
  const std::string file = suite_->root() + "/cid";
  EXPECT_EQ(Ctl({"run", "-d", "--cidfile", file, "--name", "twin", Image(), "sleep", "600"}).code,
            0);
  const CommandResult again = Ctl({"run", "-d", "--name", "twin", Image(), "true"});
  EXPECT_EQ(again.code, 125) << again;
  EXPECT_THAT(again.err, HasSubstr("is already in use by container"));
  EXPECT_EQ(absl::StripAsciiWhitespace(testing::RunCommand({"cat", file}).out),
            Inspect("twin", "{{.Id}}"));
  (void)testing::RunCommand({"rm", file});
}

TEST_F(RunTest, PullsAMissingImage) {
  ASSERT_OK(registry_->Push("fresh", 1, 1));
  const std::string name = registry_->address() + "/fresh:latest";
  const CommandResult never = Ctl({"run", "--rm", "--pull", "never", name, "true"});
  EXPECT_EQ(never.code, 125) << never;
  const CommandResult result = Ctl({"run", "--rm", name, "ls", "/data/0/0"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "/data/0/0\n");
  EXPECT_THAT(result.err, HasSubstr("Unable to find image"));
  EXPECT_EQ(Ctl({"rmi", name}).code, 0);
}

TEST_F(RunTest, BadInputIsNamed) {
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{{"-m", "many"},
                                             {"-p", "99999:1"},
                                             {"-v", "relative:path:zz"},
                                             {"--name", "../x"},
                                             {"--network", "no-such-network"},
                                             {"--restart", "sometimes"},
                                             {"-e", ""},
                                             {"--cpus", "-1"}}) {
    const CommandResult result = Run(bad, {"true"});
    EXPECT_EQ(result.code, 125) << absl::StrCat(bad[0], " ", bad[1]) << "\n" << result;
    EXPECT_FALSE(result.err.empty());
  }
}

}  // namespace
}  // namespace gantry
