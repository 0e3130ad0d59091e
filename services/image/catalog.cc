#include "services/image/catalog.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"
#include "lib/oci/image_reference.h"
#include "services/image/puller.h"

namespace gantry::image {
namespace {

constexpr size_t kMaxKnown = 4096;
constexpr int kMaxIndexDepth = 3;

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  out->set_seconds(absl::ToUnixSeconds(time));
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(out->seconds()))));
}

bool IsHex(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

// The id's hex digits if `reference` may be the beginning of one.
absl::string_view IdPrefix(absl::string_view reference) {
  absl::ConsumePrefix(&reference, "sha256:");
  return IsHex(reference) && reference.size() <= 64 ? reference : absl::string_view();
}

std::string Familiar(const std::string& name) {
  absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(name);
  if (!parsed.ok()) return name;
  return parsed->tag().empty() ? parsed->FamiliarName()
                               : absl::StrCat(parsed->FamiliarName(), ":", parsed->tag());
}

// Docker's rule: the pattern is about the repository, and about the tag if it has one.
bool MatchesPattern(const v1::ImageDetails& image, const std::string& pattern) {
  if (pattern.empty()) return true;
  for (const std::string& name : image.names()) {
    absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(name);
    if (!parsed.ok()) continue;
    for (const std::string& repository : {parsed->FamiliarName(), parsed->name()}) {
      const std::string tagged = absl::StrCat(repository, ":", parsed->tag());
      if (::fnmatch(pattern.c_str(), repository.c_str(), FNM_PATHNAME) == 0 ||
          ::fnmatch(pattern.c_str(), tagged.c_str(), FNM_PATHNAME) == 0) {
        return true;
      }
    }
  }
  return false;
}

void FillConfig(const oci::ImageConfiguration& image, v1::ImageConfig* out) {
  out->set_user(image.user);
  for (const std::string& word : image.env) out->add_env(word);
  for (const std::string& word : image.entrypoint) out->add_entrypoint(word);
  for (const std::string& word : image.cmd) out->add_cmd(word);
  out->set_working_dir(image.working_dir);
  for (const auto& [key, value] : image.labels) (*out->mutable_labels())[key] = value;
  out->set_stop_signal(image.stop_signal);
  for (const std::string& port : image.exposed_ports) out->add_exposed_ports(port);
  for (const std::string& volume : image.volumes) out->add_volumes(volume);
}

}  // namespace

Catalog::Catalog(BlobStore& blobs, Metadata& metadata, std::string snapshotter,
                 oci::ImageLimits limits)
    : blobs_(blobs), metadata_(metadata), snapshotter_(std::move(snapshotter)), limits_(limits) {}

absl::StatusOr<std::shared_ptr<const Catalog::Known>> Catalog::Learn(const Record& record) {
  {
    absl::MutexLock lock(&mutex_);
    auto found = known_.find(record.target().digest());
    if (found != known_.end()) return found->second;
  }
  auto known = std::make_shared<Known>();
  ASSIGN_OR_RETURN(known->manifest.digest, Digest::Parse(record.target().digest()));
  known->manifest.media_type = record.target().media_type();
  known->manifest.size_bytes = static_cast<uint64_t>(record.target().size());
  std::string bytes;
  for (int depth = 0;; ++depth) {
    ASSIGN_OR_RETURN(bytes, blobs_.ReadBlob(known->manifest.digest, limits_.max_document_bytes));
    ASSIGN_OR_RETURN(known->manifest.media_type,
                     oci::DocumentMediaType(bytes, known->manifest.media_type, limits_));
    if (!oci::IsIndexMediaType(known->manifest.media_type) || depth == kMaxIndexDepth) break;
    ASSIGN_OR_RETURN(const oci::Index index, oci::ParseIndex(bytes, limits_));
    // What is here is the platform that was pulled; only when several are, the host's decides.
    oci::Index present;
    for (const oci::Descriptor& entry : index.manifests) {
      if (blobs_.BlobSize(entry.digest).ok()) present.manifests.push_back(entry);
    }
    absl::StatusOr<oci::Descriptor> chosen = oci::SelectManifest(present, oci::HostPlatform());
    if (!chosen.ok() && !present.manifests.empty()) chosen = present.manifests[0];
    if (!chosen.ok()) return absl::NotFoundError("no platform of the image was pulled");
    known->manifest = *chosen;
  }
  ASSIGN_OR_RETURN(const oci::Manifest manifest, oci::ParseManifest(bytes, limits_));
  known->id = manifest.config.digest;
  ASSIGN_OR_RETURN(const std::string config,
                   blobs_.ReadBlob(manifest.config.digest, limits_.max_document_bytes));
  ASSIGN_OR_RETURN(known->configuration, oci::ParseImageConfiguration(config, limits_));
  known->chain_ids = oci::ChainIds(known->configuration.diff_ids);
  if (!known->chain_ids.empty()) known->chain_id = known->chain_ids.back();
  absl::MutexLock lock(&mutex_);
  if (known_.size() > kMaxKnown) known_.clear();
  known_[record.target().digest()] = known;
  return std::shared_ptr<const Known>(known);
}

