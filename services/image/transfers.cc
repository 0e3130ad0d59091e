#include "services/image/transfers.h"

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "services/image/byte_stream.h"
#include "services/image/registry_session.h"
#include "services/image/single_flight.h"

namespace gantry::image {
namespace {

namespace transfer = containerd::types::transfer;

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxHeaders = 32;
constexpr size_t kMaxHeaderBytes = 8 << 10;
constexpr char kArchiveTypePrefix[] = "application/vnd.oci.image.layout.v1+tar";

absl::Status CheckName(absl::string_view field, const std::string& name) {
  if (!name.empty() && name.size() <= kMaxNameBytes && IsPlainText(name) &&
      !absl::StrContains(name, "\n")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be a name of 1 to ", kMaxNameBytes, " bytes"));
}

absl::StatusOr<StringMap> CheckedLabels(const transfer::ImageStore& store) {
  StringMap labels;
  for (const auto& [key, value] : store.labels()) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    labels[key] = value;
  }
  return labels;
}

absl::StatusOr<oci::Platform> ToPlatform(const containerd::types::Platform& platform) {
  return oci::ParsePlatform(absl::StrCat(platform.os(), "/", platform.architecture(),
                                         platform.variant().empty() ? "" : "/",
                                         platform.variant()));
}

// Those to fetch and those to unpack are one list; without any it is the host's.
absl::StatusOr<std::vector<oci::Platform>> PlatformsOf(const transfer::ImageStore& store) {
  std::vector<oci::Platform> platforms;
  const auto add = [&platforms](const containerd::types::Platform& wanted) -> absl::Status {
    if (wanted.os().empty() && wanted.architecture().empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const oci::Platform platform, ToPlatform(wanted));
    for (const oci::Platform& known : platforms) {
      if (known.str() == platform.str()) return absl::OkStatus();
    }
    platforms.push_back(platform);
    return absl::OkStatus();
  };
  for (const auto& platform : store.platforms()) RETURN_IF_ERROR(add(platform));
  for (const auto& unpack : store.unpacks()) RETURN_IF_ERROR(add(unpack.platform()));
  if (platforms.empty()) platforms.push_back(oci::HostPlatform());
  return platforms;
}

absl::Status CheckArchiveType(const std::string& media_type) {
  if (media_type.empty() || absl::StartsWith(media_type, kArchiveTypePrefix)) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat("archives of the media type '",
                                               EscapeForTerminal(media_type),
                                               "'; OCI layouts and docker's archives are known"));
}

// Asks the client for credentials over its stream; many downloads may want them at once.
class AuthStream {
 public:
  AuthStream(StreamHandle stream, std::string reference, std::function<bool()> cancelled)
      : stream_(std::move(stream)),
        reference_(std::move(reference)),
        cancelled_(std::move(cancelled)) {}

  absl::StatusOr<Credentials> Ask(const std::string& host,
                                  const std::vector<std::string>& challenges) {
    ASSIGN_OR_RETURN(const SingleFlight::Turn turn, one_at_a_time_.Take("ask", cancelled_));
    transfer::AuthRequest request;
    request.set_host(host);
    request.set_reference(reference_);
    for (const std::string& challenge : challenges) request.add_wwwauthenticate(challenge);
    RETURN_IF_ERROR(stream_->Write(ToAny(request), cancelled_));
    ASSIGN_OR_RETURN(const std::optional<google::protobuf::Any> answer, stream_->Read(cancelled_));
    transfer::AuthResponse response;
    if (!answer || !FromAny(*answer, &response)) {
      return absl::UnauthenticatedError(
          "the client's stream for credentials holds no containerd.types.transfer.AuthResponse");
    }
    Credentials credentials;
    switch (response.authtype()) {
      case transfer::CREDENTIALS:
        credentials.username = response.username();
        credentials.password = response.secret();
        break;
      case transfer::REFRESH:
        credentials.identity_token = response.secret();
        break;
      case transfer::HEADER:
        if (!IsHeaderValue(response.secret())) {
          return absl::UnauthenticatedError("the client's authorization header has odd characters");
        }
        credentials.header = response.secret();
        break;
      default:  // NONE: anonymous.
        break;
    }
    return credentials;
  }

 private:
  static bool IsHeaderValue(const std::string& text) {
    for (const char c : text) {
      if (c < ' ' || c >= 127) return false;
    }
    return text.size() <= kMaxHeaderBytes;
  }

