// The shim binary through whole lives of containers, with our runtime and with runc.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/testing/status_matchers.h"
#include "shim/exit_record.h"
#include "shim/testing/shim_test_fixture.h"

namespace gantry::shim {
namespace {

using ::gantry::testing::Fails;
using testing::BuiltBinary;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Exited;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using testing::ShimHarness;
using testing::ShimTest;

TEST_P(ShimTest, AWholeLife) {
  Begin("web", {"sh", "-c", "echo out; echo err >&2; exit 7"}, {"", LogUri(), LogUri()});
  EXPECT_EQ(shim_.State("web").value(), TaskStatus::kCreated);

  ASSERT_OK(shim_.Start("web"));
  const Exited exited = shim_.Wait("web").value();
  EXPECT_EQ(exited.code, 7);
  EXPECT_GT(exited.time, absl::Now() - absl::Minutes(1));
  EXPECT_EQ(shim_.State("web").value(), TaskStatus::kStopped);
  EXPECT_EQ(ReadExitRecord(ExitRecordPath(shim_.BundleOf("web"))).value().code, 7);
  EXPECT_EQ(shim_.Delete("web").value().code, 7);
  EXPECT_THAT(shim_.Delete("web"), Fails(absl::StatusCode::kNotFound, "web"));

  EXPECT_THAT(Log(), HasSubstr("{\"log\":\"out\\n\",\"stream\":\"stdout\",\"time\":\""));
  EXPECT_THAT(Log(), HasSubstr("{\"log\":\"err\\n\",\"stream\":\"stderr\",\"time\":\""));
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/delete"));
  EXPECT_THAT(shim_.daemon().topics(),
              ElementsAre("/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"));
  EXPECT_EQ(shim_.daemon().events()[0].ns, "test");
  EXPECT_EQ(shim_.daemon().events()[2].type_url, "containerd.events.TaskExit");
  const int pid = shim_.ShimPid("web").value();
  ASSERT_OK(shim_.Shutdown("web"));
  EXPECT_TRUE(Eventually([&] { return ::kill(pid, 0) != 0; }));
  EXPECT_FALSE(sys::Exists(absl::string_view(shim_.address()).substr(7).data()));
}

TEST_P(ShimTest, ACreatedContainerCanBeDeleted) {
  Begin("web", {"sleep", "100"});
  EXPECT_EQ(shim_.Delete("web").value().code, 137);
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/delete"));
  EXPECT_THAT(shim_.daemon().topics(),
              ElementsAre("/tasks/create", "/tasks/exit", "/tasks/delete"));
}

TEST_P(ShimTest, ARunningContainerCannotBeDeletedButKilled) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  EXPECT_THAT(shim_.Delete("web"), Fails(absl::StatusCode::kFailedPrecondition, "running"));
  EXPECT_THAT(shim_.Start("web"), Fails(absl::StatusCode::kFailedPrecondition, "web"));
  ASSERT_OK(shim_.Kill("web", SIGKILL));
  EXPECT_EQ(shim_.Wait("web").value().code, 137);
  EXPECT_THAT(shim_.Kill("web", SIGKILL),
              Fails(absl::StatusCode::kNotFound, "process already finished"));
  EXPECT_EQ(ReadExitRecord(ExitRecordPath(shim_.BundleOf("web"))).value().reason, "signalled");
  EXPECT_OK(shim_.Delete("web"));
}

TEST_P(ShimTest, ExecsHaveTheirOwnLives) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(
      shim_.Exec("web", "probe", {"sh", "-c", "echo hello; exit 3"}, {"", LogUri(), LogUri()}));
  EXPECT_THAT(shim_.Exec("web", "probe", {"true"}),
              Fails(absl::StatusCode::kAlreadyExists, "probe"));
  EXPECT_EQ(shim_.State("web", "probe").value(), TaskStatus::kCreated);

  ASSERT_GT(shim_.Start("web", "probe").value(), 0);
  EXPECT_EQ(shim_.Wait("web", "probe").value().code, 3);
  EXPECT_EQ(shim_.Delete("web", "probe").value().code, 3);

