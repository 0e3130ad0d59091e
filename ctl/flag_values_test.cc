#include "ctl/flag_values.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/container_flags.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ParseBytesTest, KnowsUnits) {
  EXPECT_EQ(*ParseBytes("512"), 512);
  EXPECT_EQ(*ParseBytes("64k"), 64 << 10);
  EXPECT_EQ(*ParseBytes("1.5g"), 3LL << 29);
  EXPECT_EQ(*ParseBytes("2GiB"), 2LL << 30);
  EXPECT_EQ(*ParseBytes("3MB"), 3 << 20);
  for (const char* bad :
       {"", "many", "-1", "1x", "1e3", "0x10", "inf", "nan", "99999999999g", "m", "1..5"}) {
    EXPECT_THAT(ParseBytes(bad), Fails(kInvalid, "invalid size")) << bad;
  }
}

TEST(ParseNanoCpusTest, TakesPlainNumbers) {
  EXPECT_EQ(*ParseNanoCpus("1.5"), 1500000000);
  EXPECT_EQ(*ParseNanoCpus("0.001"), 1000000);
  for (const char* bad : {"", "-1", "x", "1e3", "inf"}) {
    EXPECT_THAT(ParseNanoCpus(bad), Fails(kInvalid, "processors")) << bad;
  }
}

std::string Bindings(absl::string_view text) {
  const auto bindings = ParsePublish(text);
  if (!bindings.ok()) return "error";
  std::string out;
  for (const auto& b : *bindings) {
    absl::StrAppend(&out, out.empty() ? "" : " ", b.host_ip(), "|", b.host_port(), "|",
                    b.container_port(), "/", b.protocol());
  }
  return out;
}

TEST(ParsePublishTest, KnowsAllForms) {
  EXPECT_EQ(Bindings("80"), "|0|80/tcp");
  EXPECT_EQ(Bindings("8080:80"), "|8080|80/tcp");
  EXPECT_EQ(Bindings(":80/udp"), "|0|80/udp");
  EXPECT_EQ(Bindings("127.0.0.1:8080:80"), "127.0.0.1|8080|80/tcp");
  EXPECT_EQ(Bindings("127.0.0.1::80"), "127.0.0.1|0|80/tcp");
  EXPECT_EQ(Bindings("[::1]:8080:80/UDP"), "::1|8080|80/udp");
  EXPECT_EQ(Bindings("8000-8001:80-81"), "|8000|80/tcp |8001|81/tcp");
  for (const char* bad : {"", "0", "99999:1", "1:99999", "80/sctp", "a:b", "1:2:3:4", "5-3:5-3",
                          "1-2:5", "[::1:80:80", "8080:", "80-"}) {
    EXPECT_EQ(Bindings(bad), "error") << bad;
  }
}

TEST(ParseVolumeTest, TellsPathsFromNames) {
  const auto bind = ParseVolume("/a:/b:ro,rslave");
  ASSERT_OK(bind);
  EXPECT_EQ(bind->type(), "bind");
  EXPECT_EQ(bind->source(), "/a");
  EXPECT_TRUE(bind->read_only() && bind->create_source());
  EXPECT_EQ(bind->propagation(), "rslave");
  const auto named = ParseVolume("data:/b:nocopy");
  ASSERT_OK(named);
  EXPECT_EQ(named->type(), "volume");
  EXPECT_EQ(named->source(), "data");
  EXPECT_TRUE(named->no_copy());
  EXPECT_EQ(ParseVolume("/b")->source(), "");
  EXPECT_TRUE(absl::StartsWith(ParseVolume("./x:/b")->source(), "/")) << "made absolute here";
  for (const char* bad : {"", "a:b", "/a:/b:zz", "/a:/b:ro:x", ":/b", "/a:/", "relative:path:zz"}) {
    EXPECT_THAT(ParseVolume(bad), Fails(kInvalid, "")) << bad;
  }
}

