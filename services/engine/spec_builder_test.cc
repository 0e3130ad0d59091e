#include "services/engine/spec_builder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

class SpecBuilderTest : public ::testing::Test {
 protected:
  SpecBuilderTest() {
    definition_.set_id(std::string(64, 'c'));
    definition_.add_args("sleep");
    definition_.add_args("1");
    config_ = definition_.mutable_config();
    config_->set_network("bridge");
  }

  oci::Spec Build(ResolvedUser user = ResolvedUser()) {
    absl::StatusOr<oci::Spec> spec = BuildSpec(definition_, user, places_, &warnings_);
    EXPECT_OK(spec);
    return spec.ok() ? *spec : oci::Spec();
  }
  absl::Status Refusal() {
    return BuildSpec(definition_, ResolvedUser(), places_, &warnings_).status();
  }
  static const oci::Mount* MountAt(const oci::Spec& spec, absl::string_view path) {
    for (const oci::Mount& mount : spec.mounts) {
      if (mount.destination == path) return &mount;
    }
    return nullptr;
  }

  v1::ContainerDefinition definition_;
  v1::ContainerConfig* config_;
  HostPlaces places_{"/state", "/run", "/gantry", "/usr/bin/gantry-init"};
  std::vector<std::string> warnings_;
};

TEST_F(SpecBuilderTest, ThePlainContainerHasDockersShape) {
  const oci::Spec spec = Build();

  EXPECT_THAT(spec.process->args, ElementsAre("sleep", "1"));
  EXPECT_EQ(spec.process->cwd, "/");
  EXPECT_THAT(spec.process->env, Contains(absl::StrCat("HOSTNAME=", std::string(12, 'c'))));
  EXPECT_EQ(spec.hostname, std::string(12, 'c'));
  EXPECT_EQ(spec.process->capabilities->effective, oci::DefaultCapabilities());
  EXPECT_TRUE(spec.linux_.seccomp.has_value());
  EXPECT_EQ(spec.linux_.cgroups_path, absl::StrCat("/gantry/", definition_.id()));
  EXPECT_EQ(spec.linux_.FindNamespace("network")->path,
            absl::StrCat("/run/containers/", definition_.id(), "/netns"));
  ASSERT_NE(MountAt(spec, "/etc/hosts"), nullptr);
  EXPECT_EQ(MountAt(spec, "/etc/hosts")->source,
            absl::StrCat("/state/containers/", definition_.id(), "/hosts"));
  EXPECT_OK(oci::ParseSpec(oci::WriteSpec(spec)));
}

TEST_F(SpecBuilderTest, AnotherUserThanRootHasNoEffectiveCapabilities) {
  const oci::Spec spec = Build({.uid = 33, .gid = 34, .groups = {40}, .home = "/srv"});

  EXPECT_EQ(spec.process->user.uid, 33u);
  EXPECT_THAT(spec.process->capabilities->effective, ::testing::IsEmpty());
  EXPECT_EQ(spec.process->capabilities->bounding, oci::DefaultCapabilities());
  EXPECT_THAT(spec.process->env, Contains("HOME=/srv"));
}

TEST_F(SpecBuilderTest, CapabilitiesAreAddedAndDropped) {
  config_->add_cap_drop("ALL");
  config_->add_cap_add("net_admin");
  EXPECT_THAT(Build().process->capabilities->bounding, ElementsAre("CAP_NET_ADMIN"));

  config_->clear_cap_drop();
  config_->add_cap_drop("CHOWN");
  const std::vector<std::string> names = Build().process->capabilities->bounding;
  EXPECT_THAT(names, Contains("CAP_NET_ADMIN"));
  EXPECT_THAT(names, Not(Contains("CAP_CHOWN")));

  config_->add_cap_add("FLY");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "FLY"));
}

TEST_F(SpecBuilderTest, PrivilegedOpensEverything) {
  config_->set_privileged(true);
  const oci::Spec spec = Build();

  EXPECT_EQ(spec.process->capabilities->effective, oci::AllCapabilities());
  EXPECT_FALSE(spec.linux_.seccomp.has_value());
  EXPECT_TRUE(spec.linux_.masked_paths.empty());
  ASSERT_EQ(spec.linux_.resources->devices.size(), 1u);
  EXPECT_TRUE(spec.linux_.resources->devices[0].allow);
  EXPECT_THAT(MountAt(spec, "/sys")->options, Not(Contains("ro")));
}

