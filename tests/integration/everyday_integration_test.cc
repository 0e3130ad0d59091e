// The everyday commands beyond `run`: what people rely on without thinking about it.

#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class EverydayTest : public testing::SuiteTest {
 protected:
  static void SetUpTestSuite() {
    SuiteTest::SetUpTestSuite();
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create("/tmp");
    ASSERT_OK(folder);
    folder_ = std::make_unique<sys::TempDir>(*std::move(folder));
  }
  static void TearDownTestSuite() {
    folder_.reset();
    SuiteTest::TearDownTestSuite();
  }

  static std::string In(const std::string& name) {
    return absl::StrCat(folder_->path(), "/", name);
  }

  static inline std::unique_ptr<sys::TempDir> folder_;
};

// --- events ---

TEST_F(EverydayTest, EventsNameContainersThatAreGone) {
  ASSERT_EQ(Run({"--name", "gone", "--label", "tier=front"}, {"sh", "-c", "exit 3"}).code, 3);
  ASSERT_TRUE(
      Eventually("$CTL events --since 10m --until 0s --filter container=gone "
                 "--filter event=destroy | grep -q destroy"));

  const CommandResult told =
      Ctl({"events", "--since", "10m", "--until", "0s", "--filter", "label=tier=front", "--filter",
           "type=container", "--format",
           "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}}"});

  std::vector<std::string> expected;
  for (const char* action : {"create", "attach", "start", "die", "destroy"}) {
    expected.push_back(absl::StrCat(action, " gone ", Image()));
  }
  EXPECT_EQ(Lines(told.out), expected) << told;
}

TEST_F(EverydayTest, EventsTellKillRenameRestartAndVolumes) {
  RunDetached({"--name", "story", "-v", "story-data:/data"}, {"sleep", "600"});
  ASSERT_EQ(Ctl({"kill", "-s", "USR1", "story"}).code, 0);
  ASSERT_EQ(Ctl({"rename", "story", "saga"}).code, 0);
  ASSERT_EQ(Ctl({"restart", "-t", "0", "saga"}).code, 0);
  ASSERT_EQ(Ctl({"exec", "saga", "true"}).code, 0);
  ASSERT_EQ(Ctl({"rm", "-f", "saga"}).code, 0);
  ASSERT_EQ(Ctl({"volume", "rm", "story-data"}).code, 0);
  ASSERT_TRUE(
      Eventually("$CTL events --since 10m --until 0s --filter volume=story-data "
                 "--filter event=destroy | grep -q destroy"));

  const std::string all =
      Ctl({"events", "--since", "10m", "--until", "0s", "--format", "{{.Type}} {{.Action}}"}).out;

  for (const char* line :
       {"container kill\n", "container rename\n", "container restart\n", "container stop\n",
        "container exec_create: true\n", "container exec_start: true\n", "container exec_die\n",
        "volume mount\n", "volume unmount\n", "volume destroy\n", "network connect\n",
        "network disconnect\n"}) {
    EXPECT_THAT(all, HasSubstr(line));
  }
}

// --- rmi ---

TEST_F(EverydayTest, AnImageOfARunningContainerStays) {
  ASSERT_EQ(Ctl({"tag", Image(), "only/here:1"}).code, 0);
  const std::string id = RunDetached({}, {"sleep", "600"});
  const std::string image = Inspect(id, "{{.Image}}");

  const CommandResult by_id = Ctl({"rmi", "-f", image});
  EXPECT_EQ(by_id.code, 1) << by_id;
  EXPECT_THAT(by_id.err, AllOf(HasSubstr("cannot be forced"), HasSubstr("running container")));
  EXPECT_EQ(Ctl({"rmi", "only/here:1"}).code, 0) << "one name of several goes";
  const CommandResult last = Ctl({"rmi", Image()});
  EXPECT_EQ(last.code, 1) << last;
  EXPECT_THAT(last.err, HasSubstr("must force"));
  EXPECT_EQ(Run({}, {"true"}).code, 0) << "the image is there";
}

TEST_F(EverydayTest, WrongObjectsAreSaid) {
  RunDetached({"--name", "thing"}, {"sleep", "600"});

  EXPECT_THAT(Ctl({"rm", Image()}).err, HasSubstr("gantryctl rmi"));
  EXPECT_THAT(Ctl({"rmi", "thing"}).err, HasSubstr("gantryctl rm removes containers"));
  const CommandResult missing = Ctl({"rm", "-f", "no-such"});
  EXPECT_EQ(missing.code, 0);
  EXPECT_EQ(missing.out, "");
}

// --- namespaces of others ---