TEST(ParseMountTest, KnowsItsKeys) {
  const auto bind = ParseMount("type=bind,src=/a,dst=/b,readonly,bind-propagation=shared");
  ASSERT_OK(bind);
  EXPECT_TRUE(bind->read_only());
  EXPECT_FALSE(bind->create_source()) << "--mount wants the source to be there";
  const auto tmpfs = ParseMount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777");
  ASSERT_OK(tmpfs);
  EXPECT_EQ(tmpfs->tmpfs_size_bytes(), 1u << 20);
  EXPECT_EQ(tmpfs->tmpfs_mode(), 01777u);
  for (const char* bad :
       {"type=cloud,target=/a", "type=bind,target=/b", "target=b", "nope=1,target=/a",
        "type=tmpfs,source=/a,target=/b", "type=tmpfs,target=/b,tmpfs-mode=9"}) {
    EXPECT_THAT(ParseMount(bad), Fails(kInvalid, "")) << bad;
  }
}

TEST(ParseTmpfsTest, SortsOptions) {
  const auto tmpfs = ParseTmpfs("/t:size=64m,mode=700,noexec,ro");
  ASSERT_OK(tmpfs);
  EXPECT_EQ(tmpfs->tmpfs_size_bytes(), 64u << 20);
  EXPECT_TRUE(tmpfs->read_only());
  EXPECT_THAT(tmpfs->options(), ElementsAre("noexec"));
}

TEST(ParseUlimitTest, ChecksTheOrder) {
  EXPECT_EQ(ParseUlimit("nofile=10")->hard(), 10);
  EXPECT_EQ(ParseUlimit("nofile=10:20")->hard(), 20);
  EXPECT_EQ(ParseUlimit("core=0:unlimited")->hard(), -1);
  for (const char* bad : {"nofile", "nofile=x", "nofile=20:10", "nofile=-1:10", "=1", "a=1:2:3"}) {
    EXPECT_THAT(ParseUlimit(bad), Fails(kInvalid, "ulimit")) << bad;
  }
}

TEST(ParseDeviceTest, KnowsAllForms) {
  EXPECT_EQ(ParseDevice("/dev/fuse")->permissions(), "rwm");
  EXPECT_EQ(ParseDevice("/dev/fuse:r")->permissions(), "r");
  EXPECT_EQ(ParseDevice("/dev/a:/dev/b:rw")->container_path(), "/dev/b");
  for (const char* bad : {"fuse", "/dev/a:b", "/dev/a:/dev/b:x", ""}) {
    EXPECT_THAT(ParseDevice(bad), Fails(kInvalid, "device")) << bad;
  }
}

TEST(ParseRestartTest, KnowsThePolicies) {
  EXPECT_EQ(ParseRestart("on-failure:3")->maximum_retries(), 3u);
  EXPECT_EQ(ParseRestart("always")->name(), "always");
  for (const char* bad : {"sometimes", "always:3", "on-failure:x", ""}) {
    EXPECT_THAT(ParseRestart(bad), Fails(kInvalid, "restart policy")) << bad;
  }
}

TEST(ParseMomentTest, TakesTimesNumbersAndAges) {
  const absl::Time now = absl::FromUnixSeconds(1700000000);
  EXPECT_EQ(*ParseMoment("42m", now), now - absl::Minutes(42));
  EXPECT_EQ(*ParseMoment("0s", now), now);
  EXPECT_EQ(*ParseMoment("1700000000.5", now), now + absl::Milliseconds(500));
  EXPECT_EQ(*ParseMoment("2023-11-14T22:13:20Z", now), now);
  EXPECT_EQ(*ParseMoment("2023-11-14T22:13:20.25Z", now), now + absl::Milliseconds(250));
  EXPECT_OK(ParseMoment("2023-11-14", now));
  EXPECT_THAT(ParseMoment("yesterday", now), Fails(kInvalid, "invalid time"));
}

absl::StatusOr<engine::v1::ContainerConfig> Config(std::vector<std::string> words) {
  const CommandSpec run = {"run", "", "", RunFlags(), 1, -1, true, "", nullptr};
  ASSIGN_OR_RETURN(Arguments arguments, ParseCommandLine(run, words));
  return BuildConfig(arguments, [](const std::string& name) -> std::optional<std::string> {
    if (name == "HOME") return "/root";
    return std::nullopt;
  });
}

