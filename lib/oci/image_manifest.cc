#include "lib/oci/image_manifest.h"

#include <sys/utsname.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/archive/sha256.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"

namespace gantry::oci {
namespace {

constexpr size_t kMaxAnnotations = 1000;
constexpr size_t kMaxHistory = 10000;

bool IsMediaType(absl::string_view text) {
  const size_t slash = text.find('/');
  const auto part = [](absl::string_view name) {
    if (name.empty() || name.size() > 127 || !absl::ascii_isalnum(name[0])) return false;
    return std::all_of(name.begin(), name.end(), [](char c) {
      return absl::ascii_isalnum(c) || absl::StrContains("!#$&^_.+-", absl::string_view(&c, 1));
    });
  };
  return slash != absl::string_view::npos && part(text.substr(0, slash)) &&
         part(text.substr(slash + 1));
}

absl::Status ReadDigest(const json::Value& parent, absl::string_view key, Digest* out) {
  std::string text;
  RETURN_IF_ERROR(parent.Required(key, &text));
  absl::StatusOr<Digest> digest = Digest::Parse(text);
  if (!digest.ok()) return parent.Find(key)->Error(digest.status().message());
  *out = *digest;
  return absl::OkStatus();
}

absl::Status ReadPlatform(const json::Value& value, Platform* out) {
  RETURN_IF_ERROR(value.Optional("os", &out->os));
  RETURN_IF_ERROR(value.Optional("architecture", &out->architecture));
  RETURN_IF_ERROR(value.Optional("variant", &out->variant));
  return value.Optional("os.version", &out->os_version);
}

absl::Status ReadDescriptor(const json::Value& value, Descriptor* out) {
  RETURN_IF_ERROR(value.Required("mediaType", &out->media_type));
  if (!IsMediaType(out->media_type)) return value.Error("mediaType is not a media type");
  RETURN_IF_ERROR(ReadDigest(value, "digest", &out->digest));
  int64_t size = 0;
  RETURN_IF_ERROR(value.Required("size", &size));
  if (size < 0) return value.Error("size is negative");
  out->size_bytes = static_cast<uint64_t>(size);
  RETURN_IF_ERROR(value.Optional("annotations", &out->annotations));
  if (out->annotations.size() > kMaxAnnotations) return value.Error("too many annotations");
  if (std::optional<json::Value> platform = value.Find("platform")) {
    RETURN_IF_ERROR(ReadPlatform(*platform, &out->platform.emplace()));
  }
  return absl::OkStatus();
}

absl::Status ReadDescriptors(const json::Value& root, absl::string_view key, size_t limit,
                             std::vector<Descriptor>* out) {
  json::Value list;
  RETURN_IF_ERROR(root.Required(key, &list));
  RETURN_IF_ERROR(list.ExpectArray());
  if (list.size() > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(key, ": has ", list.size(), " entries, at most ", limit, " are read"));
  }
  out->resize(list.size());
  for (size_t i = 0; i < list.size(); ++i) RETURN_IF_ERROR(ReadDescriptor(list.at(i), &(*out)[i]));
  return absl::OkStatus();
}

// Times are for show: one that cannot be read is left out rather than refused.
std::optional<absl::Time> ReadTime(const json::Value& parent, absl::string_view key) {
  std::optional<json::Value> found = parent.Find(key);
  std::string text;
  absl::Time time;
  std::string error;
  if (!found || !found->is_string() || !found->To(&text).ok()) return std::nullopt;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return std::nullopt;
  return time;
}

absl::Status ReadKeys(const json::Value& parent, absl::string_view key,
                      std::vector<std::string>* out) {
  std::optional<json::Value> found = parent.Find(key);
  if (!found) return absl::OkStatus();
  RETURN_IF_ERROR(found->ExpectObject());
  for (size_t i = 0; i < found->size(); ++i) out->emplace_back(found->member(i).first);
  std::sort(out->begin(), out->end());
  return absl::OkStatus();
}

// What a container takes over (SECURITY-RULES 31).
absl::Status ReadContainerDefaults(const json::Value& config, ImageConfiguration* out) {
  RETURN_IF_ERROR(config.Optional("User", &out->user));
  RETURN_IF_ERROR(config.Optional("Env", &out->env));
  RETURN_IF_ERROR(config.Optional("Entrypoint", &out->entrypoint));
  RETURN_IF_ERROR(config.Optional("Cmd", &out->cmd));
  RETURN_IF_ERROR(config.Optional("WorkingDir", &out->working_dir));
  RETURN_IF_ERROR(config.Optional("Labels", &out->labels));
  RETURN_IF_ERROR(config.Optional("StopSignal", &out->stop_signal));
  RETURN_IF_ERROR(ReadKeys(config, "ExposedPorts", &out->exposed_ports));
  RETURN_IF_ERROR(ReadKeys(config, "Volumes", &out->volumes));
  for (const std::string& variable : out->env) {
    if (variable.find('=') == std::string::npos || variable[0] == '=') {
      return config.Error(
          absl::StrCat("Env has '", EscapeForTerminal(variable), "', which is not NAME=value"));
    }
  }
  for (const std::string& volume : out->volumes) {
    if (!absl::StartsWith(volume, "/")) {
      return config.Error(
          absl::StrCat("Volumes has '", EscapeForTerminal(volume), "', which is not absolute"));
    }
  }
  if (!out->working_dir.empty() && out->working_dir[0] != '/') {
    return config.Error("WorkingDir is not absolute");
  }
  return absl::OkStatus();
}

absl::Status ReadHistory(const json::Value& root, ImageConfiguration* out) {
  std::optional<json::Value> history = root.Find("history");
  if (!history) return absl::OkStatus();
  RETURN_IF_ERROR(history->ExpectArray());
  if (history->size() > kMaxHistory) return history->Error("is too long");
  for (size_t i = 0; i < history->size(); ++i) {
    const json::Value entry = history->at(i);
    HistoryItem item;
    RETURN_IF_ERROR(entry.Optional("created_by", &item.created_by));
    RETURN_IF_ERROR(entry.Optional("comment", &item.comment));
    RETURN_IF_ERROR(entry.Optional("empty_layer", &item.empty_layer));
    item.created = ReadTime(entry, "created");
    out->history.push_back(std::move(item));
  }
  return absl::OkStatus();
}

// x86_64 and the like, as uname and people say them.
std::string NormalArchitecture(absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower == "x86_64" || lower == "x86-64") return "amd64";
  if (lower == "aarch64") return "arm64";
  if (lower == "i386" || lower == "i686") return "386";
  if (lower == "armv7l" || lower == "armhf") return "arm";
  return lower;
}

