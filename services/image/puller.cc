#include "services/image/puller.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"

namespace gantry::image {
namespace {

constexpr char kExpireLabel[] = "containerd.io/gc.expire";
constexpr char kSourceLabelPrefix[] = "containerd.io/distribution.source.";
constexpr absl::Duration kLeaseTime = absl::Hours(24);

// Of the leases of this life of the process.
const std::string& LeasePrefix() {
  static const std::string* prefix =
      new std::string(absl::StrCat("gantry-image-", RandomHex(6), "-"));
  return *prefix;
}

// A registry as the installer sees it.
class RegistrySource : public ContentSource {
 public:
  RegistrySource(Registry& registry, Registry::Session session)
      : registry_(registry), session_(std::move(session)) {}

  absl::StatusOr<std::string> FetchDocument(const Digest& digest, uint64_t size_bytes,
                                            bool is_manifest) override {
    if (is_manifest) {
      ASSIGN_OR_RETURN(Registry::Document document,
                       registry_.FetchDocument(session_, digest.str()));
      return std::move(document.bytes);
    }
    std::string bytes;
    RETURN_IF_ERROR(
        registry_.FetchBlob(session_, digest, 0, size_bytes, [&bytes](absl::string_view piece) {
          bytes.append(piece.data(), piece.size());
          return absl::OkStatus();
        }));
    return bytes;
  }

  absl::Status FetchBlob(const Digest& digest, uint64_t offset, uint64_t size_bytes,
                         const std::function<absl::Status(absl::string_view)>& sink) override {
    return registry_.FetchBlob(session_, digest, offset, size_bytes, sink);
  }

  StringMap Labels() const override {
    return {{absl::StrCat(kSourceLabelPrefix, session_.reference.registry()),
             session_.reference.repository()}};
  }

 private:
  Registry& registry_;
  const Registry::Session session_;
};

// A name with a digest is kept without its tag: the digest decides, and the tag may move.
std::string RecordName(const oci::ImageReference& reference) {
  if (reference.digest().empty()) return reference.str();
  return absl::StrCat(reference.name(), "@", reference.digest().str());
}

}  // namespace

containerd::types::Descriptor ToProto(const oci::Descriptor& descriptor) {
  containerd::types::Descriptor out;
  out.set_media_type(descriptor.media_type);
  out.set_digest(descriptor.digest.str());
  out.set_size(static_cast<int64_t>(descriptor.size_bytes));
  return out;
}

absl::StatusOr<std::unique_ptr<OperationLease>> OperationLease::Create(
    Metadata& metadata, const std::string& namespace_name) {
  const std::string expires = FormatRfc3339Nano(absl::Now() + kLeaseTime);
  ASSIGN_OR_RETURN(
      std::string id,
      metadata.CreateLease(Caller{namespace_name, ""}, absl::StrCat(LeasePrefix(), RandomHex(8)),
                           {{kExpireLabel, expires}, {kPullLeaseLabel, "1"}}));
  return std::unique_ptr<OperationLease>(
      new OperationLease(metadata, Caller{namespace_name, std::move(id)}));
}

bool OperationLease::IsOurs(const std::string& id) { return absl::StartsWith(id, LeasePrefix()); }

OperationLease::~OperationLease() {
  const absl::Status deleted =
      metadata_.DeleteLease(Caller{caller_.namespace_name, ""}, caller_.lease);
  if (!deleted.ok() && !absl::IsNotFound(deleted)) {
    log::Warning("a lease expires only by itself", {{"lease", caller_.lease}, {"error", deleted}});
  }
}

Puller::Puller(Registry& registry, Installer& installer, Metadata& metadata,
               metrics::Registry& metrics)
    : registry_(registry), installer_(installer), metadata_(metadata), metrics_(metrics) {}

Puller::~Puller() {
  CancelAll();
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return operations_.empty(); };
  mutex_.Await(absl::Condition(&done));
}

