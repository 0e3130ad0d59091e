// The frame every process of the suite stands in: command line, configuration, directories, log,
// failpoints, one gRPC server on a unix socket with health, debug service, latency metrics and
// limits, readiness and a graceful stop. A process' main.cc is then a list:
//
//   namespace gantry::metadata {
//   int Main(int argc, char** argv) {
//     return rpc::RunDaemon(argc, argv, "metadata", [](rpc::Daemon& daemon) -> absl::Status {
//       ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::Open(daemon.state_directory()));
//       ImagesService images(*store);
//       daemon.AddService(&images);
//       return daemon.Serve();
//     });
//   }
//   }  // namespace gantry::metadata
//
// and its CMakeLists.txt says add_daemon(metadata COMPONENT metadata_main ENTRY
// gantry::metadata::Main).
//
// Command line: --config FILE, --root DIR (state in DIR/lib, sockets in DIR/run), --ready-fd N (one
// line "READY" when serving), --log-level L, --log-format text|json, --version, --list-failpoints.
// With NOTIFY_SOCKET set, systemd is told too. Exit codes: 0 stopped when asked, 1 failed, 2 bad
// usage.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/service_type.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "lib/config/config.h"
#include "lib/metrics/registry.h"
#include "lib/rpc/audit.h"

namespace gantry::rpc {

// Thread-compatible until Serve; made by RunDaemon only.
class Daemon {
 public:
  virtual ~Daemon() = default;

  // "metadata", "image" …
  virtual const std::string& process() const = 0;

  // The process' own section of the configuration; Serve fails when it has keys nobody asked for.
  virtual const config::Section& section() const = 0;

  // <state_dir>/<process>, mode 0700, made and verified before main's function runs.
  virtual const std::string& state_directory() const = 0;

  // <run_dir>/<process>, mode 0700, as above: for what a reboot ends.
  virtual const std::string& runtime_directory() const = 0;

  // <run_dir>: where the sockets are.
  virtual const std::string& run_directory() const = 0;

  // <state_dir>.
  virtual const std::string& state_root() const = 0;

  // <run_dir>/<process>.sock; "gateway" is <run_dir>/gantry.sock.
  virtual std::string SocketPath(const std::string& process) const = 0;

  // A channel to another process of the suite. The peer need not be up yet.
  virtual std::shared_ptr<grpc::Channel> Dial(const std::string& process) = 0;

  // Tells suites on one machine apart in names that are machine-wide (cgroups, bridges, firewall
  // tables): empty for the suite in the default directories, otherwise "-" and eight hex digits
  // made of run_directory().
  virtual const std::string& instance_suffix() const = 0;

  virtual metrics::Registry& metrics() = 0;

  // Services are borrowed and must outlive Serve.
  virtual void AddService(grpc::Service* service) = 0;
  virtual void AddGenericService(grpc::CallbackGenericService* service) = 0;

  // Part of this process' answer to Debug.Audit: adds what it finds. Runs on an RPC thread.
  virtual void AddAuditor(std::function<absl::Status(AuditReport&)> auditor) = 0;

  // Called once when a stop was asked for, before the server shuts down: end parked calls and
  // watchers.
  virtual void OnStop(std::function<void()> callback) = 0;

  // Serves until SIGTERM or SIGINT (or RequestStop), then waits at most 10 s for calls to end.
  virtual absl::Status Serve() = 0;

  // Thread-safe. Makes Serve return.
  virtual void RequestStop() = 0;
};

int RunDaemon(int argc, char** argv, const std::string& process,
              const std::function<absl::Status(Daemon&)>& run);

}  // namespace gantry::rpc