absl::Status CheckSchemaVersion(const json::Value& root) {
  int64_t version = 0;
  RETURN_IF_ERROR(root.Required("schemaVersion", &version));
  if (version != 2) {
    return root.Error(absl::StrCat("schemaVersion is ", version, ", only 2 is understood"));
  }
  return absl::OkStatus();
}

void WriteDescriptor(json::Writer& writer, const Descriptor& descriptor) {
  writer.BeginObject();
  writer.Member("mediaType", descriptor.media_type);
  writer.Member("size", descriptor.size_bytes);
  writer.Member("digest", descriptor.digest.str());
  if (!descriptor.annotations.empty()) writer.Member("annotations", descriptor.annotations);
  writer.EndObject();
}

}  // namespace

std::string Platform::str() const {
  return variant.empty() ? absl::StrCat(os, "/", architecture)
                         : absl::StrCat(os, "/", architecture, "/", variant);
}

Platform HostPlatform() {
  struct utsname name = {};
  ::uname(&name);
  Platform platform;
  platform.os = "linux";
  platform.architecture = NormalArchitecture(name.machine);
  return platform;
}

absl::StatusOr<Platform> ParsePlatform(absl::string_view text) {
  if (text.empty()) return HostPlatform();
  const std::vector<std::string> parts = absl::StrSplit(text, '/');
  for (const std::string& part : parts) {
    const bool fine =
        !part.empty() && part.size() <= 64 && std::all_of(part.begin(), part.end(), [](char c) {
          return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
        });
    if (!fine || parts.size() > 3) {
      return absl::InvalidArgumentError(absl::StrCat("the platform '", EscapeForTerminal(text),
                                                     "' is not os/architecture[/variant]"));
    }
  }
  Platform platform;
  if (parts.size() == 1) {
    platform.os = "linux";
    platform.architecture = NormalArchitecture(parts[0]);
    return platform;
  }
  platform.os = absl::AsciiStrToLower(parts[0]);
  platform.architecture = NormalArchitecture(parts[1]);
  if (parts.size() == 3) platform.variant = absl::AsciiStrToLower(parts[2]);
  // Every 64-bit ARM is v8 unless it says more.
  if (platform.architecture == "arm64" && platform.variant == "v8") platform.variant.clear();
  return platform;
}

