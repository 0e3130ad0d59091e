// Exit codes and words that callers look for: contracts/oci/RUNTIME.md, 2. Changing one of these
// breaks containerd's shim, CRI-O, podman or docker.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RuntimeAnswersTest : public RuntimeTest {
 protected:
  void Expect(const std::vector<std::string>& words, int code, const std::string& said) {
    CommandResult result = Runtime(words);
    EXPECT_EQ(result.code, code) << words[0] << ": " << result;
    EXPECT_THAT(result.err, HasSubstr(said)) << words[0];
  }
};

TEST_F(RuntimeAnswersTest, AnUnknownContainer) {
  for (const char* command : {"state", "start", "kill", "delete", "pause", "resume", "ps"}) {
    Expect({command, "nobody"}, 1, "does not exist");
  }
  Expect({"exec", "nobody", "true"}, 255, "does not exist");
  Expect({"update", "--memory", "1000000", "nobody"}, 1, "does not exist");
  Expect({"events", "--stats", "nobody"}, 1, "does not exist");
  Expect({"delete", "--force", "nobody"}, 0, "");
}

TEST_F(RuntimeAnswersTest, ARunningContainer) {
  StartScript("c", "sleep 1000");
  Expect({"delete", "c"}, 1, "cannot delete container c that is not stopped: running");
  Expect({"start", "c"}, 1, "cannot start an already running container");
  Expect({"resume", "c"}, 1, "container not paused");
  Expect({"create", "--bundle", path("bundle"), "c"}, 1, "container with given ID already exists");
  Expect({"exec", "c", "nonesuch"}, 255, "exec: \"nonesuch\": executable file not found in $PATH");
  Expect({"exec", "c", "/bin/nonesuch"}, 255,
         "exec: \"/bin/nonesuch\": stat /bin/nonesuch: no such file or directory");
  Expect({"exec", "c", "/bin"}, 255, "is a directory");
  Expect({"exec", "c", "/proc/self/status"}, 255, "permission denied");
  Expect({"exec", "c", "sh", "-c", "exit 7"}, 7, "");
  Expect({"exec", "c", "sh", "-c", "kill -9 $$"}, 137, "");
  Expect({"exec", "--cwd", "/nonesuch", "c", "true"}, 255, "chdir to cwd ('/nonesuch')");
}

TEST_F(RuntimeAnswersTest, AStoppedContainer) {
  StartScript("c", "true");
  ASSERT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
  EXPECT_EQ(PidOf("c"), 0);
  Expect({"kill", "c", "KILL"}, 1, "container not running");
  Expect({"exec", "c", "true"}, 255, "cannot exec in a stopped container");
  Expect({"start", "c"}, 1, "cannot start a container that has stopped");
  Expect({"pause", "c"}, 1, "container not running");
  Expect({"update", "--pids-limit", "5", "c"}, 1, "container not running");
}

TEST_F(RuntimeAnswersTest, APausedContainer) {
  StartScript("c", "sleep 1000");
  ASSERT_EQ(Runtime({"pause", "c"}).code, 0);
  EXPECT_EQ(StateOf("c", "status"), "paused");
  Expect({"exec", "c", "true"}, 255, "cannot exec in a paused container");
  // Signals of a frozen container arrive: it is thawed for KILL.
  Expect({"kill", "c", "KILL"}, 0, "");
  EXPECT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
}

TEST_F(RuntimeAnswersTest, AWrongCommandLine) {
  Expect({"nonesuch"}, 1, "unknown command 'nonesuch'");
  Expect({"create", "--nonesuch", "c"}, 1, "--nonesuch");
  Expect({"create", "--bundle"}, 1, "--bundle");
  Expect({"state"}, 1, "wrong number of arguments");
  Expect({"state", ""}, 1, "invalid container id format");
  Expect({"state", "a", "b"}, 1, "wrong number of arguments");
  Expect({"kill", "c", "NONESUCH"}, 1, "NONESUCH");
  Expect({"list", "--format", "yaml"}, 1, "neither table nor json");
  Expect({"--log-format", "xml", "list"}, 1, "neither text nor json");
  Expect({"create", "--preserve-fds", "-1", "--bundle", path("bundle"), "c"}, 1, "--preserve-fds");
  Expect({"update", "--memory", "much", "c"}, 1, "--memory: 'much' is not a number");
}

TEST_F(RuntimeAnswersTest, SignalsByAnyName) {
  for (const char* signal : {"9", "KILL", "sigkill", "SIGTERM", "TERM"}) {
    StartScript("c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    ASSERT_TRUE(Eventually([&] { return Output().find("ready") != std::string::npos; }));
    Expect({"kill", "c", signal}, 0, "");
    EXPECT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; })) << signal;
    Expect({"delete", "c"}, 0, "");
  }
  StartScript("c", "sleep 1000");
  Expect({"kill", "--all", "c", "KILL"}, 0, "");
  EXPECT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
  Expect({"kill", "-a", "c", "KILL"}, 1, "container not running");
}

TEST_F(RuntimeAnswersTest, TheVersionHasItsLines) {
  const std::string text = Runtime({"--version"}).out;
  EXPECT_THAT(text, ::testing::StartsWith("gantry-runtime version "));
  EXPECT_THAT(text, HasSubstr("\ncommit: "));
  EXPECT_THAT(text, HasSubstr("\nspec: 1."));
}

}  // namespace
}  // namespace gantry::testing
