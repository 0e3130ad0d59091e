#include "services/task/task_audit.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "services/task/bundle.h"

namespace gantry::task {
namespace {

bool IsNumber(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](unsigned char c) { return absl::ascii_isdigit(c); });
}

// A process that has ended and waits to be reaped has no command line, so it is not in here.
std::vector<ShimProcess> ListShims(const AuditPlaces& places) {
  std::vector<ShimProcess> shims;
  for (const std::string& pid :
       sys::ListDirectory(places.proc).value_or(std::vector<std::string>())) {
    if (!IsNumber(pid)) continue;
    const absl::StatusOr<std::string> cmdline =
        sys::ReadFile(absl::StrCat(places.proc, "/", pid, "/cmdline"), 64 << 10);
    ShimProcess process;
    if (!cmdline.ok() || !ParseShimCommandLine(*cmdline, places.gateway_socket, &process)) continue;
    process.pid = pid;
    shims.push_back(std::move(process));
  }
  return shims;
}

std::set<std::string> AddressesOf(const TaskSupervisor::Inventory& inventory) {
  std::set<std::string> addresses;
  for (const std::string& address : inventory.addresses) {
    addresses.insert(ttrpc::SocketPath(address));
  }
  return addresses;
}

}  // namespace

bool ParseShimCommandLine(absl::string_view cmdline, const std::string& gateway_socket,
                          ShimProcess* process) {
  const std::vector<std::string> words = absl::StrSplit(cmdline, '\0');
  if (words.empty() || !absl::StrContains(words[0], "containerd-shim-")) return false;
  bool ours = false;
  for (size_t i = 1; i + 1 < words.size(); ++i) {
    if (words[i] == "-address" && words[i + 1] == gateway_socket) ours = true;
    if (words[i] == "-namespace") process->ns = words[i + 1];
    if (words[i] == "-id") process->id = words[i + 1];
  }
  return ours;
}

absl::Status AuditTasks(TaskSupervisor& supervisor, const AuditPlaces& places,
                        rpc::AuditReport& report) {
  // The kernel and the disk first, the tasks after: what is made meanwhile is then known.
  const std::vector<ShimProcess> shims = ListShims(places);
  ASSIGN_OR_RETURN(const std::vector<BundleName> bundles, ListBundles(places.bundle_root));
  const std::vector<std::string> sockets =
      sys::ListDirectory(places.socket_directory).value_or(std::vector<std::string>());
  ASSIGN_OR_RETURN(const std::vector<std::string> mounts,
                   sys::MountPointsBelow(places.bundle_root));
  const TaskSupervisor::Inventory inventory = supervisor.TakeInventory();
  const std::set<std::string> known(inventory.bundles.begin(), inventory.bundles.end());
  const std::set<std::string> addresses = AddressesOf(inventory);

  for (const BundleName& bundle : bundles) {
    const std::string path = Bundle(places.bundle_root, bundle.ns, bundle.id).path();
    if (known.contains(path) || !sys::Exists(path)) continue;
    report.findings.push_back(
        {"bundle", path, "no task owns it", "restart gantry-task, which removes it"});
  }
  for (const std::string& path : known) {
    if (sys::Exists(path)) continue;
    const bool still = [&] {
      for (const std::string& now : supervisor.TakeInventory().bundles) {
        if (now == path) return !sys::Exists(path);
      }
      return false;
    }();
    if (!still) continue;
    report.findings.push_back(
        {"bundle", path, "it is gone, but its task is not", "stop and delete the container"});
  }
  for (const std::string& name : sockets) {
    const std::string path = absl::StrCat(places.socket_directory, "/", name);
    if (addresses.contains(path) || !sys::Exists(path)) continue;
    // A shim that waited is on its way to its task.
    if (AddressesOf(supervisor.TakeInventory()).contains(path)) continue;
    report.findings.push_back({"socket", path, "no shim of a task listens there",
                               "restart gantry-task, which removes it"});
  }
  for (const ShimProcess& shim : shims) {
    const std::string path = Bundle(places.bundle_root, shim.ns, shim.id).path();
    // One that waits, or is about to: it ends by itself when nobody holds its pipe.
    if (shim.id == kUnnamed) continue;
    int pid = 0;
    if (known.contains(path) || !absl::SimpleAtoi(shim.pid, &pid)) continue;
    // Of a pod whose first container has gone, or just given its container.
    const bool used = std::find(inventory.shim_pids.begin(), inventory.shim_pids.end(), pid) !=
                      inventory.shim_pids.end();
    if (used || supervisor.IsLeaving(pid)) continue;
    const absl::StatusOr<std::string> still =
        sys::ReadFile(absl::StrCat(places.proc, "/", shim.pid, "/cmdline"), 64 << 10);
    ShimProcess now;
    // Ended meanwhile, or given its container.
    if (!still.ok() || !ParseShimCommandLine(*still, places.gateway_socket, &now)) continue;
    if (now.id != shim.id) continue;
    report.findings.push_back(
        {"shim", absl::StrCat("pid ", shim.pid, " of ", shim.id), "it has no task", "kill it"});
  }
  for (const std::string& point : mounts) {
    const bool owned = std::any_of(known.begin(), known.end(), [&](const std::string& path) {
      return absl::StartsWith(point, absl::StrCat(path, "/"));
    });
    if (owned) continue;
    report.findings.push_back({"mount", point, "its task is gone", "unmount it"});
  }
  report.checked["bundle"] += bundles.size();
  report.checked["socket"] += sockets.size();
  report.checked["shim"] += shims.size();
  report.checked["mount in a bundle"] += mounts.size();
  return absl::OkStatus();
}

}  // namespace gantry::task
