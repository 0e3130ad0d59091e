#include "services/gateway/routes.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace gantry::gateway {
namespace {

struct Route {
  absl::string_view service;  // A whole name, or a prefix ending in '.'.
  absl::string_view process;
};

constexpr Route kRoutes[] = {
    {"containerd.services.containers.v1.Containers", "metadata"},
    {"containerd.services.events.v1.Events", "metadata"},
    {"containerd.services.images.v1.Images", "metadata"},
    {"containerd.services.leases.v1.Leases", "metadata"},
    {"containerd.services.namespaces.v1.Namespaces", "metadata"},
    {"containerd.services.sandbox.v1.Store", "metadata"},
    {"containerd.services.snapshots.v1.Snapshots", "metadata"},
    {"containerd.services.content.v1.Content", "image"},
    {"containerd.services.diff.v1.Diff", "image"},
    {"containerd.services.streaming.v1.Streaming", "image"},
    {"containerd.services.transfer.v1.Transfer", "image"},
    {"containerd.services.tasks.v1.Tasks", "task"},
    {"gantry.engine.v1.", "engine"},
    {"gantry.image.v1.", "image"},
    {"gantry.metadata.v1.", "metadata"},
};

// Of containerd's contract, but nobody's here. Clients fall back on the code; people read the text.
struct Unserved {
  absl::string_view service;
  absl::string_view why;
};

constexpr Unserved kUnserved[] = {
    {"containerd.services.sandbox.v1.Controller",
     "sandboxes are recorded (sandbox.v1.Store) but not run; run containers by Tasks"},
    {"containerd.services.mounts.v1.Mounts",
     "mounts are not kept by name; mount what Snapshots answers"},
};

}  // namespace

absl::string_view WhyUnserved(absl::string_view service) {
  for (const Unserved& unserved : kUnserved) {
    if (service == unserved.service) return unserved.why;
  }
  return "";
}

absl::string_view ServiceOf(absl::string_view method) {
  if (!absl::StartsWith(method, "/")) return "";
  const size_t slash = method.rfind('/');
  return slash == 0 ? "" : method.substr(1, slash - 1);
}

absl::string_view ProcessFor(absl::string_view service) {
  for (const Route& route : kRoutes) {
    const bool prefix = absl::EndsWith(route.service, ".");
    if (prefix ? absl::StartsWith(service, route.service) : service == route.service) {
      return route.process;
    }
  }
  return "";
}

std::vector<std::string> RoutedProcesses() {
  std::vector<std::string> processes;
  for (const Route& route : kRoutes) processes.emplace_back(route.process);
  std::sort(processes.begin(), processes.end());
  processes.erase(std::unique(processes.begin(), processes.end()), processes.end());
  return processes;
}

}  // namespace gantry::gateway
