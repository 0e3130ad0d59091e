#include "services/image/testing/fake_registry.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <list>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/archive/sha256.h"

namespace gantry::image {
namespace {

// One client's connection, with TLS or without.
class Connection {
 public:
  Connection(int fd, SSL_CTX* context) : fd_(fd) {
    if (context == nullptr) return;
    tls_ = SSL_new(context);
    SSL_set_fd(tls_, fd);
  }
  ~Connection() { SSL_free(tls_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool Accept() {
    if (tls_ == nullptr || SSL_is_init_finished(tls_) || SSL_accept(tls_) == 1) return true;
    // A close with bytes unread would be a reset, which takes the alert away from the client.
    ::shutdown(fd_, SHUT_WR);
    char bytes[4096];
    while (::recv(fd_, bytes, sizeof(bytes), 0) > 0) {
    }
    return false;
  }
  ssize_t Read(char* bytes, size_t size) {
    return tls_ == nullptr ? ::recv(fd_, bytes, size, 0)
                           : SSL_read(tls_, bytes, static_cast<int>(size));
  }
  void Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = tls_ == nullptr
                               ? ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL)
                               : SSL_write(tls_, bytes.data(), static_cast<int>(bytes.size()));
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  // So that the client sees an orderly end.
  void Close() {
    if (tls_ != nullptr) SSL_shutdown(tls_);
  }

 private:
  const int fd_;
  SSL* tls_ = nullptr;
};

SSL_CTX* NewContext(const FakeTls& tls) {
  if (tls.certificate.empty()) return nullptr;
  ::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL.
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate_file(context, tls.certificate.c_str(), SSL_FILETYPE_PEM);
  SSL_CTX_use_PrivateKey_file(context, tls.key.c_str(), SSL_FILETYPE_PEM);
  if (!tls.client_authority.empty()) {
    SSL_CTX_load_verify_locations(context, tls.client_authority.c_str(), nullptr);
    // With TLS 1.3 a client learns of its refusal only after it has sent its request, or not at
    // all.
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return context;
}

bool ReadRequest(Connection& connection, std::string* buffer, FakeRequest* request) {
  size_t end;
  while ((end = buffer->find("\r\n\r\n")) == std::string::npos) {
    char bytes[4096];
    const ssize_t size = connection.Read(bytes, sizeof(bytes));
    if (size <= 0) return false;
    buffer->append(bytes, static_cast<size_t>(size));
  }
  std::vector<std::string> lines = absl::StrSplit(buffer->substr(0, end), "\r\n");
  buffer->erase(0, end + 4);
  std::vector<std::string> words = absl::StrSplit(lines[0], ' ');
  if (words.size() < 2) return false;
  request->method = words[0];
  request->path = words[1];
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t colon = lines[i].find(':');
    request->headers[absl::AsciiStrToLower(lines[i].substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(lines[i].substr(colon + 1)));
  }
  size_t length = 0;
  auto found = request->headers.find("content-length");
  if (found != request->headers.end() && !absl::SimpleAtoi(found->second, &length)) return false;
  while (buffer->size() < length) {
    char bytes[4096];
    const ssize_t size = connection.Read(bytes, sizeof(bytes));
    if (size <= 0) return false;
    buffer->append(bytes, static_cast<size_t>(size));
  }
  request->body = buffer->substr(0, length);
  buffer->erase(0, length);
  return true;
}

}  // namespace

struct FakeRegistry::State {
  SSL_CTX* context = nullptr;
  int listener = -1;
  int port = 0;
  std::thread acceptor;
  absl::Mutex mutex;
  std::list<std::thread> connections ABSL_GUARDED_BY(mutex);
  std::list<int> sockets ABSL_GUARDED_BY(mutex);
  std::function<bool(const FakeRequest&, FakeAnswer*)> interceptor ABSL_GUARDED_BY(mutex);
  std::map<std::string, std::string> blobs ABSL_GUARDED_BY(mutex);
  // By "repository/manifests/tag".
  std::map<std::string, std::pair<std::string, std::string>> manifests ABSL_GUARDED_BY(mutex);
  std::vector<FakeRequest> requests ABSL_GUARDED_BY(mutex);

  FakeAnswer Answer(const FakeRequest& request) {
    absl::MutexLock lock(&mutex);
    requests.push_back(request);
    FakeAnswer answer;
    if (interceptor && interceptor(request, &answer)) return answer;
    answer = FakeAnswer();
    if (request.path == "/v2/") return answer;
    const std::string path = request.path.substr(std::min<size_t>(4, request.path.size()));
    auto manifest = manifests.find(path);
    if (manifest != manifests.end()) {
      answer.headers.push_back("Content-Type: " + manifest->second.second);
      answer.body = manifest->second.first;
      return answer;
    }
    const size_t blob_at = path.find("/blobs/");
    auto blob = blob_at == std::string::npos ? blobs.end() : blobs.find(path.substr(blob_at + 7));
    if (blob == blobs.end()) {
      answer.status = 404;
      answer.body = R"({"errors":[{"code":"NOT_KNOWN","message":"nothing here"}]})";
      return answer;
    }
    answer.body = blob->second;
    auto range = request.headers.find("range");
    uint64_t from = 0;
    if (range != request.headers.end() && absl::StartsWith(range->second, "bytes=") &&
        absl::SimpleAtoi(range->second.substr(6, range->second.size() - 7), &from)) {
      answer.status = 206;
      answer.headers.push_back(absl::StrCat("Content-Range: bytes ", from, "-",
                                            blob->second.size() - 1, "/", blob->second.size()));
      answer.body = blob->second.substr(from);
    }
    return answer;
  }

