// What comes from outside: the command line, URIs, the input of `start`, options, exit records.
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "shim/arguments.h"
#include "shim/bootstrap.h"
#include "shim/exit_record.h"
#include "shim/metrics.h"
#include "shim/sha256.h"
#include "shim/stdio_uri.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::Pair;

TEST(ArgumentsTest, GoStyleFlagsThenTheAction) {
  const Arguments arguments =
      ParseArguments({"-namespace", "moby", "--address=/run/c.sock", "-debug", "-publish-binary",
                      "/bin/x", "-id", "web", "start"});
  EXPECT_EQ(arguments.ns, "moby");
  EXPECT_EQ(arguments.address, "/run/c.sock");
  EXPECT_TRUE(arguments.debug);
  EXPECT_EQ(arguments.publish_binary, "/bin/x");
  EXPECT_EQ(arguments.id, "web");
  EXPECT_EQ(arguments.action, "start");
}

TEST(ArgumentsTest, UnknownFlagsAreSkipped) {
  const Arguments arguments =
      ParseArguments({"-future", "value", "-other=1", "-bool", "-id", "web", "delete"});
  EXPECT_EQ(arguments.id, "web");
  EXPECT_EQ(arguments.action, "delete");
  EXPECT_EQ(ParseArguments({"-id", "web", "-flag", "start"}).action, "start");
}

TEST(ArgumentsTest, StrangeWordsAreNoCrash) {
  EXPECT_EQ(ParseArguments({}).action, "");
  EXPECT_EQ(ParseArguments({"-id"}).id, "");
  EXPECT_EQ(ParseArguments({"-x", "", ""}).action, "");
  EXPECT_EQ(ParseArguments({"--", "start"}).action, "start");
  EXPECT_FALSE(ParseArguments({"-debug=false"}).debug);
}

TEST(StdioUriTest, EveryForm) {
  EXPECT_EQ(ParseStdioUri("").value().kind, StdioUri::Kind::kNull);
  EXPECT_EQ(ParseStdioUri("/run/fifo").value().kind, StdioUri::Kind::kFifo);
  EXPECT_EQ(ParseStdioUri("fifo:///run/fifo").value().path, "/run/fifo");
  EXPECT_EQ(ParseStdioUri("file:///var/log/a%20b").value().path, "/var/log/a b");
  const StdioUri binary = ParseStdioUri("binary:///usr/bin/log?a=1&b=x%26y&c=").value();
  EXPECT_EQ(binary.path, "/usr/bin/log");
  EXPECT_THAT(binary.arguments, ElementsAre(Pair("a", "1"), Pair("b", "x&y"), Pair("c", "")));
  EXPECT_TRUE(ParseStdioUri("binary-v2:///x").value().binary_v2);
  const StdioUri log =
      ParseStdioUri(
          "gantry-log:///l/web.log?format=cri&max-size=1048576&max-file=5&attach=wait&stdin=1")
          .value();
  EXPECT_EQ(log.kind, StdioUri::Kind::kLog);
  EXPECT_EQ(log.log.path, "/l/web.log");
  EXPECT_EQ(log.log.format, LogFormat::kCri);
  EXPECT_EQ(log.log.max_size_bytes, 1048576u);
  EXPECT_EQ(log.log.max_files, 5);
  EXPECT_EQ(log.attach, AttachMode::kWait);
  EXPECT_TRUE(log.open_stdin);
}

