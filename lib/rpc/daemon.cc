#include "lib/rpc/daemon.h"

#include <errno.h>
#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/crc32c.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/version.h"
#include "lib/log/log.h"
#include "lib/rpc/call_metrics.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/debug_service.h"
#include "lib/rpc/listener.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::rpc {
namespace {

constexpr char kDefaultConfig[] = "/etc/gantry/gantry.toml";
constexpr char kDefaultStateRoot[] = "/var/lib/gantry";
constexpr char kDefaultRunDirectory[] = "/run/gantry";
constexpr int kMaxServerThreads = 256;
constexpr std::chrono::seconds kStopTimeout{10};

constexpr char kUsage[] =
    "usage: gantry-%s [--config FILE] [--root DIR] [--ready-fd N] [--log-level LEVEL]\n"
    "                 [--log-format text|json] [--version] [--list-failpoints]\n";

struct CommandLine {
  std::string config;
  std::string root;
  int ready_fd = -1;
  std::string log_level;
  std::string log_format;
  bool version = false;
  bool list_failpoints = false;
  bool help = false;
};

absl::StatusOr<CommandLine> ParseCommandLine(int argc, char** argv) {
  CommandLine line;
  std::string ready_fd;
  const std::map<absl::string_view, std::string*> values = {{"--config", &line.config},
                                                            {"--root", &line.root},
                                                            {"--ready-fd", &ready_fd},
                                                            {"--log-level", &line.log_level},
                                                            {"--log-format", &line.log_format}};
  const std::map<absl::string_view, bool*> switches = {{"--version", &line.version},
                                                       {"--list-failpoints", &line.list_failpoints},
                                                       {"--help", &line.help},
                                                       {"-h", &line.help}};
  for (int i = 1; i < argc; ++i) {
    absl::string_view word = argv[i];
    if (auto found = switches.find(word); found != switches.end()) {
      *found->second = true;
      continue;
    }
    const size_t equals = word.find('=');
    auto found = values.find(word.substr(0, equals));
    if (found == values.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown option '", word, "'"));
    }
    if (equals != absl::string_view::npos) {
      *found->second = std::string(word.substr(equals + 1));
    } else if (i + 1 < argc) {
      *found->second = argv[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("option '", word, "' needs a value"));
    }
  }
  if (!ready_fd.empty() && (!absl::SimpleAtoi(ready_fd, &line.ready_fd) || line.ready_fd < 0)) {
    return absl::InvalidArgumentError("--ready-fd needs the number of an open descriptor");
  }
  return line;
}

absl::StatusOr<config::File> LoadConfiguration(const CommandLine& line) {
  if (!line.config.empty()) return config::File::Load(line.config);
  // The default file may be missing; a run below --root does not read the machine's.
  if (line.root.empty() && sys::Exists(kDefaultConfig)) return config::File::Load(kDefaultConfig);
  return config::File();
}

// Settings every process shares.
struct Suite {
  std::string state_root;
  std::string run_directory;
};

absl::StatusOr<Suite> ReadSuite(const config::Section& section, const CommandLine& line,
                                const std::string& process) {
  Suite suite;
  ASSIGN_OR_RETURN(suite.state_root, section.GetString("state_dir", kDefaultStateRoot));
  ASSIGN_OR_RETURN(suite.run_directory, section.GetString("run_dir", kDefaultRunDirectory));
  ASSIGN_OR_RETURN(std::string level, section.GetString("log_level", "info"));
  ASSIGN_OR_RETURN(std::string format, section.GetString("log_format", "text"));
  RETURN_IF_ERROR(section.CheckAllKnown());
  if (!line.root.empty()) {
    suite.state_root = absl::StrCat(line.root, "/lib");
    suite.run_directory = absl::StrCat(line.root, "/run");
  }
  if (!line.log_level.empty()) level = line.log_level;
  if (!line.log_format.empty()) format = line.log_format;

  log::Options options;
  options.service = process;
  RETURN_IF_ERROR(log::ParseLevel(level, &options.level));
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("log format '", format, "' is unknown; use text or json"));
  }
  options.format = format == "json" ? log::Format::kJson : log::Format::kText;
  log::Configure(options);
  for (const std::string* path : {&suite.state_root, &suite.run_directory}) {
    if (!absl::StartsWith(*path, "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat("directory '", *path, "' must be an absolute path"));
    }
  }
  return suite;
}

