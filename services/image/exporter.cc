#include "services/image/exporter.h"

#include <errno.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/tar_writer.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/oci/image_reference.h"
#include "lib/sys/errno.h"

namespace gantry::image {
namespace {

constexpr size_t kCopyBytes = 1 << 20;
constexpr int kMaxIndexDepth = 3;

std::string BlobPath(const Digest& digest) {
  return absl::StrCat("blobs/sha256/", std::string(digest.hex()));
}

archive::TarEntry File(const std::string& path, uint64_t size) {
  archive::TarEntry entry;
  entry.path = path;
  entry.permissions = 0444;
  entry.size_bytes = size;
  entry.modified = absl::UnixEpoch();  // The same images give the same bytes.
  return entry;
}

archive::TarEntry Folder(const std::string& path) {
  archive::TarEntry entry = File(path, 0);
  entry.type = archive::EntryType::kDirectory;
  entry.permissions = 0755;
  return entry;
}

bool IsNonDistributable(const std::string& media_type) {
  return absl::StrContains(media_type, "nondistributable") ||
         absl::StrContains(media_type, ".foreign.");
}

}  // namespace

// What goes into an archive.
struct Exporter::Archive {
  struct Root {
    std::string name;
    oci::Descriptor descriptor;
  };
  // For `docker load`: one entry of manifest.json.
  struct DockerImage {
    Digest config;
    std::vector<Digest> layers;
    std::vector<std::string> names;
  };

  std::vector<Root> roots;
  std::map<Digest, uint64_t> blobs;      // With their sizes.
  std::map<Digest, DockerImage> images;  // By configuration.
  std::string name;                      // Of the image being collected.

  std::string IndexJson() const {
    json::Writer writer;
    writer.BeginObject();
    writer.Member("schemaVersion", int32_t{2});
    writer.Member("mediaType", oci::kMediaTypeIndex);
    writer.Key("manifests");
    writer.BeginArray();
    for (const Root& root : roots) {
      writer.BeginObject();
      writer.Member("mediaType", root.descriptor.media_type);
      writer.Member("digest", root.descriptor.digest.str());
      writer.Member("size", root.descriptor.size_bytes);
      const absl::StatusOr<oci::ImageReference> reference = oci::ImageReference::Parse(root.name);
      StringMap annotations = {{"io.containerd.image.name", root.name}};
      if (reference.ok() && !reference->tag().empty()) {
        annotations["org.opencontainers.image.ref.name"] = reference->tag();
      }
      writer.Member("annotations", annotations);
      writer.EndObject();
    }
    writer.EndArray();
    writer.EndObject();
    return writer.Take();
  }

