// Other people's tools against our sockets: ctr of Debian's containerd, Prometheus and promtool.

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class CtrTest : public testing::SuiteTest {
 protected:
  static CommandResult Ctr(std::vector<std::string> arguments, CommandOptions options = {}) {
    arguments.insert(arguments.begin(), {"ctr", "-a", suite_->run() + "/gantry.sock"});
    options.timeout = absl::Seconds(30);
    return testing::RunCommand(std::move(arguments), options);
  }

  void SetUp() override {
    SuiteTest::SetUp();
    const CommandResult pull = Ctr({"images", "pull", "--plain-http", Image()});
    ASSERT_EQ(pull.code, 0) << pull;
  }
};

// `ctr events`, writing into a file; it sees everything that happens after it was made.
class EventStream {
 public:
  EventStream(const std::string& socket, std::string path) : path_(std::move(path)) {
    const std::string ctr = "ctr -a " + socket;
    // A subscription says nothing when it stands, so events are made until one is seen.
    const CommandResult started = testing::RunShell(absl::StrCat(
        ctr, " events > ", path_, " 2>&1 < /dev/null & echo $!; for i in $(seq 200); do ", ctr,
        " namespaces label default probe=$i; grep -q namespaces/update ", path_,
        " && exit 0; done; exit 1"));
    EXPECT_EQ(started.code, 0) << started;
    pid_ = started.out.substr(0, started.out.find('\n'));
  }
  ~EventStream() { (void)testing::RunShell("kill " + pid_); }
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;

  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  std::string pid_;
};

TEST_F(CtrTest, VersionAndPlugins) {
  const CommandResult version = Ctr({"version"});
  EXPECT_EQ(version.code, 0) << version;
  EXPECT_THAT(version.out, HasSubstr("Server:"));
  const CommandResult plugins = Ctr({"plugins", "ls"});
  EXPECT_EQ(plugins.code, 0) << plugins;
  EXPECT_THAT(plugins.out, AllOf(HasSubstr("overlayfs"), HasSubstr("io.containerd.runtime.v2")));
}

TEST_F(CtrTest, RunAndRemove) {
  const CommandResult result =
      Ctr({"run", "--rm", Image(), "c1", "sh", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(result.out, "out\n") << result;
  EXPECT_THAT(result.err, HasSubstr("err\n"));
  EXPECT_EQ(result.code, 3);
  EXPECT_EQ(Ctr({"containers", "ls", "-q"}).out, "");
}

TEST_F(CtrTest, ALongRunningOne) {
  const CommandResult run = Ctr({"run", "-d", Image(), "long", "sleep", "600"});
  ASSERT_EQ(run.code, 0) << run;
  EXPECT_THAT(Ctr({"tasks", "ls"}).out, AllOf(HasSubstr("long"), HasSubstr("RUNNING")));
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "e1", "long", "echo", "inside"}).out, "inside\n");
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "e2", "long", "sh", "-c", "exit 4"}).code, 4);
  EXPECT_EQ(Ctr({"tasks", "pause", "long"}).code, 0);
  EXPECT_THAT(Ctr({"tasks", "ls"}).out, HasSubstr("PAUSED"));
  EXPECT_EQ(Ctr({"tasks", "resume", "long"}).code, 0);
  EXPECT_THAT(Ctr({"tasks", "ps", "long"}).out, HasSubstr("PID"));
  EXPECT_EQ(Ctr({"tasks", "metrics", "long"}).code, 0);
  EXPECT_THAT(Ctr({"snapshots", "ls"}).out, HasSubstr("long"));
  EXPECT_EQ(Ctr({"tasks", "kill", "-s", "SIGKILL", "long"}).code, 0);
  EXPECT_TRUE(Eventually("ctr -a " + suite_->run() + "/gantry.sock tasks ls | grep -q STOPPED"));
  // ctr only warns of the code, on stderr.
  EXPECT_THAT(Ctr({"tasks", "rm", "long"}).err, HasSubstr("non-zero exit code 137"));
  EXPECT_EQ(Ctr({"containers", "rm", "long"}).code, 0);
}

TEST_F(CtrTest, ContentImagesAndSnapshots) {
  EXPECT_THAT(Ctr({"content", "ls"}).out, HasSubstr("sha256:"));
  EXPECT_THAT(Ctr({"images", "ls"}).out, HasSubstr(Image()));
  EXPECT_EQ(Ctr({"images", "check"}).code, 0);
  EXPECT_THAT(Ctr({"snapshots", "ls"}).out, HasSubstr("Committed"));
  EXPECT_EQ(Ctr({"images", "tag", Image(), "other:1"}).code, 0);
  EXPECT_EQ(Ctr({"images", "rm", "other:1"}).code, 0);
  EXPECT_EQ(Ctr({"images", "export", suite_->root() + "/export.tar", Image()}).code, 0);
  EXPECT_EQ(Ctr({"images", "rm", "--sync", Image()}).code, 0);
  EXPECT_EQ(Ctr({"content", "ls", "-q"}).out, "");
  EXPECT_EQ(Ctr({"snapshots", "ls"}).out.find("Committed"), std::string::npos);
  EXPECT_EQ(Ctr({"images", "import", suite_->root() + "/export.tar"}).code, 0);
}

