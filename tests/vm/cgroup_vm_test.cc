// Limits, devices, delegation and lack of memory on a real cgroup v2.
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class CgroupVmTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    auto layout = cgroup::Layout::Detect();
    ASSERT_OK(layout);
    if (layout->mode != cgroup::Mode::kV2) GTEST_SKIP() << "needs cgroup v2 alone (tests/vm)";
    spec_.process->args = {"/bin/sleep", "1000"};
  }
  oci::Resources& resources() {
    if (!spec_.linux_.resources) spec_.linux_.resources.emplace();
    return *spec_.linux_.resources;
  }
  void Start() { StartScript("c", "sleep 1000"); }
  std::string Directory() const { return absl::StrCat("/sys/fs/cgroup", cgroup_, "/leaf"); }
  std::string Control(const std::string& file) {
    auto text = sys::ReadFile(Directory() + "/" + file);
    EXPECT_OK(text);
    return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
  }
  // `update --resources -` with the given document.
  CommandResult Update(const std::string& document) {
    return Runtime({"update", "--resources", "-", "c"}, {.input = document});
  }
  CommandResult Exec(const std::string& script, std::vector<std::string> options = {}) {
    options.insert(options.begin(), "exec");
    options.insert(options.end(), {"c", "/bin/sh", "-c", script});
    return Runtime(options);
  }
  // The whole tree, writable, in a cgroup namespace.
  void MountCgroupsWritable() {
    for (oci::Mount& mount : spec_.mounts) {
      if (mount.type == "cgroup") mount.options = {"nosuid", "noexec", "nodev", "relatime"};
    }
  }
};

TEST_F(CgroupVmTest, InitIsBornInItsCgroupWithAllControllers) {
  Start();
  const std::vector<std::string> pids = absl::StrSplit(Control("cgroup.procs"), '\n');
  EXPECT_THAT(pids, Contains(absl::StrCat(PidOf("c"))));
  EXPECT_EQ(*sys::ReadFile("/sys/fs/cgroup/cgroup.controllers"),
            Control("cgroup.controllers") + "\n");
}

TEST_F(CgroupVmTest, MemoryCpuPidsAndCpusetArriveConverted) {
  resources().memory =
      oci::MemoryResources{.limit = 64 << 20, .reservation = 32 << 20, .swap = 96 << 20};
  resources().cpu = oci::CpuResources{
      .shares = 2048, .quota = 30000, .burst = 10000, .period = 50000, .cpus = "0", .mems = "0"};
  resources().pids_limit = 77;
  Start();
  EXPECT_EQ(Control("memory.max"), absl::StrCat(64 << 20));
  EXPECT_EQ(Control("memory.low"), absl::StrCat(32 << 20));
  EXPECT_EQ(Control("memory.swap.max"), absl::StrCat(32 << 20)) << "swap alone";
  EXPECT_EQ(Control("cpu.weight"), "174");
  EXPECT_EQ(Control("cpu.max"), "30000 50000");
  EXPECT_EQ(Control("cpu.max.burst"), "10000");
  EXPECT_EQ(Control("cpuset.cpus"), "0");
  EXPECT_EQ(Control("cpuset.mems"), "0");
  EXPECT_EQ(Control("pids.max"), "77");
  EXPECT_EQ(Exec("nproc").out, "1\n");
}

TEST_F(CgroupVmTest, IoWeightsAndRatesArrive) {
  (void)RunShell("modprobe virtio_blk");  // There is no udev to do it.
  auto device = sys::ReadFile("/sys/block/vda/dev");
  if (!device.ok()) GTEST_SKIP() << "needs the disk vda of the virtual machine";
  const std::string number(absl::StripAsciiWhitespace(*device));
  const std::vector<std::string> parts = absl::StrSplit(number, ':');
  oci::BlockIoResources io;
  io.weight = 500;
  oci::BlockIoResources::Throttle rate{std::stoi(parts[0]), std::stoi(parts[1]), 1 << 20};
  io.read_bps = {rate};
  rate.rate = 100;
  io.write_iops = {rate};
  resources().block_io = io;
  Start();
  EXPECT_EQ(Control("io.max"), number + " rbps=1048576 wbps=max riops=max wiops=100");
  EXPECT_EQ(Control("io.weight"), "default 4950");
}

TEST_F(CgroupVmTest, HugePagesAndRdmaArrive) {
  resources().hugepages = {{.page_size = "2MB", .limit = 4 << 20}};
  const bool rdma =
      RunShell("modprobe rdma_rxe && rdma link add rxe0 type rxe netdev lo").code == 0;
  if (rdma) resources().rdma["rxe0"] = {.hca_handles = 3, .hca_objects = 10};
  Start();
  EXPECT_EQ(Control("hugetlb.2MB.max"), "4194304");
  EXPECT_EQ(Control("hugetlb.2MB.rsvd.max"), "4194304");
  if (rdma) {
    EXPECT_EQ(Control("rdma.max"), "rxe0 hca_handle=3 hca_object=10");
  }
}