  std::string ManifestJson() const {
    json::Writer writer;
    writer.BeginArray();
    for (const auto& [config, image] : images) {
      std::vector<std::string> layers;
      for (const Digest& layer : image.layers) layers.push_back(BlobPath(layer));
      writer.BeginObject();
      writer.Member("Config", BlobPath(config));
      writer.Member("RepoTags", image.names);
      writer.Member("Layers", layers);
      writer.EndObject();
    }
    writer.EndArray();
    return writer.Take();
  }
};

absl::StatusOr<std::string> Exporter::Document(const Request& request,
                                               const oci::Descriptor& descriptor) {
  RETURN_IF_ERROR(metadata_.GetBlob(request.caller, descriptor.digest).status());
  return blobs_.ReadBlob(descriptor.digest, limits_.max_document_bytes);
}

absl::Status Exporter::CollectManifest(const Request& request, const oci::Descriptor& descriptor,
                                       const std::string& bytes, Archive& archive) {
  ASSIGN_OR_RETURN(const oci::Manifest manifest, oci::ParseManifest(bytes, limits_));
  std::map<Digest, uint64_t> blobs = {{descriptor.digest, bytes.size()}};
  Archive::DockerImage image;
  image.config = manifest.config.digest;
  std::vector<oci::Descriptor> parts = manifest.layers;
  parts.push_back(manifest.config);
  for (const oci::Descriptor& part : parts) {
    if (request.skip_non_distributable && IsNonDistributable(part.media_type)) continue;
    RETURN_IF_ERROR(metadata_.GetBlob(request.caller, part.digest).status());
    ASSIGN_OR_RETURN(blobs[part.digest], blobs_.BlobSize(part.digest));
  }
  for (const oci::Descriptor& layer : manifest.layers) image.layers.push_back(layer.digest);
  archive.blobs.insert(blobs.begin(), blobs.end());
  Archive::DockerImage& entry = archive.images.try_emplace(image.config, image).first->second;
  const absl::StatusOr<oci::ImageReference> reference = oci::ImageReference::Parse(archive.name);
  if (reference.ok() && !reference->tag().empty()) {
    entry.names.push_back(absl::StrCat(reference->FamiliarName(), ":", reference->tag()));
  }
  return absl::OkStatus();
}

absl::Status Exporter::CollectIndex(const Request& request, const std::string& bytes, int depth,
                                    Archive& archive) {
  if (depth >= kMaxIndexDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the image has more than ", kMaxIndexDepth, " levels of indexes"));
  }
  ASSIGN_OR_RETURN(const oci::Index index, oci::ParseIndex(bytes, limits_));
  std::vector<oci::Descriptor> wanted;
  for (const oci::Platform& platform : request.platforms) {
    ASSIGN_OR_RETURN(wanted.emplace_back(), oci::SelectManifest(index, platform));
  }
  if (request.platforms.empty()) wanted = index.manifests;
  size_t found = 0;
  for (const oci::Descriptor& descriptor : wanted) {
    absl::StatusOr<std::string> document = Document(request, descriptor);
    // Of an image of many platforms usually one is here.
    const bool may_lack = request.platforms.empty() && !request.all_platforms;
    if (may_lack && absl::IsNotFound(document.status())) continue;
    RETURN_IF_ERROR(document.status());
    ++found;
    if (oci::IsIndexMediaType(descriptor.media_type)) {
      archive.blobs[descriptor.digest] = document->size();
      RETURN_IF_ERROR(CollectIndex(request, *document, depth + 1, archive));
    } else {
      RETURN_IF_ERROR(CollectManifest(request, descriptor, *document, archive));
    }
  }
  if (found == 0) return absl::NotFoundError("no platform of the image is here; pull it first");
  return absl::OkStatus();
}

absl::Status Exporter::Collect(const Request& request, const std::string& name, Archive& archive) {
  ASSIGN_OR_RETURN(const auto record, metadata_.GetImage(request.caller, name));
  Archive::Root root;
  root.name = name;
  ASSIGN_OR_RETURN(root.descriptor.digest, Digest::Parse(record.target().digest()));
  root.descriptor.media_type = record.target().media_type();
  root.descriptor.size_bytes = static_cast<uint64_t>(record.target().size());
  ASSIGN_OR_RETURN(const std::string bytes, Document(request, root.descriptor));
  archive.name = name;
  archive.blobs[root.descriptor.digest] = bytes.size();
  RETURN_IF_ERROR(oci::IsIndexMediaType(root.descriptor.media_type)
                      ? CollectIndex(request, bytes, 0, archive)
                      : CollectManifest(request, root.descriptor, bytes, archive));
  archive.roots.push_back(std::move(root));
  return absl::OkStatus();
}

absl::Status Exporter::Export(const Request& request,
                              const std::function<absl::Status(absl::string_view)>& output,
                              const std::function<bool()>& cancelled) {
  if (request.names.empty()) return absl::InvalidArgumentError("no image is named for the export");
  Archive content;
  for (const std::string& name : request.names) {
    RETURN_IF_ERROR(Annotate(Collect(request, name, content),
                             absl::StrCat("export '", EscapeForTerminal(name), "'")));
  }
  archive::TarWriter tar(output);
  const auto add = [&tar](const std::string& path, const std::string& bytes) {
    return tar.AddFile(File(path, bytes.size()), bytes);
  };
  RETURN_IF_ERROR(add("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
  RETURN_IF_ERROR(add("index.json", content.IndexJson()));
  if (request.docker_list) RETURN_IF_ERROR(add("manifest.json", content.ManifestJson()));
  RETURN_IF_ERROR(tar.Add(Folder("blobs")));
  RETURN_IF_ERROR(tar.Add(Folder("blobs/sha256")));
  auto buffer = std::make_unique<char[]>(kCopyBytes);
  for (const auto& [digest, size] : content.blobs) {
    uint64_t bytes_there = 0;
    ASSIGN_OR_RETURN(const sys::UniqueFd blob, blobs_.OpenBlob(digest, &bytes_there));
    if (bytes_there != size) return absl::DataLossError(absl::StrCat(digest.str(), " changed"));
    RETURN_IF_ERROR(tar.Add(File(BlobPath(digest), size)));
    for (uint64_t done = 0; done < size;) {
      if (cancelled && cancelled()) return absl::CancelledError("the export was cancelled");
      const ssize_t got = ::read(blob.get(), buffer.get(), kCopyBytes);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return sys::ErrnoError(got < 0 ? errno : EIO, "read content");
      RETURN_IF_ERROR(tar.WriteData(absl::string_view(buffer.get(), static_cast<size_t>(got))));
      done += static_cast<uint64_t>(got);
    }
  }
  return tar.Finish();
}

}  // namespace gantry::image
