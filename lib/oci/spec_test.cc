#include "lib/oci/spec.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::oci {
namespace {

using ::gantry::testing::Fails;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// The smallest document we accept, with `more` members in it.
std::string Minimal(absl::string_view more = "", absl::string_view linux_members = "",
                    absl::string_view process_members = "") {
  return absl::StrCat(
      R"({"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"cwd":"/","args":["sh"])",
      process_members, R"(},"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}])",
      linux_members, "}", more, "}");
}

TEST(SpecTest, DefaultsSurviveWritingAndReading) {
  Spec spec = DefaultSpec();
  spec.process->args = {"sh", "-c", "true"};

  const std::string document = WriteSpec(spec);
  auto again = ParseSpec(document);

  ASSERT_OK(again);
  EXPECT_EQ(WriteSpec(*again), document);
  EXPECT_EQ(again->process->args, spec.process->args);
  EXPECT_EQ(again->linux_.seccomp->syscalls.size(), spec.linux_.seccomp->syscalls.size());
}

TEST(SpecTest, EveryMemberSurvivesWritingAndReading) {
  const std::string document =
      R"({"ociVersion":"1.2.0","process":{"terminal":true,"consoleSize":{"height":24,"width":80},)"
      R"("user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3]},"args":["a"],"env":["A=b"],"cwd":"/",)"
      R"("capabilities":{"bounding":["CAP_CHOWN"]},"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0}],)"
      R"("noNewPrivileges":true,"apparmorProfile":"p","oomScoreAdj":10,"selinuxLabel":"l",)"
      R"("scheduler":{"policy":"SCHED_FIFO","priority":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]},)"
      R"("ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},"execCPUAffinity":{"initial":"0","final":"0-1"}},)"
      R"("root":{"path":"/r","readonly":true},"hostname":"h","domainname":"d",)"
      R"("mounts":[{"destination":"/m","type":"bind","source":"/s","options":["rbind"],)"
      R"("uidMappings":[{"containerID":0,"hostID":5,"size":1}],"gidMappings":[{"containerID":0,"hostID":5,"size":1}]}],)"
      R"("hooks":{"prestart":[{"path":"/h","args":["h"],"env":["X=y"],"timeout":3}],"poststop":[{"path":"/h"}]},)"
      R"("annotations":{"k":"v"},"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"time"},)"
      R"({"type":"network","path":"/n"},{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":9,"size":1}],)"
      R"("gidMappings":[{"containerID":0,"hostID":9,"size":1}],"timeOffsets":{"boottime":{"secs":-5,"nanosecs":6}},)"
      R"("devices":[{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":438,"uid":0,"gid":0}],)"
      R"("cgroupsPath":"/c","resources":{"devices":[{"allow":false,"type":"c","major":1,"minor":3,"access":"rw"}],)"
      R"("memory":{"limit":1,"reservation":2,"swap":3,"kernel":4,"kernelTCP":5,"swappiness":6,"disableOOMKiller":true,"useHierarchy":true,"checkBeforeUpdate":true},)"
      R"("cpu":{"shares":1,"quota":2,"burst":3,"period":4,"realtimeRuntime":5,"realtimePeriod":6,"cpus":"0","mems":"0","idle":1},)"
      R"("pids":{"limit":7},"blockIO":{"weight":10,"leafWeight":11,"weightDevice":[{"major":8,"minor":0,"weight":12}],)"
      R"("throttleReadBpsDevice":[{"major":8,"minor":0,"rate":13}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":14}]},)"
      R"("hugepageLimits":[{"pageSize":"2MB","limit":15}],"network":{"classID":16,"priorities":[{"name":"lo","priority":17}]},)"
      R"("rdma":{"mlx":{"hcaHandles":18}},"unified":{"memory.high":"19"}},"rootfsPropagation":"slave",)"
      R"("seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86"],)"
      R"("flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/l","listenerMetadata":"m","syscalls":[{"names":["read"],)"
      R"("action":"SCMP_ACT_ALLOW","errnoRet":2,"args":[{"index":1,"value":2,"valueTwo":3,"op":"SCMP_CMP_EQ"}]}]},)"
      R"("sysctl":{"net.ipv4.ip_forward":"1"},"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"mountLabel":"ml",)"
      R"("intelRdt":{"closID":"c","schemata":["L3:0=f"],"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","enableMonitoring":true},)"
      R"("memoryPolicy":{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]},"personality":{"domain":"LINUX32"},)"
      R"("netDevices":{"eth0":{"name":"e"}}}})";

  auto spec = ParseSpec(document);

  ASSERT_OK(spec);
  EXPECT_EQ(WriteSpec(*spec), document);
}

TEST(SpecTest, UnknownMembersAreIgnored) {
  EXPECT_OK(ParseSpec(Minimal(R"(,"future":{"x":1},"windows":{},"solaris":{"milestone":"m"})")));
}

struct BadDocument {
  const char* name;
  std::string document;
  std::string error;
};