TEST_F(CgroupVmTest, UnifiedKeysAreWrittenLast) {
  resources().memory = oci::MemoryResources{.limit = 64 << 20};
  resources().unified = {{"memory.high", "50331648"},
                         {"memory.max", "67100672"},
                         {"memory.oom.group", "1"},
                         {"cpu.weight.nice", "5"},
                         {"pids.max", "40"}};
  Start();
  EXPECT_EQ(Control("memory.max"), "67100672");
  EXPECT_EQ(Control("memory.high"), "50331648");
  EXPECT_EQ(Control("memory.oom.group"), "1");
  EXPECT_EQ(Control("cpu.weight.nice"), "5");
  EXPECT_EQ(Control("pids.max"), "40");
}

TEST_F(CgroupVmTest, WhatTheKernelRefusesNamesFileAndValueAndLeavesNothing) {
  const std::vector<std::pair<std::string, std::string>> wrong = {{"memory.nosuch", "1"},
                                                                  {"cpu.weight", "100000"},
                                                                  {"misc.max", "nosuch 1"},
                                                                  {"cpuset.cpus", "700"}};
  for (const auto& [file, value] : wrong) {
    resources().unified = {{file, value}};
    EXPECT_EQ(Create("c").code, 1) << file;
    EXPECT_THAT(Output(), HasSubstr(file));
    EXPECT_FALSE(sys::Exists(Directory()));
    EXPECT_FALSE(sys::Exists(path("state/c")));
  }
}

TEST_F(CgroupVmTest, UpdateChangesLimitsBothWays) {
  resources().memory = oci::MemoryResources{.limit = 64 << 20, .swap = 64 << 20};
  Start();
  EXPECT_EQ(Update(R"({"memory":{"limit":134217728,"swap":268435456},"cpu":{"quota":-1}})").code,
            0);
  EXPECT_EQ(Control("memory.max"), "134217728");
  EXPECT_EQ(Control("memory.swap.max"), "134217728");
  EXPECT_EQ(Update(R"({"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}})").code, 0);
  EXPECT_EQ(Control("memory.max"), "max");
  EXPECT_EQ(Control("memory.swap.max"), "max");
  CommandResult refused = Update(R"({"memory":{"limit":4096,"checkBeforeUpdate":true}})");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("checkBeforeUpdate"));
  EXPECT_EQ(Control("memory.max"), "max");
}

// Opens /dev/fuse's number, which takes no capability: "1" when that is denied. Making the node is
// always allowed.
constexpr char kOpenFuse[] =
    "test -e /dev/m || mknod /dev/m c 10 229; dd if=/dev/m of=/dev/null bs=1 count=0 2>&1 | "
    "grep -c 'not permitted'; echo x >/dev/null && echo null";

TEST_F(CgroupVmTest, TheDeviceFilterIsReplacedNotStacked) {
  ASSERT_EQ(RunShell("modprobe fuse").code, 0);
  resources().devices = {{.allow = false, .access = "rwm"}};
  Start();
  EXPECT_EQ(Exec(kOpenFuse, {"--cap", "CAP_MKNOD"}).out, "1\nnull\n");
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(Update(R"({"devices":[{"allow":false,"access":"rwm"},)"
                     R"({"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]})")
                  .code,
              0)
        << round;
  }
  EXPECT_THAT(Exec(kOpenFuse).out, HasSubstr("0\nnull\n"))
      << "allowed now: denied by none of several";
  EXPECT_EQ(Update(R"({"devices":[{"allow":false,"access":"rwm"}]})").code, 0);
  EXPECT_EQ(Exec(kOpenFuse).out, "1\nnull\n");
}

TEST_F(CgroupVmTest, ExecFollowsInitOutOfACgroupThatHasOthersBelow) {
  MountCgroupsWritable();
  StartScript("c",
              "cd /sys/fs/cgroup && mkdir inner other && echo 1 > inner/cgroup.procs && "
              "echo +pids > cgroup.subtree_control; sleep 1000");
  ASSERT_TRUE(Eventually([&] { return Control("cgroup.subtree_control") == "pids"; }));

  EXPECT_EQ(Exec("cat /proc/self/cgroup").out, "0::/inner\n");
  EXPECT_EQ(Exec("cat /proc/self/cgroup", {"--cgroup", "/other"}).out, "0::/other\n");
  CommandResult full = Exec("true", {"--cgroup", "/"});
  EXPECT_EQ(full.code, 255);
  EXPECT_THAT(full.err, HasSubstr("takes no processes itself"));
  CommandResult escape = Exec("true", {"--cgroup", "/../../.."});
  EXPECT_EQ(escape.code, 255) << "the container's own is the root";
  CommandResult controller = Exec("true", {"--cgroup", "pids:/other"});
  EXPECT_EQ(controller.code, 255);
  EXPECT_THAT(controller.err, HasSubstr("give the path alone"));
}

