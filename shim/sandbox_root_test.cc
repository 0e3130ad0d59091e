// The sandbox service of the shim, as a daemon with sandboxes (containerd 2.x) calls it.
#include <signal.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "shim/testing/shim_harness.h"

namespace gantry::shim {
namespace {

using ::gantry::testing::Fails;
using testing::BuiltBinary;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Exited;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ShimHarness;

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_ROOT(); }

  absl::StatusOr<std::string> Call(const std::string& method, const std::string& id,
                                   const std::function<void(pb::Writer&)>& more = nullptr) {
    std::string payload;
    pb::Writer writer(&payload);
    writer.String(1, id);
    if (more) more(writer);
    return shim_.client().Call("containerd.runtime.sandbox.v1.Sandbox", method, payload,
                               {{"containerd-namespace-ttrpc", "test"}}, absl::Seconds(30));
  }
  absl::StatusOr<std::string> Create(const std::string& id) {
    return Call("CreateSandbox", id, [&](pb::Writer& writer) {
      writer.String(2, shim_.BundleOf(id));
      writer.String(5, "/run/netns/pod");
    });
  }
  // A pod whose pause program runs, and ends when it is asked to.
  int StartPod() {
    EXPECT_OK(shim_.MakeBundle("pod", {"sh", "-c", "trap 'exit 3' TERM; sleep 100 & wait"}));
    EXPECT_OK(shim_.StartShim("pod"));
    EXPECT_OK(Create("pod"));
    const int pid = static_cast<int>(Field(Call("StartSandbox", "pod"), 1));
    EXPECT_TRUE(Eventually([&] { return CatchesTerm(pid); }));
    return pid;
  }
  // Whether the trap is set: before that, SIGTERM means nothing to the first process of a pid
  // namespace.
  static bool CatchesTerm(int pid) {
    const std::string status = sys::ReadFile(absl::StrCat("/proc/", pid, "/status")).value_or("");
    const size_t at = status.find("SigCgt:\t");
    if (at == std::string::npos) return false;
    const uint64_t caught = std::stoull(status.substr(at + 8, 16), nullptr, 16);
    return (caught & (uint64_t{1} << (SIGTERM - 1))) != 0;
  }
  // A pod without a process of its own.
  void StartEmptyPod() {
    ASSERT_OK(shim_.MakeBundle("pod", {"true"}));
    ASSERT_OK(sys::Unlink(absl::StrCat(shim_.BundleOf("pod"), "/config.json")));
    ASSERT_OK(shim_.StartShim("pod"));
    ASSERT_OK(Create("pod"));
    ASSERT_OK(Call("StartSandbox", "pod"));
  }
  static uint64_t Field(const absl::StatusOr<std::string>& answer, uint32_t field) {
    EXPECT_OK(answer);
    if (!answer.ok()) return 0;
    for (pb::Reader reader(*answer); reader.Next();) {
      if (reader.field() == field) return reader.varint();
    }
    return 0;
  }

  ShimHarness shim_{BuiltBinary("containerd-shim-gantry-v2")};
};

TEST_F(SandboxTest, AWholeLife) {
  const int pid = StartPod();
  EXPECT_EQ(::kill(pid, 0), 0);
  EXPECT_OK(Call("PingSandbox", "pod"));
  EXPECT_THAT(Call("SandboxStatus", "pod").value(), HasSubstr("SANDBOX_READY"));
  EXPECT_THAT(Call("Platform", "pod").value(), HasSubstr("linux"));
  EXPECT_THAT(Call("SandboxMetrics", "pod").value(), HasSubstr("io.containerd.cgroups.v"));

  ASSERT_OK(Call("StopSandbox", "pod", [](pb::Writer& writer) { writer.Varint(2, 10); }));

  EXPECT_EQ(Field(Call("WaitSandbox", "pod"), 1), 3u);
  EXPECT_THAT(Call("SandboxStatus", "pod").value(), HasSubstr("SANDBOX_NOTREADY"));
  EXPECT_OK(Call("StopSandbox", "pod"));
  const int shim = shim_.ShimPid("pod").value();
  ASSERT_OK(Call("ShutdownSandbox", "pod"));
  EXPECT_TRUE(Eventually([&] { return ::kill(shim, 0) != 0; }));
  EXPECT_THAT(shim_.CgroupsOf("pod"), IsEmpty());
  EXPECT_FALSE(sys::Exists(absl::StrCat(shim_.BundleOf("pod"), "/runtime/pod")));
  EXPECT_THAT(shim_.daemon().topics(), IsEmpty());  // A sandbox is no task.
}