class BadDocumentTest : public ::testing::TestWithParam<BadDocument> {};

TEST_P(BadDocumentTest, IsRefusedWithThePath) {
  EXPECT_THAT(ParseSpec(GetParam().document), Fails(kInvalid, GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Documents, BadDocumentTest,
    ::testing::Values(
        BadDocument{"Version", R"({"ociVersion":"2.0.0","root":{"path":"r"}})",
                    "ociVersion: version 2.0.0"},
        BadDocument{
            "NotifyOfWhatTheHandOverNeeds",
            R"({"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/l","syscalls":[{"names":["mkdir","write"],"action":"SCMP_ACT_NOTIFY"}]}}})",
            "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY for 'write'"},
        BadDocument{"NoVersion", R"({"root":{"path":"r"}})", "ociVersion: required"},
        BadDocument{"NoRoot", R"({"ociVersion":"1.0.0"})", "root: required"},
        BadDocument{"NoCwd",
                    R"({"ociVersion":"1.0.0","root":{"path":"r"},"process":{"args":["a"]}})",
                    "process.cwd: required"},
        BadDocument{
            "RelativeCwd",
            R"({"ociVersion":"1.0.0","root":{"path":"r"},"process":{"cwd":"tmp","args":["a"]}})",
            "process.cwd: 'tmp' is not an absolute"},
        BadDocument{"NoArgs", R"({"ociVersion":"1.0.0","root":{"path":"r"},"process":{"cwd":"/"}})",
                    "process.args: must name a program"},
        BadDocument{"NumericUserAsText", Minimal("", "", R"(,"user":{"uid":"1000"})"),
                    "process.user.uid: expected an integer"},
        BadDocument{"UserIdOverflow", Minimal("", "", R"(,"user":{"uid":4294967295})"),
                    "process.user.uid: is beyond"},
        BadDocument{"GroupIdOverflow",
                    Minimal("", "", R"(,"user":{"uid":0,"additionalGids":[1,4294967295]})"),
                    "process.user.additionalGids[1]"},
        BadDocument{"WrapAround", Minimal("", "", R"(,"user":{"uid":4294967296})"),
                    "process.user.uid: expected an integer"},
        BadDocument{"ZeroByte", Minimal("", "", R"(,"env":["A=\u0000"])"),
                    "process.env[0]: contains a zero byte"},
        BadDocument{"Capability", Minimal("", "", R"(,"capabilities":{"bounding":["chown"]})"),
                    "process.capabilities.bounding[0]"},
        BadDocument{"Rlimit",
                    Minimal("", "", R"(,"rlimits":[{"type":"RLIMIT_X","hard":1,"soft":1}])"),
                    "process.rlimits[0].type"},
        BadDocument{
            "RlimitTwice",
            Minimal(
                "", "",
                R"(,"rlimits":[{"type":"RLIMIT_AS","hard":1,"soft":1},{"type":"RLIMIT_AS","hard":1,"soft":1}])"),
            "process.rlimits[1].type: RLIMIT_AS is given twice"},
        BadDocument{"Namespace", Minimal("", R"(,"devices":[],"namespaces":[])"),
                    "linux.namespaces: the key appears twice"},
        BadDocument{"DeviceType", Minimal("", R"(,"devices":[{"path":"/dev/x","type":"q"}])"),
                    "linux.devices[0].type"},
        BadDocument{"DeviceMajor",
                    Minimal("", R"(,"devices":[{"path":"/dev/x","type":"c","major":4096}])"),
                    "linux.devices[0].major"},
        BadDocument{"CgroupEscape", Minimal("", R"(,"cgroupsPath":"/a/../../b")"),
                    "linux.cgroupsPath: must not contain '..'"},
        BadDocument{"CgroupNewline", Minimal("", R"(,"cgroupsPath":"/a\nb")"),
                    "linux.cgroupsPath: must be a single line"},
        BadDocument{"UnifiedSlash",
                    Minimal("", R"(,"resources":{"unified":{"../memory.max":"1"}})"),
                    "linux.resources.unified."},
        BadDocument{"UnifiedCore", Minimal("", R"(,"resources":{"unified":{"cgroup.procs":"1"}})"),
                    "linux.resources.unified.cgroup.procs"},
        BadDocument{"Sysctl", Minimal("", R"(,"sysctl":{"kernel.core_pattern":"|/x"})"),
                    "linux.sysctl.kernel.core_pattern: is not in a separate kernel namespace"},
        BadDocument{"SysctlHost", Minimal("", R"(,"sysctl":{"net.ipv4.ip_forward":"1"})"),
                    "host's network namespace"},
        BadDocument{"SysctlDots", Minimal("", R"(,"sysctl":{"net/../kernel/core_pattern":"x"})"),
                    "is not a sysctl's name"},
        BadDocument{"SysctlNewline", Minimal("", R"(,"sysctl":{"net.core.somaxconn":"1\n2"})"),
                    "single line"},
        BadDocument{"SeccompAction",
                    Minimal("", R"(,"seccomp":{"defaultAction":"SCMP_ACT_MAYBE"})"),
                    "linux.seccomp.defaultAction"},
        BadDocument{
            "SeccompArg",
            Minimal(
                "",
                R"(,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]})"),
            "linux.seccomp.syscalls[0].args[0].index"},
        BadDocument{
            "MappingOverflow",
            Minimal("", R"(,"uidMappings":[{"containerID":1,"hostID":4294967295,"size":1}])"),
            "linux.uidMappings"},
        BadDocument{"Hook", Minimal(R"(,"hooks":{"poststop":[{"path":"x"}]})"),
                    "hooks.poststop[0].path: 'x' is not an absolute path"},
        BadDocument{"HookTimeout", Minimal(R"(,"hooks":{"prestart":[{"path":"/x","timeout":0}]})"),
                    "hooks.prestart[0].timeout"},
        BadDocument{"Hostname", Minimal(R"(,"hostname":"x")"), "hostname: needs a uts namespace"},
        BadDocument{"Propagation", Minimal("", R"(,"rootfsPropagation":"public")"),
                    "linux.rootfsPropagation"},
        BadDocument{"DeviceRule",
                    Minimal("", R"(,"resources":{"devices":[{"allow":true,"access":"rwx"}]})"),
                    "linux.resources.devices[0].access"},
        BadDocument{
            "Hugepage",
            Minimal("", R"(,"resources":{"hugepageLimits":[{"pageSize":"2M/../x","limit":1}]})"),
            "linux.resources.hugepageLimits[0].pageSize"},
        BadDocument{"Time", Minimal("", R"(,"timeOffsets":{"boottime":{"secs":1}})"),
                    "linux.timeOffsets.boottime: needs a time namespace"},
        BadDocument{"RdtEscape", Minimal("", R"(,"intelRdt":{"closID":"../x"})"),
                    "linux.intelRdt.closID"},
        BadDocument{"NetDevice", Minimal("", R"(,"netDevices":{"a/b":{}},"x":[])"),
                    "linux.netDevices"},
        BadDocument{"Mount", Minimal(R"(,"mounts":[{"destination":""}])"),
                    "mounts[0].destination: must not be empty"}),
    [](const auto& info) { return info.param.name; });

TEST(SpecTest, DefaultSeccompFollowsTheCapabilities) {
  const auto allows = [](const Seccomp& profile, absl::string_view name) {
    for (const SeccompRule& rule : profile.syscalls) {
      for (const std::string& candidate : rule.names) {
        if (candidate == name && rule.action == "SCMP_ACT_ALLOW" && rule.args.empty()) return true;
      }
    }
    return false;
  };
  const Seccomp plain = DefaultSeccomp({});
  const Seccomp admin = DefaultSeccomp({"CAP_SYS_ADMIN"});

  EXPECT_TRUE(allows(plain, "read"));
  EXPECT_FALSE(allows(plain, "mount"));
  EXPECT_FALSE(allows(plain, "clone")) << "only with an argument mask";
  EXPECT_TRUE(allows(admin, "mount"));
  EXPECT_TRUE(allows(admin, "clone"));
  for (const char* denied :
       {"keyctl", "userfaultfd", "io_uring_setup", "open_by_handle_at", "bpf"}) {
    EXPECT_FALSE(allows(plain, denied)) << denied;
  }
  EXPECT_EQ(plain.default_errno_ret, 1u);
}

TEST(SpecTest, SignalsByNumberAndName) {
  EXPECT_EQ(*ParseSignal("9"), 9);
  EXPECT_EQ(*ParseSignal("kill"), 9);
  EXPECT_EQ(*ParseSignal("SIGKILL"), 9);
  EXPECT_EQ(*ParseSignal("SIGRTMIN+3"), 37);
  EXPECT_EQ(*ParseSignal("RTMAX"), 64);
  EXPECT_FALSE(ParseSignal("65").ok());
  EXPECT_FALSE(ParseSignal("").ok());
  EXPECT_FALSE(ParseSignal("-9").ok());
  EXPECT_FALSE(ParseSignal("BOGUS").ok());
}

TEST(SpecTest, CapabilitiesByNumberAndName) {
  EXPECT_EQ(*CapabilityNumber("CAP_CHOWN"), 0);
  EXPECT_EQ(*CapabilityNumber("sys_admin"), 21);
  EXPECT_EQ(CapabilityName(40), "CAP_CHECKPOINT_RESTORE");
  EXPECT_EQ(CapabilityName(41), "");
  EXPECT_FALSE(CapabilityNumber("CAP_X").ok());
  EXPECT_THAT(DefaultCapabilities(), Contains("CAP_MKNOD"));
  EXPECT_THAT(DefaultCapabilities(), Not(Contains("CAP_SYS_ADMIN")));
}

}  // namespace
}  // namespace gantry::oci
