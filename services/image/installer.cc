#include "services/image/installer.h"

#include <unistd.h>

#include <atomic>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"

namespace gantry::image {
namespace {

constexpr int kMaxIndexDepth = 3;
constexpr size_t kCopyBytes = 1 << 20;
constexpr char kContentRefPrefix[] = "containerd.io/gc.ref.content.";
constexpr char kSnapshotRefPrefix[] = "containerd.io/gc.ref.snapshot.";
constexpr char kUncompressedLabel[] = "containerd.io/uncompressed";
constexpr char kSnapshotTargetLabel[] = "containerd.io/snapshot.ref";

// A broken connection is worth resuming; a wrong digest, a bad archive or a full disk is not.
bool WorthResuming(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsUnauthenticated(status) ||
         absl::IsPermissionDenied(status);
}

// "containerd-compatible names": ctr and the like use the same, so we lock each other out.
std::string LayerRef(const Digest& digest) { return absl::StrCat("layer-", digest.str()); }

}  // namespace

struct Installer::Layer {
  size_t index = 0;
  oci::Descriptor descriptor;
  Digest diff_id;
  Digest chain_id;
  Digest parent_chain_id;  // Empty for the lowest.
  archive::Compression compression = archive::Compression::kNone;

  SingleFlight::Turn turn;
  bool exists = false;  // The snapshot is there already.
  std::string snapshot_key;
  MountTarget target;
  archive::UnpackResult unpacked;
  absl::Status status;  // Of its thread; read after `ready`.
  bool ready = false;   // Guarded by the job's mutex.
};

struct Installer::Job {
  explicit Job(const Request& asked) : request(asked) {}

  struct Document {
    std::string ref;
    std::string bytes;
    Digest digest;
    StringMap labels;
  };

  const Request& request;
  oci::Descriptor root;
  oci::Descriptor manifest_descriptor;
  oci::Manifest manifest;
  oci::ImageConfiguration configuration;
  std::vector<Document> documents;
  std::vector<std::unique_ptr<Layer>> layers;
  std::atomic<bool> fetched{false};
  std::atomic<bool> failed{false};

  absl::Mutex mutex;
  size_t next_layer ABSL_GUARDED_BY(mutex) = 0;

