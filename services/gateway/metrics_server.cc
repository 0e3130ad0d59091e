#include "services/gateway/metrics_server.h"

#include <CivetServer.h>

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gantry::gateway {
namespace {

class PageHandler : public CivetHandler {
 public:
  explicit PageHandler(std::function<std::string()> page) : page_(std::move(page)) {}

  bool handleGet(CivetServer*, mg_connection* connection) override {
    const std::string text = page_();
    mg_printf(connection,
              "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
              "Content-Length: %zu\r\nConnection: close\r\n\r\n",
              text.size());
    mg_write(connection, text.data(), text.size());
    return true;
  }

 private:
  const std::function<std::string()> page_;
};

absl::Status CheckAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", address, "' is not host:port, such as 127.0.0.1:9347"));
  }
  return absl::OkStatus();
}

// CivetWeb reports a failed start by exception only; it stops here.
std::unique_ptr<CivetServer> Listen(const std::string& address) {
  const std::vector<std::string> options = {
      "listening_ports",   address, "num_threads",      "2",    "request_timeout_ms", "5000",
      "linger_timeout_ms", "100",   "max_request_size", "16384"};
  try {
    return std::make_unique<CivetServer>(options);
  } catch (const CivetException&) {
    return nullptr;
  }
}

}  // namespace

struct MetricsServer::Impl {
  explicit Impl(std::function<std::string()> page) : handler(std::move(page)) {}
  PageHandler handler;
  std::unique_ptr<CivetServer> server;  // Stops before the handler goes.
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::function<std::string()> page) {
  if (absl::Status status = CheckAddress(address); !status.ok()) return status;
  auto impl = std::make_unique<Impl>(std::move(page));
  impl->server = Listen(address);
  if (impl->server == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on '", address,
                     "'; is the port taken? set metrics_address in [gateway], or \"\" for none"));
  }
  impl->server->addHandler("/metrics$", impl->handler);
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsServer::~MetricsServer() = default;

int MetricsServer::port() const { return impl_->server->getListeningPorts().at(0); }

}  // namespace gantry::gateway