TEST_F(SandboxTest, AProcessThatIgnoresTheSignalIsKilled) {
  ASSERT_OK(shim_.MakeBundle("pod", {"sleep", "100"}));  // As pid 1, deaf to SIGTERM.
  ASSERT_OK(shim_.StartShim("pod"));
  ASSERT_OK(Create("pod"));
  ASSERT_OK(Call("StartSandbox", "pod"));
  ASSERT_OK(Call("StopSandbox", "pod", [](pb::Writer& writer) { writer.Varint(2, 1); }));
  EXPECT_EQ(Field(Call("WaitSandbox", "pod"), 1), 137u);
}

TEST_F(SandboxTest, ContainersComeAndGoWithoutStartAndDelete) {
  StartPod();
  ASSERT_OK(shim_.MakeBundle("app", {"sh", "-c", "exit 4"}));

  ASSERT_OK(shim_.Create("app"));
  ASSERT_OK(shim_.Start("app"));
  EXPECT_EQ(shim_.Wait("app").value().code, 4);
  ASSERT_OK(shim_.Delete("app"));
  ASSERT_OK(shim_.Shutdown("app"));

  EXPECT_THAT(shim_.CgroupsOf("app"), IsEmpty());
  EXPECT_FALSE(sys::Exists(absl::StrCat(shim_.BundleOf("app"), "/runtime/app")));
  EXPECT_THAT(Call("SandboxStatus", "pod").value(), HasSubstr("SANDBOX_READY"));
  ASSERT_TRUE(shim_.daemon().WaitFor("/tasks/delete"));
  EXPECT_THAT(shim_.daemon().topics(),
              ElementsAre("/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"));
}

TEST_F(SandboxTest, ShutdownEndsWhatStillRuns) {
  const int pause = StartPod();
  ASSERT_OK(shim_.MakeBundle("app", {"sleep", "100"}));
  ASSERT_OK(shim_.MakeBundle("waits", {"sleep", "100"}));
  ASSERT_OK(shim_.Create("app"));
  const int app = shim_.Start("app").value();
  ASSERT_OK(shim_.Create("waits"));
  const int shim = shim_.ShimPid("app").value();

  ASSERT_OK(Call("ShutdownSandbox", "pod"));

  EXPECT_TRUE(Eventually([&] { return ::kill(shim, 0) != 0; }));
  EXPECT_NE(::kill(app, 0), 0);
  EXPECT_NE(::kill(pause, 0), 0);
  for (const char* id : {"app", "waits", "pod"}) EXPECT_THAT(shim_.CgroupsOf(id), IsEmpty()) << id;
}

TEST_F(SandboxTest, WithoutAProcessTheShimIsTheSandbox) {
  StartEmptyPod();
  EXPECT_EQ(Field(Call("SandboxStatus", "pod"), 2),
            static_cast<uint64_t>(shim_.ShimPid("pod").value()));
  EXPECT_THAT(Call("SandboxMetrics", "pod"), Fails(absl::StatusCode::kNotFound, "no cgroup"));
  ASSERT_OK(Call("StopSandbox", "pod"));
  EXPECT_EQ(Field(Call("WaitSandbox", "pod"), 1), 0u);
  EXPECT_OK(Call("ShutdownSandbox", "pod"));
}

TEST_F(SandboxTest, StatusTellsMoreWhenAsked) {
  StartEmptyPod();
  EXPECT_THAT(Call("SandboxStatus", "pod").value(), Not(HasSubstr("/run/netns/pod")));
  const std::string verbose =
      Call("SandboxStatus", "pod", [](pb::Writer& writer) { writer.Bool(2, true); }).value();
  EXPECT_THAT(verbose, HasSubstr("/run/netns/pod"));
  EXPECT_THAT(verbose, HasSubstr(shim_.BundleOf("pod")));
}