  EXPECT_THAT(Log(), HasSubstr("hello\\n"));
  EXPECT_THAT(shim_.State("web", "probe"), Fails(absl::StatusCode::kNotFound, "probe"));
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/delete"));
  EXPECT_THAT(shim_.daemon().topics(),
              ElementsAre("/tasks/create", "/tasks/start", "/tasks/exec-added",
                          "/tasks/exec-started", "/tasks/exit", "/tasks/delete"));
  ASSERT_OK(shim_.Kill("web", SIGKILL));
}

TEST_P(ShimTest, AnExecThatCannotStartSaysWhy) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Exec("web", "x", {"/no/such/program"}));
  const auto started = shim_.Start("web", "x");
  EXPECT_FALSE(started.ok());
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("/no/such/program"));
  EXPECT_OK(shim_.Delete("web", "x"));
  EXPECT_EQ(shim_.State("web").value(), TaskStatus::kRunning);
}

TEST_P(ShimTest, ACreateThatFailsLeavesNothing) {
  ASSERT_OK(shim_.MakeBundle("web", {"/no/such/program"}));
  ASSERT_OK(shim_.StartShim("web"));
  const auto created = shim_.Create("web");
  // A foreign runtime may look for the program only at start.
  const absl::Status status = created.ok() ? shim_.Start("web").status() : created.status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/program"));
  if (!created.ok()) {
    EXPECT_THAT(shim_.State("web"), Fails(absl::StatusCode::kNotFound, "web"));
  }
}

TEST_P(ShimTest, TheExitOfInitIsTheLast) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Exec("web", "a", {"sleep", "50"}));
  ASSERT_OK(shim_.Start("web", "a"));
  ASSERT_OK(shim_.Kill("web", SIGKILL));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/exit", 2));
  const auto events = shim_.daemon().events();
  // TaskExit: 1 container id, 2 process id.
  EXPECT_THAT(events[events.size() - 2].payload, HasSubstr("\x12\x01"
                                                           "a"));
  EXPECT_THAT(events.back().payload, HasSubstr("\x12\x03web"));
  EXPECT_THAT(shim_.Exec("web", "b", {"true"}),
              Fails(absl::StatusCode::kFailedPrecondition, "web"));
}

TEST_P(ShimTest, WithoutAPidNamespaceAllProcessesEndWithInit) {
  Begin("web", {"sh", "-c", "sleep 100 & sleep 0.2"}, {}, [](oci::Spec& spec) {
    auto& namespaces = spec.linux_.namespaces;
    namespaces.erase(std::remove_if(namespaces.begin(), namespaces.end(),
                                    [](const oci::Namespace& n) { return n.type == "pid"; }),
                     namespaces.end());
  });
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  EXPECT_OK(shim_.Delete("web"));
}

TEST_P(ShimTest, PauseAndResume) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Simple("Pause", "web"));
  EXPECT_EQ(shim_.State("web").value(), TaskStatus::kPaused);
  EXPECT_THAT(shim_.Exec("web", "x", {"true"}),
              Fails(absl::StatusCode::kFailedPrecondition, "paused"));
  ASSERT_OK(shim_.Simple("Resume", "web"));
  EXPECT_EQ(shim_.State("web").value(), TaskStatus::kRunning);
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/resumed"));
  EXPECT_THAT(shim_.daemon().topics(), IsSupersetOf({"/tasks/paused", "/tasks/resumed"}));
  EXPECT_OK(shim_.Simple("Stats", "web"));
  EXPECT_OK(shim_.Simple("Pids", "web"));
}

TEST_P(ShimTest, TheShimsLogGoesToTheDaemonsFifo) {
  ASSERT_OK(shim_.MakeBundle("web", {"true"}));
  ASSERT_OK(shim_.StartShim("web"));
  ASSERT_FALSE(shim_.Create("web", {"", "gantry-log:///no/such/directory/log", ""}).ok());
  const sys::UniqueFd fifo =
      sys::Open(absl::StrCat(shim_.BundleOf("web"), "/log"), O_RDONLY | O_NONBLOCK).value();
  char text[4096];
  const ssize_t got = ::read(fifo.get(), text, sizeof text);
  ASSERT_GT(got, 0);
  EXPECT_THAT(std::string(text, static_cast<size_t>(got)),
              HasSubstr("create failed container=web"));
  EXPECT_EQ(sys::ReadFile(absl::StrCat(shim_.BundleOf("web"), "/address")).value(),
            shim_.address());
}

