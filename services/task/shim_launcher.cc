#include "services/task/shim_launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "containerd/runtime/bootstrap/v1/bootstrap.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "services/task/shim_answer.h"

namespace gantry::task {
namespace {

constexpr size_t kMaxOutputBytes = 1 << 20;
constexpr char kContainerdVersion[] = "2.1.0";  // What the gateway's Version says, too.

absl::StatusOr<std::pair<uint64_t, int64_t>> IdentityOf(const std::string& binary) {
  struct stat info = {};
  if (::stat(binary.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat("shim '", binary, "' is not there"));
  }
  return std::make_pair(
      static_cast<uint64_t>(info.st_ino),
      static_cast<int64_t>(info.st_mtim.tv_sec) * 1000000000 + info.st_mtim.tv_nsec);
}

// A nameless file: a child's input or output without the pipe's need to be read meanwhile, and
// without an end that a detached grandchild could hold open.
absl::StatusOr<sys::UniqueFd> NamelessFile(const std::string& directory,
                                           absl::string_view content) {
  ASSIGN_OR_RETURN(sys::UniqueFd file, sys::Open(directory, O_TMPFILE | O_RDWR, 0600));
  RETURN_IF_ERROR(sys::WriteAll(file, content));
  return file;
}

std::string DescriptorPath(const sys::UniqueFd& fd) {
  return absl::StrCat("/proc/self/fd/", fd.get());
}

void AddFromEnvironment(const char* name, std::vector<std::string>& environment) {
  if (const char* value = std::getenv(name); value != nullptr) {
    environment.push_back(absl::StrCat(name, "=", value));
  }
}

std::string Shown(const std::string& output) {
  return EscapeForTerminal(absl::StripAsciiWhitespace(output).substr(0, 4096));
}

// This process's program by the name that understands `publish`; all daemons are one file.
std::string PublishBinary() {
  const std::string self = sys::ReadSymlink("/proc/self/exe").value_or("");
  const std::string named = absl::StrCat(self.substr(0, self.rfind('/') + 1), "gantry-task");
  return sys::Exists(named) ? named : self;
}

}  // namespace

ShimLauncher::ShimLauncher(LaunchOptions options)
    : options_(std::move(options)), publish_binary_(PublishBinary()) {}

absl::StatusOr<LaunchedShim> ShimLauncher::Launch(const ShimSpec& spec, const Bundle& bundle) {
  RETURN_IF_ERROR(FAILPOINT("task.launch.before_start"));
  if (spec.binary == options_.pool_binary) {
    // One that has ended meanwhile is no reason to fail.
    absl::StatusOr<LaunchedShim> waiting = LaunchPooled(spec, bundle);
    if (waiting.ok()) return waiting;
    if (!absl::IsNotFound(waiting.status())) {
      log::Warning("waiting shim could not be used; a new one is started",
                   {{"error", waiting.status()}});
    }
  }
  absl::StatusOr<LaunchedShim> shim =
      IsOwnShim(spec.binary) ? LaunchOwn(spec, bundle) : LaunchStranger(spec, bundle);
  return Annotate(std::move(shim), absl::StrCat("start shim '", spec.binary, "'"));
}

// ---- Our own ----

absl::StatusOr<LaunchedShim> ShimLauncher::LaunchOwn(const ShimSpec& spec, const Bundle& bundle) {
  const std::string path = NewSocketPath();
  const absl::Cleanup made = [&] { MadeSocket(path); };
  ASSIGN_OR_RETURN(sys::UniqueFd listener, sys::ListenUnix(path));
  absl::Cleanup remove_socket = [&] { (void)sys::Unlink(path); };
  if (::fcntl(listener.get(), F_SETFL, O_NONBLOCK) != 0) {
    return absl::InternalError("make the shim's listener non-blocking");
  }
  LaunchedShim shim;
  shim.bootstrap = {.version = 2, .address = absl::StrCat("unix://", path), .binary = spec.binary};
  RETURN_IF_ERROR(bundle.WriteBootstrap(shim.bootstrap));
  RETURN_IF_ERROR(FAILPOINT("task.launch.before_spawn"));
  sys::SpawnOptions spawn;
  spawn.argv = Arguments(spec);
  spawn.environment = Environment(spec);
  spawn.working_directory = bundle.path();
  spawn.descriptors = {{2, 2}, {listener.get(), 3}};
  spawn.new_session = true;  // A signal to our process group is not for containers.
  ASSIGN_OR_RETURN(shim.child, sys::Spawn(spawn));
  RETURN_IF_ERROR(FAILPOINT("task.launch.after_spawn"));
  std::move(remove_socket).Cancel();
  return shim;
}

// ---- Waiting for their container ----

ShimLauncher::~ShimLauncher() {
  std::deque<Pooled> pool;
  {
    absl::MutexLock lock(&mutex_);
    pool.swap(pool_);
  }
  for (const Pooled& pooled : pool) (void)sys::Unlink(pooled.socket);
}

std::string ShimLauncher::NewSocketPath() {
  std::string path = absl::StrCat(options_.socket_directory, "/", RandomHex(8));
  absl::MutexLock lock(&mutex_);
  sockets_in_making_.insert(path);
  return path;
}

void ShimLauncher::MadeSocket(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  sockets_in_making_.erase(path);
}

std::vector<std::string> ShimLauncher::SocketsInMaking() {
  absl::MutexLock lock(&mutex_);
  return std::vector<std::string>(sockets_in_making_.begin(), sockets_in_making_.end());
}

absl::StatusOr<ShimLauncher::Pooled> ShimLauncher::SpawnPooled(const std::string& socket) {
  Pooled pooled;
  pooled.socket = socket;
  ASSIGN_OR_RETURN(sys::UniqueFd listener, sys::ListenUnix(pooled.socket));
  absl::Cleanup remove_socket = [&] { (void)sys::Unlink(pooled.socket); };
  int ends[2] = {-1, -1};
  if (::fcntl(listener.get(), F_SETFL, O_NONBLOCK) != 0 || ::pipe2(ends, O_CLOEXEC) != 0) {
    return sys::ErrnoError(errno, "make a waiting shim's listener and pipe");
  }
  sys::UniqueFd read_end(ends[0]);
  pooled.assignment.Reset(ends[1]);
  ShimSpec unnamed;
  unnamed.ns = kUnnamed;
  unnamed.id = kUnnamed;
  unnamed.binary = options_.pool_binary;
  sys::SpawnOptions spawn;
  spawn.argv = Arguments(unnamed);
  spawn.argv.push_back("-await");
  spawn.environment = Environment(unnamed);
  spawn.working_directory = options_.socket_directory;
  spawn.descriptors = {{2, 2}, {listener.get(), 3}, {read_end.get(), 4}};
  spawn.new_session = true;
  ASSIGN_OR_RETURN(pooled.child, sys::Spawn(spawn));
  std::move(remove_socket).Cancel();
  return pooled;
}

void ShimLauncher::FillPool() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (pool_.size() + spawning_ >= options_.pool_size) return;
      ++spawning_;
    }
    const std::string socket = NewSocketPath();
    absl::StatusOr<Pooled> pooled = SpawnPooled(socket);
    absl::MutexLock lock(&mutex_);
    --spawning_;
    sockets_in_making_.erase(socket);
    if (!pooled.ok()) {
      log::Warning("no shim could be started ahead of time", {{"error", pooled.status()}});
      return;
    }
    pool_.push_back(*std::move(pooled));
  }
}

