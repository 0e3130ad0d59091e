#include "services/image/http_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::image {
namespace {

constexpr long kReceiveBytes = 512 << 10;  // libcurl's most.
constexpr size_t kMaxIdleHandles = 16;
constexpr size_t kMaxHeaderBytes = 256 << 10;

// One request on its way.
struct Transfer {
  const HttpRequest* request = nullptr;
  HttpResponse response;
  absl::Status status;  // Why a callback stopped the transfer.
  size_t header_bytes = 0;
  bool headers_seen = false;
  bool refused_target = false;
};

bool IsLinkLocal(const curl_sockaddr* address) {
  if (address->family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address->addr);
    return (ntohl(v4->sin_addr.s_addr) >> 16) == 0xa9fe;
  }
  if (address->family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address->addr);
    if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) return true;
    const uint8_t* bytes = v6->sin6_addr.s6_addr;
    return IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && bytes[12] == 0xa9 && bytes[13] == 0xfe;
  }
  return false;
}

curl_socket_t OpenSocket(void* data, curlsocktype, struct curl_sockaddr* address) {
  Transfer* transfer = static_cast<Transfer*>(data);
  if (IsLinkLocal(address)) {
    transfer->refused_target = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

size_t OnHeader(char* bytes, size_t size, size_t count, void* data) {
  Transfer* transfer = static_cast<Transfer*>(data);
  absl::string_view line(bytes, size * count);
  transfer->header_bytes += line.size();
  if (transfer->header_bytes > kMaxHeaderBytes) {
    transfer->status = absl::ResourceExhaustedError("the server sends too many headers");
    return 0;
  }
  line = absl::StripAsciiWhitespace(line);
  if (absl::StartsWith(line, "HTTP/")) {  // A further response: after "100 Continue" and the like.
    transfer->response.headers.clear();
    return size * count;
  }
  const size_t colon = line.find(':');
  if (colon == absl::string_view::npos) return size * count;
  const std::string name = absl::AsciiStrToLower(line.substr(0, colon));
  const absl::string_view value = absl::StripLeadingAsciiWhitespace(line.substr(colon + 1));
  std::string& slot = transfer->response.headers[name];
  slot = slot.empty() ? std::string(value) : absl::StrCat(slot, ", ", value);
  return size * count;
}

size_t OnBody(char* bytes, size_t size, size_t count, void* data) {
  const auto& [transfer, handle] = *static_cast<std::pair<Transfer*, CURL*>*>(data);
  const absl::string_view piece(bytes, size * count);
  const HttpRequest& request = *transfer->request;
  if (!transfer->headers_seen) {
    transfer->headers_seen = true;
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    transfer->response.status = static_cast<int>(status);
    if (request.on_headers && status >= 200 && status < 300) {
      transfer->status = request.on_headers(transfer->response);
      if (!transfer->status.ok()) return 0;
    }
  }
  if (request.sink && transfer->response.status >= 200 && transfer->response.status < 300) {
    transfer->status = request.sink(piece);
    return transfer->status.ok() ? piece.size() : 0;
  }
  const size_t room = request.max_body_bytes - transfer->response.body.size();
  transfer->response.body.append(piece.data(), std::min(room, piece.size()));
  if (piece.size() > room && transfer->response.status < 300) {
    transfer->status = absl::ResourceExhaustedError(
        absl::StrCat("the answer is longer than ", request.max_body_bytes, " bytes"));
    return 0;
  }
  return piece.size();  // Of an error page the beginning is enough.
}

int OnProgress(void* data, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  Transfer* transfer = static_cast<Transfer*>(data);
  if (!transfer->request->cancelled || !transfer->request->cancelled()) return 0;
  transfer->status = absl::CancelledError("the transfer was cancelled");
  return 1;
}

absl::Status CurlError(CURLcode code, const Transfer& transfer, const char* detail) {
  const std::string text = detail[0] != '\0' ? detail : curl_easy_strerror(code);
  if (transfer.refused_target) {
    return absl::PermissionDeniedError("the server's address is link-local, which is refused");
  }
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
      return absl::InvalidArgumentError(text);
    case CURLE_PEER_FAILED_VERIFICATION:
      return absl::FailedPreconditionError(absl::StrCat(
          EscapeForTerminal(text), "; name its authority as `ca` in the registry's hosts.toml"));
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      return absl::FailedPreconditionError(
          absl::StrCat(EscapeForTerminal(text), "; see `ca` and `client` in the hosts.toml"));
    default:
      // OpenSSL's words for a server that speaks TLS and refuses us: it sent an alert.
      if (absl::StrContains(text, " alert ")) {
        return absl::FailedPreconditionError(absl::StrCat(
            EscapeForTerminal(text),
            "; if the registry wants a certificate, name one as `client` in its hosts.toml"));
      }
      return absl::UnavailableError(EscapeForTerminal(text));
  }
}

void SetTls(CURL* handle, const TlsSettings& tls) {
  if (!tls.ca_pem.empty()) {
    // Instead of the machine's bundle; its directory of authorities stays.
    curl_blob authorities = {const_cast<char*>(tls.ca_pem.data()), tls.ca_pem.size(),
                             CURL_BLOB_COPY};
    curl_easy_setopt(handle, CURLOPT_CAINFO_BLOB, &authorities);
  }
  if (!tls.client_certificate.empty()) {
    const std::string& key = tls.client_key.empty() ? tls.client_certificate : tls.client_key;
    curl_easy_setopt(handle, CURLOPT_SSLCERT, tls.client_certificate.c_str());
    curl_easy_setopt(handle, CURLOPT_SSLKEY, key.c_str());
  }
  if (tls.skip_verify) {
    curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 0L);
  }
}

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

}  // namespace