TEST_F(CgroupVmTest, AUserNamespaceOwnsWhatTheKernelSaysMayBeOwned) {
  MountCgroupsWritable();
  spec_.linux_.namespaces.push_back({.type = "user"});
  spec_.linux_.uid_mappings = {{.container_id = 0, .host_id = 100000, .size = 65536}};
  spec_.linux_.gid_mappings = {{.container_id = 0, .host_id = 100000, .size = 65536}};
  ASSERT_EQ(RunShell("chown -R 100000:100000 " + rootfs()).code, 0);
  Start();
  const auto owner = [&](const std::string& file) {
    struct stat info = {};
    EXPECT_EQ(::stat((Directory() + "/" + file).c_str(), &info), 0) << file;
    return info.st_uid;
  };
  EXPECT_EQ(owner(""), 100000u);
  auto delegate = sys::ReadFile("/sys/kernel/cgroup/delegate");
  ASSERT_OK(delegate);
  for (const std::string& file :
       std::vector<std::string>(absl::StrSplit(*delegate, '\n', absl::SkipEmpty()))) {
    if (!sys::Exists(Directory() + "/" + file)) continue;  // Of a controller that is not here.
    EXPECT_EQ(owner(file), 100000u) << file;
  }
  EXPECT_EQ(owner("cgroup.procs"), 100000u);
  EXPECT_EQ(owner("memory.max"), 0u) << "limits stay ours";
  CommandResult inside = Exec(
      "mkdir /sys/fs/cgroup/own && echo $$ > /sys/fs/cgroup/own/cgroup.procs && cat "
      "/proc/self/cgroup; "
      "echo max > /sys/fs/cgroup/memory.max || echo refused");
  EXPECT_THAT(inside.out, HasSubstr("0::/own\n")) << inside;
  EXPECT_THAT(inside.out, HasSubstr("refused")) << inside;
}

TEST_F(CgroupVmTest, WithAReadOnlyMountNothingChangesItsOwner) {
  spec_.process->user.uid = 1000;
  Start();
  struct stat info = {};
  ASSERT_EQ(::stat(Directory().c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0u);
}

TEST_F(CgroupVmTest, FreezesAndKillsTheWholeTree) {
  spec_.linux_.namespaces.erase(
      std::remove_if(spec_.linux_.namespaces.begin(), spec_.linux_.namespaces.end(),
                     [](const oci::Namespace& ns) { return ns.type == "pid"; }),
      spec_.linux_.namespaces.end());
  StartScript("c", "sleep 1000 & sleep 1000");
  EXPECT_EQ(Runtime({"pause", "c"}).code, 0);
  EXPECT_THAT(Control("cgroup.events"), HasSubstr("frozen 1"));
  EXPECT_EQ(Runtime({"kill", "--all", "c", "KILL"}).code, 0);
  EXPECT_TRUE(Eventually([&] { return Control("cgroup.procs").empty(); })) << "frozen ones die too";
}

TEST_F(CgroupVmTest, TellsThatMemoryRanOut) {
  resources().memory = oci::MemoryResources{.limit = 24 << 20, .swap = 24 << 20};
  StartScript("c", "sleep 2; x=$(head -c 100000000 /dev/zero | tr '\\0' a); sleep 1000");
  CommandResult events = RunShell(absl::StrCat("timeout 60 ", program_, " --root ", path("state"),
                                               " events --interval 1h c | head -n 1"));
  EXPECT_THAT(events.out, HasSubstr(R"("type":"oom")")) << events;
  EXPECT_THAT(Control("memory.events"), Not(HasSubstr("oom_kill 0")));
}

TEST_F(CgroupVmTest, AnOomGroupGoesAsAWhole) {
  resources().memory = oci::MemoryResources{.limit = 24 << 20, .swap = 24 << 20};
  resources().unified = {{"memory.oom.group", "1"}};
  StartScript("c", "sleep 1000 & x=$(head -c 100000000 /dev/zero | tr '\\0' a); sleep 1000");
  EXPECT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
}

TEST_F(CgroupVmTest, StatisticsAreThoseOfTheKernel) {
  resources().memory = oci::MemoryResources{.limit = 64 << 20};
  resources().pids_limit = 9;
  Start();
  CommandResult result = Runtime({"events", "--stats", "c"});
  ASSERT_EQ(result.code, 0) << result;
  auto document = json::Document::Parse(result.out);
  ASSERT_OK(document);
  EXPECT_THAT(result.out, HasSubstr(R"("pids":{"current":1,"limit":9})"));
  EXPECT_THAT(result.out, HasSubstr(R"("limit":67108864)"));
  EXPECT_THAT(result.out, Not(HasSubstr(R"("total":0,"kernel")")));
  EXPECT_THAT(result.out, HasSubstr(R"("hugetlb":{)"));
}

}  // namespace
}  // namespace gantry::testing