TEST_F(SpecBuilderTest, SecurityOptionsAreObeyedOrRefused) {
  config_->add_security_opt("no-new-privileges");
  config_->add_security_opt("seccomp=unconfined");
  const oci::Spec spec = Build();
  EXPECT_TRUE(spec.process->no_new_privileges);
  EXPECT_FALSE(spec.linux_.seccomp.has_value());

  config_->add_security_opt("magic=1");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "magic"));
}

TEST_F(SpecBuilderTest, ASeccompProfileInDockersFormIsTranslated) {
  config_->add_security_opt(R"(seccomp={"defaultAction":"SCMP_ACT_ERRNO",
    "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
    "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
                {"names":["reboot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_BOOT"]}},
                {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}}]})");
  const oci::Spec spec = Build();

  ASSERT_TRUE(spec.linux_.seccomp.has_value());
  std::vector<std::string> names;
  for (const oci::SeccompRule& rule : spec.linux_.seccomp->syscalls) {
    names.insert(names.end(), rule.names.begin(), rule.names.end());
  }
  EXPECT_THAT(names, ElementsAre("read", "clone"));
}

TEST_F(SpecBuilderTest, ASeccompProfileThatIsNoneIsRefused) {
  config_->add_security_opt("seccomp={\"syscalls\":[]}");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "defaultAction"));
}

TEST_F(SpecBuilderTest, LimitsBecomeCgroupValues) {
  v1::Resources* resources = config_->mutable_resources();
  resources->set_memory_bytes(64 << 20);
  resources->set_nano_cpus(500000000);
  resources->set_pids_limit(50);
  resources->set_cpuset_cpus("0");
  const oci::Spec spec = Build();

  EXPECT_EQ(spec.linux_.resources->memory->limit, 64 << 20);
  EXPECT_EQ(spec.linux_.resources->memory->swap, 128 << 20);
  EXPECT_EQ(spec.linux_.resources->cpu->period, 100000u);
  EXPECT_EQ(spec.linux_.resources->cpu->quota, 50000);
  EXPECT_EQ(spec.linux_.resources->pids_limit, 50);

  resources->set_nano_cpus(int64_t{100000} * 1000000000);
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "range of CPUs"));
}

TEST_F(SpecBuilderTest, HostModesShareNamespacesAndContainerModesJoinThem) {
  config_->set_network("host");
  config_->set_pid_mode("host");
  config_->set_ipc_mode("host");
  config_->set_uts_mode("host");
  config_->set_cgroupns_mode("host");
  oci::Spec spec = Build();
  ASSERT_EQ(spec.linux_.namespaces.size(), 1u);
  EXPECT_EQ(spec.linux_.namespaces[0].type, "mount");
  EXPECT_EQ(MountAt(spec, "/dev/shm")->type, "bind");

  config_->set_network("container:abc");
  config_->set_pid_mode("container:abc");
  config_->set_ipc_mode("container:abc");
  spec = Build();
  EXPECT_THAT(spec.linux_.FindNamespace("pid")->path, ::testing::EndsWith("/pid"));
  EXPECT_THAT(spec.linux_.FindNamespace("ipc")->path, ::testing::EndsWith("/ipc"));
}

TEST_F(SpecBuilderTest, MountsAreOrderedByDepthAndReplaceOurs) {
  for (const char* target : {"/a/b/c", "/a", "/etc/hosts", "/dev/shm"}) {
    v1::MountPoint* point = definition_.add_mounts();
    point->set_type("bind");
    point->set_source("/src");
    point->set_destination(target);
    point->set_propagation("rprivate");
  }
  v1::Mount* tmpfs = config_->add_mounts();
  tmpfs->set_type("tmpfs");
  tmpfs->set_target("/a/b");
  tmpfs->add_options("exec");
  tmpfs->set_tmpfs_size_bytes(1 << 20);
  tmpfs->set_tmpfs_mode(01777);
  const oci::Spec spec = Build();

  const auto place = [&](absl::string_view path) {
    return std::find_if(spec.mounts.begin(), spec.mounts.end(),
                        [&](const oci::Mount& m) { return m.destination == path; }) -
           spec.mounts.begin();
  };
  EXPECT_LT(place("/a"), place("/a/b"));
  EXPECT_LT(place("/a/b"), place("/a/b/c"));
  EXPECT_EQ(MountAt(spec, "/etc/hosts")->source, "/src");
  EXPECT_EQ(std::count_if(spec.mounts.begin(), spec.mounts.end(),
                          [](const oci::Mount& m) { return m.destination == "/dev/shm"; }),
            1);
  EXPECT_THAT(MountAt(spec, "/a")->options, ElementsAre("rbind", "rprivate", "ro"));
  EXPECT_THAT(MountAt(spec, "/a/b")->options,
              ElementsAre("nosuid", "nodev", "exec", "size=1048576", "mode=1777"));
}

