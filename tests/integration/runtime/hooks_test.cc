// Hooks: order, state on stdin, failures and time limits.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RuntimeHooksTest : public RuntimeTest {
 protected:
  oci::Hook Note(const std::string& name) {
    return {.path = "/bin/sh",
            .args = {"sh", "-c",
                     absl::StrCat("read -r state; echo ", name, " >>", path("order"),
                                  "; printf '%s' \"$state\" >", path("state-" + name),
                                  "; echo \"$VALUE\" >", path("value"))},
            .env = {"PATH=/usr/bin:/bin", "VALUE=from the document"}};
  }
  std::vector<std::string> Order() {
    auto text = sys::ReadFile(path("order"));
    return text.ok() ? std::vector<std::string>(absl::StrSplit(*text, '\n', absl::SkipEmpty()))
                     : std::vector<std::string>();
  }
  std::string StatusSeenBy(const std::string& name) {
    auto text = sys::ReadFile(path("state-" + name));
    auto document = json::Document::Parse(text.ok() ? *text : "");
    std::string status;
    return document.ok() && document->root().Required("status", &status).ok() ? status : "?";
  }
};

TEST_F(RuntimeHooksTest, RunInTheOrderOfTheSpecification) {
  spec_.hooks.prestart = {Note("prestart")};
  spec_.hooks.create_runtime = {Note("createRuntime")};
  spec_.hooks.create_container = {Note("createContainer")};
  spec_.hooks.poststart = {Note("poststart")};
  spec_.hooks.poststop = {Note("poststop")};
  spec_.hooks.start_container = {{.path = "/bin/sh", .args = {"sh", "-c", "cat >/tmp/inside"}}};

  EXPECT_EQ(RunScript("cat /tmp/inside").code, 0);

  EXPECT_THAT(Order(),
              ElementsAre("prestart", "createRuntime", "createContainer", "poststart", "poststop"));
  EXPECT_EQ(StatusSeenBy("prestart"), "creating");
  EXPECT_EQ(StatusSeenBy("createRuntime"), "creating");
  EXPECT_EQ(StatusSeenBy("createContainer"), "creating");
  EXPECT_EQ(StatusSeenBy("poststart"), "running");
  EXPECT_EQ(StatusSeenBy("poststop"), "stopped");
  auto inside = sys::ReadFile(rootfs("/tmp/inside"));
  ASSERT_OK(inside);
  EXPECT_THAT(*inside, HasSubstr("\"status\":\"created\""));
  EXPECT_EQ(*sys::ReadFile(path("value")), "from the document\n");
}

TEST_F(RuntimeHooksTest, AFailureUndoesTheCreation) {
  spec_.hooks.create_runtime = {{.path = "/bin/sh", .args = {"sh", "-c", "echo sorry >&2; exit 3"}},
                                Note("second")};
  spec_.hooks.poststop = {Note("poststop")};
  spec_.process->args = {"/bin/true"};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("createRuntime hook #0"));
  EXPECT_THAT(Output(), HasSubstr("exit status 3"));
  EXPECT_THAT(Output(), HasSubstr("sorry"));
  EXPECT_THAT(Order(), ElementsAre("poststop"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
}

TEST_F(RuntimeHooksTest, AHookThatHangsIsKilledWithItsChildren) {
  spec_.hooks.prestart = {
      {.path = "/bin/sh",
       .args = {"sh", "-c", absl::StrCat("sleep 1000 & echo $! > ", path("child"), "; sleep 1000")},
       .timeout_seconds = 1}};
  spec_.process->args = {"/bin/true"};
  const absl::Time begin = absl::Now();
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  EXPECT_THAT(Output(), HasSubstr("did not end within 1 s"));
  // Its child is an orphan then, of whoever reaps those: gone, or a zombie.
  const std::string child = *sys::ReadFile(path("child"));
  EXPECT_TRUE(Eventually([&] {
    return RunShell(absl::StrCat("grep -q 'State:.*[SR] (' /proc/",
                                 child.substr(0, child.size() - 1), "/status"))
               .code != 0;
  })) << child;
}

TEST_F(RuntimeHooksTest, AFailingPoststartKillsTheContainer) {
  spec_.hooks.poststart = {{.path = "/bin/false"}};
  spec_.process->args = {"/bin/sleep", "1000"};
  ASSERT_EQ(Create("c").code, 0) << Output();
  EXPECT_EQ(Runtime({"start", "c"}).code, 1);
  EXPECT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
}

TEST_F(RuntimeHooksTest, AllPoststopHooksRunWhateverFails) {
  spec_.hooks.poststop = {{.path = "/bin/false"}, Note("second")};
  CommandResult result = RunScript("exit 5");
  EXPECT_EQ(result.code, 5) << result;
  EXPECT_THAT(Order(), ElementsAre("second"));
  EXPECT_THAT(result.err, HasSubstr("poststop hook #0"));
}

}  // namespace
}  // namespace gantry::testing
