// Layers as snapshots: prepared and filled side by side, committed lowest first.
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/image/installer_job.h"

namespace gantry::image {
namespace {

constexpr char kSnapshotTargetLabel[] = "containerd.io/snapshot.ref";

}  // namespace

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
  ASSIGN_OR_RETURN(const Slot slot, Slot::Take(*this, job.Cancelled()));
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