TEST_F(SpecBuilderTest, SysctlsAreAllowedOnlyInNamespacesOfOnesOwn) {
  (*config_->mutable_sysctls())["net.ipv4.ip_forward"] = "1";
  EXPECT_EQ(Build().linux_.sysctl.at("net.ipv4.ip_forward"), "1");

  config_->set_network("host");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "network namespace"));

  config_->clear_sysctls();
  (*config_->mutable_sysctls())["kernel.panic"] = "1";
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "kernel.panic"));

  config_->clear_sysctls();
  (*config_->mutable_sysctls())["net.ipv4/../x"] = "1";
  EXPECT_THAT(Refusal(), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(SpecBuilderTest, DevicesOfTheHostAreLookedUp) {
  v1::Device* device = config_->add_devices();
  device->set_host_path("/dev/null");
  device->set_container_path("/dev/nothing");
  device->set_permissions("r");
  const oci::Spec spec = Build();
  ASSERT_EQ(spec.linux_.devices.size(), 1u);
  EXPECT_EQ(spec.linux_.devices[0].path, "/dev/nothing");
  EXPECT_EQ(spec.linux_.devices[0].major, 1);
  EXPECT_EQ(spec.linux_.resources->devices.back().access, "r");

  device->set_host_path("/dev/no-such-thing");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kNotFound, "/dev/no-such-thing"));
  device->set_host_path("/etc/passwd");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "not a device node"));
}

TEST_F(SpecBuilderTest, ADeviceDirectoryThatVanishesIsLeftOut) {
  // Unplugged between the listing of its parent and its own.
  oci::Spec spec = Build();

  EXPECT_OK(AddDevicesBelow("/dev/unplugged", "/dev/unplugged", "rwm", 3, spec));
  EXPECT_TRUE(spec.linux_.devices.empty());
}

TEST_F(SpecBuilderTest, BlockDevicesAreLimitedByNumber) {
  v1::BlockDeviceValue* limit = config_->mutable_resources()->add_blkio_read_bps();
  limit->set_path("/dev/null");
  limit->set_value(1 << 20);
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "not a block device"));

  limit->set_path("/dev/no-such-disk");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kNotFound, "/dev/no-such-disk"));
}

TEST_F(SpecBuilderTest, InitIsPidOneAndMountedReadOnly) {
  config_->set_init(true);
  const oci::Spec spec = Build();
  EXPECT_THAT(spec.process->args, ElementsAre("/sbin/docker-init", "--", "sleep", "1"));
  EXPECT_EQ(MountAt(spec, "/sbin/docker-init")->source, "/usr/bin/gantry-init");

  places_.init_path.clear();
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kFailedPrecondition, "gantry-init"));
}

TEST_F(SpecBuilderTest, UlimitsAreCheckedByName) {
  v1::Ulimit* ulimit = config_->add_ulimits();
  ulimit->set_name("nofile");
  ulimit->set_soft(10);
  ulimit->set_hard(-1);
  const oci::Spec spec = Build();
  EXPECT_EQ(spec.process->rlimits[0].type, "RLIMIT_NOFILE");
  EXPECT_EQ(spec.process->rlimits[0].hard, ~uint64_t{0});

  ulimit->set_name("openfiles");
  EXPECT_THAT(Refusal(), Fails(absl::StatusCode::kInvalidArgument, "openfiles"));
}

TEST_F(SpecBuilderTest, AnExecTakesOverWhatTheContainerHas) {
  config_->add_env("A=1");
  config_->set_working_dir("/work");
  v1::ExecRequest request;
  request.add_command("env");
  request.add_env("B=2");

  absl::StatusOr<oci::Process> process = BuildExecProcess(definition_, request, ResolvedUser());

  ASSERT_OK(process);
  EXPECT_THAT(process->env, Contains("A=1"));
  EXPECT_THAT(process->env, Contains("B=2"));
  EXPECT_EQ(process->cwd, "/work");
  EXPECT_EQ(process->capabilities->bounding, oci::DefaultCapabilities());
  request.set_privileged(true);
  EXPECT_EQ(BuildExecProcess(definition_, request, ResolvedUser())->capabilities->bounding,
            oci::AllCapabilities());
}

}  // namespace
}  // namespace gantry::engine