TEST_P(ShimTest, StepsAreTimed) {
  Begin("web", {"true"});
  ASSERT_FALSE(shim_.timings().empty());
  EXPECT_EQ(shim_.timings().front().first, "shim.mount");
  EXPECT_EQ(shim_.timings().back().first, "shim.create");
  EXPECT_GT(shim_.timings().back().second, 0);
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.timings().back().first, "shim.start");
}

TEST_P(ShimTest, ManyExecsLeaveNothingBehind) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  const int pid = shim_.ShimPid("web").value();
  const auto descriptors = [&] {
    return sys::ListDirectory(absl::StrCat("/proc/", pid, "/fd")).value().size();
  };
  const size_t before = descriptors();
  for (int i = 0; i < 50; ++i) {
    const std::string exec_id = absl::StrCat("e", i);
    ASSERT_OK(shim_.Exec("web", exec_id, {"echo", "x"}, {"", LogUri("stdin=1"), ""}));
    ASSERT_OK(shim_.Start("web", exec_id));
    ASSERT_OK(shim_.Wait("web", exec_id));
    ASSERT_OK(shim_.Delete("web", exec_id));
  }
  EXPECT_EQ(descriptors(), before);
  EXPECT_LE(before, 20u);
  EXPECT_EQ(
      sys::ReadFile(absl::StrCat("/proc/", pid, "/task/", pid, "/children")).value(),
      absl::StrCat(sys::ReadFile(absl::StrCat(shim_.BundleOf("web"), "/init.pid")).value(), " "));
}

TEST_P(ShimTest, KillingTheShimLeavesTheRestToDelete) {
  Begin("web", {"sleep", "100"});
  const int init = shim_.Start("web").value();
  const int pid = shim_.ShimPid("web").value();
  ASSERT_EQ(::kill(pid, SIGKILL), 0);

  const Exited exited = shim_.RunDelete("web").value();

  EXPECT_EQ(exited.code, 137);
  // Reaped by whoever inherited it; at least it does not run any more.
  const std::string state = sys::ReadFile(absl::StrCat("/proc/", init, "/stat")).value_or(") Z");
  EXPECT_THAT(state, HasSubstr(") Z"));
  EXPECT_FALSE(sys::Exists(shim_.address().substr(7)));
  EXPECT_OK(shim_.RunDelete("web"));
}

TEST_P(ShimTest, EventsWaitForADaemonThatIsAway) {
  Begin("web", {"sh", "-c", "exit 9"});
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/create"));
  shim_.daemon().Stop();
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 9);

  shim_.daemon().Start();

  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/exit"));
  EXPECT_THAT(shim_.daemon().topics(), ElementsAre("/tasks/create", "/tasks/start", "/tasks/exit"));
}

TEST_P(ShimTest, TheMountListBecomesTheRoot) {
  ASSERT_OK(shim_.MakeBundle("web", {"cat", "/etc/mark"}));
  const std::string image = absl::StrCat(shim_.root(), "/image");
  ASSERT_EQ(::rename(absl::StrCat(shim_.BundleOf("web"), "/rootfs").c_str(), image.c_str()), 0);
  ASSERT_OK(sys::WriteFileAtomically(absl::StrCat(image, "/etc/mark"), "lower", 0644));
  ASSERT_OK(sys::MakeDirectories(absl::StrCat(shim_.BundleOf("web"), "/rootfs"), 0711));
  ASSERT_OK(shim_.StartShim("web"));
  std::string payload;
  pb::Writer writer(&payload);
  writer.String(1, "web");
  writer.String(2, shim_.BundleOf("web"));
  WriteMount(writer, 3, {"bind", image, "", {"rbind", "ro"}});
  writer.String(6, LogUri());
  if (*GetParam() != '\0') {
    std::string options;
    pb::Writer(&options).String(6, GetParam());
    WriteAny(writer, 10, "containerd.runc.v1.Options", options);
  }
  ASSERT_OK(shim_.Call("Create", payload));
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_THAT(Log(), HasSubstr("lower"));
  EXPECT_THAT(sys::MountPointsBelow(absl::StrCat(shim_.BundleOf("web"), "/rootfs")).value(),
              ::testing::IsEmpty());
}