std::vector<ShimLauncher::Waiting> ShimLauncher::WaitingShims() {
  absl::MutexLock lock(&mutex_);
  std::vector<Waiting> waiting;
  for (const Pooled& pooled : pool_) waiting.push_back({pooled.child.pid(), pooled.socket});
  return waiting;
}

absl::StatusOr<LaunchedShim> ShimLauncher::LaunchPooled(const ShimSpec& spec,
                                                        const Bundle& bundle) {
  Pooled pooled;
  {
    absl::MutexLock lock(&mutex_);
    if (pool_.empty()) return absl::NotFoundError("no shim is waiting");
    pooled = std::move(pool_.front());
    pool_.pop_front();
  }
  absl::Cleanup remove_socket = [&] { (void)sys::Unlink(pooled.socket); };
  LaunchedShim shim;
  shim.bootstrap = {
      .version = 2, .address = absl::StrCat("unix://", pooled.socket), .binary = spec.binary};
  RETURN_IF_ERROR(bundle.WriteBootstrap(shim.bootstrap));
  std::string assignment = spec.ns;
  assignment.push_back('\0');
  assignment += spec.id;
  assignment.push_back('\0');
  assignment += bundle.path();
  assignment.push_back('\0');
  if (assignment.size() > PIPE_BUF)
    return absl::InvalidArgumentError("the bundle's path is too long");
  RETURN_IF_ERROR(FAILPOINT("task.launch.before_assign"));
  // Fails when nobody reads: the shim has ended.
  RETURN_IF_ERROR(sys::WriteAll(pooled.assignment, assignment));
  pooled.assignment.Reset();
  RETURN_IF_ERROR(FAILPOINT("task.launch.after_assign"));
  shim.child = std::move(pooled.child);
  std::move(remove_socket).Cancel();
  return shim;
}

