#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/container_flags.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

constexpr FlagKind kSwitch = FlagKind::kSwitch;
constexpr FlagKind kText = FlagKind::kText;
constexpr FlagKind kList = FlagKind::kList;

// `run` first names its own, then all of `create`: kRunFlags is the whole table, create's the rest.
constexpr FlagSpec kRunFlags[] = {
    {"attach", 'a', kList, "list", "Attach to stdin, stdout or stderr"},
    {"detach", 'd', kSwitch, "", "Run in the background and print the container's id"},
    {"detach-keys", 0, kText, "string", "Keys that leave the container running (ctrl-p,ctrl-q)"},
    {"sig-proxy", 0, kSwitch, "", "Hand received signals to the program (default true)"},
    {"timing", 0, kSwitch, "", "Print how long every step of the start took"},
    // From here on: `create` too.
    {"add-host", 0, kList, "list", "Add a line to /etc/hosts (name:address)"},
    {"annotation", 0, kList, "map", "Add an annotation to the runtime specification"},
    {"blkio-weight-device", 0, kList, "path:weight", "Block IO weight of a device, 10 to 1000"},
    {"blkio-weight", 0, kText, "uint16", "Block IO weight, from 10 to 1000"},
    {"cap-add", 0, kList, "list", "Add Linux capabilities"},
    {"cap-drop", 0, kList, "list", "Drop Linux capabilities"},
    {"cgroup-parent", 0, kText, "string", "Parent cgroup of the container"},
    {"cgroupns", 0, kText, "string", "Cgroup namespace: host or private"},
    {"cidfile", 0, kText, "string", "Write the container's id to this file"},
    {"cpu-period", 0, kText, "int", "Period of the CPU limit, in microseconds"},
    {"cpu-quota", 0, kText, "int", "Quota of the CPU limit, in microseconds a period"},
    {"cpu-shares", 'c', kText, "int", "CPU shares (relative weight)"},
    {"cpus", 0, kText, "decimal", "Number of CPUs"},
    {"cpuset-cpus", 0, kText, "string", "CPUs that may be used (0-3, 0,1)"},
    {"cpuset-mems", 0, kText, "string", "Memory nodes that may be used (0-3, 0,1)"},
    {"device", 0, kList, "list", "Add a device of the host"},
    {"device-cgroup-rule", 0, kList, "list", "Add a rule to the allowed devices"},
    {"device-read-bps", 0, kList, "path:rate", "Limit reading from a device (bytes a second)"},
    {"device-read-iops", 0, kList, "path:rate",
     "Limit reading from a device (operations a second)"},
    {"device-write-bps", 0, kList, "path:rate", "Limit writing to a device (bytes a second)"},
    {"device-write-iops", 0, kList, "path:rate", "Limit writing to a device (operations a second)"},
    {"dns", 0, kList, "list", "Name servers"},
    {"dns-opt", 0, kList, "list", "", "dns-option"},
    {"dns-option", 0, kList, "list", "Resolver options"},
    {"dns-search", 0, kList, "list", "Search domains"},
    {"domainname", 0, kText, "string", "NIS domain name of the container"},
    {"entrypoint", 0, kText, "string", "Program to run instead of the image's entrypoint"},
    {"env", 'e', kList, "list", "Set environment variables"},
    {"env-file", 0, kList, "list", "Read environment variables from a file"},
    {"expose", 0, kList, "list", "Expose a port or a range of ports"},
    {"group-add", 0, kList, "list", "Further groups of the program"},
    {"hostname", 'h', kText, "string", "Host name of the container"},
    {"init", 0, kSwitch, "", "Run a small init that reaps processes and forwards signals"},
    {"interactive", 'i', kSwitch, "", "Keep stdin open"},
    {"ip", 0, kText, "string", "IPv4 address"},
    {"ipc", 0, kText, "string", "IPC namespace"},
    {"label", 'l', kList, "list", "Set metadata"},
    {"label-file", 0, kList, "list", "Read labels from a file"},
    {"log-driver", 0, kText, "string", "Logging driver: json-file or none"},
    {"log-opt", 0, kList, "list", "Options of the logging driver"},
    {"mac-address", 0, kText, "string", "MAC address"},
    {"memory", 'm', kText, "bytes", "Memory limit"},
    {"memory-reservation", 0, kText, "bytes", "Soft memory limit"},
    {"memory-swap", 0, kText, "bytes", "Memory plus swap; -1 is unlimited swap"},
    {"memory-swappiness", 0, kText, "int", "Swappiness, from 0 to 100"},
    {"mount", 0, kList, "mount", "Attach a file system (type=bind,source=…,target=…)"},
    {"name", 0, kText, "string", "Name of the container"},
    {"net", 0, kText, "string", "", "network"},
    {"net-alias", 0, kList, "list", "", "network-alias"},
    {"network", 0, kText, "network", "Network: bridge, host, none or container:ID"},
    {"network-alias", 0, kList, "list", "Further names of the container in its network"},
    {"oom-kill-disable", 0, kSwitch, "", "Do not kill when memory runs out"},
    {"oom-score-adj", 0, kText, "int", "Preference of the OOM killer, from -1000 to 1000"},
    {"pid", 0, kText, "string", "PID namespace"},
    {"pids-limit", 0, kText, "int", "Limit of processes; -1 is unlimited"},
    {"platform", 0, kText, "string", "Platform of the image (os/architecture[/variant])"},
    {"privileged", 0, kSwitch, "", "Give extended privileges"},
    {"publish", 'p', kList, "list", "Publish ports ([ip:][host:]container[/proto])"},
    {"publish-all", 'P', kSwitch, "", "Publish all exposed ports to random ones"},
    {"pull", 0, kText, "string", "Pull the image before: always, missing or never"},
    {"quiet", 'q', kSwitch, "", "Do not show the progress of a pull"},
    {"read-only", 0, kSwitch, "", "Mount the container's root file system read-only"},
    {"restart", 0, kText, "string", "Restart policy: no, always, unless-stopped, on-failure[:n]"},
    {"rm", 0, kSwitch, "", "Remove the container when it ends"},
    {"runtime", 0, kText, "string", "Runtime of this container"},
    {"security-opt", 0, kList, "list", "Security options"},
    {"shm-size", 0, kText, "bytes", "Size of /dev/shm"},
    {"stop-signal", 0, kText, "string", "Signal that stops the container"},
    {"stop-timeout", 0, kText, "int", "Seconds to wait before killing"},
    {"storage-opt", 0, kList, "list", "Options of the storage driver"},
    {"sysctl", 0, kList, "map", "Kernel parameters"},
    {"tmpfs", 0, kList, "list", "Mount a tmpfs (path[:options])"},
    {"tty", 't', kSwitch, "", "Allocate a pseudo terminal"},
    {"ulimit", 0, kList, "ulimit", "Resource limits (name=soft[:hard])"},
    {"user", 'u', kText, "string", "User, name or id (user[:group])"},
    {"userns", 0, kText, "string", "User namespace"},
    {"uts", 0, kText, "string", "UTS namespace"},
    {"volume", 'v', kList, "list", "Mount a volume or a path of the host"},
    {"volumes-from", 0, kList, "list", "Mount the volumes of other containers"},
    {"workdir", 'w', kText, "string", "Working directory of the program"},
    // Docker's, understood and refused with a reason (RefusalOf); out of the help.
    {"cpu-count", 0, kText, "int", ""},
    {"cpu-percent", 0, kText, "int", ""},
    {"cpu-rt-period", 0, kText, "int", ""},
    {"cpu-rt-runtime", 0, kText, "int", ""},
    {"gpus", 0, kText, "string", ""},
    {"health-cmd", 0, kText, "string", ""},
    {"health-interval", 0, kText, "duration", ""},
    {"health-retries", 0, kText, "int", ""},
    {"health-start-interval", 0, kText, "duration", ""},
    {"health-start-period", 0, kText, "duration", ""},
    {"health-timeout", 0, kText, "duration", ""},
    {"io-maxbandwidth", 0, kText, "bytes", ""},
    {"io-maxiops", 0, kText, "int", ""},
    {"ip6", 0, kText, "string", ""},
    {"isolation", 0, kText, "string", ""},
    {"kernel-memory", 0, kText, "bytes", ""},
    {"link", 0, kList, "list", ""},
    {"link-local-ip", 0, kList, "list", ""},
    {"use-api-socket", 0, kSwitch, "", ""},
    {"volume-driver", 0, kText, "string", ""},
    // Docker's, and true already: no health check runs, and no signature is asked for.
    {"disable-content-trust", 0, kSwitch, "", ""},
    {"no-healthcheck", 0, kSwitch, "", ""},
};
constexpr size_t kOnlyRun = 5;
static_assert(std::size(kRunFlags) > kOnlyRun);

}  // namespace