TEST(StdioUriTest, WrongOnesAreNamed) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(ParseStdioUri("relative/path"), Fails(kInvalid, "absolute"));
  EXPECT_THAT(ParseStdioUri("ftp:///x"), Fails(kInvalid, "'ftp'"));
  EXPECT_THAT(ParseStdioUri("file://relative"), Fails(kInvalid, "absolute"));
  EXPECT_THAT(ParseStdioUri("file:///a%2"), Fails(kInvalid, "hex"));
  EXPECT_THAT(ParseStdioUri("file:///a%00b"), Fails(kInvalid, "zero byte"));
  EXPECT_THAT(ParseStdioUri("gantry-log:///l?format=xml"), Fails(kInvalid, "'xml'"));
  EXPECT_THAT(ParseStdioUri("gantry-log:///l?max-file=0"), Fails(kInvalid, "1 to 1000"));
  EXPECT_THAT(ParseStdioUri("gantry-log:///l?max-size=-1"), Fails(kInvalid, "max-size"));
  EXPECT_THAT(ParseStdioUri("gantry-log:///l?colour=red"), Fails(kInvalid, "'colour'"));
}

TEST(StartInputTest, TellsBootstrapParamsFromOptions) {
  Arguments arguments;
  arguments.id = "web";
  arguments.ns = "moby";
  std::string params;
  {
    pb::Writer writer(&params);
    writer.String(1, "web");
    writer.String(2, "moby");
    writer.String(5, "/run/t.sock");
    writer.String(9, "/run/s");
    writer.Message(8, [](pb::Writer& extension) {
      std::string options;
      pb::Writer(&options).String(6, "crun");
      WriteAny(extension, 1, "containerd.runc.v1.Options", options);
    });
  }
  const StartInput bootstrap = ParseStartInput(params, arguments).value();
  EXPECT_TRUE(bootstrap.has_params);
  EXPECT_EQ(bootstrap.params.ttrpc_address, "/run/t.sock");
  EXPECT_EQ(bootstrap.params.socket_dir, "/run/s");
  EXPECT_EQ(ParseOptions(bootstrap.options).value().binary_name, "crun");

  std::string any;
  {
    pb::Writer writer(&any);
    writer.String(1, "type.googleapis.com/containerd.runc.v1.Options");
    writer.String(2, std::string("\x48\x01", 2));
  }
  const StartInput options = ParseStartInput(any, arguments).value();
  EXPECT_FALSE(options.has_params);
  EXPECT_TRUE(ParseOptions(options.options).value().systemd_cgroup);
  EXPECT_FALSE(ParseStartInput("", arguments).value().has_params);
  EXPECT_THAT(ParseStartInput("\xff\xff", arguments),
              Fails(absl::StatusCode::kInvalidArgument, "start"));
}

TEST(OptionsTest, OtherTypesGiveDefaults) {
  EXPECT_EQ(ParseOptions({"runtimeoptions.v1.Options", "\x0a\x01x"}).value().binary_name, "");
  EXPECT_FALSE(ParseOptions({"containerd.runc.v1.Options", "\x0b"}).ok());
}

TEST(BootstrapTest, AnnotationsChooseTheGroup) {
  EXPECT_EQ(GroupOf(R"({"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}})", "web"), "pod");
  EXPECT_EQ(
      GroupOf(
          R"({"annotations":{"io.containerd.runc.v2.group":"g","io.kubernetes.cri.sandbox-id":"pod"}})",
          "web"),
      "g");
  EXPECT_EQ(GroupOf(R"({"annotations":{"other":"pod"}})", "web"), "web");
  EXPECT_EQ(GroupOf(R"({"annotations":{"io.containerd.runc.v2.group":7}})", "web"), "web");
  EXPECT_EQ(GroupOf("not json", "web"), "web");
}

TEST(BootstrapTest, TheSocketIsNamedAsGosShimsNameIt) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex(std::string(1000, 'a')),
            "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
  EXPECT_EQ(
      SocketPathFor("/run/containerd/s", "/run/containerd/containerd.sock", "moby", "web"),
      absl::StrCat("/run/containerd/s/", Sha256Hex("/run/containerd/containerd.sock/moby/web")));
}

