#include "services/image/options.h"

#include <cstdint>
#include <limits>

#include "lib/base/status.h"

namespace gantry::image {
namespace {

constexpr int64_t kMaxInteger = std::numeric_limits<int64_t>::max() / 4;

}  // namespace

absl::StatusOr<Options> ReadOptions(const config::Section& section, const std::string& scratch,
                                    const std::string& program,
                                    const std::string& hosts_directory) {
  Options options;
  RegistryOptions& registry = options.registry;
  InstallerOptions& installer = options.installer;
  UnpackerOptions& unpacker = options.unpacker;
  oci::ImageLimits& limits = options.limits;

  ASSIGN_OR_RETURN(registry.insecure, section.GetStrings("insecure_registries", {}));
  ASSIGN_OR_RETURN(registry.token_servers,
                   section.GetStrings("token_servers", registry.token_servers));
  ASSIGN_OR_RETURN(registry.auth_file, section.GetString("auth_file", ""));
  ASSIGN_OR_RETURN(registry.host_directory, section.GetString("registry_hosts", hosts_directory));
  ASSIGN_OR_RETURN(const int64_t attempts, section.GetInteger("download_attempts", 5, 1, 100));
  registry.attempts = static_cast<int>(attempts);
  ASSIGN_OR_RETURN(registry.first_pause,
                   section.GetDuration("first_retry_pause", registry.first_pause));

  ASSIGN_OR_RETURN(installer.snapshotter, section.GetString("snapshotter", "overlayfs"));
  ASSIGN_OR_RETURN(const int64_t layers, section.GetInteger("max_parallel_layers", 6, 1, 64));
  installer.max_parallel_layers = static_cast<int>(layers);
  ASSIGN_OR_RETURN(installer.parallel_unpack, section.GetBool("parallel_unpack", true));
  installer.scratch = scratch;

  ASSIGN_OR_RETURN(const int64_t document,
                   section.GetInteger("max_manifest_bytes", 4 << 20, 1 << 10, 64 << 20));
  ASSIGN_OR_RETURN(const int64_t entries, section.GetInteger("max_index_entries", 1000, 1, 100000));
  ASSIGN_OR_RETURN(const int64_t layer_count, section.GetInteger("max_layers", 500, 1, 10000));
  limits.max_document_bytes = static_cast<size_t>(document);
  limits.max_index_entries = static_cast<size_t>(entries);
  limits.max_layers = static_cast<size_t>(layer_count);
  registry.limits = limits;
  installer.limits = limits;

  const archive::SinkLimits sink;
  ASSIGN_OR_RETURN(const int64_t layer_bytes,
                   section.GetInteger("max_layer_bytes", static_cast<int64_t>(sink.max_bytes),
                                      1 << 20, kMaxInteger));
  ASSIGN_OR_RETURN(const int64_t layer_entries,
                   section.GetInteger("max_layer_entries", static_cast<int64_t>(sink.max_entries),
                                      1, kMaxInteger));
  ASSIGN_OR_RETURN(const int64_t ratio,
                   section.GetInteger("max_layer_ratio", 1000, 1, kMaxInteger));
  unpacker.limits.max_bytes = static_cast<uint64_t>(layer_bytes);
  unpacker.limits.max_entries = static_cast<uint64_t>(layer_entries);
  unpacker.max_ratio = static_cast<uint64_t>(ratio);
  ASSIGN_OR_RETURN(unpacker.program, section.GetString("unpack_program", program));
  return options;
}

}  // namespace gantry::image