  std::function<bool()> Cancelled() {
    return [this] { return failed.load() || (request.cancelled && request.cancelled()); };
  }
};

// One of the few places for layers in work, over all pulls.
class Installer::Slot {
 public:
  explicit Slot(Installer& installer) : installer_(installer) {
    absl::MutexLock lock(&installer_.mutex_);
    const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(installer_.mutex_) {
      return installer_.slots_ > 0;
    };
    installer_.mutex_.Await(absl::Condition(&is_free));
    --installer_.slots_;
  }
  ~Slot() {
    absl::MutexLock lock(&installer_.mutex_);
    ++installer_.slots_;
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  Installer& installer_;
};

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

absl::Status Installer::InstallLayers(Job& job) {
  const size_t threads =
      std::min<size_t>(job.layers.size(), static_cast<size_t>(options_.max_parallel_layers));
  std::vector<std::thread> workers;
  for (size_t i = 0; i < threads; ++i) workers.emplace_back([this, &job] { RunLayers(job); });

  absl::Status result;
  for (const auto& layer : job.layers) {
    {
      absl::MutexLock lock(&job.mutex);
      job.mutex.Await(absl::Condition(&layer->ready));
    }
    absl::Status status = layer->status;
    if (status.ok() && result.ok()) {
      status = Annotate(CommitLayer(job, *layer),
                        absl::StrCat("layer ", layer->descriptor.digest.str()));
    }
    // The first error is the cause; what others say after it is that they were cancelled.
    if (!status.ok()) {
      if (result.ok() || (absl::IsCancelled(result) && !absl::IsCancelled(status))) {
        result = status;
      }
      job.failed = true;
      DropSnapshot(job, *layer);
    }
    layer->turn.Release();
  }
  for (std::thread& worker : workers) worker.join();
  return result;
}

void Installer::RunLayers(Job& job) {
  for (;;) {
    Layer* layer = nullptr;
    {
      absl::MutexLock lock(&job.mutex);
      if (job.next_layer == job.layers.size()) return;
      layer = job.layers[job.next_layer++].get();
    }
    const absl::Status status =
        Annotate(RunLayer(job, *layer), absl::StrCat("layer ", layer->descriptor.digest.str()));
    if (!status.ok()) job.failed = true;
    absl::MutexLock lock(&job.mutex);
    layer->status = status;
    layer->ready = true;
  }
}

absl::Status Installer::RunLayer(Job& job, Layer& layer) {
  ASSIGN_OR_RETURN(layer.turn,
                   flights_.Take(absl::StrCat("chain ", job.request.caller.namespace_name, " ",
                                              layer.chain_id.str()),
                                 job.Cancelled()));
  Slot slot(*this);
  if (job.Cancelled()()) return absl::CancelledError("the pull was cancelled");
  layer.exists =
      metadata_.StatSnapshot(job.request.caller, options_.snapshotter, layer.chain_id.str()).ok();
  if (!layer.exists && options_.parallel_unpack) RETURN_IF_ERROR(PrepareLayer(job, layer, ""));
  return ObtainLayer(job, layer);
}

absl::Status Installer::PrepareLayer(Job& job, Layer& layer, const std::string& parent) {
  RETURN_IF_ERROR(FAILPOINT("image.layer.before_prepare"));
  const std::string key = absl::StrCat("extract-", absl::GetCurrentTimeNanos() % 1000000000, "-",
                                       RandomHex(3), " ", layer.chain_id.str());
  absl::StatusOr<Metadata::Mounts> mounts =
      metadata_.PrepareSnapshot(job.request.caller, options_.snapshotter, key, parent,
                                {{kSnapshotTargetLabel, layer.chain_id.str()}});
  if (absl::IsAlreadyExists(mounts.status())) {  // The snapshotter has provided the layer itself.
    layer.exists = true;
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Annotate(mounts.status(), "prepare its snapshot"));
  layer.snapshot_key = key;
  ASSIGN_OR_RETURN(layer.target, OpenMountTarget(*mounts, options_.scratch));
  if (layer.target.mount == nullptr) {
    // A directory of its own, empty so far: what will be an overlay's layer.
    layer.target.whiteouts =
        layer.index == 0 ? archive::Whiteouts::kDiscard : archive::Whiteouts::kOverlay;
  }
  return FAILPOINT("image.layer.after_prepare");
}

absl::Status Installer::ObtainLayer(Job& job, Layer& layer) {
  const Caller& caller = job.request.caller;
  const Digest& digest = layer.descriptor.digest;
  const std::string ref = LayerRef(digest);
  ASSIGN_OR_RETURN(SingleFlight::Turn turn,
                   flights_.Take(absl::StrCat("blob ", digest.str()), job.Cancelled()));
  for (bool again = false;; again = true) {
    absl::StatusOr<metadata::v1::BeginIngestResponse> begun =
        metadata_.BeginIngest(caller, ref, digest.str(), layer.descriptor.size_bytes);
    absl::Status visible = begun.status();
    if (begun.ok() && begun->shared()) {
      StringMap labels = job.request.source->Labels();
      labels[kUncompressedLabel] = layer.diff_id.str();
      visible = blobs_.WithBlob(digest, [&](uint64_t size) {
        return metadata_.CommitIngest(caller, ref, digest, size, labels).status();
      });
      if (visible.ok()) visible = absl::AlreadyExistsError("");
    } else if (begun.ok()) {
      return DownloadLayer(job, layer, begun->backend_id());
    }
    if (!absl::IsAlreadyExists(visible) && !absl::IsNotFound(visible)) return visible;
    if (blobs_.BlobSize(digest).ok()) break;
    // Recorded, but the bytes are gone: forget the record and fetch them again.
    if (again) {
      return absl::DataLossError(absl::StrCat("content ", digest.str(), " is recorded but gone"));
    }
    log::Warning("a recorded blob is missing on the disk and is fetched again",
                 {{"digest", digest.str()}});
    const absl::Status forgotten = metadata_.DeleteBlob(caller, digest);
    if (!forgotten.ok() && !absl::IsNotFound(forgotten)) return forgotten;
  }
  turn.Release();
  job.request.progress->Set(layer.index, LayerPhase::kExists, layer.descriptor.size_bytes);
  if (layer.exists || !options_.parallel_unpack) return absl::OkStatus();
  return UnpackFromBlob(job, layer);
}

absl::Status Installer::UnpackFromBlob(Job& job, Layer& layer) {
  job.request.progress->Set(layer.index, LayerPhase::kExtracting, 0);
  const absl::Time start = absl::Now();
  uint64_t size = 0;
  ASSIGN_OR_RETURN(sys::UniqueFd blob, blobs_.OpenBlob(layer.descriptor.digest, &size));
  ASSIGN_OR_RETURN(
      std::unique_ptr<LayerUnpack> unpack,
      unpacker_.Start(layer.target.directory, layer.target.whiteouts, layer.compression, blob));
  ASSIGN_OR_RETURN(layer.unpacked, unpack->Finish(job.Cancelled()));
  unpack_seconds_.Observe(absl::Now() - start);
  return CheckDiffId(layer);
}

absl::Status Installer::CheckDiffId(const Layer& layer) const {
  if (layer.unpacked.diff_id == layer.diff_id) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("its files have the diff id ",
                                          layer.unpacked.diff_id.str(), ", the configuration says ",
                                          layer.diff_id.str()));
}

void Installer::AbandonIngest(const Job& job, const std::string& ref,
                              const std::string& backend_id) {
  absl::Status status = metadata_.AbortIngest(job.request.caller, ref).status();
  if (status.ok() || absl::IsNotFound(status)) status = blobs_.RemoveIngest(backend_id);
  if (!status.ok()) {
    log::Warning("an ingest could not be dropped; it expires within a day",
                 {{"ref", ref}, {"error", status}});
  }
}

absl::Status Installer::DownloadLayer(Job& job, Layer& layer, const std::string& backend_id) {
  job.fetched = true;
  absl::Status status;
  {
    absl::StatusOr<std::unique_ptr<Ingest>> ingest = blobs_.OpenIngest(backend_id);
    RETURN_IF_ERROR(ingest.status());
    status = Download(job, layer, **ingest);
  }
  if (!status.ok() && !WorthResuming(status)) {
    AbandonIngest(job, LayerRef(layer.descriptor.digest), backend_id);
  }
  return status;
}

absl::Status Installer::Download(Job& job, Layer& layer, Ingest& ingest) {
  const uint64_t size = layer.descriptor.size_bytes;
  Progress& progress = *job.request.progress;
  if (ingest.offset() > size) RETURN_IF_ERROR(ingest.Truncate());
  progress.Set(layer.index, LayerPhase::kDownloading, ingest.offset());
  const absl::Time start = absl::Now();

  std::unique_ptr<LayerUnpack> unpack;
  if (!layer.exists && options_.parallel_unpack) {
    ASSIGN_OR_RETURN(
        unpack, unpacker_.Start(layer.target.directory, layer.target.whiteouts, layer.compression));
    // What an earlier try has fetched goes first.
    ASSIGN_OR_RETURN(sys::UniqueFd earlier, ingest.OpenForReading());
    auto buffer = std::make_unique<char[]>(kCopyBytes);
    for (uint64_t done = 0; done < ingest.offset();) {
      const ssize_t bytes = ::read(earlier.get(), buffer.get(), kCopyBytes);
      if (bytes <= 0) return absl::DataLossError("the ingest is shorter than it was");
      RETURN_IF_ERROR(unpack->Write(absl::string_view(buffer.get(), static_cast<size_t>(bytes)),
                                    job.Cancelled()));
      done += static_cast<uint64_t>(bytes);
    }
  }
  RETURN_IF_ERROR(job.request.source->FetchBlob(
      layer.descriptor.digest, ingest.offset(), size, [&](absl::string_view bytes) -> absl::Status {
        if (job.Cancelled()()) return absl::CancelledError("the pull was cancelled");
        RETURN_IF_ERROR(ingest.Append(bytes));
        pulled_bytes_.Add(static_cast<double>(bytes.size()));
        progress.Set(layer.index, LayerPhase::kDownloading, ingest.offset());
        return unpack == nullptr ? absl::OkStatus() : unpack->Write(bytes, job.Cancelled());
      }));
  progress.Set(layer.index, LayerPhase::kVerifying, size);
  StringMap labels = job.request.source->Labels();
  labels[kUncompressedLabel] = layer.diff_id.str();
  const Caller& caller = job.request.caller;
  absl::Status committed = ingest.Commit(layer.descriptor.digest, [&] {
    return metadata_
        .CommitIngest(caller, LayerRef(layer.descriptor.digest), layer.descriptor.digest, size,
                      labels)
        .status();
  });
  if (!committed.ok() && !absl::IsAlreadyExists(committed)) return committed;
  progress.Set(layer.index, LayerPhase::kDownloaded, size);
  if (unpack == nullptr) return absl::OkStatus();
  progress.Set(layer.index, LayerPhase::kExtracting, size);
  ASSIGN_OR_RETURN(layer.unpacked, unpack->Finish(job.Cancelled()));
  unpack_seconds_.Observe(absl::Now() - start);
  return CheckDiffId(layer);
}

absl::StatusOr<std::vector<std::string>> Installer::LowerDirectories(Job& job,
                                                                     const std::string& parent) {
  const std::string key = absl::StrCat("look-", RandomHex(6), " ", parent);
  ASSIGN_OR_RETURN(const Metadata::Mounts mounts,
                   metadata_.ViewSnapshot(job.request.caller, options_.snapshotter, key, parent));
  const absl::Status removed =
      metadata_.RemoveSnapshot(job.request.caller, options_.snapshotter, key);
  if (!removed.ok()) log::Warning("a view stays until garbage collection", {{"error", removed}});
  return LayerDirectories(mounts, true);
}

// Only now the layers below are all there.
absl::Status Installer::MendUnlistedDirectories(Job& job, Layer& layer) {
  if (layer.target.mount != nullptr) return absl::OkStatus();
  const archive::UnpackResult& result = layer.unpacked;
  std::vector<std::string> lower;
  const bool needs_lower =
      !result.implicit_directories.empty() || result.opaque_directories.count("") > 0;
  if (needs_lower && layer.index > 0) {
    ASSIGN_OR_RETURN(lower, LowerDirectories(job, layer.parent_chain_id.str()));
  }
  return FinishOverlayLayer(layer.target.directory, result, lower);
}

absl::Status Installer::CommitLayer(Job& job, Layer& layer) {
  const Caller& caller = job.request.caller;
  if (!layer.exists && !options_.parallel_unpack) {
    RETURN_IF_ERROR(PrepareLayer(job, layer, layer.parent_chain_id.str()));
    if (!layer.exists) RETURN_IF_ERROR(UnpackFromBlob(job, layer));
  }
  if (layer.exists) {
    const absl::Status leased = metadata_.AddToLease(
        caller, absl::StrCat("snapshots/", options_.snapshotter), layer.chain_id.str());
    if (!leased.ok()) return leased;
    job.request.progress->Set(layer.index, LayerPhase::kExists, layer.descriptor.size_bytes);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(MendUnlistedDirectories(job, layer));
  layer.target = MountTarget();
  RETURN_IF_ERROR(CommitSnapshot(job, layer));
  job.fetched = true;
  job.request.progress->Set(layer.index, LayerPhase::kComplete, layer.descriptor.size_bytes);
  return absl::OkStatus();
}

absl::Status Installer::CommitSnapshot(Job& job, Layer& layer) {
  const Caller& caller = job.request.caller;
  const std::string chain_id = layer.chain_id.str();
  const std::string parent = layer.parent_chain_id.str();
  RETURN_IF_ERROR(FAILPOINT("image.layer.before_commit"));
  const absl::Status committed =
      metadata_.CommitSnapshot(caller, options_.snapshotter, chain_id, layer.snapshot_key,
                               options_.parallel_unpack ? parent : "", {});
  if (absl::IsAlreadyExists(committed)) {
    // Somebody else, such as ctr, was quicker with the same layer.
    DropSnapshot(job, layer);
    return metadata_.AddToLease(caller, absl::StrCat("snapshots/", options_.snapshotter), chain_id);
  }
  RETURN_IF_ERROR(Annotate(committed, "commit its snapshot"));
  layer.snapshot_key.clear();
  if (!options_.parallel_unpack || parent.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto info, metadata_.StatSnapshot(caller, options_.snapshotter, chain_id));
  if (info.parent() == parent) return FAILPOINT("image.layer.after_commit");
  layer.snapshot_key = chain_id;  // So that the wrong one is removed.
  return absl::FailedPreconditionError(
      absl::StrCat("the snapshotter '", options_.snapshotter,
                   "' does not know 'rebase'; set [image] parallel_unpack = false"));
}

void Installer::DropSnapshot(Job& job, Layer& layer) {
  layer.target = MountTarget();
  if (layer.snapshot_key.empty()) return;
  const absl::Status removed =
      metadata_.RemoveSnapshot(job.request.caller, options_.snapshotter, layer.snapshot_key);
  if (!removed.ok() && !absl::IsNotFound(removed)) {
    log::Warning("a snapshot stays until garbage collection",
                 {{"key", layer.snapshot_key}, {"error", removed}});
  }
  layer.snapshot_key.clear();
}

}  // namespace gantry::image