  // True when the connection goes on.
  static bool Send(Connection& connection, int fd, const FakeAnswer& answer) {
    std::string head = absl::StrCat("HTTP/1.1 ", answer.status,
                                    " X\r\nContent-Length: ", answer.body.size(), "\r\n");
    for (const std::string& header : answer.headers) absl::StrAppend(&head, header, "\r\n");
    const bool cut = answer.cut_after >= 0;
    if (!answer.reset || cut) {
      connection.Send(head + "\r\n");
      connection.Send(
          absl::string_view(answer.body)
              .substr(0, cut ? static_cast<size_t>(answer.cut_after) : absl::string_view::npos));
    }
    if (answer.stall) {
      char byte;
      (void)connection.Read(&byte, 1);  // Comes back when the client is gone, or we are.
      return false;
    }
    if (answer.reset) {
      const struct linger linger = {1, 0};
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
      return false;
    }
    return !cut;
  }

  void Serve(int fd) {
    {
      Connection connection(fd, context);
      std::string buffer;
      FakeRequest request;
      while (connection.Accept() && ReadRequest(connection, &buffer, &request)) {
        const FakeAnswer answer = Answer(request);
        if (!Send(connection, fd, answer)) break;
        request = FakeRequest();
      }
      connection.Close();
    }
    absl::MutexLock lock(&mutex);
    sockets.remove(fd);
    ::close(fd);
  }
};

FakeRegistry::FakeRegistry(const FakeTls& tls) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.context = NewContext(tls);
  state.listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ::bind(state.listener, reinterpret_cast<sockaddr*>(&address), size);
  ::listen(state.listener, 64);
  ::getsockname(state.listener, reinterpret_cast<sockaddr*>(&address), &size);
  state.port = ntohs(address.sin_port);
  state.acceptor = std::thread([&state] {
    for (;;) {
      const int fd = ::accept4(state.listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      absl::MutexLock lock(&state.mutex);
      state.sockets.push_back(fd);
      state.connections.emplace_back([&state, fd] { state.Serve(fd); });
    }
  });
}

FakeRegistry::~FakeRegistry() {
  ::shutdown(state_->listener, SHUT_RDWR);
  state_->acceptor.join();
  ::close(state_->listener);
  std::list<std::thread> connections;
  {
    absl::MutexLock lock(&state_->mutex);
    for (int fd : state_->sockets) ::shutdown(fd, SHUT_RDWR);
    connections.swap(state_->connections);
  }
  for (std::thread& connection : connections) connection.join();
  SSL_CTX_free(state_->context);
}

std::string FakeRegistry::host() const { return absl::StrCat("127.0.0.1:", state_->port); }

void FakeRegistry::Intercept(std::function<bool(const FakeRequest&, FakeAnswer*)> interceptor) {
  absl::MutexLock lock(&state_->mutex);
  state_->interceptor = std::move(interceptor);
}

std::string FakeRegistry::AddBlob(const std::string& bytes) {
  const std::string digest = archive::Sha256Of(bytes).str();
  absl::MutexLock lock(&state_->mutex);
  state_->blobs[digest] = bytes;
  return digest;
}

std::string FakeRegistry::AddManifest(const std::string& repository, const std::string& tag,
                                      const std::string& bytes, const std::string& media_type) {
  const std::string digest = archive::Sha256Of(bytes).str();
  absl::MutexLock lock(&state_->mutex);
  for (const std::string& target : {tag, digest}) {
    state_->manifests[absl::StrCat(repository, "/manifests/", target)] = {bytes, media_type};
  }
  return digest;
}

std::string FakeRegistry::AddImage(const std::string& repository, const std::string& tag,
                                   const std::vector<LayerSpec>& layers,
                                   const std::string& config) {
  oci::Manifest manifest;
  manifest.media_type = oci::kMediaTypeManifest;
  std::vector<std::string> diff_ids;
  for (const LayerSpec& layer : layers) {
    const std::string blob = archive::CompressAll(layer.compression, layer.tar);
    oci::Descriptor descriptor;
    descriptor.media_type =
        layer.compression == archive::Compression::kGzip   ? oci::kMediaTypeLayerGzip
        : layer.compression == archive::Compression::kZstd ? oci::kMediaTypeLayerZstd
                                                           : oci::kMediaTypeLayer;
    descriptor.digest = *Digest::Parse(AddBlob(blob));
    descriptor.size_bytes = blob.size();
    manifest.layers.push_back(descriptor);
    diff_ids.push_back(absl::StrCat("\"", archive::Sha256Of(layer.tar).str(), "\""));
  }
  const std::string image = absl::StrCat(R"({"architecture":"amd64","os":"linux","config":)",
                                         config, R"(,"rootfs":{"type":"layers","diff_ids":[)",
                                         absl::StrJoin(diff_ids, ","), "]}}");
  manifest.config.media_type = oci::kMediaTypeConfig;
  manifest.config.digest = *Digest::Parse(AddBlob(image));
  manifest.config.size_bytes = image.size();
  return AddManifest(repository, tag, oci::WriteManifest(manifest), manifest.media_type);
}

std::vector<FakeRequest> FakeRegistry::requests() {
  absl::MutexLock lock(&state_->mutex);
  return state_->requests;
}

size_t FakeRegistry::CountRequests(const std::string& part_of_path) {
  size_t count = 0;
  for (const FakeRequest& request : requests()) {
    if (absl::StrContains(request.path, part_of_path)) ++count;
  }
  return count;
}

}  // namespace gantry::image
