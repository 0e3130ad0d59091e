#include "services/image/importer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/sha256.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/log/log.h"
#include "lib/oci/image_reference.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/image/puller.h"

namespace gantry::image {
namespace {

constexpr size_t kCopyBytes = 1 << 20;
constexpr size_t kMaxImages = 1000;

// A regular file of the unpacked archive. Its links stay inside; nothing else is opened.
absl::StatusOr<sys::UniqueFd> OpenMember(const sys::UniqueFd& root, const std::string& path,
                                         uint64_t* size) {
  ASSIGN_OR_RETURN(sys::UniqueFd fd, sys::OpenInRoot(root, path, O_RDONLY | O_NONBLOCK));
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", EscapeForTerminal(path), "' in the archive is not a file"));
  }
  *size = static_cast<uint64_t>(status.st_size);
  return fd;
}

absl::StatusOr<std::string> ReadMember(const sys::UniqueFd& root, const std::string& path,
                                       size_t limit) {
  uint64_t size = 0;
  ASSIGN_OR_RETURN(sys::UniqueFd fd, OpenMember(root, path, &size));
  return Annotate(sys::ReadAll(fd, limit),
                  absl::StrCat("read '", EscapeForTerminal(path), "' of the archive"));
}

// The files of an unpacked archive as a source of content: blobs/sha256/<hex>, or by a map for the
// old docker format, which names its files freely.
class DirectorySource : public ContentSource {
 public:
  DirectorySource(const sys::UniqueFd& root, size_t document_limit)
      : root_(root), document_limit_(document_limit) {}

  void AddFile(const Digest& digest, const std::string& path) { paths_[digest] = path; }
  void AddDocument(const Digest& digest, std::string bytes) {
    documents_[digest] = std::move(bytes);
  }

  absl::StatusOr<std::string> FetchDocument(const Digest& digest, uint64_t, bool) override {
    auto found = documents_.find(digest);
    if (found != documents_.end()) return found->second;
    return ReadMember(root_, PathOf(digest), document_limit_);
  }

  absl::Status FetchBlob(const Digest& digest, uint64_t offset, uint64_t size_bytes,
                         const std::function<absl::Status(absl::string_view)>& sink) override {
    uint64_t size = 0;
    absl::StatusOr<sys::UniqueFd> file = OpenMember(root_, PathOf(digest), &size);
    if (absl::IsNotFound(file.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the archive lacks the content ", digest.str()));
    }
    RETURN_IF_ERROR(file.status());
    if (size != size_bytes) {
      return absl::DataLossError(absl::StrCat("content ", digest.str(), " has ", size,
                                              " bytes in the archive, expected were ", size_bytes));
    }
    std::string buffer(kCopyBytes, '\0');
    while (offset < size) {
      const ssize_t bytes =
          ::pread(file->get(), &buffer[0], buffer.size(), static_cast<off_t>(offset));
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes <= 0) return sys::ErrnoError(bytes < 0 ? errno : EIO, "read the archive");
      RETURN_IF_ERROR(sink(absl::string_view(buffer.data(), static_cast<size_t>(bytes))));
      offset += static_cast<uint64_t>(bytes);
    }
    return absl::OkStatus();
  }

  StringMap Labels() const override { return {}; }

 private:
  std::string PathOf(const Digest& digest) const {
    auto found = paths_.find(digest);
    return found != paths_.end() ? found->second
                                 : absl::StrCat("blobs/sha256/", std::string(digest.hex()));
  }

