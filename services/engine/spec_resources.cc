// Parts of the OCI configuration: cgroup limits and ulimits.
#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

constexpr int64_t kCpuPeriodMicroseconds = 100000;

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<dev_t> BlockDevice(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("limit the block device '", path, "'"));
  }
  if (!S_ISBLK(info.st_mode)) {
    return Invalid(absl::StrCat("cannot limit '", path, "': it is not a block device"));
  }
  return info.st_rdev;
}

absl::Status SetBlockIo(const v1::Resources& asked, oci::Resources& resources) {
  oci::BlockIoResources io;
  if (asked.blkio_weight() != 0) io.weight = static_cast<uint16_t>(asked.blkio_weight());
  for (const v1::BlockDeviceValue& device : asked.blkio_weight_devices()) {
    ASSIGN_OR_RETURN(dev_t number, BlockDevice(device.path()));
    io.weight_devices.push_back({.major = major(number),
                                 .minor = minor(number),
                                 .weight = static_cast<uint16_t>(device.value())});
  }
  const struct {
    const google::protobuf::RepeatedPtrField<v1::BlockDeviceValue>& asked;
    std::vector<oci::BlockIoResources::Throttle>& set;
  } throttles[] = {{asked.blkio_read_bps(), io.read_bps},
                   {asked.blkio_write_bps(), io.write_bps},
                   {asked.blkio_read_iops(), io.read_iops},
                   {asked.blkio_write_iops(), io.write_iops}};
  bool any = io.weight.has_value() || !io.weight_devices.empty();
  for (const auto& throttle : throttles) {
    for (const v1::BlockDeviceValue& device : throttle.asked) {
      ASSIGN_OR_RETURN(dev_t number, BlockDevice(device.path()));
      throttle.set.push_back(
          {.major = major(number), .minor = minor(number), .rate = device.value()});
      any = true;
    }
  }
  if (any) resources.block_io = std::move(io);
  return absl::OkStatus();
}

}  // namespace

absl::Status SetResources(const v1::ContainerConfig& config, oci::Resources& resources) {
  const v1::Resources& asked = config.resources();
  if (asked.memory_bytes() != 0 || asked.memory_reservation_bytes() != 0 ||
      asked.memory_swap_bytes() != 0 || asked.has_memory_swappiness() ||
      config.oom_kill_disable()) {
    oci::MemoryResources& memory = resources.memory.emplace();
    if (asked.memory_bytes() != 0) {
      memory.limit = asked.memory_bytes();
      memory.swap =
          asked.memory_swap_bytes() != 0 ? asked.memory_swap_bytes() : 2 * asked.memory_bytes();
    } else if (asked.memory_swap_bytes() != 0) {
      memory.swap = asked.memory_swap_bytes();
    }
    if (asked.memory_reservation_bytes() != 0) {
      memory.reservation = asked.memory_reservation_bytes();
    }
    if (asked.has_memory_swappiness() && asked.memory_swappiness() >= 0) {
      memory.swappiness = static_cast<uint64_t>(asked.memory_swappiness());
    }
    if (config.oom_kill_disable()) memory.disable_oom_killer = true;
  }
  if (asked.nano_cpus() != 0 || asked.cpu_shares() != 0 || asked.cpu_quota() != 0 ||
      asked.cpu_period() != 0 || !asked.cpuset_cpus().empty() || !asked.cpuset_mems().empty()) {
    oci::CpuResources& cpu = resources.cpu.emplace();
    if (asked.nano_cpus() != 0) {
      const int64_t online = ::sysconf(_SC_NPROCESSORS_ONLN);
      if (asked.nano_cpus() > online * 1000000000) {
        return Invalid(absl::StrCat("range of CPUs is from 0.01 to ", online,
                                    ".00, as there are only ", online, " CPUs available"));
      }
      cpu.period = kCpuPeriodMicroseconds;
      cpu.quota = std::max<int64_t>(asked.nano_cpus() / 10000, 1000);
    }
    if (asked.cpu_period() != 0) cpu.period = asked.cpu_period();
    if (asked.cpu_quota() != 0) cpu.quota = asked.cpu_quota();
    if (asked.cpu_shares() != 0) cpu.shares = asked.cpu_shares();
    cpu.cpus = asked.cpuset_cpus();
    cpu.mems = asked.cpuset_mems();
  }
  if (asked.pids_limit() != 0) resources.pids_limit = asked.pids_limit();
  return SetBlockIo(asked, resources);
}

absl::Status SetUlimits(const v1::ContainerConfig& config, oci::Process& process) {
  static const auto* const known = new std::set<std::string>{
      "as",   "core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue",
      "nice", "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack"};
  for (const v1::Ulimit& ulimit : config.ulimits()) {
    if (known->count(ulimit.name()) == 0) {
      return Invalid(absl::StrCat("invalid ulimit type: ", ulimit.name()));
    }
    const auto value = [](int64_t number) {
      return number < 0 ? ~uint64_t{0} : static_cast<uint64_t>(number);
    };
    const uint64_t soft = value(ulimit.soft());
    const uint64_t hard = value(ulimit.hard());
    if (soft > hard) {
      return Invalid(absl::StrCat("ulimit soft limit must be less than or equal to hard limit: ",
                                  ulimit.name(), " ", ulimit.soft(), " > ", ulimit.hard()));
    }
    process.rlimits.push_back(
        {absl::StrCat("RLIMIT_", absl::AsciiStrToUpper(ulimit.name())), soft, hard});
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