int MatchPlatform(const Platform& built, const Platform& wanted) {
  if (built.os != wanted.os) return 0;
  std::string built_variant = built.variant;
  if (built.architecture == "arm64" && built_variant == "v8") built_variant.clear();
  if (built.architecture == wanted.architecture) {
    if (built_variant == wanted.variant) return 100;
    // Without a wish: plain first, then the lowest variant, which runs everywhere.
    if (wanted.variant.empty() || built_variant.empty()) {
      if (built_variant.empty()) return 90;
      return 80 - std::min<int>(built_variant.back() - '0', 20);
    }
    // v7 runs v6, v3 runs v2, not the other way round.
    if (built_variant < wanted.variant) return 40 + (built_variant.back() - '0');
    return 0;
  }
  if (wanted.architecture == "amd64" && built.architecture == "386") return 5;
  return 0;
}

bool IsIndexMediaType(absl::string_view media_type) {
  return media_type == kMediaTypeIndex || media_type == kMediaTypeDockerList;
}

bool IsManifestMediaType(absl::string_view media_type) {
  return media_type == kMediaTypeManifest || media_type == kMediaTypeDockerManifest;
}

bool IsLayerMediaType(absl::string_view media_type, std::string* compression) {
  static constexpr const char* kPlain[] = {
      kMediaTypeLayer, kMediaTypeDockerLayer,
      "application/vnd.oci.image.layer.nondistributable.v1.tar",
      "application/vnd.docker.image.rootfs.foreign.diff.tar"};
  for (absl::string_view plain : kPlain) {
    if (!absl::StartsWith(media_type, plain)) continue;
    const absl::string_view suffix = media_type.substr(plain.size());
    if (suffix.empty())
      *compression = "none";
    else if (suffix == "+gzip" || suffix == ".gzip")
      *compression = "gzip";
    else if (suffix == "+zstd" || suffix == ".zstd")
      *compression = "zstd";
    else
      continue;
    return true;
  }
  return false;
}

absl::StatusOr<std::string> DocumentMediaType(absl::string_view bytes, absl::string_view declared,
                                              const ImageLimits& limits) {
  ASSIGN_OR_RETURN(json::Document document,
                   json::Document::Parse(bytes, limits.max_document_bytes));
  const json::Value root = document.root();
  std::string own;
  RETURN_IF_ERROR(root.Optional("mediaType", &own));
  // `application/json; charset=utf-8` and the like.
  const std::string header(absl::StripAsciiWhitespace(declared.substr(0, declared.find(';'))));
  for (const std::string& candidate : {own, header}) {
    if (IsIndexMediaType(candidate) || IsManifestMediaType(candidate)) return candidate;
  }
  const bool has_layers = root.Find("layers").has_value();
  const bool has_manifests = root.Find("manifests").has_value();
  if (has_layers && has_manifests) {
    // Two readers could take such a document for two different images.
    return absl::InvalidArgumentError("the document is both a manifest and an index");
  }
  if (has_manifests) return std::string(kMediaTypeIndex);
  if (has_layers) return std::string(kMediaTypeManifest);
  if (root.Find("fsLayers")) {
    return absl::InvalidArgumentError(
        "the image has the old manifest of schema 1; push it again with a newer tool");
  }
  return absl::InvalidArgumentError(absl::StrCat("neither a manifest nor an index (media type '",
                                                 EscapeForTerminal(own.empty() ? header : own),
                                                 "')"));
}

