// Image registries over the distribution protocol: manifests and blobs by name and digest.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/base/digest.h"
#include "lib/oci/image_manifest.h"
#include "lib/oci/image_reference.h"
#include "services/image/http_client.h"
#include "services/image/registry_auth.h"

namespace gantry::image {

struct RegistryOptions {
  // Hosts ("name", "name:port") and networks ("10.0.0.0/8") that may be spoken to without TLS,
  // beside 127.0.0.0/8, ::1 and localhost.
  std::vector<std::string> insecure;
  // "registry=host": credentials of the registry may also be sent to this token server.
  std::vector<std::string> token_servers = {"docker.io=auth.docker.io",
                                            "registry.gitlab.com=gitlab.com"};
  std::string auth_file;                                 // Docker's config.json; empty: none.
  int attempts = 5;                                      // Without progress in between.
  absl::Duration first_pause = absl::Milliseconds(200);  // Doubles with every attempt.
  absl::Duration longest_pause = absl::Seconds(10);
  oci::ImageLimits limits;
};

// Thread-safe.
class Registry {
 public:
  Registry(HttpClient& http, RegistryOptions options);

  // For one pull: where from, as whom, and when to stop.
  struct Session {
    oci::ImageReference reference;
    Credentials credentials;  // Empty: those of the auth file, else anonymous.
    std::function<bool()> cancelled;
  };

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

  // Whether `host` ("name" or "name:port") may be spoken to without TLS.
  bool MayBePlain(const std::string& host) const;

 private:
  struct CachedToken {
    std::string value;
    absl::Time expires;
  };

  absl::StatusOr<HttpResponse> Request(const Session& session, const std::string& path,
                                       HttpRequest request);
  absl::StatusOr<HttpResponse> Follow(const Session& session, HttpRequest request,
                                      const std::string& authorization);
  absl::StatusOr<std::string> Authorize(const Session& session, const Credentials& credentials,
                                        const HttpResponse& refused);
  absl::StatusOr<std::string> FetchToken(const Session& session, const Credentials& credentials,
                                         const Challenge& challenge);
  absl::StatusOr<Credentials> CredentialsFor(const Session& session) const;
  bool MaySendTo(const std::string& registry, const UrlParts& realm) const;
  absl::StatusOr<std::string> BaseUrl(const Session& session);
  // Runs `attempt` until it succeeds, fails for good, or has failed too often without progress.
  absl::Status Retry(const Session& session, const std::function<absl::Status()>& attempt,
                     const std::function<uint64_t()>& progress);

  HttpClient& http_;
  const RegistryOptions options_;
  absl::Mutex mutex_;
  std::map<std::string, CachedToken> tokens_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> schemes_ ABSL_GUARDED_BY(mutex_);  // By host, once known.
};

}  // namespace gantry::image