// Makes the directory if needed and insists that nobody else can reach into it (SECURITY-RULES 32).
absl::Status EnsurePrivate(const std::string& path) {
  RETURN_IF_ERROR(sys::MakeDirectories(path, 0700));
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return sys::ErrnoError(errno, absl::StrCat("stat ", path));
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is not a directory"));
  }
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("directory '", path, "' is not private to this user; run: chown ", ::geteuid(),
                     " ", path, " && chmod 700 ", path));
  }
  return absl::OkStatus();
}

void TellSystemd() {
  const char* path = ::getenv("NOTIFY_SOCKET");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path == nullptr || path[0] == '\0' || ::strlen(path) >= sizeof address.sun_path) return;
  ::memcpy(address.sun_path, path, ::strlen(path));
  // systemd may hand out an abstract address, written with '@' (sd_notify(3)).
  if (path[0] == '@') address.sun_path[0] = '\0';
  sys::UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const socklen_t size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + ::strlen(path));
  constexpr char kReady[] = "READY=1";
  (void)::sendto(fd.get(), kReady, sizeof kReady - 1, MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
}

class DaemonImpl final : public Daemon {
 public:
  DaemonImpl(std::string process, Suite suite, config::Section section, int ready_fd,
             sys::UniqueFd stop)
      : process_(std::move(process)),
        suite_(std::move(suite)),
        section_(std::move(section)),
        state_directory_(absl::StrCat(suite_.state_root, "/", process_)),
        runtime_directory_(absl::StrCat(suite_.run_directory, "/", process_)),
        instance_suffix_(suite_.run_directory == kDefaultRunDirectory
                             ? ""
                             : absl::StrFormat("-%08x", Crc32c(suite_.run_directory))),
        ready_fd_(ready_fd),
        stop_(std::move(stop)),
        debug_(process_, metrics_) {}

  absl::Status MakeDirectories() {
    for (const std::string* path :
         {&suite_.state_root, &suite_.run_directory, &state_directory_, &runtime_directory_}) {
      RETURN_IF_ERROR(EnsurePrivate(*path));
    }
    return absl::OkStatus();
  }

  const std::string& process() const override { return process_; }
  const config::Section& section() const override { return section_; }
  const std::string& state_directory() const override { return state_directory_; }
  const std::string& runtime_directory() const override { return runtime_directory_; }
  const std::string& run_directory() const override { return suite_.run_directory; }
  const std::string& state_root() const override { return suite_.state_root; }

  std::string SocketPath(const std::string& process) const override {
    return absl::StrCat(suite_.run_directory, "/", process == "gateway" ? "gantry" : process,
                        ".sock");
  }

  std::shared_ptr<grpc::Channel> Dial(const std::string& process) override {
    return rpc::Dial(SocketPath(process));
  }

  const std::string& instance_suffix() const override { return instance_suffix_; }
  metrics::Registry& metrics() override { return metrics_; }
  void AddService(grpc::Service* service) override { services_.push_back(service); }
  void AddGenericService(grpc::CallbackGenericService* service) override { generic_ = service; }
  void AddAuditor(std::function<absl::Status(AuditReport&)> auditor) override {
    debug_.AddAuditor(std::move(auditor));
  }
  void OnStop(std::function<void()> callback) override { on_stop_.push_back(std::move(callback)); }

  absl::Status Serve() override {
    RETURN_IF_ERROR(section_.CheckAllKnown());
    ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener, Listener::Open(SocketPath(process_)));
    std::unique_ptr<grpc::Server> server = Build();
    if (server == nullptr) return absl::InternalError("start the gRPC server");
    listener->Start(*server);
    server->GetHealthCheckService()->SetServingStatus(true);
    TellReady();
    log::Info("serving", {{"socket", SocketPath(process_)}, {"version", Version()}});