TEST_P(ShimTest, TheProgramInheritsNothingOfTheShim) {
  const std::vector<std::string> look = {
      "sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"};
  Begin("web", {"sh", "-c", absl::StrCat(look[2], "; sleep 100")}, {"", LogUri(), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Exec("web", "e", look, {"", LogUri(), ""}));
  ASSERT_OK(shim_.Start("web", "e"));
  ASSERT_OK(shim_.Wait("web", "e"));
  ASSERT_OK(shim_.Delete("web", "e"));
  // Init looked at itself meanwhile; it is not to be killed before it has said what it saw.
  EXPECT_TRUE(Eventually([&] {
    const std::string so_far = Log();
    return std::count(so_far.begin(), so_far.end(), '\n') >= 6;
  }));
  ASSERT_OK(shim_.Kill("web", SIGKILL));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  const std::string log = Log();
  // Once each for init and exec: no signal blocked or ignored, and 0, 1, 2 and ls's own descriptor.
  size_t blocked = 0, ignored = 0, descriptors = 0;
  for (absl::string_view line : absl::StrSplit(log, '\n')) {
    blocked += absl::StrContains(line, "SigBlk:\\t0000000000000000");
    ignored += absl::StrContains(line, "SigIgn:\\t0000000000000000");
    descriptors += absl::StrContains(line, "{\"log\":\"4\\n");
  }
  EXPECT_EQ(blocked, 2u) << log;
  EXPECT_EQ(ignored, 2u) << log;
  EXPECT_EQ(descriptors, 2u) << log;
}

TEST_P(ShimTest, UnknownThingsHaveTheRightCodes) {
  Begin("web", {"sleep", "100"});
  EXPECT_THAT(shim_.Simple("State", "nobody"), Fails(absl::StatusCode::kNotFound, "nobody"));
  EXPECT_OK(shim_.Simple("Connect", "nobody"));
  EXPECT_THAT(shim_.Simple("Dance", "web"), Fails(absl::StatusCode::kUnimplemented, "Dance"));
  EXPECT_THAT(shim_.Simple("Checkpoint", "web"), Fails(absl::StatusCode::kUnimplemented, "CRIU"));
  EXPECT_THAT(shim_.Call("State", "\xff\xff"),
              Fails(absl::StatusCode::kInvalidArgument, "malformed"));
  EXPECT_THAT(shim_.Create("web"), Fails(absl::StatusCode::kAlreadyExists, "web"));
  EXPECT_OK(shim_.client().Call("containerd.task.v3.Task", "Connect", "", {}, absl::Seconds(5)));
}

// What `name` has in one of the files of /proc that hold "Name:  123 kB" lines.
int64_t NumberIn(const std::string& path, absl::string_view name) {
  const std::string text = sys::ReadFile(path).value_or("");
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, absl::StrCat(name, ":"))) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    int64_t number = -1;
    return !words.empty() && absl::SimpleAtoi(absl::StripAsciiWhitespace(words[0]), &number)
               ? number
               : -1;
  }
  return -1;
}

// The figures that we promise of every shim, with a container that has lived a little.
TEST_P(ShimTest, AnIdleShimIsSmallAndStill) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have their own memory";
#endif
  Begin("web", {"sh", "-c", "seq 20000; sleep 100"}, {"", LogUri("stdin=1"), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Exec("web", "e", {"true"}));
  ASSERT_OK(shim_.Start("web", "e"));
  ASSERT_OK(shim_.Wait("web", "e"));
  ASSERT_OK(shim_.Delete("web", "e"));
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(Log(), "20000"); }));
  const std::string proc = absl::StrCat("/proc/", shim_.ShimPid("web").value());
  const std::string memory = proc + "/smaps_rollup";

  // Asleep for good once it has given back what calls needed: nothing wakes it any more.
  const auto wakes = [&] { return NumberIn(proc + "/status", "voluntary_ctxt_switches"); };
  EXPECT_TRUE(Eventually([&] {
    const int64_t before = wakes();
    return !Eventually([&] { return wakes() != before; }, absl::Seconds(1));
  }));
  EXPECT_LE(NumberIn(memory, "Rss"), 1024);
  // Clean pages are the program's, private only while there is no second shim.
  EXPECT_LE(NumberIn(memory, "Private_Dirty"), 300);
  EXPECT_EQ(NumberIn(proc + "/status", "Threads"), 1);
  EXPECT_LE(sys::ListDirectory(proc + "/fd").value().size(), 20u);
}

