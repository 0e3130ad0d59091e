// Image registries over the distribution protocol: manifests and blobs by name and digest.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/digest.h"
#include "services/image/authorizer.h"
#include "services/image/http_client.h"
#include "services/image/plain_hosts.h"
#include "services/image/registry_hosts.h"
#include "services/image/registry_options.h"
#include "services/image/registry_session.h"

namespace gantry::image {

// Thread-safe.
class Registry {
 public:
  Registry(HttpClient& http, RegistryOptions options);

  using Session = RegistrySession;

  struct Document {
    std::string bytes;
    std::string media_type;
    Digest digest;  // Of `bytes`, checked against what was asked for.
  };

  // The manifest or index that `target` (a tag or digest) names.
  // Errors: NotFound; Unauthenticated; PermissionDenied; DataLoss — the bytes have another digest;
  // ResourceExhausted — too large; Unavailable — after all attempts.
  absl::StatusOr<Document> FetchDocument(const Session& session, const std::string& target);

  // The bytes of a blob from `offset` on, in order, to `sink`. Goes on where it was after a broken
  // connection. Errors as above; what `sink` answered; DataLoss — more or fewer bytes than `size`.
  absl::Status FetchBlob(const Session& session, const Digest& digest, uint64_t offset,
                         uint64_t size, const std::function<absl::Status(absl::string_view)>& sink);

 private:
  // Where a registry is served, and how it is spoken to.
  struct Endpoint {
    std::string base;  // "https://name:port".
    HostSettings settings;
  };

  absl::StatusOr<HttpResponse> Request(const Session& session, const std::string& path,
                                       HttpRequest request);
  absl::StatusOr<HttpResponse> Follow(const Session& session, const Endpoint& endpoint,
                                      HttpRequest request, const std::string& authorization);
  absl::StatusOr<Endpoint> FindEndpoint(const Session& session);
  absl::StatusOr<std::string> GuessBase(const Session& session, const HostSettings& settings);
  absl::StatusOr<HostSettings> SettingsOf(const Session& session, const std::string& host) const;
  // Adds what the server at request->url may see, and no other.
  absl::Status Address(const Session& session, const Endpoint& endpoint,
                       const std::string& authorization, HttpRequest* request) const;
  bool MayBePlain(const Session& session, const UrlParts& target) const;
  // Runs `attempt` until it succeeds, fails for good, or has failed too often without progress.
  absl::Status Retry(const Session& session, const std::function<absl::Status()>& attempt,
                     const std::function<uint64_t()>& progress);

  HttpClient& http_;
  const RegistryOptions options_;
  const PlainHosts plain_;
  Authorizer authorizer_;
  absl::Mutex mutex_;
  std::map<std::string, std::string> bases_ ABSL_GUARDED_BY(mutex_);  // By host, once known.
};

}  // namespace gantry::image
