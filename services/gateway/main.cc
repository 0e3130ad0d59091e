// gantry-gateway: the one public socket, and the one metrics address.

#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/daemon.h"
#include "lib/rpc/request.h"
#include "lib/sys/file.h"
#include "services/gateway/introspection_service.h"
#include "services/gateway/metrics_page.h"
#include "services/gateway/metrics_server.h"
#include "services/gateway/proxy.h"
#include "services/gateway/version_service.h"

namespace gantry::gateway {
namespace {

constexpr absl::Duration kScrapeTimeout = absl::Seconds(2);
constexpr const char* kProcesses[] = {"metadata", "image",  "snapshotter",
                                      "task",     "engine", "gateway"};

// Identity of this installation: made once, kept for good.
absl::StatusOr<std::string> LoadUuid(const std::string& state_directory) {
  const std::string path = absl::StrCat(state_directory, "/uuid");
  absl::StatusOr<std::string> kept = sys::ReadFile(path, 64);
  if (kept.ok() && kept->size() == 36) return kept;
  const std::string hex = RandomHex(16);
  const std::string uuid =
      absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-4", hex.substr(13, 3), "-a",
                   hex.substr(17, 3), "-", hex.substr(20));
  RETURN_IF_ERROR(sys::WriteFileDurably(path, uuid));
  return uuid;
}

// Asks every process for its page, all at once. Thread-safe.
class Scraper {
 public:
  explicit Scraper(rpc::Daemon& daemon) {
    for (const char* process : kProcesses) {
      stubs_[process] = debug::v1::Debug::NewStub(daemon.Dial(process));
    }
  }

  std::string Page() {
    std::map<std::string, std::future<std::pair<bool, std::string>>> pages;
    for (auto& [process, stub] : stubs_) {
      pages[process] =
          std::async(std::launch::async, [stub = stub.get()] { return Scrape(*stub); });
    }
    std::vector<std::pair<std::string, std::string>> texts;
    for (auto& [process, page] : pages) {
      auto [up, text] = page.get();
      texts.emplace_back(process, absl::StrCat("# HELP gantry_up Whether the process answered.\n"
                                               "# TYPE gantry_up gauge\ngantry_up ",
                                               up ? 1 : 0, "\n", text));
    }
    return MergePages(texts);
  }

 private:
  static std::pair<bool, std::string> Scrape(debug::v1::Debug::Stub& stub) {
    grpc::ClientContext context;
    rpc::PrepareCall(context, kScrapeTimeout);
    context.set_wait_for_ready(false);  // A process that is down is a fact to report, now.
    debug::v1::MetricsResponse response;
    const bool up = stub.Metrics(&context, {}, &response).ok();
    return {up, response.text()};
  }

  std::map<std::string, std::unique_ptr<debug::v1::Debug::Stub>> stubs_;
};

absl::Status Run(rpc::Daemon& daemon) {
  ASSIGN_OR_RETURN(std::string address,
                   daemon.section().GetString("metrics_address", "127.0.0.1:9347"));
  ASSIGN_OR_RETURN(std::string uuid, LoadUuid(daemon.state_directory()));
  VersionService version;
  IntrospectionService introspection(std::move(uuid),
                                     absl::StrCat(daemon.state_root(), "/snapshotter"));
  Proxy proxy([&](const std::string& process) { return daemon.Dial(process); });
  daemon.AddService(&version);
  daemon.AddService(&introspection);
  daemon.AddGenericService(&proxy);

  Scraper scraper(daemon);
  std::unique_ptr<MetricsServer> metrics;
  if (!address.empty()) {
    absl::StatusOr<std::unique_ptr<MetricsServer>> started =
        MetricsServer::Start(address, [&] { return scraper.Page(); });
    // Containers matter more than their figures: without the port the suite still runs.
    if (started.ok()) {
      metrics = *std::move(started);
    } else if (absl::IsInvalidArgument(started.status())) {
      return started.status();
    } else {
      log::Warning("no metrics address", {{"error", started.status()}});
    }
  }
  return daemon.Serve();
}

}  // namespace

int Main(int argc, char** argv) { return rpc::RunDaemon(argc, argv, "gateway", Run); }

}  // namespace gantry::gateway
