// HTTP requests, one at a time, over libcurl. No policy about registries: no retries, no redirects,
// no credentials; only what no request of ours may ever do is settled here: protocols other than
// http(s), link-local targets (cloud metadata services live there), endless silence.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/image/registry_hosts.h"
#include "services/image/url.h"

namespace gantry::image {

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // Names in lower case; repeated ones joined by ", ".
  std::string body;  // Only what was not handed to a sink, cut at the limit.

  std::string Header(const std::string& lower_case_name) const;
};

struct HttpRequest {
  std::string method = "GET";  // Or HEAD, or POST of a form.
  std::string url;
  std::vector<std::string> headers;  // "Name: value".
  std::string body;                  // Of a POST, as application/x-www-form-urlencoded.
  TlsSettings tls;
  size_t max_body_bytes = 64 << 10;  // Of HttpResponse::body.

  // Called with status and headers before the first byte of a 2xx body. When it answers OK the body
  // goes to `sink`.
  std::function<absl::Status(const HttpResponse&)> on_headers;
  std::function<absl::Status(absl::string_view)> sink;

  std::function<bool()> cancelled;  // Asked about every second; may be null.
  bool direct = false;              // Not through a proxy of the environment.
};

struct HttpOptions {
  absl::Duration connect_timeout = absl::Seconds(15);
  absl::Duration silence_timeout = absl::Seconds(30);  // Less than one byte a second for so long.
  absl::Duration document_timeout = absl::Minutes(2);  // All of an answer that is not for a sink.
};

// Thread-safe; connections are kept and used again.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options = {});
  ~HttpClient();

  // Errors: Unavailable — no connection, a reset, silence, a body cut short (worth another try);
  // ResourceExhausted — a body over `max_body_bytes` without a sink; Cancelled; what `on_headers`
  // or `sink` answered. A status of the server is no error.
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request);

 private:
  void* TakeHandle();
  void ReturnHandle(void* handle);

  const HttpOptions options_;
  absl::Mutex mutex_;
  std::vector<void*> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