// ---- Strangers' ----

absl::StatusOr<LaunchedShim> ShimLauncher::LaunchStranger(const ShimSpec& spec,
                                                          const Bundle& bundle) {
  LaunchedShim shim;
  ASSIGN_OR_RETURN(shim.log, OpenLog(bundle));
  const std::string work = absl::StrCat(options_.work_directory, "/", spec.ns, "/", spec.id);
  RETURN_IF_ERROR(sys::MakeDirectories(work, 0711));
  if (absl::Status linked = sys::MakeSymlink(work, bundle.File("work"));
      !linked.ok() && !absl::IsAlreadyExists(linked)) {
    return linked;
  }
  RETURN_IF_ERROR(sys::WriteFileAtomically(bundle.File("shim-binary-path"), spec.binary));
  ASSIGN_OR_RETURN(const auto identity, IdentityOf(spec.binary));
  bool wants_options;
  {
    absl::MutexLock lock(&mutex_);
    wants_options = wants_options_.contains(identity);
  }
  const std::string any = spec.options.type_url().empty() ? "" : spec.options.SerializeAsString();
  std::vector<std::string> arguments = Arguments(spec);
  if (options_.debug) arguments.push_back("-debug");
  arguments.push_back("start");
  ASSIGN_OR_RETURN(CommandResult result,
                   RunCommand(spec, bundle, arguments, wants_options ? any : BootstrapInput(spec),
                              options_.start_timeout, /*one_stream=*/true));
  if (result.exit.code != 0 && !wants_options) {
    // Older shims take what they get for the options; newer ones want nothing else.
    const std::string refused = result.out;
    ASSIGN_OR_RETURN(result, RunCommand(spec, bundle, arguments, any, options_.start_timeout,
                                        /*one_stream=*/true));
    if (result.exit.code == 0) {
      absl::MutexLock lock(&mutex_);
      wants_options_[identity] = true;
    } else {
      result.out = refused;  // The first answer is the one about the real trouble.
    }
  }
  if (result.exit.code != 0) {
    return absl::UnknownError(
        absl::StrCat("it exited with ", result.exit.code, ": ", Shown(result.out)));
  }
  ASSIGN_OR_RETURN(const ShimAnswer answer, ParseShimAnswer(result.out));
  shim.bootstrap = {.version = answer.version, .address = answer.address, .binary = spec.binary};
  RETURN_IF_ERROR(bundle.WriteBootstrap(shim.bootstrap));
  return shim;
}

absl::StatusOr<sys::UniqueFd> ShimLauncher::OpenLog(const Bundle& bundle) {
  absl::Status made = sys::MakeFifo(bundle.File("log"), 0700);
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  // For reading and writing: the fifo never reports an end, and a shim never waits to open it.
  return sys::Open(bundle.File("log"), O_RDWR | O_NONBLOCK | O_NOFOLLOW);
}

