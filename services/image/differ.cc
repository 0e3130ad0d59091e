#include "services/image/differ.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/diff.h"
#include "lib/archive/sha256.h"
#include "lib/archive/tar_writer.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/oci/image_manifest.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/image/mount_target.h"

namespace gantry::image {
namespace {

constexpr char kUncompressedLabel[] = "containerd.io/uncompressed";
constexpr size_t kFlushBytes = 1 << 20;

// Overlays that keep renames and attributes apart from files have upper directories that do not
// stand alone.
bool UppersStandAlone() {
  for (const char* parameter : {"redirect_dir", "metacopy"}) {
    absl::StatusOr<std::string> value =
        sys::ReadFile(absl::StrCat("/sys/module/overlay/parameters/", parameter), 64);
    if (!value.ok() || !absl::StartsWith(*value, "N")) return false;
  }
  return true;
}

// Whether `right` is an overlay over exactly what `left` shows, so that its upper directory is the
// difference.
bool UpperIsTheDifference(const Differ::Mounts& left, const Differ::Mounts& right) {
  if (UpperDirectory(right).empty() || !UppersStandAlone()) return false;
  return LayerDirectories(right, false) == LayerDirectories(left, true);
}

// A single plain bind mount needs no mounting: its source is the tree.
absl::StatusOr<sys::UniqueFd> OpenTree(const Differ::Mounts& mounts, const std::string& scratch,
                                       std::unique_ptr<ScratchMount>* keep) {
  const std::vector<std::string> layers = LayerDirectories(mounts, true);
  if (mounts.size() == 1 && mounts[0].type() != "overlay" && mounts[0].target().empty() &&
      layers.size() == 1) {
    return sys::Open(layers[0], O_RDONLY | O_DIRECTORY);
  }
  ASSIGN_OR_RETURN(ScratchMount mount, ScratchMount::Make(mounts, scratch));
  *keep = std::make_unique<ScratchMount>(std::move(mount));
  return sys::Open((*keep)->path(), O_RDONLY | O_DIRECTORY);
}

}  // namespace

absl::StatusOr<containerd::types::Descriptor> Differ::Apply(
    const Caller& caller, const containerd::types::Descriptor& layer, const Mounts& mounts,
    bool sync, const std::function<bool()>& cancelled) {
  std::string compression_name;
  if (!oci::IsLayerMediaType(layer.media_type(), &compression_name)) {
    return absl::UnimplementedError(absl::StrCat("layers of the media type '",
                                                 EscapeForTerminal(layer.media_type()),
                                                 "' cannot be unpacked"));
  }
  ASSIGN_OR_RETURN(archive::Compression compression, archive::ParseCompression(compression_name));
  ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(layer.digest()));
  RETURN_IF_ERROR(metadata_.GetBlob(caller, digest).status());
  uint64_t size = 0;
  ASSIGN_OR_RETURN(sys::UniqueFd blob, blobs_.OpenBlob(digest, &size));
  // Docker's type says only "a layer": some images call a gzip one plain and the other way round.
  std::optional<archive::Compression> wanted = compression;
  if (absl::StartsWith(layer.media_type(), oci::kMediaTypeDockerLayer)) wanted = std::nullopt;

  ASSIGN_OR_RETURN(MountTarget target, OpenMountTarget(mounts, scratch_));
  RETURN_IF_ERROR(FAILPOINT("image.apply.before_unpack"));
  ASSIGN_OR_RETURN(std::unique_ptr<LayerUnpack> unpack,
                   unpacker_.Start(target.directory, target.whiteouts, wanted, blob));
  ASSIGN_OR_RETURN(const archive::UnpackResult result,
                   Annotate(unpack->Finish(cancelled), absl::StrCat("unpack ", digest.str())));
  if (target.whiteouts == archive::Whiteouts::kOverlay) {
    RETURN_IF_ERROR(FinishOverlayLayer(target.directory, result, LayerDirectories(mounts, false)));
  }
  if (sync && ::syncfs(target.directory.get()) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("sync '", target.path, "'"));
  }
  containerd::types::Descriptor applied;
  applied.set_media_type(oci::kMediaTypeLayer);
  applied.set_digest(result.diff_id.str());
  applied.set_size(static_cast<int64_t>(result.tar_bytes));
  return applied;
}

