// A layer's bytes: from the source into the content store, and on the way to the unpack worker.
#include <unistd.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/image/installer_job.h"

namespace gantry::image {
namespace {

constexpr size_t kCopyBytes = 1 << 20;

// A broken connection is worth resuming; a wrong digest, a bad archive or a full disk is not.
bool WorthResuming(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsUnauthenticated(status) ||
         absl::IsPermissionDenied(status);
}

}  // namespace

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
    // Bytes without a record are as good: they were checked before they became a blob, and their
    // record failed (metadata was away).
    if (begun.ok() && (begun->shared() || blobs_.BlobSize(digest).ok())) {
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
}  // namespace gantry::image