TEST_F(CtrTest, NamespacesAndLeases) {
  EXPECT_EQ(Ctr({"namespaces", "create", "extra"}).code, 0);
  EXPECT_THAT(Ctr({"namespaces", "ls"}).out, AllOf(HasSubstr("extra"), HasSubstr("default")));
  EXPECT_EQ(Ctr({"namespaces", "rm", "extra"}).code, 0);
  EXPECT_EQ(Ctr({"leases", "create", "--id", "l1"}).code, 0);
  EXPECT_THAT(Ctr({"leases", "ls"}).out, HasSubstr("l1"));
  EXPECT_EQ(Ctr({"leases", "rm", "l1"}).code, 0);
}

TEST_F(CtrTest, EventsAreStreamed) {
  const EventStream stream(suite_->run() + "/gantry.sock", suite_->root() + "/events");

  const CommandResult result = Ctr({"run", "--rm", Image(), "ev", "true"});

  // Of one container the last event is this one.
  EXPECT_TRUE(Eventually("grep -q /containers/delete " + stream.path())) << result;
  EXPECT_TRUE(Eventually("grep -q /tasks/delete " + stream.path())) << result;
  const std::string events = *sys::ReadFile(stream.path());
  for (const char* topic : {"/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit",
                            "/tasks/delete", "/containers/delete", "/snapshot/prepare"}) {
    EXPECT_THAT(events, HasSubstr(topic)) << result;
  }
}

TEST_F(CtrTest, AShimMayPublishByExecutingOurBinary) {
  const EventStream stream(suite_->run() + "/gantry.sock", suite_->root() + "/events");
  const std::string publish = absl::StrCat(testing::BinDirectory(), "/gantry-task --address ",
                                           suite_->run(), "/gantry.sock publish ");
  // A google.protobuf.Any of containerd.events.TaskOOM for the container "c9".
  const std::string any = R"(printf '\n\031containerd.events.TaskOOM\022\004\n\002c9')";

  const CommandResult result = testing::RunShell(
      absl::StrCat(any, " | ", publish, "--topic /tasks/oom --namespace default"));

  EXPECT_EQ(result.code, 0) << result;
  EXPECT_TRUE(Eventually("grep -q '/tasks/oom.*c9' " + stream.path()));
  const CommandResult refused = testing::RunShell(absl::StrCat("echo | ", publish, "--topic /x"));
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--namespace is missing"));
}

class MetricsTest : public testing::SuiteTest {
 protected:
  static void SetUpTestSuite() { SuiteTest::SetUpTestSuite(); }
};

TEST_F(MetricsTest, PrometheusScrapesAndPromtoolIsContent) {
  ASSERT_EQ(Run({}, {"true"}).code, 0);
  const CommandResult text = testing::RunCommand({"curl", "-fs", "http://127.0.0.1:9347/metrics"});
  ASSERT_EQ(text.code, 0) << text;
  for (const std::string& process : testing::Suite::Processes()) {
    EXPECT_THAT(text.out, HasSubstr("process=\"" + process + "\"")) << process;
  }
  EXPECT_THAT(text.out, HasSubstr("gantry_engine_start_step_seconds_bucket"));
  CommandOptions options;
  options.input = text.out;
  const CommandResult lint = testing::RunCommand({"promtool", "check", "metrics"}, options);
  EXPECT_EQ(lint.code, 0) << lint;
  EXPECT_EQ(lint.out + lint.err, "") << "promtool is to be clean, not just content";

  const std::string folder = suite_->root() + "/prometheus";
  ASSERT_OK(sys::MakeDirectories(folder));
  ASSERT_OK(sys::WriteFileAtomically(
      folder + "/p.yml",
      "scrape_configs:\n- job_name: gantry\n  scrape_interval: 1s\n  static_configs:\n"
      "  - targets: ['127.0.0.1:9347']\n"));
  const CommandResult scrape = testing::RunShell(
      "cd " + folder +
      "; prometheus --config.file=p.yml --storage.tsdb.path=data "
      "--web.listen-address=127.0.0.1:9390 > log 2>&1 & pid=$!; for i in $(seq 150); do "
      "curl -fs 'http://127.0.0.1:9390/api/v1/query?query=up' | grep -q '\"1\"' && break; sleep "
      "0.1; done; "
      "curl -fs 'http://127.0.0.1:9390/api/v1/query?query=gantry_rpc_total' | head -c 300; kill "
      "$pid; wait $pid");
  EXPECT_THAT(scrape.out, HasSubstr("gantry_rpc_total")) << scrape;
}

TEST_F(MetricsTest, AProcessThatIsDownIsSaidToBeAndTheScrapeGoesOn) {
  suite_->Kill("task");

  const CommandResult down = testing::RunCommand({"curl", "-fs", "http://127.0.0.1:9347/metrics"});
  ASSERT_OK(suite_->Launch("task"));

  ASSERT_EQ(down.code, 0) << down;
  EXPECT_THAT(down.out, HasSubstr("gantry_up{process=\"task\"} 0"));
  EXPECT_THAT(down.out, HasSubstr("gantry_up{process=\"metadata\"} 1"));
  // The gateway's connection comes back by itself.
  EXPECT_TRUE(Eventually(
      "curl -fs http://127.0.0.1:9347/metrics | grep -q 'gantry_up{process=\"task\"} 1'"));
}

}  // namespace
}  // namespace gantry