  StreamHandle stream_;
  const std::string reference_;
  const std::function<bool()> cancelled_;
  SingleFlight one_at_a_time_;
};

absl::StatusOr<std::vector<std::string>> CheckedHeaders(
    const transfer::RegistryResolver& resolver) {
  std::vector<std::string> headers;
  for (const auto& [name, value] : resolver.headers()) {
    const std::string line = absl::StrCat(name, ": ", value);
    if (headers.size() == kMaxHeaders || line.size() > kMaxHeaderBytes || !IsPlainText(line) ||
        line.find_first_of("\r\n") != std::string::npos || name.empty() ||
        absl::StrContains(name, ":")) {
      return absl::InvalidArgumentError(
          absl::StrCat("headers: at most ", kMaxHeaders, " of ", kMaxHeaderBytes, " bytes"));
    }
    headers.push_back(line);
  }
  return headers;
}

const char* EventOf(LayerPhase phase) {
  switch (phase) {
    case LayerPhase::kWaiting:
      return "waiting";
    case LayerPhase::kDownloading:
    case LayerPhase::kVerifying:
      return "downloading";
    case LayerPhase::kDownloaded:
      return "complete";
    case LayerPhase::kExtracting:
      return "extracting";
    case LayerPhase::kComplete:
      return "extracted";
    case LayerPhase::kExists:
      return "already exists";
  }
  return "waiting";
}

}  // namespace

// Tells the client how far a transfer is, when it wants to know. A client that hangs up on it loses
// nothing but the news.
class Transfers::Reporter {
 public:
  explicit Reporter(std::optional<StreamHandle> stream) : stream_(std::move(stream)) {}

  void Say(const std::string& event, const std::string& name = "") {
    transfer::Progress progress;
    progress.set_event(event);
    progress.set_name(name);
    Send(progress);
  }

  void SayLayers(const std::string& image, const std::vector<LayerState>& layers) {
    for (size_t i = 0; i < layers.size(); ++i) {
      if (i < sent_.size() && sent_[i] == layers[i]) continue;
      transfer::Progress progress;
      progress.set_event(EventOf(layers[i].phase));
      progress.set_name(absl::StrCat("layer-", layers[i].digest));
      progress.add_parents(image);
      progress.set_progress(static_cast<int64_t>(layers[i].done_bytes));
      progress.set_total(static_cast<int64_t>(layers[i].total_bytes));
      progress.mutable_desc()->set_digest(layers[i].digest);
      progress.mutable_desc()->set_size(static_cast<int64_t>(layers[i].total_bytes));
      Send(progress);
    }
    sent_ = layers;
  }

 private:
  void Send(const transfer::Progress& progress) {
    if (!stream_) return;
    if (!(*stream_)->Write(ToAny(progress)).ok()) stream_.reset();
  }

  std::optional<StreamHandle> stream_;
  std::vector<LayerState> sent_;
};

absl::Status Transfers::PullOne(const Puller::Request& request, Reporter& reporter,
                                const std::function<bool()>& cancelled) {
  Progress progress;
  absl::Status status;
  std::thread work([&] {
    status = puller_.Pull(request, progress, cancelled).status();
    progress.Finish();
  });
  uint64_t version = 0;
  std::vector<LayerState> layers;
  const std::string name = request.reference.str();
  while (!progress.Wait(&version, kProgressInterval, &layers)) {
    reporter.SayLayers(name, layers);
    (void)progress.WaitFinished(kProgressInterval);
  }
  reporter.SayLayers(name, layers);
  work.join();
  return status;
}

absl::Status Transfers::Pull(const Caller& caller, const transfer::OCIRegistry& from,
                             const Store& to, Reporter& reporter,
                             const std::function<bool()>& cancelled) {
  const transfer::RegistryResolver& resolver = from.resolver();
  Puller::Request request;
  request.namespace_name = caller.namespace_name;
  RETURN_IF_ERROR(CheckName("reference", from.reference()));
  ASSIGN_OR_RETURN(request.reference, oci::ImageReference::Parse(from.reference()));
  if (!to.name().empty()) RETURN_IF_ERROR(CheckName("name", to.name()));
  request.record_name = to.name();
  ASSIGN_OR_RETURN(request.labels, CheckedLabels(to));
  for (const auto& unpack : to.unpacks()) {
    if (unpack.snapshotter().empty() || unpack.snapshotter() == snapshotter_) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("snapshotter '", EscapeForTerminal(unpack.snapshotter()),
                     "': images are unpacked for '", snapshotter_, "' here"));
  }
  if (!resolver.default_scheme().empty() && resolver.default_scheme() != "http" &&
      resolver.default_scheme() != "https") {
    return absl::InvalidArgumentError("default_scheme: must be http or https");
  }
  RegistrySession access;
  access.plain = resolver.default_scheme() == "http";
  access.host_directory = resolver.host_dir();
  ASSIGN_OR_RETURN(access.headers, CheckedHeaders(resolver));
  std::optional<AuthStream> auth;
  if (!resolver.auth_stream().empty()) {
    ASSIGN_OR_RETURN(StreamHandle stream,
                     streams_.PickUp(caller.namespace_name, resolver.auth_stream()));
    auth.emplace(std::move(stream), from.reference(), cancelled);
    access.ask_id = RandomHex(16);
    access.ask = [&auth](const std::string& host, const std::vector<std::string>& challenges) {
      return auth->Ask(host, challenges);
    };
  }
  request.access = std::move(access);
  ASSIGN_OR_RETURN(const std::vector<oci::Platform> platforms, PlatformsOf(to));
  reporter.Say(absl::StrCat("Resolving from ", from.reference()));
  for (const oci::Platform& platform : platforms) {
    request.platform = platform;
    RETURN_IF_ERROR(PullOne(request, reporter, cancelled));
  }
  reporter.Say("saved", to.name().empty() ? request.reference.str() : to.name());
  reporter.Say(absl::StrCat("Completed pull from ", from.reference()));
  return absl::OkStatus();
}