void Puller::CancelAll() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  for (auto& [key, operation] : operations_) operation->cancelled_ = true;
}

Puller::Watch Puller::Start(const Request& request) {
  const std::string key = absl::StrCat(
      request.namespace_name, "\n", request.reference.str(), "\n", request.platform.str(), "\n",
      archive::Sha256Of(
          absl::StrCat(request.credentials.username, "\n", request.credentials.password))
          .str());
  absl::MutexLock lock(&mutex_);
  auto found = operations_.find(key);
  // One that is being cancelled is of no use to a newcomer, who starts afresh and waits for its
  // turn at every layer.
  if (found != operations_.end() && !found->second->cancelled_) {
    ++found->second->watchers_;
    return Watch(found->second);
  }
  auto operation = std::make_shared<Operation>();
  operation->watchers_ = 1;
  if (stopping_) operation->cancelled_ = true;
  // The thread ends with the operation, which the destructor waits for.
  const std::string own_key =
      found == operations_.end() ? key : absl::StrCat(key, "\n", RandomHex(8));
  operations_[own_key] = operation;
  std::thread([this, request, operation, own_key] {
    operation->outcome_ =
        Pull(request, operation->progress_, [&operation] { return operation->cancelled_.load(); });
    operation->progress_.Finish();
    absl::MutexLock lock(&mutex_);
    operations_.erase(own_key);
  }).detach();
  return Watch(operation);
}

absl::StatusOr<Puller::Outcome> Puller::Pull(const Request& request, Progress& progress,
                                             const std::function<bool()>& cancelled) {
  const absl::Time start = absl::Now();
  const auto run = [&]() -> absl::StatusOr<Outcome> {
    RegistrySession session = request.access.value_or(RegistrySession());
    session.reference = request.reference;
    session.credentials = request.credentials;
    session.cancelled = cancelled;
    ASSIGN_OR_RETURN(Registry::Document root,
                     registry_.FetchDocument(session, request.reference.target()));
    RETURN_IF_ERROR(FAILPOINT("image.pull.after_resolve"));
    ASSIGN_OR_RETURN(std::unique_ptr<OperationLease> lease,
                     OperationLease::Create(metadata_, request.namespace_name));
    RegistrySource source(registry_, session);
    Installer::Request install;
    install.caller = lease->caller();
    install.source = &source;
    install.root_bytes = std::move(root.bytes);
    install.root_media_type = root.media_type;
    install.platform = request.platform;
    install.progress = &progress;
    install.cancelled = cancelled;
    ASSIGN_OR_RETURN(const Installer::Result result, installer_.Install(install));

    Outcome outcome;
    outcome.name =
        request.record_name.empty() ? RecordName(request.reference) : request.record_name;
    outcome.digest = result.root.digest;
    outcome.image_id = result.config;
    // The record comes last: with it the image exists, whole.
    RETURN_IF_ERROR(FAILPOINT("image.pull.before_record"));
    absl::StatusOr<containerd::services::images::v1::Image> recorded =
        metadata_.GetImage(lease->caller(), outcome.name);
    const bool same = recorded.ok() && recorded->target().digest() == outcome.digest.str();
    if (!same || !request.labels.empty()) {
      RETURN_IF_ERROR(
          metadata_.PutImage(lease->caller(), outcome.name, ToProto(result.root), request.labels));
    }
    outcome.up_to_date = same && !result.fetched_anything;
    return outcome;
  };
  absl::StatusOr<Outcome> outcome =
      Annotate(run(), absl::StrCat("pull ", RecordName(request.reference)));
  if (outcome.ok()) {
    metrics_.GetHistogram("gantry_image_pull_seconds", "Whole pulls that succeeded.")
        .Observe(absl::Now() - start);
  } else {
    metrics_
        .GetCounter("gantry_image_pull_errors_total", "Pulls that failed, by code.",
                    {{"code", absl::StatusCodeToString(outcome.status().code())}})
        .Add();
  }
  return outcome;
}

}  // namespace gantry::image