  const sys::UniqueFd& root_;
  const size_t document_limit_;
  std::map<Digest, std::string> paths_;
  std::map<Digest, std::string> documents_;
};

// One image of an archive.
struct Found {
  std::string bytes;
  std::string media_type;
  std::vector<std::string> names;
};

absl::StatusOr<std::string> FullName(const std::string& name) {
  ASSIGN_OR_RETURN(const oci::ImageReference reference, oci::ImageReference::Parse(name));
  return reference.str();
}

// Names stand in annotations: full ones from containerd and Docker; `ref.name` alone is often only
// a tag, which names nothing.
absl::StatusOr<std::vector<std::string>> NamesOf(const oci::Descriptor& descriptor,
                                                 const std::string& prefix) {
  for (const char* key : {"io.containerd.image.name", "org.opencontainers.image.ref.name"}) {
    auto found = descriptor.annotations.find(key);
    if (found == descriptor.annotations.end()) continue;
    const bool only_a_tag =
        !absl::StrContains(found->second, "/") && !absl::StrContains(found->second, ":");
    if (only_a_tag && key != std::string("io.containerd.image.name")) {
      if (prefix.empty()) continue;
      return std::vector<std::string>{absl::StrCat(prefix, ":", found->second)};
    }
    ASSIGN_OR_RETURN(std::string name, FullName(found->second));
    return std::vector<std::string>{name};
  }
  return std::vector<std::string>();
}

absl::StatusOr<std::vector<Found>> ReadLayout(const sys::UniqueFd& root,
                                              const oci::ImageLimits& limits,
                                              const std::string& prefix) {
  ASSIGN_OR_RETURN(const std::string layout, ReadMember(root, "oci-layout", 4096));
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(layout));
  std::string version;
  RETURN_IF_ERROR(document.root().Required("imageLayoutVersion", &version));
  if (!absl::StartsWith(version, "1.")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the OCI layout has version '", EscapeForTerminal(version), "', not 1.x"));
  }
  ASSIGN_OR_RETURN(const std::string bytes,
                   ReadMember(root, "index.json", limits.max_document_bytes));
  ASSIGN_OR_RETURN(const oci::Index index, oci::ParseIndex(bytes, limits));
  std::map<Digest, size_t> seen;  // One image may stand there once per name.
  std::vector<Found> images;
  for (const oci::Descriptor& entry : index.manifests) {
    if (!oci::IsManifestMediaType(entry.media_type) && !oci::IsIndexMediaType(entry.media_type)) {
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<std::string> names, NamesOf(entry, prefix));
    auto [slot, inserted] = seen.try_emplace(entry.digest, images.size());
    if (inserted) {
      Found image;
      ASSIGN_OR_RETURN(
          image.bytes,
          ReadMember(root, absl::StrCat("blobs/sha256/", std::string(entry.digest.hex())),
                     limits.max_document_bytes));
      if (archive::Sha256Of(image.bytes) != entry.digest) {
        return absl::DataLossError(
            absl::StrCat("content ", entry.digest.str(), " of the archive has another digest"));
      }
      ASSIGN_OR_RETURN(image.media_type,
                       oci::DocumentMediaType(image.bytes, entry.media_type, limits));
      images.push_back(std::move(image));
    }
    for (std::string& name : names) images[slot->second].names.push_back(std::move(name));
  }
  return images;
}

absl::StatusOr<oci::Descriptor> DescribeLayer(const sys::UniqueFd& root, const std::string& path) {
  oci::Descriptor layer;
  ASSIGN_OR_RETURN(sys::UniqueFd file, OpenMember(root, path, &layer.size_bytes));
  archive::Sha256 hash;
  std::string buffer(kCopyBytes, '\0');
  std::string first;
  for (;;) {
    const ssize_t bytes = ::read(file.get(), &buffer[0], buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return sys::ErrnoError(errno, "read the archive");
    if (bytes == 0) break;
    if (first.empty()) first = buffer.substr(0, static_cast<size_t>(std::min<ssize_t>(bytes, 8)));
    hash.Update(absl::string_view(buffer.data(), static_cast<size_t>(bytes)));
  }
  layer.digest = hash.digest();
  switch (archive::DetectCompression(first)) {
    case archive::Compression::kNone:
      layer.media_type = oci::kMediaTypeDockerLayer;
      break;
    case archive::Compression::kGzip:
      layer.media_type = oci::kMediaTypeDockerLayerGzip;
      break;
    case archive::Compression::kZstd:
      layer.media_type = oci::kMediaTypeLayerZstd;
      break;
  }
  return layer;
}

// manifest.json of `docker save`: a list of {Config, RepoTags, Layers}. It has no manifest as
// registries know it, so one is made.
absl::StatusOr<std::vector<Found>> ReadDockerArchive(const sys::UniqueFd& root,
                                                     const std::string& manifest_json,
                                                     const oci::ImageLimits& limits,
                                                     DirectorySource& source) {
  ASSIGN_OR_RETURN(json::Document document,
                   json::Document::Parse(manifest_json, limits.max_document_bytes));
  const json::Value list = document.root();
  RETURN_IF_ERROR(list.ExpectArray());
  if (list.size() > kMaxImages) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the archive has more than ", kMaxImages, " images"));
  }
  std::vector<Found> images;
  for (size_t i = 0; i < list.size(); ++i) {
    std::string config_path;
    std::vector<std::string> tags, layer_paths;
    RETURN_IF_ERROR(list.at(i).Required("Config", &config_path));
    RETURN_IF_ERROR(list.at(i).Optional("RepoTags", &tags));
    RETURN_IF_ERROR(list.at(i).Required("Layers", &layer_paths));
    if (layer_paths.size() > limits.max_layers) {
      return absl::ResourceExhaustedError(
          absl::StrCat("an image has more than ", limits.max_layers, " layers"));
    }
    oci::Manifest manifest;
    manifest.media_type = oci::kMediaTypeDockerManifest;
    ASSIGN_OR_RETURN(std::string config, ReadMember(root, config_path, limits.max_document_bytes));
    manifest.config.media_type = oci::kMediaTypeDockerConfig;
    manifest.config.digest = archive::Sha256Of(config);
    manifest.config.size_bytes = config.size();
    source.AddDocument(manifest.config.digest, std::move(config));
    for (const std::string& path : layer_paths) {
      ASSIGN_OR_RETURN(oci::Descriptor layer, DescribeLayer(root, path));
      source.AddFile(layer.digest, path);
      manifest.layers.push_back(std::move(layer));
    }
    Found image;
    image.bytes = oci::WriteManifest(manifest);
    image.media_type = manifest.media_type;
    for (const std::string& tag : tags) {
      ASSIGN_OR_RETURN(std::string name, FullName(tag));
      image.names.push_back(std::move(name));
    }
    images.push_back(std::move(image));
  }
  return images;
}