uint64_t Catalog::UnpackedBytes(const std::string& namespace_name, const Known& known,
                                bool* unpacked) {
  uint64_t total = 0;
  *unpacked = !known.chain_ids.empty();
  const Caller caller{namespace_name, ""};
  for (const Digest& chain_id : known.chain_ids) {
    const std::string key = absl::StrCat(namespace_name, "\n", chain_id.str());
    {
      absl::MutexLock lock(&mutex_);
      auto found = layer_bytes_.find(key);
      // Sizes never change; only the top layer's presence has to be asked for.
      if (found != layer_bytes_.end() && chain_id != known.chain_id) {
        total += found->second;
        continue;
      }
    }
    absl::StatusOr<uint64_t> bytes = metadata_.SnapshotBytes(caller, snapshotter_, chain_id.str());
    if (!bytes.ok()) {
      *unpacked = false;
      continue;
    }
    total += *bytes;
    absl::MutexLock lock(&mutex_);
    if (layer_bytes_.size() > 16 * kMaxKnown) layer_bytes_.clear();
    layer_bytes_[key] = *bytes;
  }
  return total;
}

v1::ImageDetails Catalog::Describe(const std::string& namespace_name, const Known& known,
                                   const std::vector<const Record*>& records) {
  const oci::ImageConfiguration& configuration = known.configuration;
  v1::ImageDetails image;
  image.set_id(known.id.str());
  std::set<std::string> names, repo_digests;
  for (const Record* record : records) {
    absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(record->name());
    if (parsed.ok()) {
      repo_digests.insert(absl::StrCat(parsed->name(), "@", record->target().digest()));
    }
    // An import without a name is recorded under its id.
    if (parsed.ok()) names.insert(record->name());
    for (const auto& [key, value] : record->labels()) (*image.mutable_labels())[key] = value;
  }
  for (const std::string& name : names) image.add_names(name);
  for (const std::string& digest : repo_digests) image.add_repo_digests(digest);
  *image.mutable_target() = records.front()->target();
  *image.mutable_manifest() = ToProto(known.manifest);
  absl::Time created = configuration.created.value_or(absl::UnixEpoch());
  SetTime(created, image.mutable_created_at());
  bool unpacked = false;
  image.set_size_bytes(UnpackedBytes(namespace_name, known, &unpacked));
  image.set_architecture(configuration.platform.architecture);
  image.set_variant(configuration.platform.variant);
  image.set_os(configuration.platform.os);
  image.set_author(configuration.author);
  FillConfig(configuration, image.mutable_config());
  if (unpacked) image.set_chain_id(known.chain_id.str());
  for (const Digest& diff_id : configuration.diff_ids) image.add_diff_ids(diff_id.str());
  size_t layer = 0;
  for (const oci::HistoryItem& item : configuration.history) {
    v1::HistoryEntry* entry = image.add_history();
    if (item.created) SetTime(*item.created, entry->mutable_created_at());
    entry->set_created_by(item.created_by);
    entry->set_comment(item.comment);
    entry->set_empty_layer(item.empty_layer);
    if (item.empty_layer || layer >= known.chain_ids.size()) continue;
    absl::MutexLock lock(&mutex_);
    auto bytes =
        layer_bytes_.find(absl::StrCat(namespace_name, "\n", known.chain_ids[layer++].str()));
    if (bytes != layer_bytes_.end()) entry->set_size_bytes(bytes->second);
  }
  return image;
}

