#include "tests/integration/runtime/bundle.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/identifier.h"
#include "lib/sys/file.h"

namespace gantry::testing {
namespace {

constexpr const char* kApplets[] = {
    "sh",  "true",     "sleep", "echo",  "id",    "ls",    "cat",  "mount", "env",
    "tty", "grep",     "touch", "mknod", "head",  "stat",  "kill", "stty",  "umount",
    "pwd", "readlink", "mkdir", "test",  "nproc", "uname", "ps",   "dd"};

}  // namespace

void RuntimeTest::SetUp() {
  REQUIRE_ROOT();
  auto scratch = sys::TempDir::Create("/tmp");
  ASSERT_OK(scratch);
  scratch_ = std::make_unique<sys::TempDir>(std::move(*scratch));
  ASSERT_EQ(::chmod(scratch_->path().c_str(), 0755), 0);
  const char* bin = ::getenv("GANTRY_BIN");
  ASSERT_NE(bin, nullptr);
  program_ = absl::StrCat(bin, "/gantry-runtime");
  cgroup_ = absl::StrCat("/gantry-rt-", RandomHex(4));
  for (const char* directory : {"/bin", "/proc", "/sys", "/dev", "/etc", "/tmp"}) {
    ASSERT_OK(sys::MakeDirectories(rootfs(directory), 0755));
  }
  auto busybox = sys::ReadFile("/bin/busybox");
  if (!busybox.ok()) busybox = sys::ReadFile("/usr/bin/busybox");
  ASSERT_OK(busybox) << "needs busybox-static";
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/bin/busybox"), *busybox, 0755));
  for (const char* applet : kApplets) {
    ASSERT_EQ(::symlink("busybox", rootfs(absl::StrCat("/bin/", applet)).c_str()), 0);
  }
  spec_ = oci::DefaultSpec();
  spec_.process->args = {"/bin/true"};
}

void RuntimeTest::TearDown() {
  if (scratch_ == nullptr) return;
  auto ids = sys::ListDirectory(path("state"));
  if (ids.ok()) {
    for (const std::string& id : *ids) {
      if (id[0] == '.') continue;
      EXPECT_EQ(Runtime({"delete", "--force", id}).code, 0);
    }
  }
  EXPECT_THAT(CgroupDirectories(), ::testing::IsEmpty());
  auto hierarchies = sys::ListDirectory("/sys/fs/cgroup");
  for (const std::string& name : *hierarchies) {
    ::rmdir(absl::StrCat("/sys/fs/cgroup/", name, cgroup_).c_str());
  }
  ::rmdir(absl::StrCat("/sys/fs/cgroup", cgroup_).c_str());
}

CommandResult RuntimeTest::Runtime(std::vector<std::string> words, const CommandOptions& options) {
  words.insert(words.begin(), {program_, "--root", path("state")});
  return RunCommand(std::move(words), options);
}

void RuntimeTest::WriteConfig() {
  if (spec_.linux_.cgroups_path.empty()) spec_.linux_.cgroups_path = cgroup_ + "/leaf";
  ASSERT_OK(sys::WriteFileAtomically(path("bundle/config.json"), oci::WriteSpec(spec_), 0644));
}

CommandResult RuntimeTest::RunScript(const std::string& script) {
  spec_.process->args = {"/bin/sh", "-c", script};
  WriteConfig();
  return Runtime({"run", "--bundle", path("bundle"), "c"});
}

CommandResult RuntimeTest::Create(const std::string& id, const std::string& more) {
  WriteConfig();
  return RunShell(absl::StrCat(program_, " --root ", path("state"), " --log ", path("log"),
                               " create ", more, " --bundle ", path("bundle"), " ", id,
                               " </dev/null >", path("out"), " 2>&1"));
}

std::string RuntimeTest::Output() const {
  auto text = sys::ReadFile(path("out"));
  return text.ok() ? *text : text.status().ToString();
}

void RuntimeTest::StartScript(const std::string& id, const std::string& script) {
  spec_.process->args = {"/bin/sh", "-c", script};
  ASSERT_EQ(Create(id).code, 0) << Output();
  CommandResult started = Runtime({"start", id});
  ASSERT_EQ(started.code, 0) << started;
}

std::string RuntimeTest::StateOf(const std::string& id, const std::string& member) {
  CommandResult result = Runtime({"state", id});
  auto document = json::Document::Parse(result.out);
  if (!document.ok()) return result.err;
  auto value = document->root().Find(member);
  if (!value) return "";
  std::string text;
  return value->To(&text).ok() ? text : value->Dump();
}

int RuntimeTest::PidOf(const std::string& id) {
  int pid = 0;
  (void)absl::SimpleAtoi(StateOf(id, "pid"), &pid);
  return pid;
}

bool RuntimeTest::Eventually(const std::function<bool()>& condition) {
  // The virtual machine of tests/vm is emulated, and ten times slower.
  const int slowness = ::getenv("GANTRY_VM") == nullptr ? 1 : 10;
  const absl::Time deadline = absl::Now() + absl::Seconds(10) * slowness;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    ::poll(nullptr, 0, 5);
  }
  return true;
}

std::vector<std::string> RuntimeTest::CgroupDirectories() const {
  std::vector<std::string> found;
  auto hierarchies = sys::ListDirectory("/sys/fs/cgroup");
  if (!hierarchies.ok()) return found;
  for (const std::string& name : *hierarchies) {
    for (const char* leaf : {"/leaf", "/leaf.scope"}) {
      const std::string path = absl::StrCat("/sys/fs/cgroup/", name, cgroup_, leaf);
      if (sys::Exists(path)) found.push_back(path);
    }
  }
  return found;
}

}  // namespace gantry::testing