    const absl::Status waited = WaitForStop();
    log::Info("stopping");
    server->GetHealthCheckService()->SetServingStatus(false);
    listener->Stop();
    for (const auto& callback : on_stop_) callback();
    server->Shutdown(std::chrono::system_clock::now() + kStopTimeout);
    server->Wait();
    return waited;
  }

  void RequestStop() override {
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
  }

 private:
  std::unique_ptr<grpc::Server> Build() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetMaxSendMessageSize(kMaxMessageBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 64 << 10);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 4096);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60 * 1000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MIN_POLLERS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 4);
    grpc::ResourceQuota quota(process_);
    quota.SetMaxThreads(kMaxServerThreads);
    builder.SetResourceQuota(quota);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(NewCallMetrics(metrics_));
    builder.experimental().SetInterceptorCreators(std::move(creators));
    builder.RegisterService(&debug_);
    for (grpc::Service* service : services_) builder.RegisterService(service);
    if (generic_ != nullptr) builder.RegisterCallbackGenericService(generic_);
    return builder.BuildAndStart();
  }

  void TellReady() {
    if (ready_fd_ >= 0) {
      constexpr char kReady[] = "READY\n";
      (void)!::write(ready_fd_, kReady, sizeof kReady - 1);
      ::close(std::exchange(ready_fd_, -1));
    }
    TellSystemd();
  }

  absl::Status WaitForStop() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    sys::UniqueFd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC));
    if (!signal_fd.ok()) return sys::ErrnoError(errno, "make a signalfd");
    pollfd ready[2] = {{signal_fd.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    while (::poll(ready, 2, -1) < 0) {
      if (errno != EINTR) return sys::ErrnoError(errno, "wait for a stop");
    }
    return absl::OkStatus();
  }

  const std::string process_;
  const Suite suite_;
  const config::Section section_;
  const std::string state_directory_;
  const std::string runtime_directory_;
  const std::string instance_suffix_;
  int ready_fd_;
  sys::UniqueFd stop_;
  metrics::Registry metrics_;
  DebugService debug_;
  std::vector<grpc::Service*> services_;
  grpc::CallbackGenericService* generic_ = nullptr;
  std::vector<std::function<void()>> on_stop_;
};

// Before any thread: they inherit mask and umask.
void PrepareProcess() {
  ::umask(077);
  ::mallopt(M_ARENA_MAX, 2);  // COSTS 2: half the memory after load, at no rate worth measuring.
  ::signal(SIGPIPE, SIG_IGN);
  // Debian's Abseil looks for lock cycles at every lock, as debug builds do; Clang's annotations
  // and the tests look for ours.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

absl::Status Run(const CommandLine& line, const std::string& process,
                 const std::function<absl::Status(Daemon&)>& run) {
  RETURN_IF_ERROR(failpoint::ArmFromEnvironment());
  ASSIGN_OR_RETURN(config::File file, LoadConfiguration(line));
  ASSIGN_OR_RETURN(Suite suite, ReadSuite(file.GetSection("suite"), line, process));
  sys::UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.ok()) return sys::ErrnoError(errno, "make an eventfd");
  DaemonImpl daemon(process, std::move(suite), file.GetSection(process), line.ready_fd,
                    std::move(stop));
  RETURN_IF_ERROR(daemon.MakeDirectories());
  return run(daemon);
}

}  // namespace

int RunDaemon(int argc, char** argv, const std::string& process,
              const std::function<absl::Status(Daemon&)>& run) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(argc, argv);
  if (!line.ok()) {
    ::fprintf(stderr, "gantry-%s: %s\n", process.c_str(),
              std::string(line.status().message()).c_str());
    ::fprintf(stderr, kUsage, process.c_str());
    return 2;
  }
  if (line->help) {
    ::printf(kUsage, process.c_str());
    return 0;
  }
  if (line->version) {
    ::printf("gantry-%s version %s\ncommit: %s\n", process.c_str(), std::string(Version()).c_str(),
             std::string(Commit()).c_str());
    return 0;
  }
  if (line->list_failpoints) {
    for (const std::string& name : failpoint::List()) ::printf("%s\n", name.c_str());
    return 0;
  }
  PrepareProcess();
  const absl::Status status = Run(*line, process, run);
  if (status.ok()) return 0;
  log::Error("the process cannot go on", {{"error", status}});
  return 1;
}

}  // namespace gantry::rpc