absl::StatusOr<Index> ParseIndex(absl::string_view bytes, const ImageLimits& limits) {
  ASSIGN_OR_RETURN(json::Document document,
                   json::Document::Parse(bytes, limits.max_document_bytes));
  const json::Value root = document.root();
  Index index;
  RETURN_IF_ERROR(CheckSchemaVersion(root));
  RETURN_IF_ERROR(root.Optional("mediaType", &index.media_type));
  if (root.Find("layers")) return root.Error("an index must not have layers");
  RETURN_IF_ERROR(ReadDescriptors(root, "manifests", limits.max_index_entries, &index.manifests));
  return index;
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view bytes, const ImageLimits& limits) {
  ASSIGN_OR_RETURN(json::Document document,
                   json::Document::Parse(bytes, limits.max_document_bytes));
  const json::Value root = document.root();
  Manifest manifest;
  RETURN_IF_ERROR(CheckSchemaVersion(root));
  RETURN_IF_ERROR(root.Optional("mediaType", &manifest.media_type));
  if (root.Find("manifests")) return root.Error("a manifest must not have manifests");
  json::Value config;
  RETURN_IF_ERROR(root.Required("config", &config));
  RETURN_IF_ERROR(ReadDescriptor(config, &manifest.config));
  RETURN_IF_ERROR(ReadDescriptors(root, "layers", limits.max_layers, &manifest.layers));
  return manifest;
}

absl::StatusOr<ImageConfiguration> ParseImageConfiguration(absl::string_view bytes,
                                                           const ImageLimits& limits) {
  ASSIGN_OR_RETURN(json::Document document,
                   json::Document::Parse(bytes, limits.max_document_bytes));
  const json::Value root = document.root();
  ImageConfiguration image;
  RETURN_IF_ERROR(root.ExpectObject());
  RETURN_IF_ERROR(ReadPlatform(root, &image.platform));
  RETURN_IF_ERROR(root.Optional("author", &image.author));
  image.created = ReadTime(root, "created");
  json::Value rootfs;
  RETURN_IF_ERROR(root.Required("rootfs", &rootfs));
  std::string type = "layers";
  RETURN_IF_ERROR(rootfs.Optional("type", &type));
  if (type != "layers") return rootfs.Error("type must be 'layers'");
  std::vector<std::string> diff_ids;
  RETURN_IF_ERROR(rootfs.Optional("diff_ids", &diff_ids));
  if (diff_ids.size() > limits.max_layers) {
    return absl::ResourceExhaustedError(absl::StrCat("rootfs.diff_ids: has ", diff_ids.size(),
                                                     " entries, at most ", limits.max_layers,
                                                     " are read"));
  }
  for (const std::string& text : diff_ids) {
    absl::StatusOr<Digest> digest = Digest::Parse(text);
    if (!digest.ok()) return rootfs.Error(digest.status().message());
    image.diff_ids.push_back(*digest);
  }
  if (std::optional<json::Value> config = root.Find("config")) {
    RETURN_IF_ERROR(ReadContainerDefaults(*config, &image));
  }
  RETURN_IF_ERROR(ReadHistory(root, &image));
  return image;
}

std::string WriteManifest(const Manifest& manifest) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("schemaVersion", 2);
  writer.Member("mediaType", manifest.media_type);
  writer.Key("config");
  WriteDescriptor(writer, manifest.config);
  writer.Key("layers");
  writer.BeginArray();
  for (const Descriptor& layer : manifest.layers) WriteDescriptor(writer, layer);
  writer.EndArray();
  writer.EndObject();
  return writer.Take();
}

absl::StatusOr<Descriptor> SelectManifest(const Index& index, const Platform& wanted) {
  const Descriptor* best = nullptr;
  int best_match = 0;
  std::vector<std::string> offered;
  for (const Descriptor& entry : index.manifests) {
    if (!IsManifestMediaType(entry.media_type) && !IsIndexMediaType(entry.media_type)) continue;
    // An index of one without a platform (an OCI layout made by hand) is taken as it is.
    const int match = entry.platform ? MatchPlatform(*entry.platform, wanted) : 1;
    if (entry.platform) offered.push_back(entry.platform->str());
    if (match > best_match) {
      best = &entry;
      best_match = match;
    }
  }
  if (best != nullptr) return *best;
  return absl::NotFoundError(
      absl::StrCat("no image for the platform ", wanted.str(), "; there is ",
                   offered.empty() ? "none" : EscapeForTerminal(absl::StrJoin(offered, ", "))));
}

std::vector<Digest> ChainIds(const std::vector<Digest>& diff_ids) {
  std::vector<Digest> chain;
  for (const Digest& diff_id : diff_ids) {
    if (chain.empty()) {
      chain.push_back(diff_id);
    } else {
      chain.push_back(archive::Sha256Of(absl::StrCat(chain.back().str(), " ", diff_id.str())));
    }
  }
  return chain;
}

}  // namespace gantry::oci
