#include "services/image/installer.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "services/image/installer_job.h"

namespace gantry::image {
namespace {

constexpr int kMaxIndexDepth = 3;
constexpr char kContentRefPrefix[] = "containerd.io/gc.ref.content.";
constexpr char kSnapshotRefPrefix[] = "containerd.io/gc.ref.snapshot.";

}  // namespace

Installer::Installer(BlobStore& blobs, Metadata& metadata, Unpacker& unpacker,
                     metrics::Registry& metrics, InstallerOptions options)
    : blobs_(blobs),
      metadata_(metadata),
      unpacker_(unpacker),
      options_(std::move(options)),
      pulled_bytes_(metrics.GetCounter("gantry_image_pull_bytes_total",
                                       "Bytes of layers fetched, compressed.")),
      unpack_seconds_(metrics.GetHistogram("gantry_image_unpack_seconds",
                                           "From the first byte of a layer to its last file.")),
      slots_(options_.max_parallel_layers) {}

absl::StatusOr<Installer::Result> Installer::Install(const Request& request) {
  Job job(request);
  RETURN_IF_ERROR(ResolveManifest(job));
  RETURN_IF_ERROR(ReadConfiguration(job));

  std::vector<LayerState> states;
  for (const auto& layer : job.layers) {
    states.push_back(
        {layer->descriptor.digest.str(), LayerPhase::kWaiting, 0, layer->descriptor.size_bytes});
  }
  request.progress->SetLayers(std::move(states));

  // Their fsyncs cost as much as a small layer, so they go beside the layers.
  absl::Status documents_stored;
  std::thread documents([&] {
    documents_stored = StoreDocuments(job);
    if (!documents_stored.ok()) job.failed = true;
  });
  absl::Status layers_installed = InstallLayers(job);
  documents.join();
  if (absl::IsCancelled(layers_installed) && !documents_stored.ok()) return documents_stored;
  RETURN_IF_ERROR(layers_installed);
  RETURN_IF_ERROR(documents_stored);

  Result result;
  result.root = job.root;
  result.manifest = job.manifest_descriptor;
  result.config = job.manifest.config.digest;
  result.fetched_anything = job.fetched;
  return result;
}

absl::StatusOr<std::string> Installer::Document(Job& job, const oci::Descriptor& descriptor,
                                                bool manifest) {
  if (descriptor.size_bytes > options_.limits.max_document_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the document ", descriptor.digest.str(), " has ", descriptor.size_bytes,
        " bytes, at most ", options_.limits.max_document_bytes, " are read (max_manifest_bytes)"));
  }
  if (metadata_.GetBlob(job.request.caller, descriptor.digest).ok()) {
    absl::StatusOr<std::string> local =
        blobs_.ReadBlob(descriptor.digest, options_.limits.max_document_bytes);
    if (local.ok()) return local;
  }
  ASSIGN_OR_RETURN(std::string bytes, job.request.source->FetchDocument(
                                          descriptor.digest, descriptor.size_bytes, manifest));
  if (bytes.size() != descriptor.size_bytes || archive::Sha256Of(bytes) != descriptor.digest) {
    return absl::DataLossError(absl::StrCat("the document ", descriptor.digest.str(),
                                            " came with other bytes than its digest says"));
  }
  return bytes;
}

absl::Status Installer::ResolveManifest(Job& job) {
  std::string bytes = job.request.root_bytes;
  std::string media_type = job.request.root_media_type;
  oci::Descriptor current;
  current.media_type = media_type;
  current.digest = archive::Sha256Of(bytes);
  current.size_bytes = bytes.size();
  job.root = current;
  for (int depth = 0; oci::IsIndexMediaType(media_type); ++depth) {
    if (depth >= kMaxIndexDepth) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the image has more than ", kMaxIndexDepth, " levels of indexes"));
    }
    ASSIGN_OR_RETURN(const oci::Index index, oci::ParseIndex(bytes, options_.limits));
    StringMap labels = job.request.source->Labels();
    for (size_t i = 0; i < index.manifests.size(); ++i) {
      labels[absl::StrCat(kContentRefPrefix, "m.", i)] = index.manifests[i].digest.str();
    }
    job.documents.push_back({absl::StrCat("index-", current.digest.str()), std::move(bytes),
                             current.digest, std::move(labels)});
    ASSIGN_OR_RETURN(current, oci::SelectManifest(index, job.request.platform));
    ASSIGN_OR_RETURN(bytes, Document(job, current, true));
    ASSIGN_OR_RETURN(media_type,
                     oci::DocumentMediaType(bytes, current.media_type, options_.limits));
    current.media_type = media_type;
  }
  ASSIGN_OR_RETURN(job.manifest, oci::ParseManifest(bytes, options_.limits));
  StringMap labels = job.request.source->Labels();
  labels[absl::StrCat(kContentRefPrefix, "config")] = job.manifest.config.digest.str();
  for (size_t i = 0; i < job.manifest.layers.size(); ++i) {
    labels[absl::StrCat(kContentRefPrefix, "l.", i)] = job.manifest.layers[i].digest.str();
  }
  job.documents.push_back({absl::StrCat("manifest-", current.digest.str()), std::move(bytes),
                           current.digest, std::move(labels)});
  job.manifest_descriptor = current;
  return absl::OkStatus();
}

