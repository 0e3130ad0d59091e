#include "services/gateway/introspection_service.h"

#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/filter/filter.h"
#include "lib/rpc/status.h"

namespace gantry::gateway {
namespace {

namespace v1 = containerd::services::introspection::v1;

struct Row {
  const char* type;
  const char* id;
  bool has_platform;
};

constexpr Row kInventory[] = {
    {"io.containerd.content.v1", "content", false},
    {"io.containerd.snapshotter.v1", "overlayfs", true},
    {"io.containerd.metadata.v1", "bolt", false},
    {"io.containerd.gc.v1", "scheduler", false},
    {"io.containerd.event.v1", "exchange", false},
    {"io.containerd.runtime.v2", "task", true},
    {"io.containerd.differ.v1", "walking", true},
    {"io.containerd.lease.v1", "manager", false},
    {"io.containerd.streaming.v1", "manager", false},
    {"io.containerd.transfer.v1", "local", true},
    {"io.containerd.sandbox.store.v1", "local", false},
    {"io.containerd.service.v1", "containers-service", false},
    {"io.containerd.service.v1", "content-service", false},
    {"io.containerd.service.v1", "diff-service", false},
    {"io.containerd.service.v1", "images-service", false},
    {"io.containerd.service.v1", "introspection-service", false},
    {"io.containerd.service.v1", "namespaces-service", false},
    {"io.containerd.service.v1", "snapshots-service", false},
    {"io.containerd.service.v1", "tasks-service", false},
    {"io.containerd.grpc.v1", "containers", false},
    {"io.containerd.grpc.v1", "content", false},
    {"io.containerd.grpc.v1", "diff", false},
    {"io.containerd.grpc.v1", "events", false},
    {"io.containerd.grpc.v1", "healthcheck", false},
    {"io.containerd.grpc.v1", "images", false},
    {"io.containerd.grpc.v1", "introspection", false},
    {"io.containerd.grpc.v1", "leases", false},
    {"io.containerd.grpc.v1", "namespaces", false},
    {"io.containerd.grpc.v1", "sandboxes", false},
    {"io.containerd.grpc.v1", "snapshots", false},
    {"io.containerd.grpc.v1", "streaming", false},
    {"io.containerd.grpc.v1", "tasks", false},
    {"io.containerd.grpc.v1", "transfer", false},
    {"io.containerd.grpc.v1", "version", false},
};

v1::Plugin ToPlugin(const Row& row, const std::string& snapshotter_root) {
  v1::Plugin plugin;
  plugin.set_type(row.type);
  plugin.set_id(row.id);
  if (row.has_platform) {
    containerd::types::Platform& platform = *plugin.add_platforms();
    platform.set_os("linux");
    platform.set_architecture("amd64");
  }
  if (absl::string_view(row.id) == "overlayfs") {
    (*plugin.mutable_exports())["root"] = snapshotter_root;
    plugin.add_capabilities("remap-ids");
    plugin.add_capabilities("rebase");
  }
  return plugin;
}

std::optional<std::string> FieldOf(const v1::Plugin& plugin, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "type") return plugin.type();
  if (path.size() == 1 && path[0] == "id") return plugin.id();
  if (path.size() == 1 && path[0] == "platforms" && plugin.platforms_size() > 0) {
    return absl::StrCat(plugin.platforms(0).os(), "/", plugin.platforms(0).architecture());
  }
  if (path.size() == 1 && path[0] == "capabilities" && plugin.capabilities_size() > 0) {
    return absl::StrJoin(plugin.capabilities(), ",");
  }
  return std::nullopt;
}

uint64_t PidNamespace() {
  struct stat info = {};
  return ::stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

}  // namespace

grpc::Status IntrospectionService::Plugins(grpc::ServerContext*, const v1::PluginsRequest* request,
                                           v1::PluginsResponse* response) {
  absl::StatusOr<filter::Filter> filter = filter::Filter::ParseAll(request->filters());
  if (!filter.ok()) return rpc::ToGrpcStatus(filter.status());
  for (const Row& row : kInventory) {
    v1::Plugin plugin = ToPlugin(row, snapshotter_root_);
    if (filter->Matches(
            [&](const std::vector<std::string>& path) { return FieldOf(plugin, path); })) {
      *response->add_plugins() = std::move(plugin);
    }
  }
  return grpc::Status::OK;
}

grpc::Status IntrospectionService::Server(grpc::ServerContext*, const google::protobuf::Empty*,
                                          v1::ServerResponse* response) {
  response->set_uuid(uuid_);
  response->set_pid(static_cast<uint64_t>(::getpid()));
  response->set_pidns(PidNamespace());
  return grpc::Status::OK;
}

grpc::Status IntrospectionService::PluginInfo(grpc::ServerContext*,
                                              const v1::PluginInfoRequest* request,
                                              v1::PluginInfoResponse* response) {
  for (const Row& row : kInventory) {
    if (request->type() != row.type || request->id() != row.id) continue;
    *response->mutable_plugin() = ToPlugin(row, snapshotter_root_);
    return grpc::Status::OK;
  }
  return grpc::Status(grpc::StatusCode::NOT_FOUND,
                      absl::StrCat("no plugin '", request->id(), "' of type '", request->type(),
                                   "'; Plugins lists them all"));
}

}  // namespace gantry::gateway