absl::StatusOr<std::vector<v1::ImageDetails>> Catalog::Collect(const std::string& namespace_name) {
  ASSIGN_OR_RETURN(const std::vector<Record> records,
                   metadata_.ListImages(Caller{namespace_name, ""}));
  std::map<std::string, std::vector<const Record*>> by_id;
  std::map<std::string, std::shared_ptr<const Known>> known_by_id;
  for (const Record& record : records) {
    absl::StatusOr<std::shared_ptr<const Known>> known = Learn(record);
    if (!known.ok()) {
      // Recorded by someone else before all of it was there (ctr content fetch), or not an image.
      log::Debug("an image record is left out",
                 {{"image", record.name()}, {"error", known.status()}});
      continue;
    }
    const std::string id = (*known)->id.str();
    by_id[id].push_back(&record);
    known_by_id[id] = *known;
  }
  std::vector<v1::ImageDetails> images;
  for (const auto& [id, group] : by_id) {
    images.push_back(Describe(namespace_name, *known_by_id[id], group));
  }
  std::stable_sort(images.begin(), images.end(),
                   [](const v1::ImageDetails& a, const v1::ImageDetails& b) {
                     return a.created_at().seconds() > b.created_at().seconds();
                   });
  return images;
}

absl::StatusOr<v1::ImageDetails> Catalog::Inspect(const std::string& namespace_name,
                                                  const std::string& reference) {
  // By name first, which needs only one record read and is what every `run` asks.
  absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(reference);
  if (parsed.ok() && parsed->digest().empty()) {
    absl::StatusOr<Record> record = metadata_.GetImage(Caller{namespace_name, ""}, parsed->str());
    if (record.ok()) {
      ASSIGN_OR_RETURN(std::shared_ptr<const Known> known, Learn(*record));
      ASSIGN_OR_RETURN(const std::vector<Record> records,
                       metadata_.ListImages(Caller{namespace_name, ""}));
      std::vector<const Record*> group;
      for (const Record& other : records) {
        absl::StatusOr<std::shared_ptr<const Known>> its = Learn(other);
        if (its.ok() && (*its)->id == known->id) group.push_back(&other);
      }
      if (group.empty()) group.push_back(&*record);  // Removed in this moment.
      v1::ImageDetails image = Describe(namespace_name, *known, group);
      *image.mutable_target() = record->target();
      return image;
    }
    if (!absl::IsNotFound(record.status())) return record.status();
  }
  ASSIGN_OR_RETURN(std::vector<v1::ImageDetails> images, Collect(namespace_name));
  std::vector<const v1::ImageDetails*> matches;
  const absl::string_view prefix = IdPrefix(reference);
  for (const v1::ImageDetails& image : images) {
    const bool by_id =
        !prefix.empty() && absl::StartsWith(image.id(), absl::StrCat("sha256:", prefix));
    bool by_digest = false;
    if (parsed.ok() && !parsed->digest().empty()) {
      const std::string wanted = absl::StrCat(parsed->name(), "@", parsed->digest().str());
      by_digest = std::find(image.repo_digests().begin(), image.repo_digests().end(), wanted) !=
                  image.repo_digests().end();
    }
    if (by_id || by_digest) matches.push_back(&image);
  }
  if (matches.size() == 1) return *matches[0];
  if (matches.size() > 1) {
    return absl::FailedPreconditionError(absl::StrCat("'", EscapeForTerminal(reference),
                                                      "' is the beginning of ", matches.size(),
                                                      " image ids; give more digits"));
  }
  if (!parsed.ok() && prefix.empty()) return parsed.status();
  return absl::NotFoundError(absl::StrCat("No such image: ", EscapeForTerminal(reference)));
}

absl::StatusOr<std::vector<v1::ImageDetails>> Catalog::List(const std::string& namespace_name,
                                                            const std::string& pattern) {
  ASSIGN_OR_RETURN(std::vector<v1::ImageDetails> images, Collect(namespace_name));
  images.erase(std::remove_if(images.begin(), images.end(),
                              [&pattern](const v1::ImageDetails& image) {
                                return !MatchesPattern(image, pattern);
                              }),
               images.end());
  return images;
}

