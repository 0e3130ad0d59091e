#include "runtime/features.h"

#include <string>
#include <vector>

#include "lib/base/version.h"
#include "lib/json/json.h"
#include "lib/oci/spec.h"
#include "runtime/init/mount_plan.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {
namespace {

using Names = std::vector<std::string>;

void WriteEnabled(json::Writer& writer, const char* name, bool enabled) {
  writer.Key(name);
  writer.BeginObject();
  writer.Member("enabled", enabled);
  writer.EndObject();
}

void WriteSeccomp(json::Writer& writer) {
  writer.Key("seccomp");
  writer.BeginObject();
  writer.Member("enabled", true);
  writer.Member("actions", Names{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",
                                 "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                                 "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"});
  writer.Member("operators", Names{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE",
                                   "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"});
  writer.Member(
      "archs",
      Names{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
            "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
            "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC",
            "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390",
            "SCMP_ARCH_S390X", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"});
  writer.Member("knownFlags",
                Names{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                      "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"});
  writer.Member("supportedFlags", SupportedSeccompFlags());
  writer.EndObject();
}

}  // namespace

std::string WriteFeatures() {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersionMin", "1.0.0");
  writer.Member("ociVersionMax", oci::kSpecVersion);
  writer.Member("hooks", Names{"prestart", "createRuntime", "createContainer", "startContainer",
                               "poststart", "poststop"});
  writer.Member("mountOptions", KnownMountOptions());
  writer.Key("linux");
  writer.BeginObject();
  writer.Member("namespaces",
                Names{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"});
  writer.Member("capabilities", oci::AllCapabilities());
  writer.Key("cgroup");
  writer.BeginObject();
  writer.Member("v1", true);
  writer.Member("v2", true);
  writer.Member("systemd", true);
  writer.Member("systemdUser", true);
  writer.Member("rdma", true);
  writer.EndObject();
  WriteSeccomp(writer);
  WriteEnabled(writer, "apparmor", true);
  WriteEnabled(writer, "selinux", true);
  writer.Key("intelRdt");
  writer.BeginObject();
  writer.Member("enabled", true);
  writer.Member("schemata", true);
  writer.Member("monitoring", true);
  writer.EndObject();
  writer.Key("mountExtensions");
  writer.BeginObject();
  WriteEnabled(writer, "idmap", kIdmapMounts);
  writer.EndObject();
  WriteEnabled(writer, "netDevices", kNetDevices);
  writer.Key("memoryPolicy");
  writer.BeginObject();
  writer.Member(
      "modes", Names{"MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                     "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"});
  writer.Member("flags",
                Names{"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"});
  writer.EndObject();
  writer.EndObject();
  // A trailing dot stands for all that begin so.
  writer.Member("potentiallyUnsafeConfigAnnotations", Names{"org.systemd.property.", "run.oci."});
  writer.Key("annotations");
  writer.BeginObject();
  writer.Member("dev.gantry.runtime.version", Version());
  writer.Member("io.github.seccomp.libseccomp.version", LibseccompVersion());
  writer.Member("org.opencontainers.runc.checkpoint.enabled", "false");
  writer.EndObject();
  writer.EndObject();
  return writer.Take();
}

}  // namespace gantry::runtime