absl::StatusOr<containerd::task::v2::DeleteResponse> ShimLauncher::RunDelete(const ShimSpec& spec,
                                                                             const Bundle& bundle) {
  RETURN_IF_ERROR(FAILPOINT("task.launch.before_delete"));
  std::vector<std::string> arguments = Arguments(spec);
  arguments.push_back("-bundle");
  arguments.push_back(bundle.path());
  if (options_.debug) arguments.push_back("-debug");
  arguments.push_back("delete");
  absl::StatusOr<CommandResult> result =
      RunCommand(spec, bundle, arguments, "", options_.delete_timeout, /*one_stream=*/false);
  const std::string context = absl::StrCat("delete command of shim '", spec.binary, "'");
  RETURN_IF_ERROR(Annotate(result.status(), context));
  if (result->exit.code != 0) {
    return absl::UnknownError(
        absl::StrCat(context, ": it exited with ", result->exit.code, ": ", Shown(result->err)));
  }
  containerd::task::v2::DeleteResponse response;
  if (!response.ParseFromString(result->out)) {
    return absl::UnknownError(absl::StrCat(context, ": the answer is not a DeleteResponse"));
  }
  return response;
}

absl::StatusOr<ShimLauncher::CommandResult> ShimLauncher::RunCommand(
    const ShimSpec& spec, const Bundle& bundle, std::vector<std::string> arguments,
    const std::string& input, absl::Duration timeout, bool one_stream) {
  const std::string& directory = bundle.path();
  ASSIGN_OR_RETURN(sys::UniqueFd in, NamelessFile(directory, input));
  // Opened once more: its own position, at the beginning.
  ASSIGN_OR_RETURN(sys::UniqueFd in_at_start, sys::Open(DescriptorPath(in), O_RDONLY));
  ASSIGN_OR_RETURN(sys::UniqueFd out, NamelessFile(directory, ""));
  ASSIGN_OR_RETURN(sys::UniqueFd err, NamelessFile(directory, ""));
  sys::SpawnOptions spawn;
  spawn.argv = std::move(arguments);
  spawn.environment = Environment(spec);
  spawn.working_directory = directory;
  spawn.descriptors = {
      {in_at_start.get(), 0}, {out.get(), 1}, {one_stream ? out.get() : err.get(), 2}};
  spawn.new_process_group = true;
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  CommandResult result;
  ASSIGN_OR_RETURN(result.exit, child.Wait(timeout));  // Killed by its owner when it takes longer.
  ASSIGN_OR_RETURN(result.out, sys::ReadFile(DescriptorPath(out), kMaxOutputBytes));
  ASSIGN_OR_RETURN(result.err, sys::ReadFile(DescriptorPath(err), kMaxOutputBytes));
  return result;
}

std::vector<std::string> ShimLauncher::Arguments(const ShimSpec& spec) const {
  std::vector<std::string> arguments = {
      spec.binary, "-namespace", spec.ns, "-address", options_.gateway_socket, "-id", spec.id};
  if (!IsOwnShim(spec.binary)) {
    arguments.push_back("-publish-binary");
    arguments.push_back(publish_binary_);
  }
  return arguments;
}

std::vector<std::string> ShimLauncher::Environment(const ShimSpec& spec) const {
  std::vector<std::string> environment = {absl::StrCat("TTRPC_ADDRESS=", options_.events_socket),
                                          absl::StrCat("GRPC_ADDRESS=", options_.gateway_socket),
                                          "MAX_SHIM_VERSION=2", "GOMAXPROCS=2"};
  if (spec.ns != kUnnamed) environment.push_back(absl::StrCat("NAMESPACE=", spec.ns));
  AddFromEnvironment("PATH", environment);
  AddFromEnvironment("GANTRY_FAILPOINTS", environment);
  return environment;
}

std::string ShimLauncher::BootstrapInput(const ShimSpec& spec) const {
  containerd::runtime::bootstrap::v1::BootstrapParams params;
  params.set_instance_id(spec.id);
  params.set_namespace_(spec.ns);
  params.set_containerd_version(kContainerdVersion);
  params.set_containerd_ttrpc_address(options_.events_socket);
  params.set_containerd_grpc_address(options_.gateway_socket);
  params.set_containerd_binary(publish_binary_);
  if (!spec.options.type_url().empty()) *params.add_extensions()->mutable_value() = spec.options;
  return params.SerializeAsString();
}

}  // namespace gantry::task
