// The documents of an image: descriptor, index, manifest and configuration (OCI image specification
// and Docker's schema 2, which differ in media types only). Everything here comes from strangers
// and is checked while it is read; limits are those of SECURITY-RULES 29.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/base/digest.h"

namespace gantry::oci {

inline constexpr char kMediaTypeIndex[] = "application/vnd.oci.image.index.v1+json";
inline constexpr char kMediaTypeManifest[] = "application/vnd.oci.image.manifest.v1+json";
inline constexpr char kMediaTypeConfig[] = "application/vnd.oci.image.config.v1+json";
inline constexpr char kMediaTypeLayer[] = "application/vnd.oci.image.layer.v1.tar";
inline constexpr char kMediaTypeLayerGzip[] = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr char kMediaTypeLayerZstd[] = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr char kMediaTypeDockerList[] =
    "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr char kMediaTypeDockerManifest[] =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr char kMediaTypeDockerConfig[] = "application/vnd.docker.container.image.v1+json";
inline constexpr char kMediaTypeDockerLayer[] = "application/vnd.docker.image.rootfs.diff.tar";
inline constexpr char kMediaTypeDockerLayerGzip[] =
    "application/vnd.docker.image.rootfs.diff.tar.gzip";

struct ImageLimits {
  size_t max_document_bytes = 4 << 20;
  size_t max_index_entries = 1000;
  size_t max_layers = 500;
};

// What an index says, or the machine is.
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;
  std::string os_version;

  // "linux/arm64/v8".
  std::string str() const;
};

// "os/architecture[/variant]", or an architecture alone; "x86_64" and "aarch64" are understood,
// empty is the host's. Errors: InvalidArgument.
absl::StatusOr<Platform> ParsePlatform(absl::string_view text);
Platform HostPlatform();

// Whether what is built for `built` runs on `wanted`, and how well: 0 is not at all, more is
// better.
int MatchPlatform(const Platform& built, const Platform& wanted);

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size_bytes = 0;
  std::map<std::string, std::string> annotations;
  std::optional<Platform> platform;
};

struct Index {
  std::string media_type;
  std::vector<Descriptor> manifests;
};

struct Manifest {
  std::string media_type;
  Descriptor config;
  std::vector<Descriptor> layers;
};

struct HistoryItem {
  std::optional<absl::Time> created;
  std::string created_by;
  std::string comment;
  bool empty_layer = false;
};

struct ImageConfiguration {
  std::optional<absl::Time> created;
  std::string author;
  Platform platform;
  std::vector<Digest> diff_ids;  // Lowest first.
  std::vector<HistoryItem> history;

  std::string user;
  std::vector<std::string> env;
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string working_dir;
  std::map<std::string, std::string> labels;
  std::string stop_signal;
  std::vector<std::string> exposed_ports;
  std::vector<std::string> volumes;
};

bool IsIndexMediaType(absl::string_view media_type);
bool IsManifestMediaType(absl::string_view media_type);

// Whether `media_type` is a layer we can unpack; `*compression` is "none", "gzip" or "zstd".
bool IsLayerMediaType(absl::string_view media_type, std::string* compression);

// The media type of a document fetched with `declared` (a header or descriptor; may be empty): the
// document's own `mediaType` wins if it is one of those we know, else what its members show.
absl::StatusOr<std::string> DocumentMediaType(absl::string_view bytes, absl::string_view declared,
                                              const ImageLimits& limits = {});

// Readers. Errors: InvalidArgument with the path of what is wrong; ResourceExhausted — a limit.
absl::StatusOr<Index> ParseIndex(absl::string_view bytes, const ImageLimits& limits = {});
absl::StatusOr<Manifest> ParseManifest(absl::string_view bytes, const ImageLimits& limits = {});
absl::StatusOr<ImageConfiguration> ParseImageConfiguration(absl::string_view bytes,
                                                           const ImageLimits& limits = {});

// A manifest as bytes, for images that come without one (docker save).
std::string WriteManifest(const Manifest& manifest);

// The best of `index` for `wanted`. Errors: NotFound, naming the platforms there are.
absl::StatusOr<Descriptor> SelectManifest(const Index& index, const Platform& wanted);

// Chain ids of layers, lowest first: the first is the diff id, each further one covers all below
// it.
std::vector<Digest> ChainIds(const std::vector<Digest>& diff_ids);

}  // namespace gantry::oci
