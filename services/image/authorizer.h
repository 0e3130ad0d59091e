// Who we are to a registry: credentials, the tokens they buy, and to whom either may be shown.
#pragma once

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/image/http_client.h"
#include "services/image/plain_hosts.h"
#include "services/image/registry_options.h"
#include "services/image/registry_session.h"

namespace gantry::image {

// Thread-safe.
class Authorizer {
 public:
  Authorizer(HttpClient& http, const RegistryOptions& options, const PlainHosts& plain)
      : http_(http), options_(options), plain_(plain) {}

  // The value of `Authorization` that worked last for this repository; empty: none is known.
  std::string Known(const RegistrySession& session);

  // The value that answers a 401. `tried` was refused with it; empty: nothing was tried.
  // Errors: Unauthenticated — refused for good; PermissionDenied — the registry wants credentials
  // shown to somebody else (SECURITY-RULES 30), or its token server has no TLS.
  absl::StatusOr<std::string> Answer(const RegistrySession& session, const HttpResponse& refused,
                                     const std::string& tried);

  // What Known answered is of no use any more.
  void Forget(const RegistrySession& session);

 private:
  struct CachedToken {
    std::string value;
    absl::Time expires;
  };

  absl::StatusOr<Credentials> CredentialsFor(const RegistrySession& session,
                                             const HttpResponse& refused) const;
  bool MaySendTo(const RegistrySession& session, const UrlParts& realm) const;
  bool MayBePlain(const RegistrySession& session, const UrlParts& realm) const;
  absl::Status CheckRealm(const RegistrySession& session, const Credentials& credentials,
                          const UrlParts& realm) const;
  absl::StatusOr<CachedToken> Token(const RegistrySession& session, const Credentials& credentials,
                                    const Challenge& challenge);
  absl::StatusOr<CachedToken> BuyToken(const RegistrySession& session,
                                       const Credentials& credentials, const UrlParts& realm,
                                       const std::string& service, const std::string& scope);
  void Remember(const RegistrySession& session, const std::string& value, absl::Time expires);

  HttpClient& http_;
  const RegistryOptions& options_;
  const PlainHosts& plain_;
  absl::Mutex mutex_;
  std::map<std::string, CachedToken> tokens_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, CachedToken> known_ ABSL_GUARDED_BY(mutex_);
};

// A status for an answer that is no success, with what the registry says in its error document.
absl::Status RegistryError(const HttpResponse& response);

// How long the server asks to be left alone before the next try; zero when it does not say.
absl::Duration RetryAfter(const absl::Status& error);

// "docker.io" is served by another host.
std::string ApiHost(const std::string& registry);

}  // namespace gantry::image