TEST_F(EverydayTest, SharedMemoryIsJoinedWhenItIsShareable) {
  RunDetached({"--name", "donor", "--ipc", "shareable", "--shm-size", "8m"},
              {"sh", "-c", "echo hello > /dev/shm/note; sleep 600"});
  ASSERT_TRUE(Eventually("$CTL exec donor test -s /dev/shm/note"));

  EXPECT_EQ(Run({"--ipc", "container:donor"}, {"cat", "/dev/shm/note"}).out, "hello\n");
  EXPECT_THAT(Run({"--ipc", "container:donor"}, {"df", "-k", "/dev/shm"}).out, HasSubstr("8192"));
  ASSERT_EQ(Ctl({"rm", "-f", "donor"}).code, 0);  // TearDown finds no mount that stays.

  RunDetached({"--name", "private"}, {"sleep", "600"});
  const CommandResult refused = Run({"--ipc", "container:private"}, {"true"});
  EXPECT_EQ(refused.code, 125);
  EXPECT_THAT(refused.err, HasSubstr("non-shareable IPC"));
}

TEST_F(EverydayTest, IpcOfTheHostAndNone) {
  EXPECT_EQ(Run({"--ipc", "host"}, {"readlink", "/proc/self/ns/ipc"}).out,
            testing::RunCommand({"readlink", "/proc/self/ns/ipc"}).out);
  EXPECT_THAT(Run({"--ipc", "none"}, {"cat", "/proc/mounts"}).out, Not(HasSubstr("/dev/shm")));
}

TEST_F(EverydayTest, AJoinedNetworkBringsItsHostName) {
  RunDetached({"--name", "net", "--hostname", "shared"}, {"sleep", "600"});
  EXPECT_EQ(Run({"--network", "container:net"}, {"hostname"}).out, "shared\n");
}

// --- flags ---

TEST_F(EverydayTest, AnImageOfAnotherPlatformIsNotRun) {
  const CommandResult result = Run({"--platform", "linux/s390x", "--pull", "never"}, {"true"});
  EXPECT_EQ(result.code, 125) << result;
  EXPECT_THAT(result.err, AllOf(HasSubstr("linux/s390x"), HasSubstr("linux/")));
}

TEST_F(EverydayTest, FlagsWithoutMeaningHereAreRefusedWithAReason) {
  for (const std::vector<std::string>& flag : std::vector<std::vector<std::string>>{
           {"--gpus", "all"}, {"--health-cmd", "true"}, {"--link", "a:b"}, {"--ip6", "::1"}}) {
    const CommandResult result = Run(flag, {"true"});
    EXPECT_EQ(result.code, 125) << flag[0];
    EXPECT_THAT(result.err, HasSubstr(absl::StrCat(flag[0], " is not supported: ")));
  }
  EXPECT_EQ(Run({"--no-healthcheck", "--volume-driver", "local"}, {"true"}).code, 0);
}

TEST_F(EverydayTest, FiltersFindPublishedPorts) {
  const std::string id = RunDetached({"-p", "127.0.0.1:18973:80"}, {"sleep", "600"});

  EXPECT_EQ(Ctl({"ps", "-q", "--no-trunc", "-f", "publish=18973"}).out, id + "\n");
  EXPECT_EQ(Ctl({"ps", "-q", "-f", "publish=80"}).out, "");
  EXPECT_EQ(Ctl({"ps", "-q", "--no-trunc", "-f", "expose=80"}).out, id + "\n");
  EXPECT_EQ(Ctl({"ps", "-q", "--no-trunc", "-f", "health=none"}).out, id + "\n");
}

// --- cp ---

TEST_F(EverydayTest, CopiesFromContainerToContainer) {
  RunDetached(
      {"--name", "left"},
      {"sh", "-c", "mkdir -p /srv/a/b; echo 1 > /srv/a/b/f; ln -s f /srv/a/b/l; sleep 600"});
  ASSERT_TRUE(Eventually("$CTL exec left test -L /srv/a/b/l"));
  ASSERT_EQ(Ctl({"create", "--name", "right", Image(), "sleep", "600"}).code, 0);

  // Into a directory, under a new name, its contents, and one file; the target is stopped.
  EXPECT_EQ(Ctl({"cp", "left:/srv/a", "right:/tmp"}).code, 0);
  EXPECT_EQ(Ctl({"cp", "left:/srv/a", "right:/tmp/new"}).code, 0);
  EXPECT_EQ(Ctl({"cp", "left:/srv/a/.", "right:/tmp/contents"}).code, 0);
  EXPECT_EQ(Ctl({"cp", "left:/srv/a/b/f", "right:/tmp/file"}).code, 0);
  EXPECT_EQ(Ctl({"cp", "left:/srv/a", "right:/etc/passwd"}).code, 1);
  EXPECT_EQ(Ctl({"cp", "left:/no/such", "right:/tmp"}).code, 1);

  ASSERT_EQ(Ctl({"start", "right"}).code, 0);
  const CommandResult found =
      Ctl({"exec", "right", "sh", "-c", "cd /tmp; find . -type f -o -type l | sort; cat file"});
  EXPECT_THAT(Lines(found.out),
              ElementsAre("./a/b/f", "./a/b/l", "./contents/b/f", "./contents/b/l", "./file",
                          "./new/b/f", "./new/b/l", "1"));
}