absl::Span<const FlagSpec> RunFlags() { return kRunFlags; }

absl::Span<const FlagSpec> CreateFlags() {
  return absl::Span<const FlagSpec>(kRunFlags).subspan(kOnlyRun);
}

absl::Status RefusalOf(const Arguments& arguments) {
  constexpr struct {
    const char* prefix;  // Of the flags' names.
    const char* reason;
  } kRefused[] = {
      {"health-", "health checks are not run by this suite yet"},
      {"gpus", "there is no GPU driver here; name the device nodes with --device"},
      {"cpu-rt-", "the kernel offers no realtime scheduling to groups"},
      {"cpu-count", "it is for Windows; use --cpus"},
      {"cpu-percent", "it is for Windows; use --cpus"},
      {"io-max", "it is for Windows; use --device-read-bps and its like"},
      {"ip6", "the bridge has IPv4 addresses only"},
      {"kernel-memory", "the kernel has no such limit any more; use --memory"},
      {"link-local-ip", "the bridge has no link-local addresses"},
      {"link", "links are history; use --network container:NAME or --add-host"},
      {"use-api-socket",
       "a container does not get the suite's socket; mount it with -v if it must"},
  };
  for (const FlagSpec& flag : kRunFlags) {
    if (!arguments.Has(flag.name)) continue;
    for (const auto& refused : kRefused) {
      if (flag.help[0] != '\0' || !absl::StartsWith(flag.name, refused.prefix)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag.name, " is not supported: ", refused.reason));
    }
  }
  const auto only = [&](const char* flag, const char* value) {
    const std::string given = arguments.Text(flag, value);
    if (given == value) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("invalid value '", EscapeForTerminal(given),
                                                   "' of --", flag, ": only ", value, " is there"));
  };
  const absl::Status isolation = only("isolation", "default");
  return isolation.ok() ? only("volume-driver", "local") : isolation;
}

}  // namespace gantry::ctl