TEST(ExitRecordTest, SurvivesTheDiskAndNoticesDamage) {
  const sys::TempDir directory = sys::TempDir::Create().value();
  const std::string path = ExitRecordPath(directory.path());
  EXPECT_THAT(ReadExitRecord(path), Fails(absl::StatusCode::kNotFound, path));
  ExitRecord record;
  record.pid = 4711;
  record.code = 137;
  record.signal = 9;
  record.time = absl::FromUnixNanos(1'795'428'131'123'456'789);
  record.reason = "oom";
  record.oom_kills = 3;
  ASSERT_OK(WriteExitRecord(path, record));

  const ExitRecord read = ReadExitRecord(path).value();
  EXPECT_EQ(read.pid, 4711);
  EXPECT_EQ(read.code, 137);
  EXPECT_EQ(read.signal, 9);
  EXPECT_EQ(read.time, record.time);
  EXPECT_EQ(read.reason, "oom");
  EXPECT_EQ(read.oom_kills, 3u);

  const std::string text = sys::ReadFile(path).value();
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] ^= 1;
    ASSERT_OK(sys::WriteFileAtomically(path, damaged));
    EXPECT_THAT(ReadExitRecord(path), Fails(absl::StatusCode::kDataLoss, path)) << i;
    ASSERT_OK(sys::WriteFileAtomically(path, text.substr(0, i)));
    EXPECT_THAT(ReadExitRecord(path), Fails(absl::StatusCode::kDataLoss, path)) << i;
  }
}

TEST(MetricsTest, NumbersStandWhereClientsLookForThem) {
  cgroup::StatsV1 stats;
  stats.pids_current = 3;
  stats.cpu_usage_total = 1000;
  stats.cpu_usage_percpu = {600, 400};
  stats.memory.usage = 4096;
  stats.memory_stat = {{"cache", 1}, {"total_rss", 2}};
  const std::string bytes = WriteMetricsV1(stats);
  uint64_t pids = 0, total = 0, usage = 0, total_rss = 0;
  std::string per_cpu;
  for (pb::Reader metrics(bytes); metrics.Next();) {
    for (pb::Reader part(metrics.bytes()); part.Next();) {
      if (metrics.field() == 2 && part.field() == 1) pids = part.varint();
      if (metrics.field() == 4 && part.field() == 19) total_rss = part.varint();
      for (pb::Reader leaf(part.bytes()); leaf.Next();) {
        if (metrics.field() == 3 && part.field() == 1 && leaf.field() == 1) total = leaf.varint();
        if (metrics.field() == 3 && part.field() == 1 && leaf.field() == 4) per_cpu = leaf.text();
        if (metrics.field() == 4 && part.field() == 33 && leaf.field() == 2) usage = leaf.varint();
      }
    }
  }
  EXPECT_EQ(pids, 3u);
  EXPECT_EQ(total, 1000u);
  EXPECT_EQ(per_cpu, "\xd8\x04\x90\x03");
  EXPECT_EQ(usage, 4096u);
  EXPECT_EQ(total_rss, 2u);
}

TEST(MetricsTest, PressureIsRead) {
  cgroup::StatsV2 stats;
  stats.cpu_pressure =
      "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 "
      "total=5\n";
  uint64_t some = 0, full = 0;
  const std::string bytes = WriteMetricsV2(stats);
  for (pb::Reader metrics(bytes); metrics.Next();) {
    if (metrics.field() != 2) continue;
    for (pb::Reader cpu(metrics.bytes()); cpu.Next();) {
      if (cpu.field() != 7) continue;
      for (pb::Reader pressure(cpu.bytes()); pressure.Next();) {
        for (pb::Reader data(pressure.bytes()); data.Next();) {
          if (data.field() == 4 && pressure.field() == 1) some = data.varint();
          if (data.field() == 4 && pressure.field() == 2) full = data.varint();
        }
      }
    }
  }
  EXPECT_EQ(some, 77u);
  EXPECT_EQ(full, 5u);
}

}  // namespace
}  // namespace gantry::shim