// The attack on `cp`: a program swaps a directory of the target path for a link to the host's while
// files are copied to it and from it. Wherever the copy lands, it is inside of the container.
TEST_F(EverydayTest, ALinkSwappedDuringACopyLeadsNowhere) {
  const std::string bait = In("bait");
  ASSERT_OK(sys::MakeDirectories(bait, 0755));
  ASSERT_OK(sys::WriteFileAtomically(bait + "/secret", "of the host", 0600));
  ASSERT_OK(sys::WriteFileAtomically(In("payload"), "from outside", 0644));
  RunDetached({"--name", "attacker"},
              {"sh", "-c",
               absl::StrCat("mkdir -p /work/real /work/d; cd /work; while :; do "
                            "rm -rf d; ln -s ",
                            bait, " d; rm -f d; mkdir d; echo mine > d/secret; done")});
  ASSERT_TRUE(Eventually("$CTL exec attacker test -d /work/real"));

  for (int round = 0; round < 25; ++round) {
    // Either may fail: the path comes and goes.
    (void)Ctl({"cp", In("payload"), "attacker:/work/d/payload"});
    const CommandResult read = Ctl({"cp", "attacker:/work/d/secret", "-"});
    EXPECT_THAT(read.out, Not(HasSubstr("of the host")));
  }

  EXPECT_FALSE(sys::Exists(bait + "/payload"));
  EXPECT_EQ(*sys::ReadFile(bait + "/secret"), "of the host");
}

// --- request ids ---

TEST_F(EverydayTest, ARequestIsKnownByItsIdInTheLogs) {
  RunDetached({"--name", "logged"}, {"sh", "-c", "exit 7"});
  ASSERT_EQ(Ctl({"wait", "logged"}).out, "7\n");

  const CommandResult failed = Ctl({"-D", "start", "no-such-container"});

  ASSERT_EQ(failed.code, 1);
  EXPECT_THAT(failed.err, ::testing::ContainsRegex("code: NOT_FOUND request=[0-9a-f]{16}"));
  CommandOptions json;
  json.environment = {"GANTRY_ERROR_FORMAT=json"};
  EXPECT_THAT(Ctl({"start", "no-such-container"}, json).err, HasSubstr("\"request\":\""));
}

// --- what the table of commands says of itself ---

TEST_F(EverydayTest, BashCompletesCommandsFlagsAndNames) {
  RunDetached({"--name", "completed"}, {"sleep", "600"});
  const auto complete = [&](const std::string& words) {
    CommandOptions options;
    options.environment = {"GANTRY_HOST=" + suite_->host(),
                           "PATH=" + testing::BinDirectory() + ":/usr/bin:/bin"};
    return testing::RunCommand(
               {"bash", "-c",
                absl::StrCat("source <(gantryctl completion bash); COMP_WORDS=(gantryctl ", words,
                             "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _gantryctl; "
                             "printf '%s\\n' \"${COMPREPLY[@]}\"")},
               options)
        .out;
  };

  EXPECT_EQ(complete("unp"), "unpause\n");
  EXPECT_THAT(complete("volume ''"), HasSubstr("inspect\n"));
  EXPECT_EQ(complete("run --rea"), "--read-only\n");
  EXPECT_EQ(complete("stop comp"), "completed\n");
  EXPECT_THAT(complete("run ''"), HasSubstr(Image()));
  EXPECT_EQ(complete("run --pull al"), "always\n");
}

TEST_F(EverydayTest, ManualPagesAreWritten) {
  ASSERT_EQ(Ctl({"man", "--directory", In("man")}).code, 0);
  EXPECT_THAT(*sys::ReadFile(In("man/gantryctl-run.1")),
              AllOf(HasSubstr(".TH \"GANTRYCTL-RUN\" \"1\""), HasSubstr("read\\-only")));
  EXPECT_THAT(*sys::ReadFile(In("man/gantryctl.1")), HasSubstr("gantryctl\\-volume\\-ls"));
}

TEST_F(EverydayTest, VersionTellsWhenItWasBuilt) {
  const CommandResult version = Ctl({"version", "--format",
                                     "{{range .Server.Components}}"
                                     "{{.Name}}={{.BuildTime}} {{end}}"});
  for (const char* process : {"metadata", "snapshotter", "image", "task", "engine"}) {
    EXPECT_THAT(version.out,
                ::testing::ContainsRegex(absl::StrCat("gantry-", process, "=20[0-9-]+T[0-9:]+Z")));
  }
}

}  // namespace
}  // namespace gantry