absl::StatusOr<std::string> Catalog::Tag(const std::string& namespace_name,
                                         const std::string& source, const std::string& target) {
  ASSIGN_OR_RETURN(const oci::ImageReference name, oci::ImageReference::Parse(target));
  if (!name.digest().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", EscapeForTerminal(target), "' has a digest; a tag cannot set one"));
  }
  ASSIGN_OR_RETURN(const v1::ImageDetails image, Inspect(namespace_name, source));
  RETURN_IF_ERROR(metadata_.PutImage(Caller{namespace_name, ""}, name.str(), image.target(), {}));
  return name.str();
}

absl::Status Catalog::CheckUnused(const std::string& namespace_name,
                                  const v1::ImageDetails& image) {
  ASSIGN_OR_RETURN(const auto containers, metadata_.ListContainers(Caller{namespace_name, ""}));
  for (const auto& container : containers) {
    const bool uses = container.image() == image.id() ||
                      std::find(image.names().begin(), image.names().end(), container.image()) !=
                          image.names().end();
    if (!uses) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("conflict: unable to remove the image: container ", container.id(),
                     " is using it; remove the container first, or use force"));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RemoveImageResponse> Catalog::Remove(const std::string& namespace_name,
                                                        const std::string& reference, bool force,
                                                        bool keep_image) {
  const Caller caller{namespace_name, ""};
  ASSIGN_OR_RETURN(const v1::ImageDetails image, Inspect(namespace_name, reference));
  ASSIGN_OR_RETURN(const std::vector<Record> records, metadata_.ListImages(caller));
  // All records of the image, also those whose name is an id.
  std::vector<std::string> all;
  for (const Record& record : records) {
    absl::StatusOr<std::shared_ptr<const Known>> known = Learn(record);
    if (known.ok() && (*known)->id.str() == image.id()) all.push_back(record.name());
  }
  std::vector<std::string> doomed = all;
  absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(reference);
  if (parsed.ok() && std::find(all.begin(), all.end(), parsed->str()) != all.end()) {
    doomed = {parsed->str()};
  } else if (image.names_size() > 1 && !force) {
    return absl::FailedPreconditionError(
        absl::StrCat("conflict: unable to remove the image by id: it has ", image.names_size(),
                     " names; remove them one by one, or use force"));
  }
  const bool keep = keep_image && doomed.size() == all.size();
  if (keep) {
    // Before the names go: in between, the image must not be garbage.
    RETURN_IF_ERROR(metadata_.PutImage(caller, image.id(), image.target(), {}));
    doomed.erase(std::remove(doomed.begin(), doomed.end(), image.id()), doomed.end());
  }
  const bool last = !keep && doomed.size() == all.size();
  if (last && !force) RETURN_IF_ERROR(CheckUnused(namespace_name, image));
  v1::RemoveImageResponse response;
  for (size_t i = 0; i < doomed.size(); ++i) {
    RETURN_IF_ERROR(FAILPOINT("image.remove.before_delete"));
    // With the last name the content goes: that one waits for the collection.
    const absl::Status deleted =
        metadata_.DeleteImage(caller, doomed[i], last && i + 1 == doomed.size());
    if (!deleted.ok() && !absl::IsNotFound(deleted)) return deleted;
    if (oci::ImageReference::Parse(doomed[i]).ok()) response.add_untagged(Familiar(doomed[i]));
  }
  if (!last) return response;
  response.add_deleted(image.id());
  std::vector<Digest> diff_ids;
  for (const std::string& text : image.diff_ids()) {
    ASSIGN_OR_RETURN(Digest digest, Digest::Parse(text));
    diff_ids.push_back(digest);
  }
  std::vector<Digest> chain = oci::ChainIds(diff_ids);
  for (auto layer = chain.rbegin(); layer != chain.rend(); ++layer) {
    // Other images and containers may stand on it.
    const absl::Status there = metadata_.StatSnapshot(caller, snapshotter_, layer->str()).status();
    if (!absl::IsNotFound(there)) break;
    response.add_deleted(layer->str());
    absl::MutexLock lock(&mutex_);
    layer_bytes_.erase(absl::StrCat(namespace_name, "\n", layer->str()));
  }
  absl::MutexLock lock(&mutex_);
  known_.clear();  // An index may be learned anew with another platform.
  return response;
}

}  // namespace gantry::image