TEST_F(SandboxTest, WrongCallsHaveTheRightCodes) {
  StartEmptyPod();
  EXPECT_THAT(Call("PingSandbox", "other"), Fails(absl::StatusCode::kNotFound, "other"));
  EXPECT_THAT(Create("pod"), Fails(absl::StatusCode::kAlreadyExists, "pod"));
  EXPECT_THAT(Call("StartSandbox", "pod"), Fails(absl::StatusCode::kFailedPrecondition, "once"));
  EXPECT_THAT(Call("UpdateSandbox", "pod"), Fails(absl::StatusCode::kUnimplemented, "Update"));
  EXPECT_THAT(Call("CreateSandbox", "../x"), Fails(absl::StatusCode::kInvalidArgument, "id"));
  EXPECT_THAT(shim_.client().Call("containerd.runtime.sandbox.v1.Sandbox", "PingSandbox",
                                  "\xff\xff", {}, absl::Seconds(5)),
              Fails(absl::StatusCode::kInvalidArgument, "malformed"));
}

TEST_F(SandboxTest, ACreateThatFailsLeavesNothing) {
  ASSERT_OK(shim_.MakeBundle("pod", {"/no/such/program"}));
  ASSERT_OK(shim_.StartShim("pod"));
  EXPECT_THAT(Create("pod"), Fails(absl::StatusCode::kNotFound, "/no/such/program"));
  EXPECT_THAT(Call("PingSandbox", "pod"), Fails(absl::StatusCode::kNotFound, "pod"));
  EXPECT_THAT(shim_.CgroupsOf("pod"), IsEmpty());
  ASSERT_OK(shim_.MakeBundle("pod", {"sleep", "100"}));
  EXPECT_OK(Create("pod"));
}

TEST_F(SandboxTest, AWaitingCallEndsWithTheProcess) {
  const int pid = StartPod();
  std::string answer;
  std::atomic<bool> answered{false};
  std::string payload;
  pb::Writer(&payload).String(1, "pod");
  shim_.client().CallAsync("containerd.runtime.sandbox.v1.Sandbox", "WaitSandbox", payload, {},
                           absl::InfiniteDuration(), [&](absl::StatusOr<std::string> got) {
                             answer = got.value_or("");
                             answered = true;
                           });
  ASSERT_OK(Call("PingSandbox", "pod"));
  EXPECT_FALSE(answered);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_TRUE(Eventually([&] { return answered.load(); }));
  EXPECT_EQ(Field(answer, 1), 137u);
}

class InfoTest : public SandboxTest {
 protected:
  static std::string Features(const std::string& info) {
    for (pb::Reader reader(info); reader.Next();) {
      if (reader.field() == 4) return ParseAny(reader.bytes()).value().value;
    }
    return "";
  }
};

TEST_F(InfoTest, TellsTheFeaturesOfOurRuntime) {
  ASSERT_OK(shim_.MakeBundle("web", {"true"}));
  const std::string features = Features(shim_.Run("web", {"-info"}, "").value());
  ASSERT_OK(json::Document::Parse(features));
  EXPECT_THAT(features, HasSubstr("\"idmap\":{\"enabled\":true}"));
  EXPECT_THAT(features, HasSubstr("\"rro\""));
}

TEST_F(InfoTest, TellsTheFeaturesOfTheRuntimeThatOptionsName) {
  ASSERT_OK(shim_.MakeBundle("web", {"true"}));
  const std::string runtime = absl::StrCat(shim_.root(), "/other-runtime");
  ASSERT_OK(sys::WriteFileAtomically(
      runtime, "#!/bin/sh\ntest \"$1\" = features && echo '{\"ociVersionMin\":\"1.0.9\"}'\n",
      0755));
  std::string options, any;
  pb::Writer(&options).String(6, runtime);
  pb::Writer writer(&any);
  writer.String(1, "containerd.runc.v1.Options");
  writer.String(2, options);

  const std::string info = shim_.Run("web", {"-info"}, any).value();

  EXPECT_THAT(Features(info), HasSubstr("1.0.9"));
  EXPECT_THAT(info, HasSubstr(runtime));  // The options come back.
  EXPECT_FALSE(shim_.Run("web", {"-info"}, "\xff\xff").ok());
}

}  // namespace
}  // namespace gantry::shim