TEST(BuildConfigTest, TakesEverythingTogether) {
  const auto config = Config({"-it",
                              "--rm",
                              "--name",
                              "web",
                              "-e",
                              "A=1",
                              "-e",
                              "HOME",
                              "-e",
                              "UNSET",
                              "-m",
                              "64m",
                              "--cpus",
                              "1.5",
                              "--pids-limit",
                              "100",
                              "-p",
                              "80:80",
                              "--expose",
                              "90-91/udp",
                              "-u",
                              "1:2",
                              "-w",
                              "/w",
                              "-l",
                              "a=b",
                              "--sysctl",
                              "net.x=1",
                              "--add-host",
                              "h:::1",
                              "--entrypoint",
                              "",
                              "--security-opt",
                              "seccomp=unconfined",
                              "--memory-swap",
                              "-1",
                              "busybox",
                              "sh",
                              "-c",
                              "x"});
  ASSERT_OK(config);
  EXPECT_TRUE(config->tty() && config->open_stdin() && config->auto_remove());
  EXPECT_THAT(config->env(), ElementsAre("A=1", "HOME=/root"));
  EXPECT_EQ(config->resources().memory_bytes(), 64 << 20);
  EXPECT_EQ(config->resources().memory_swap_bytes(), -1);
  EXPECT_EQ(config->resources().nano_cpus(), 1500000000);
  EXPECT_THAT(config->expose(), ElementsAre("90/udp", "91/udp"));
  EXPECT_THAT(config->extra_hosts(), ElementsAre("h:::1"));
  EXPECT_TRUE(config->entrypoint_set());
  EXPECT_EQ(config->entrypoint_size(), 0);
  EXPECT_EQ(config->image(), "busybox");
  EXPECT_THAT(config->command(), ElementsAre("sh", "-c", "x"));
}

TEST(BuildConfigTest, RefusesWhatCannotBe) {
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{{"--rm", "--restart", "always"},
                                             {"--cpus", "1", "--cpu-quota", "5"},
                                             {"-e", ""},
                                             {"-e", "=x"},
                                             {"--pids-limit", "many"},
                                             {"--blkio-weight", "5000"},
                                             {"--oom-score-adj", "-2000"},
                                             {"--add-host", "h"},
                                             {"--expose", "1:2"},
                                             {"--env-file", "/no/such"},
                                             {"--security-opt", "seccomp=/no/such"}}) {
    std::vector<std::string> words = bad;
    words.push_back("busybox");
    EXPECT_FALSE(Config(words).ok()) << bad[0];
  }
}

TEST(BuildConfigTest, ReadsFilesOfTheCaller) {
  absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create();
  ASSERT_OK(directory);
  const std::string env = directory->path() + "/env";
  ASSERT_OK(sys::WriteFileAtomically(env, "# note\n\nA=1\r\nHOME\nB=x y\n"));
  const std::string profile = directory->path() + "/seccomp";
  ASSERT_OK(sys::WriteFileAtomically(profile, "{\"defaultAction\":\"SCMP_ACT_ALLOW\"}"));
  const auto config = Config({"--env-file", env, "-e", "A=2", "--label-file", env, "--security-opt",
                              "seccomp=" + profile, "busybox"});
  ASSERT_OK(config);
  EXPECT_THAT(config->env(), ElementsAre("A=1", "HOME=/root", "B=x y", "A=2"));
  EXPECT_EQ(config->labels().at("B"), "x y");
  EXPECT_EQ(config->security_opt(0), "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}");
  ASSERT_OK(sys::WriteFileAtomically(env, "bad name=1\n"));
  EXPECT_THAT(Config({"--env-file", env, "busybox"}),
              Fails(kInvalid, "does not begin with a name"));
  ASSERT_OK(sys::WriteFileAtomically(profile, "{"));
  EXPECT_FALSE(Config({"--security-opt", "seccomp=" + profile, "busybox"}).ok());
}

}  // namespace
}  // namespace gantry::ctl