absl::Status Differ::Write(const Request& request,
                           const std::function<absl::Status(absl::string_view)>& output) {
  archive::DiffOptions options;
  options.latest_time = request.latest_time;
  archive::TarWriter writer(output);
  if (UpperIsTheDifference(request.left, request.right)) {
    options.overlay_upper = true;
    ASSIGN_OR_RETURN(sys::UniqueFd upper,
                     sys::Open(UpperDirectory(request.right), O_RDONLY | O_DIRECTORY));
    return archive::WriteDiff(-1, upper.get(), options, writer);
  }
  std::unique_ptr<ScratchMount> left_mount, right_mount;
  sys::UniqueFd left;
  if (!request.left.empty()) {
    ASSIGN_OR_RETURN(left, OpenTree(request.left, scratch_, &left_mount));
  }
  ASSIGN_OR_RETURN(sys::UniqueFd right, OpenTree(request.right, scratch_, &right_mount));
  return archive::WriteDiff(left.get(), right.get(), options, writer);
}

absl::StatusOr<containerd::types::Descriptor> Differ::Diff(const Caller& caller,
                                                           const Request& request,
                                                           const std::function<bool()>& cancelled) {
  const std::string media_type =
      request.media_type.empty() ? oci::kMediaTypeLayerGzip : request.media_type;
  std::string compression_name;
  if (!oci::IsLayerMediaType(media_type, &compression_name)) {
    return absl::UnimplementedError(absl::StrCat(
        "layers of the media type '", EscapeForTerminal(media_type), "' cannot be written"));
  }
  if (request.right.empty()) return absl::InvalidArgumentError("right: has no mounts");
  ASSIGN_OR_RETURN(archive::Compression compression, archive::ParseCompression(compression_name));
  ASSIGN_OR_RETURN(std::unique_ptr<archive::Compressor> compressor,
                   archive::Compressor::Create(compression));
  const std::string ref =
      request.ref.empty() ? absl::StrCat("gantry-diff-", RandomHex(8)) : request.ref;
  RETURN_IF_ERROR(CheckKey("ref", ref));
  ASSIGN_OR_RETURN(const auto begun, metadata_.BeginIngest(caller, ref, "", 0));

  archive::Sha256 diff_id;
  Digest digest;
  uint64_t size = 0;
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(std::unique_ptr<Ingest> ingest, blobs_.OpenIngest(begun.backend_id()));
    RETURN_IF_ERROR(ingest->Truncate());
    std::string pending;
    RETURN_IF_ERROR(Write(request, [&](absl::string_view bytes) -> absl::Status {
      if (cancelled && cancelled()) return absl::CancelledError("the diff was cancelled");
      diff_id.Update(bytes);
      RETURN_IF_ERROR(compressor->Write(bytes, &pending));
      if (pending.size() < kFlushBytes) return absl::OkStatus();
      RETURN_IF_ERROR(ingest->Append(pending));
      pending.clear();
      return absl::OkStatus();
    }));
    RETURN_IF_ERROR(compressor->Finish(&pending));
    RETURN_IF_ERROR(ingest->Append(pending));
    digest = ingest->digest();
    size = ingest->offset();
    StringMap labels = request.labels;
    labels[kUncompressedLabel] = diff_id.digest().str();
    return ingest->Commit(
        digest, [&] { return metadata_.CommitIngest(caller, ref, digest, size, labels).status(); });
  };
  const absl::Status written = run();
  if (!written.ok() && !absl::IsAlreadyExists(written)) {
    (void)metadata_.AbortIngest(caller, ref);
    (void)blobs_.RemoveIngest(begun.backend_id());
    return Annotate(written, "write the layer");
  }
  if (absl::IsAlreadyExists(written)) {
    // The same layer is here; clients read the label.
    RETURN_IF_ERROR(metadata_
                        .UpdateBlob(caller, digest, {{kUncompressedLabel, diff_id.digest().str()}},
                                    {absl::StrCat("labels.", kUncompressedLabel)})
                        .status());
  }
  containerd::types::Descriptor descriptor;
  descriptor.set_media_type(media_type);
  descriptor.set_digest(digest.str());
  descriptor.set_size(static_cast<int64_t>(size));
  return descriptor;
}

}  // namespace gantry::image
