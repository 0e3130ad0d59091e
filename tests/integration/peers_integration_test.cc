// ctr against our gateway and against Debian's containerd, side by side: same answers, same codes.

#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;

// What of an answer must be equal.
enum class Compare { kCode, kCodeAndOutput };

struct Step {
  std::vector<std::string> words;  // IMAGE, ROOT and MOUNT stand for what the test has.
  Compare compare = Compare::kCodeAndOutput;
};

// In order: later steps use what earlier ones made.
std::vector<Step> Steps() {
  constexpr Compare kCode = Compare::kCode;
  return {
      {{"images", "pull", "--plain-http", "IMAGE"}, kCode},
      {{"images", "ls"}},
      {{"images", "check"}},
      {{"images", "usage", "IMAGE"}, kCode},
      {{"images", "label", "IMAGE", "x=y"}},
      {{"images", "mount", "IMAGE", "MOUNT"}, kCode},
      {{"images", "unmount", "MOUNT"}},
      {{"images", "mount", "--rw", "IMAGE", "MOUNT"}, kCode},
      {{"images", "unmount", "--rm", "MOUNT"}},
      {{"images", "convert", "--oci", "IMAGE", "conv:1"}},
      {{"images", "export", "ROOT/export.tar", "IMAGE"}},
      {{"images", "tag", "IMAGE", "tag:1"}},
      {{"images", "tag", "IMAGE", "tag:1"}, kCode},
      {{"images", "tag", "--force", "IMAGE", "tag:1"}},
      {{"images", "rm", "tag:1", "conv:1"}},
      {{"images", "rm", "nothing:1"}, kCode},
      {{"content", "ls", "-q"}, kCode},
      {{"content", "active"}},
      {{"content", "get",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
       kCode},
      {{"containers", "create", "IMAGE", "c1", "echo", "hi"}},
      {{"containers", "create", "IMAGE", "c1", "echo", "hi"}, kCode},
      {{"containers", "ls"}},
      {{"containers", "label", "c1", "foo=bar"}, kCode},
      {{"containers", "ls", "-q", "labels.foo==bar"}},
      {{"containers", "ls", "-q", "labels.foo==baz"}},
      {{"containers", "info", "nothing"}, kCode},
      {{"snapshots", "ls"}},
      {{"snapshots", "tree"}},
      {{"snapshots", "usage", "c1"}},
      {{"snapshots", "prepare", "k1"}, kCode},
      {{"snapshots", "label", "k1", "a=b"}, kCode},
      {{"snapshots", "diff", "k1"}, kCode},
      {{"snapshots", "commit", "k1c", "k1"}},
      {{"snapshots", "rm", "k1c"}},
      {{"snapshots", "rm", "nothing"}, kCode},
      {{"tasks", "start", "c1"}},
      {{"tasks", "rm", "c1"}, kCode},
      {{"containers", "rm", "c1"}},
      {{"containers", "rm", "nothing"}, kCode},
      {{"run", "--rm", "--env", "A=b", "IMAGE", "r1", "env"}},
      {{"run", "--rm", "--mount", "type=bind,src=/etc/hostname,dst=/etc/h,options=rbind:ro",
        "IMAGE", "r2", "cat", "/etc/h"}},
      {{"run", "--rm", "--privileged", "IMAGE", "r3", "grep", "Cap", "/proc/self/status"}},
      {{"run", "--rm", "IMAGE", "r4", "grep", "Cap", "/proc/self/status"}},
      {{"run", "--rm", "--cap-drop", "CAP_CHOWN", "IMAGE", "r5", "grep", "CapEff",
        "/proc/self/status"}},
      {{"run", "--rm", "--memory-limit", "33554432", "IMAGE", "r6", "true"}},
      {{"run", "--rm", "--net-host", "IMAGE", "r7", "ls", "/sys/class/net"}},
      {{"run", "--rm", "--user", "1000:1000", "IMAGE", "r8", "id"}},
      {{"run", "--rm", "--cwd", "/bin", "IMAGE", "r9", "pwd"}},
      {{"run", "--rm", "--read-only", "IMAGE", "r10", "touch", "/x"}},
      {{"run", "--rm", "IMAGE", "r11", "/nonexistent"}, kCode},
      {{"run", "--rm", "nothing:1", "r12", "true"}, kCode},
      {{"run", "--rm", "--device", "/dev/full", "IMAGE", "r13", "ls", "/dev/full"}},
      {{"run", "-d", "IMAGE", "d1", "sleep", "300"}},
      {{"tasks", "ls", "-q"}},
      {{"tasks", "metrics", "d1"}, kCode},
      {{"tasks", "exec", "--exec-id", "e1", "d1", "echo", "in"}},
      {{"tasks", "exec", "--exec-id", "e2", "d1", "false"}},
      {{"tasks", "exec", "--exec-id", "e3", "nothing", "true"}, kCode},
      {{"tasks", "rm", "d1"}, kCode},  // It runs.
      {{"tasks", "pause", "d1"}},
      {{"tasks", "resume", "d1"}},
      {{"tasks", "kill", "-s", "SIGKILL", "nothing"}, kCode},
      {{"tasks", "rm", "-f", "d1"}},
      {{"containers", "rm", "d1"}},
      {{"leases", "create", "--id", "L1"}},
      {{"leases", "create", "--id", "L1"}, kCode},
      {{"leases", "ls", "-q"}},
      {{"leases", "rm", "L1"}},
      {{"leases", "rm", "L1"}, kCode},
      {{"namespaces", "create", "n1", "a=b"}},
      {{"namespaces", "ls"}, kCode},
      {{"namespaces", "create", "n1"}, kCode},
      {{"namespaces", "rm", "n1"}},
      {{"namespaces", "rm", "n1"}, kCode},
      {{"namespaces", "rm", "default"}, kCode},  // It is not empty.
      {{"-n", "Bad/Name", "images", "ls"}, kCode},
      {{"images", "rm", "--sync", "IMAGE"}},
  };
}

class PeersTest : public testing::SuiteTest {
 protected:
  void SetUp() override {
    SuiteTest::SetUp();
    root_ = suite_->root() + "/peer";
    ASSERT_OK(sys::MakeDirectories(root_));
    // The same work must not meet in one image store or one mount point.
    ASSERT_OK(sys::WriteFileAtomically(
        root_ + "/config.toml",
        absl::StrCat("version = 2\nroot = \"", root_, "/root\"\nstate = \"", root_,
                     "/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n"
                     "address = \"",
                     root_, "/c.sock\"\n[ttrpc]\naddress = \"", root_, "/t.sock\"\n")));
    sys::SpawnOptions options;
    options.argv = {"/usr/bin/containerd", "-c", root_ + "/config.toml", "-l", "warn"};
    options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    absl::StatusOr<sys::Child> started = sys::Spawn(options);
    ASSERT_OK(started);
    containerd_ = *std::move(started);
    ASSERT_TRUE(Eventually("ctr -a " + root_ + "/c.sock version > /dev/null 2>&1"));
  }

  void TearDown() override {
    if (containerd_.running()) {
      EXPECT_OK(containerd_.Signal(SIGTERM));
      EXPECT_OK(containerd_.Wait());
    }
    SuiteTest::TearDown();
  }

  CommandResult Ctr(const std::string& socket, const std::string& folder, const Step& step) {
    std::vector<std::string> words = {"ctr", "-a", socket};
    for (const std::string& word : step.words) {
      words.push_back(absl::StrReplaceAll(
          word, {{"IMAGE", Image()}, {"ROOT", folder}, {"MOUNT", folder + "/mount"}}));
    }
    CommandOptions options;
    options.timeout = absl::Seconds(60);
    CommandResult result = testing::RunCommand(std::move(words), options);
    absl::StrReplaceAll({{folder, "FOLDER"}}, &result.out);
    return result;
  }

  std::string root_;
  sys::Child containerd_;
};

TEST_F(PeersTest, CtrHearsTheSameFromBoth) {
  const std::string theirs = root_ + "/theirs", ours = root_ + "/ours";
  for (const std::string& folder : {theirs, ours}) {
    ASSERT_OK(sys::MakeDirectories(folder + "/mount"));
  }

  // One after the other: their containers have the same cgroups.
  std::vector<CommandResult> expected;
  for (const Step& step : Steps()) expected.push_back(Ctr(root_ + "/c.sock", theirs, step));
  for (size_t i = 0; i < expected.size(); ++i) {
    const Step step = Steps()[i];
    const CommandResult got = Ctr(suite_->run() + "/gantry.sock", ours, step);

    EXPECT_EQ(got.code, expected[i].code) << "containerd: " << expected[i] << "\nwe: " << got;
    if (step.compare == Compare::kCode) continue;
    EXPECT_EQ(got.out, expected[i].out) << "containerd: " << expected[i] << "\nwe: " << got;
  }
}

}  // namespace
}  // namespace gantry