absl::Status Transfers::Import(const Caller& caller, const transfer::ImageImportStream& from,
                               const Store& to, Reporter& reporter,
                               const std::function<bool()>& cancelled) {
  RETURN_IF_ERROR(CheckArchiveType(from.media_type()));
  Importer::Request request;
  request.namespace_name = caller.namespace_name;
  ASSIGN_OR_RETURN(request.labels, CheckedLabels(to));
  if (!to.name().empty()) RETURN_IF_ERROR(CheckName("name", to.name()));
  request.name = to.name();
  for (const transfer::ImageReference& reference : to.extra_references()) {
    if (!reference.is_prefix()) continue;
    RETURN_IF_ERROR(CheckName("extra_references", reference.name()));
    request.prefix = reference.name();
    request.add_digest = reference.add_digest();
    request.skip_named_digest = reference.skip_named_digest();
  }
  ASSIGN_OR_RETURN(const std::vector<oci::Platform> platforms, PlatformsOf(to));
  request.platform = platforms[0];
  ASSIGN_OR_RETURN(StreamHandle stream, streams_.PickUp(caller.namespace_name, from.stream()));
  ByteReader reader(std::move(stream), cancelled);
  reporter.Say("Importing");
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   importer_.Import(
                       request, [&reader] { return reader.Next(); }, cancelled));
  for (const std::string& name : names) reporter.Say("saved", name);
  reporter.Say("Completed import");
  return absl::OkStatus();
}

absl::Status Transfers::Export(const Caller& caller, const Store& from,
                               const transfer::ImageExportStream& to, Reporter& reporter,
                               const std::function<bool()>& cancelled) {
  RETURN_IF_ERROR(CheckArchiveType(to.media_type()));
  Exporter::Request request;
  request.caller = caller;
  if (!from.name().empty()) request.names.push_back(from.name());
  for (const transfer::ImageReference& reference : from.extra_references()) {
    request.names.push_back(reference.name());
  }
  for (const std::string& name : request.names) RETURN_IF_ERROR(CheckName("name", name));
  for (const auto& platform : to.platforms()) {
    ASSIGN_OR_RETURN(request.platforms.emplace_back(), ToPlatform(platform));
  }
  request.all_platforms = to.all_platforms();
  request.docker_list = !to.skip_compatibility_manifest();
  request.skip_non_distributable = to.skip_non_distributable();
  ASSIGN_OR_RETURN(StreamHandle stream, streams_.PickUp(caller.namespace_name, to.stream()));
  ByteWriter writer(std::move(stream), cancelled);
  reporter.Say("Exporting");
  RETURN_IF_ERROR(exporter_.Export(
      request, [&writer](absl::string_view bytes) { return writer.Write(bytes); }, cancelled));
  RETURN_IF_ERROR(writer.Flush());
  reporter.Say("Completed export");
  return absl::OkStatus();
}

absl::Status Transfers::Tag(const Caller& caller, const Store& from, const Store& to) {
  RETURN_IF_ERROR(CheckName("source name", from.name()));
  RETURN_IF_ERROR(CheckName("destination name", to.name()));
  ASSIGN_OR_RETURN(const StringMap labels, CheckedLabels(to));
  ASSIGN_OR_RETURN(const auto image, metadata_.GetImage(caller, from.name()));
  return metadata_.PutImage(caller, to.name(), image.target(), labels);
}

absl::Status Transfers::Run(const Caller& caller,
                            const containerd::services::transfer::v1::TransferRequest& request,
                            const std::function<bool()>& cancelled) {
  std::optional<StreamHandle> progress;
  if (!request.options().progress_stream().empty()) {
    ASSIGN_OR_RETURN(progress,
                     streams_.PickUp(caller.namespace_name, request.options().progress_stream()));
  }
  Reporter reporter(std::move(progress));
  transfer::OCIRegistry registry;
  transfer::ImageImportStream archive;
  transfer::ImageExportStream stream;
  Store from, to;
  const bool from_store = FromAny(request.source(), &from);
  const bool to_store = FromAny(request.destination(), &to);
  if (to_store && FromAny(request.source(), &registry)) {
    return Pull(caller, registry, to, reporter, cancelled);
  }
  if (to_store && FromAny(request.source(), &archive)) {
    return Import(caller, archive, to, reporter, cancelled);
  }
  if (from_store && FromAny(request.destination(), &stream)) {
    return Export(caller, from, stream, reporter, cancelled);
  }
  if (from_store && to_store) return Tag(caller, from, to);
  return absl::UnimplementedError(absl::StrCat(
      "transfer from '", EscapeForTerminal(request.source().type_url()), "' to '",
      EscapeForTerminal(request.destination().type_url()),
      "'; known are registry to store, archive stream to store, store to archive stream and store "
      "to store"));
}

}  // namespace gantry::image