absl::StatusOr<std::vector<Found>> ReadArchive(const sys::UniqueFd& root,
                                               const oci::ImageLimits& limits,
                                               const std::string& prefix, DirectorySource& source) {
  // New versions of Docker write both forms; the layout keeps the digests.
  if (sys::OpenInRoot(root, "oci-layout", O_PATH).ok()) return ReadLayout(root, limits, prefix);
  absl::StatusOr<std::string> manifest =
      ReadMember(root, "manifest.json", limits.max_document_bytes);
  if (absl::IsNotFound(manifest.status())) {
    return absl::InvalidArgumentError(
        "the archive has neither 'oci-layout' nor 'manifest.json': it is not an image archive");
  }
  RETURN_IF_ERROR(manifest.status());
  return ReadDockerArchive(root, *manifest, limits, source);
}

}  // namespace

Importer::Importer(Installer& installer, Metadata& metadata, Unpacker& unpacker, std::string spool,
                   oci::ImageLimits limits)
    : installer_(installer),
      metadata_(metadata),
      unpacker_(unpacker),
      spool_(std::move(spool)),
      limits_(limits) {}

absl::Status Importer::Clean() {
  RETURN_IF_ERROR(sys::RemoveTree(spool_));
  return sys::MakeDirectories(spool_);
}

absl::Status Importer::Spool(const std::string& directory,
                             const std::function<absl::StatusOr<absl::string_view>()>& next,
                             const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(sys::UniqueFd root, sys::Open(directory, O_RDONLY | O_DIRECTORY));
  // The archive itself is a tar from a stranger: the unpack worker takes it apart.
  ASSIGN_OR_RETURN(std::unique_ptr<LayerUnpack> unpack,
                   unpacker_.Start(root, archive::Whiteouts::kLiteral, std::nullopt));
  for (;;) {
    ASSIGN_OR_RETURN(const absl::string_view piece, next());
    if (piece.empty()) break;
    RETURN_IF_ERROR(unpack->Write(piece, cancelled));
  }
  if (cancelled && cancelled()) return absl::CancelledError("the import was cancelled");
  return unpack->Finish(cancelled).status();
}

absl::StatusOr<std::vector<std::string>> Importer::Import(
    const Request& request, const std::function<absl::StatusOr<absl::string_view>()>& next,
    const std::function<bool()>& cancelled) {
  const std::string directory = absl::StrCat(spool_, "/", RandomHex(8));
  RETURN_IF_ERROR(FAILPOINT("image.import.before_spool"));
  RETURN_IF_ERROR(sys::MakeDirectories(directory));
  absl::Cleanup remove = [&directory] {
    const absl::Status removed = sys::RemoveTree(directory);
    if (!removed.ok()) {
      log::Warning("a spool directory stays until the next start", {{"error", removed}});
    }
  };
  RETURN_IF_ERROR(Annotate(Spool(directory, next, cancelled), "read the archive"));
  ASSIGN_OR_RETURN(sys::UniqueFd root, sys::Open(directory, O_RDONLY | O_DIRECTORY));
  DirectorySource source(root, limits_.max_document_bytes);
  ASSIGN_OR_RETURN(
      std::vector<Found> images,
      Annotate(ReadArchive(root, limits_, request.prefix, source), "read the archive"));
  if (images.empty()) return absl::InvalidArgumentError("the archive has no images");

  ASSIGN_OR_RETURN(std::unique_ptr<OperationLease> lease,
                   OperationLease::Create(metadata_, request.namespace_name));
  std::vector<std::string> names;
  for (Found& image : images) {
    Progress progress;
    Installer::Request install;
    install.caller = lease->caller();
    install.source = &source;
    install.root_bytes = image.bytes;
    install.root_media_type = image.media_type;
    install.platform = request.platform;
    install.progress = &progress;
    install.cancelled = cancelled;
    ASSIGN_OR_RETURN(const Installer::Result result, installer_.Install(install));
    if (request.add_digest && !request.prefix.empty() &&
        (image.names.empty() || !request.skip_named_digest)) {
      image.names.push_back(absl::StrCat(request.prefix, "@", result.root.digest.str()));
    }
    if (image.names.empty()) {
      image.names.push_back(request.name.empty() ? result.config.str() : request.name);
    }
    for (const std::string& name : image.names) {
      RETURN_IF_ERROR(FAILPOINT("image.import.before_record"));
      RETURN_IF_ERROR(
          metadata_.PutImage(lease->caller(), name, ToProto(result.root), request.labels));
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace gantry::image
