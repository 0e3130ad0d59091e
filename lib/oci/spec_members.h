// The members of each object of config.json. One description serves the reader and the writer
// (spec_json.cc), so they cannot drift apart: Describe calls `m(key, member)` for every member,
// with kRequired where the document must have it, and `true` where it is written even if it is
// zero.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "lib/oci/spec.h"

namespace gantry::oci {

// Members that the document nests deeper than we do.
struct PidsObject {
  int64_t limit = 0;
};
struct NetDeviceObject {
  std::string name;
};

enum Presence { kOptional, kRequired };  // A required member is also always written.

template <typename M>
void Describe(M& m, User& x) {
  m("uid", x.uid, kOptional, true);
  m("gid", x.gid, kOptional, true);
  m("umask", x.umask);
  m("additionalGids", x.additional_gids);
}
template <typename M>
void Describe(M& m, Capabilities& x) {
  m("bounding", x.bounding);
  m("effective", x.effective);
  m("inheritable", x.inheritable);
  m("permitted", x.permitted);
  m("ambient", x.ambient);
}
template <typename M>
void Describe(M& m, Rlimit& x) {
  m("type", x.type, kRequired);
  m("hard", x.hard, kRequired);
  m("soft", x.soft, kRequired);
}
template <typename M>
void Describe(M& m, Scheduler& x) {
  m("policy", x.policy, kRequired);
  m("nice", x.nice);
  m("priority", x.priority);
  m("flags", x.flags);
  m("runtime", x.runtime);
  m("deadline", x.deadline);
  m("period", x.period);
}
template <typename M>
void Describe(M& m, IoPriority& x) {
  m("class", x.priority_class, kRequired);
  m("priority", x.priority);
}
template <typename M>
void Describe(M& m, CpuAffinity& x) {
  m("initial", x.initial);
  m("final", x.final);
}
template <typename M>
void Describe(M& m, ConsoleSize& x) {
  m("height", x.height, kRequired);
  m("width", x.width, kRequired);
}
template <typename M>
void Describe(M& m, Process& x) {
  m("terminal", x.terminal);
  m("consoleSize", x.console_size);
  m("user", x.user, kOptional, true);
  m("args", x.args);
  m("env", x.env);
  m("cwd", x.cwd, kRequired);
  m("capabilities", x.capabilities);
  m("rlimits", x.rlimits);
  m("noNewPrivileges", x.no_new_privileges);
  m("apparmorProfile", x.apparmor_profile);
  m("oomScoreAdj", x.oom_score_adj);
  m("selinuxLabel", x.selinux_label);
  m("scheduler", x.scheduler);
  m("ioPriority", x.io_priority);
  m("execCPUAffinity", x.exec_cpu_affinity);
}
template <typename M>
void Describe(M& m, Root& x) {
  m("path", x.path, kRequired);
  m("readonly", x.readonly);
}
template <typename M>
void Describe(M& m, IdMapping& x) {
  m("containerID", x.container_id, kRequired);
  m("hostID", x.host_id, kRequired);
  m("size", x.size, kRequired);
}
template <typename M>
void Describe(M& m, Mount& x) {
  m("destination", x.destination, kRequired);
  m("type", x.type);
  m("source", x.source);
  m("options", x.options);
  m("uidMappings", x.uid_mappings);
  m("gidMappings", x.gid_mappings);
}
template <typename M>
void Describe(M& m, Hook& x) {
  m("path", x.path, kRequired);
  m("args", x.args);
  m("env", x.env);
  m("timeout", x.timeout_seconds);
}
template <typename M>
void Describe(M& m, Hooks& x) {
  m("prestart", x.prestart);
  m("createRuntime", x.create_runtime);
  m("createContainer", x.create_container);
  m("startContainer", x.start_container);
  m("poststart", x.poststart);
  m("poststop", x.poststop);
}
template <typename M>
void Describe(M& m, Namespace& x) {
  m("type", x.type, kRequired);
  m("path", x.path);
}
template <typename M>
void Describe(M& m, Device& x) {
  m("path", x.path, kRequired);
  m("type", x.type, kRequired);
  m("major", x.major, kOptional, true);
  m("minor", x.minor, kOptional, true);
  m("fileMode", x.file_mode);
  m("uid", x.uid);
  m("gid", x.gid);
}
template <typename M>
void Describe(M& m, DeviceRule& x) {
  m("allow", x.allow, kRequired);
  m("type", x.type);
  m("major", x.major);
  m("minor", x.minor);
  m("access", x.access);
}
template <typename M>
void Describe(M& m, MemoryResources& x) {
  m("limit", x.limit);
  m("reservation", x.reservation);
  m("swap", x.swap);
  m("kernel", x.kernel);
  m("kernelTCP", x.kernel_tcp);
  m("swappiness", x.swappiness);
  m("disableOOMKiller", x.disable_oom_killer);
  m("useHierarchy", x.use_hierarchy);
  m("checkBeforeUpdate", x.check_before_update);
}
template <typename M>
void Describe(M& m, CpuResources& x) {
  m("shares", x.shares);
  m("quota", x.quota);
  m("burst", x.burst);
  m("period", x.period);
  m("realtimeRuntime", x.realtime_runtime);
  m("realtimePeriod", x.realtime_period);
  m("cpus", x.cpus);
  m("mems", x.mems);
  m("idle", x.idle);
}
template <typename M>
void Describe(M& m, BlockIoResources::Weight& x) {
  m("major", x.major, kRequired);
  m("minor", x.minor, kRequired);
  m("weight", x.weight);
  m("leafWeight", x.leaf_weight);
}
template <typename M>
void Describe(M& m, BlockIoResources::Throttle& x) {
  m("major", x.major, kRequired);
  m("minor", x.minor, kRequired);
  m("rate", x.rate);
}
template <typename M>
void Describe(M& m, BlockIoResources& x) {
  m("weight", x.weight);
  m("leafWeight", x.leaf_weight);
  m("weightDevice", x.weight_devices);
  m("throttleReadBpsDevice", x.read_bps);
  m("throttleWriteBpsDevice", x.write_bps);
  m("throttleReadIOPSDevice", x.read_iops);
  m("throttleWriteIOPSDevice", x.write_iops);
}
template <typename M>
void Describe(M& m, HugepageLimit& x) {
  m("pageSize", x.page_size, kRequired);
  m("limit", x.limit, kRequired);
}
template <typename M>
void Describe(M& m, NetworkResources::Priority& x) {
  m("name", x.name, kRequired);
  m("priority", x.priority, kRequired);
}
template <typename M>
void Describe(M& m, NetworkResources& x) {
  m("classID", x.class_id);
  m("priorities", x.priorities);
}
template <typename M>
void Describe(M& m, RdmaLimit& x) {
  m("hcaHandles", x.hca_handles);
  m("hcaObjects", x.hca_objects);
}
template <typename M>
void Describe(M& m, PidsObject& x) {
  m("limit", x.limit, kOptional, true);
}
template <typename M>
void Describe(M& m, NetDeviceObject& x) {
  m("name", x.name);
}
template <typename M>
void Describe(M& m, Resources& x) {
  m("devices", x.devices);
  m("memory", x.memory);
  m("cpu", x.cpu);
  std::optional<PidsObject> pids;
  if (x.pids_limit) pids = PidsObject{*x.pids_limit};
  m("pids", pids);
  x.pids_limit = pids ? std::optional<int64_t>(pids->limit) : std::nullopt;
  m("blockIO", x.block_io);
  m("hugepageLimits", x.hugepages);
  m("network", x.network);
  m("rdma", x.rdma);
  m("unified", x.unified);
}
template <typename M>
void Describe(M& m, SeccompArg& x) {
  m("index", x.index, kRequired);
  m("value", x.value, kRequired);
  m("valueTwo", x.value_two);
  m("op", x.op, kRequired);
}
template <typename M>
void Describe(M& m, SeccompRule& x) {
  m("names", x.names, kRequired);
  m("action", x.action, kRequired);
  m("errnoRet", x.errno_ret);
  m("args", x.args);
}
template <typename M>
void Describe(M& m, Seccomp& x) {
  m("defaultAction", x.default_action, kRequired);
  m("defaultErrnoRet", x.default_errno_ret);
  m("architectures", x.architectures);
  m("flags", x.flags);
  m("listenerPath", x.listener_path);
  m("listenerMetadata", x.listener_metadata);
  m("syscalls", x.syscalls);
}
template <typename M>
void Describe(M& m, IntelRdt& x) {
  m("closID", x.clos_id);
  m("schemata", x.schemata);
  m("l3CacheSchema", x.l3_cache_schema);
  m("memBwSchema", x.mem_bw_schema);
  m("enableMonitoring", x.enable_monitoring);
}
template <typename M>
void Describe(M& m, MemoryPolicy& x) {
  m("mode", x.mode);
  m("nodes", x.nodes);
  m("flags", x.flags);
}
template <typename M>
void Describe(M& m, Personality& x) {
  m("domain", x.domain);
  m("flags", x.flags);
}
template <typename M>
void Describe(M& m, TimeOffset& x) {
  m("secs", x.seconds, kOptional, true);
  m("nanosecs", x.nanoseconds);
}
template <typename M>
void Describe(M& m, Linux& x) {
  m("namespaces", x.namespaces);
  m("uidMappings", x.uid_mappings);
  m("gidMappings", x.gid_mappings);
  m("timeOffsets", x.time_offsets);
  m("devices", x.devices);
  m("cgroupsPath", x.cgroups_path);
  m("resources", x.resources);
  m("rootfsPropagation", x.rootfs_propagation);
  m("seccomp", x.seccomp);
  m("sysctl", x.sysctl);
  m("maskedPaths", x.masked_paths);
  m("readonlyPaths", x.readonly_paths);
  m("mountLabel", x.mount_label);
  m("intelRdt", x.intel_rdt);
  m("memoryPolicy", x.memory_policy);
  m("personality", x.personality);
  std::map<std::string, NetDeviceObject> devices;
  for (auto& [name, renamed] : x.net_devices) devices[name].name = renamed;
  m("netDevices", devices);
  x.net_devices.clear();
  for (auto& [name, device] : devices) x.net_devices[name] = device.name;
}
template <typename M>
void Describe(M& m, Spec& x) {
  m("ociVersion", x.oci_version, kRequired);
  m("process", x.process);
  m("root", x.root);
  m("hostname", x.hostname);
  m("domainname", x.domainname);
  m("mounts", x.mounts);
  m("hooks", x.hooks);
  m("annotations", x.annotations);
  m("linux", x.linux_);
}

}  // namespace gantry::oci