std::string HttpResponse::Header(const std::string& lower_case_name) const {
  auto found = headers.find(lower_case_name);
  return found == headers.end() ? std::string() : found->second;
}

HttpClient::HttpClient(HttpOptions options) : options_(options) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)initialised;
}

HttpClient::~HttpClient() {
  absl::MutexLock lock(&mutex_);
  for (void* handle : idle_) curl_easy_cleanup(handle);
}

void* HttpClient::TakeHandle() {
  absl::MutexLock lock(&mutex_);
  if (idle_.empty()) return curl_easy_init();
  void* handle = idle_.back();
  idle_.pop_back();
  return handle;
}

void HttpClient::ReturnHandle(void* handle) {
  curl_easy_reset(handle);  // Keeps the connections.
  absl::MutexLock lock(&mutex_);
  if (idle_.size() < kMaxIdleHandles) {
    idle_.push_back(handle);
  } else {
    curl_easy_cleanup(handle);
  }
}

absl::StatusOr<HttpResponse> HttpClient::Send(const HttpRequest& request) {
  RETURN_IF_ERROR(FAILPOINT("image.http.before_send"));
  CURL* handle = TakeHandle();
  if (handle == nullptr) return absl::ResourceExhaustedError("libcurl has no memory for a request");
  Transfer transfer;
  transfer.request = &request;
  std::pair<Transfer*, CURL*> body_context = {&transfer, handle};
  char detail[CURL_ERROR_SIZE] = "";

  std::unique_ptr<curl_slist, FreeList> headers;
  for (const std::string& header : request.headers) {
    headers.reset(curl_slist_append(headers.release(), header.c_str()));
  }
  headers.reset(curl_slist_append(headers.release(), "User-Agent: gantry/0.1"));

  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_NOBODY, request.method == "HEAD" ? 1L : 0L);
  if (request.method == "POST") {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.c_str());
  }
  SetTls(handle, request.tls);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, kReceiveBytes);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(options_.connect_timeout)));
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME,
                   static_cast<long>(absl::ToInt64Seconds(options_.silence_timeout)));
  // Bodies for a sink may be as large as a layer: there silence is the limit.
  if (!request.sink) {
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(absl::ToInt64Milliseconds(options_.document_timeout)));
  }
  if (request.direct) curl_easy_setopt(handle, CURLOPT_PROXY, "");
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, &OpenSocket);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &OnHeader);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &OnBody);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &body_context);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &transfer);

  const CURLcode code = curl_easy_perform(handle);
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  ReturnHandle(handle);

  RETURN_IF_ERROR(transfer.status);
  if (code != CURLE_OK) return CurlError(code, transfer, detail);
  transfer.response.status = static_cast<int>(status);
  if (!transfer.headers_seen && request.on_headers && status >= 200 && status < 300) {
    RETURN_IF_ERROR(request.on_headers(transfer.response));  // An empty body.
  }
  return std::move(transfer.response);
}

}  // namespace gantry::image