INSTANTIATE_TEST_SUITE_P(Library, ShimTest, ::testing::Values(""));
INSTANTIATE_TEST_SUITE_P(Runc, ShimTest, ::testing::Values("runc"));

class ShimStartTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_ROOT(); }
  ShimHarness shim_{BuiltBinary("containerd-shim-gantry-v2")};
};

TEST_F(ShimStartTest, BothFormsOfInputAreUnderstood) {
  ASSERT_OK(shim_.MakeBundle("a", {"true"}));
  EXPECT_EQ(shim_.StartShim("a").value(), shim_.address());
  ASSERT_OK(shim_.MakeBundle("b", {"true"}));
  std::string params;
  pb::Writer writer(&params);
  writer.String(1, "b");
  writer.String(2, "test");
  const std::string answer = shim_.StartShim("b", params).value();
  EXPECT_EQ(answer, absl::StrCat("{\"version\":3,\"address\":\"", shim_.address(),
                                 "\",\"protocol\":\"ttrpc\"}"));
}

TEST_F(ShimStartTest, AGroupSharesOneShim) {
  const auto join = [](oci::Spec& spec) {
    spec.annotations["io.kubernetes.cri.sandbox-id"] = "pod";
  };
  ASSERT_OK(shim_.MakeBundle("pause", {"sleep", "100"}, join));
  ASSERT_OK(shim_.MakeBundle("app", {"true"}, join));
  ASSERT_OK(shim_.StartShim("pause"));
  const std::string address = shim_.address();
  const int pid = shim_.ShimPid("pause").value();

  ASSERT_OK(shim_.StartShim("app"));

  EXPECT_EQ(shim_.address(), address);
  EXPECT_EQ(shim_.ShimPid("app").value(), pid);
  ASSERT_OK(shim_.Create("pause"));
  ASSERT_OK(shim_.Shutdown("app"));
  EXPECT_EQ(shim_.ShimPid("pause").value(), pid);
}

TEST_F(ShimStartTest, ServesOnADescriptorWithoutStart) {
  ASSERT_OK(shim_.MakeBundle("web", {"true"}));
  ASSERT_OK(shim_.StartServer("web"));
  ASSERT_OK(shim_.Create("web"));
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  ASSERT_OK(shim_.Delete("web"));
  ASSERT_OK(shim_.Shutdown("web"));
}

TEST_F(ShimStartTest, DeleteOfNothingIsFine) {
  ASSERT_OK(shim_.MakeBundle("web", {"true"}));
  EXPECT_EQ(shim_.RunDelete("web").value().code, 137);
}

TEST_F(ShimStartTest, TheOutOfMemoryKillerIsNoticed) {
  ASSERT_OK(
      shim_.MakeBundle("web", {"sh", "-c", "head -c 200m /dev/zero | tail"}, [](oci::Spec& spec) {
        spec.process->args = {"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"};
        if (!spec.linux_.resources) spec.linux_.resources.emplace();
        spec.linux_.resources->memory.emplace();
        spec.linux_.resources->memory->limit = 16 << 20;
      }));
  ASSERT_OK(shim_.StartShim("web"));
  ASSERT_OK(shim_.Create("web"));
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 137);
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/exit"));
  EXPECT_THAT(shim_.daemon().topics(),
              ElementsAre("/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"));
  const ExitRecord record = ReadExitRecord(ExitRecordPath(shim_.BundleOf("web"))).value();
  EXPECT_EQ(record.reason, "oom");
  EXPECT_GE(record.oom_kills, 1u);
}

}  // namespace
}  // namespace gantry::shim