absl::Status Installer::ReadConfiguration(Job& job) {
  ASSIGN_OR_RETURN(std::string bytes, Document(job, job.manifest.config, false));
  absl::StatusOr<oci::ImageConfiguration> parsed =
      oci::ParseImageConfiguration(bytes, options_.limits);
  if (!parsed.ok()) {
    return Annotate(parsed.status(),
                    absl::StrCat("the configuration (", job.manifest.config.media_type,
                                 ") is not that of a container image"));
  }
  job.configuration = *std::move(parsed);
  const std::vector<Digest>& diff_ids = job.configuration.diff_ids;
  if (diff_ids.size() != job.manifest.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the manifest has ", job.manifest.layers.size(),
                                                   " layers, the configuration has ",
                                                   diff_ids.size(), " diff ids"));
  }
  const std::vector<Digest> chain = oci::ChainIds(diff_ids);
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    auto layer = std::make_unique<Layer>();
    layer->index = i;
    layer->descriptor = job.manifest.layers[i];
    layer->diff_id = diff_ids[i];
    layer->chain_id = chain[i];
    if (i > 0) layer->parent_chain_id = chain[i - 1];
    std::string compression;
    if (!oci::IsLayerMediaType(layer->descriptor.media_type, &compression)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer ", i, " has the media type '", EscapeForTerminal(layer->descriptor.media_type),
          "', which cannot be unpacked"));
    }
    ASSIGN_OR_RETURN(layer->compression, archive::ParseCompression(compression));
    job.layers.push_back(std::move(layer));
  }
  StringMap labels = job.request.source->Labels();
  if (!chain.empty()) {
    labels[absl::StrCat(kSnapshotRefPrefix, options_.snapshotter)] = chain.back().str();
  }
  job.documents.push_back({absl::StrCat("config-", job.manifest.config.digest.str()),
                           std::move(bytes), job.manifest.config.digest, std::move(labels)});
  return absl::OkStatus();
}

absl::Status Installer::StoreDocuments(Job& job) {
  for (const Job::Document& document : job.documents) {
    bool fetched = false;
    RETURN_IF_ERROR(StoreDocument(job.request.caller, document.ref, document.bytes, document.digest,
                                  document.labels, &fetched));
    if (fetched) job.fetched = true;
  }
  return absl::OkStatus();
}

absl::Status Installer::StoreDocument(const Caller& caller, const std::string& ref,
                                      const std::string& bytes, const Digest& digest,
                                      const StringMap& labels, bool* fetched) {
  ASSIGN_OR_RETURN(SingleFlight::Turn turn,
                   flights_.Take(absl::StrCat("blob ", digest.str()), nullptr));
  const auto record = [&]() -> absl::Status {
    return metadata_.CommitIngest(caller, ref, digest, bytes.size(), labels).status();
  };
  absl::StatusOr<metadata::v1::BeginIngestResponse> begun =
      metadata_.BeginIngest(caller, ref, digest.str(), bytes.size());
  absl::Status stored = begun.status();
  if (begun.ok() && begun->shared()) {
    stored = blobs_.WithBlob(digest, [&](uint64_t) { return record(); });
    if (absl::IsNotFound(stored)) begun->set_shared(false);
  }
  if (begun.ok() && !begun->shared()) {
    ASSIGN_OR_RETURN(std::unique_ptr<Ingest> ingest, blobs_.OpenIngest(begun->backend_id()));
    RETURN_IF_ERROR(ingest->Truncate());
    RETURN_IF_ERROR(ingest->Append(bytes));
    stored = ingest->Commit(digest, record);
    *fetched = true;
  }
  if (!absl::IsAlreadyExists(stored)) return stored;
  // There already, perhaps by a client that wrote other labels.
  ASSIGN_OR_RETURN(const metadata::v1::Blob blob, metadata_.GetBlob(caller, digest));
  std::vector<std::string> missing;
  for (const auto& [key, value] : labels) {
    auto found = blob.labels().find(key);
    if (found == blob.labels().end() || found->second != value) {
      missing.push_back(absl::StrCat("labels.", key));
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return metadata_.UpdateBlob(caller, digest, labels, missing).status();
}

}  // namespace gantry::image
