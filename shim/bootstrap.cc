#include "shim/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/cgroup/cgroup.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"
#include "runtime/runtime.h"
#include "shim/sha256.h"

extern char** environ;

#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#endif

namespace gantry::shim {
namespace {

constexpr int kListenerFd = 3;
constexpr size_t kMaxSocketPathBytes = 106;
constexpr const char* kGroupAnnotations[] = {"io.containerd.runc.v2.group",
                                             "io.kubernetes.cri.sandbox-id"};

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// "s" beside the daemon's socket: for /run/containerd/containerd.sock, the place that Go's shims
// use.
std::string SocketDirectory(const StartInput& input, const Arguments& arguments) {
  if (!input.params.socket_dir.empty()) return input.params.socket_dir;
  absl::string_view address = arguments.address;
  absl::ConsumePrefix(&address, "unix://");
  return address.empty() ? "/run/containerd/s"
                         : absl::StrCat(DirectoryOf(std::string(address)), "/s");
}

std::string Answer(const StartInput& input, const std::string& address) {
  if (!input.has_params) return address;
  json::Writer writer;
  writer.BeginObject();
  writer.Member("version", 3);
  writer.Member("address", address);
  writer.Member("protocol", "ttrpc");
  writer.EndObject();
  return writer.Take();
}

std::vector<std::string> ServerEnvironment(const StartInput& input) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!input.params.ttrpc_address.empty() && absl::StartsWith(*variable, "TTRPC_ADDRESS="))
      continue;
    variables.emplace_back(*variable);
  }
  if (!input.params.ttrpc_address.empty()) {
    variables.push_back(absl::StrCat("TTRPC_ADDRESS=", input.params.ttrpc_address));
  }
  return variables;
}

// The daemon must not be killed before its shims when memory runs out. Refusal is no reason to fail
// (SECURITY-RULES 44).
void SetOomScore(pid_t server) {
  const absl::StatusOr<std::string> text =
      sys::ReadFile(absl::StrCat("/proc/", ::getppid(), "/oom_score_adj"), 64);
  int score = 0;
  if (!text.ok() || !absl::SimpleAtoi(*text, &score)) return;
  (void)sys::WriteControlFile(absl::StrCat("/proc/", server, "/oom_score_adj"),
                              absl::StrCat(std::min(score + 1, 1000)));
}

absl::Status JoinCgroup(pid_t server, const std::string& path) {
  ASSIGN_OR_RETURN(const cgroup::Layout layout, cgroup::Layout::Detect());
  ASSIGN_OR_RETURN(const cgroup::Cgroup cgroup, cgroup::Cgroup::Plan(layout, path));
  for (const cgroup::Directory& directory : cgroup.directories()) {
    const std::string file = absl::StrCat(directory.path, "/cgroup.procs");
    if (!sys::Exists(file)) continue;
    RETURN_IF_ERROR(sys::WriteControlFile(file, absl::StrCat(server)));
  }
  return absl::OkStatus();
}

absl::StatusOr<sys::Child> SpawnServer(const Arguments& arguments, const StartInput& input,
                                       const sys::UniqueFd& listener) {
  RETURN_IF_ERROR(FAILPOINT("shim.start.before_spawn"));
  ASSIGN_OR_RETURN(const sys::UniqueFd executable, runtime::OpenProtectedExecutable());
  sys::SpawnOptions spawn;
  spawn.program = absl::StrCat("/proc/self/fd/", executable.get());
  char self[4096];
  const ssize_t length = ::readlink("/proc/self/exe", self, sizeof self);
  spawn.argv = {
      length > 0 ? std::string(self, static_cast<size_t>(length)) : "containerd-shim-gantry-v2",
      "-namespace",
      arguments.ns,
      "-id",
      arguments.id,
      "-address",
      arguments.address};
  if (arguments.debug || input.params.log_level < 0) spawn.argv.push_back("-debug");
  spawn.environment = ServerEnvironment(input);
  spawn.descriptors = {{listener.get(), kListenerFd}};
  spawn.new_process_group = true;
  return sys::Spawn(spawn);
}

}  // namespace

absl::StatusOr<StartInput> ParseStartInput(absl::string_view bytes, const Arguments& arguments) {
  StartInput input;
  if (bytes.empty()) return input;
  absl::StatusOr<BootstrapParams> params = ParseBootstrapParams(bytes);
  if (params.ok() && params->instance_id == arguments.id && params->ns == arguments.ns) {
    input.has_params = true;
    input.params = *std::move(params);
    input.options = input.params.options;
    return input;
  }
  absl::StatusOr<Any> any = ParseAny(bytes);
  if (!any.ok()) {
    return absl::InvalidArgumentError(
        "the input of start is neither BootstrapParams for this id nor runtime options (an Any)");
  }
  input.options = *std::move(any);
  return input;
}

std::string GroupOf(absl::string_view config, const std::string& id) {
  const absl::StatusOr<json::Document> document = json::Document::Parse(config);
  if (!document.ok()) return id;  // Create will say what is wrong with it.
  const std::optional<json::Value> annotations = document->root().Find("annotations");
  if (!annotations.has_value()) return id;
  for (const char* name : kGroupAnnotations) {
    std::string group;
    if (annotations->Optional(name, &group).ok() && !group.empty()) return group;
  }
  return id;
}

std::string SocketPathFor(const std::string& directory, const std::string& address,
                          const std::string& ns, const std::string& group) {
  return absl::StrCat(directory, "/", Sha256Hex(absl::StrCat(address, "/", ns, "/", group)));
}

absl::StatusOr<std::string> Start(const Arguments& arguments, absl::string_view bytes) {
  RETURN_IF_ERROR(CheckIdentifier("namespace", arguments.ns));
  RETURN_IF_ERROR(CheckIdentifier("id", arguments.id));
  ASSIGN_OR_RETURN(const StartInput input, ParseStartInput(bytes, arguments));
  ASSIGN_OR_RETURN(const RuncOptions options, ParseOptions(input.options));
  const absl::StatusOr<std::string> config = sys::ReadFile("config.json");
  const std::string group = GroupOf(config.ok() ? absl::string_view(*config) : "", arguments.id);
  const std::string directory = SocketDirectory(input, arguments);
  const std::string path = SocketPathFor(directory, arguments.address, arguments.ns, group);
  if (path.size() > kMaxSocketPathBytes) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' has ", path.size(),
                                                   " bytes, at most ", kMaxSocketPathBytes,
                                                   "; use a shorter state directory"));
  }
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0700));
  const std::string address = absl::StrCat("unix://", path);
  absl::StatusOr<sys::UniqueFd> listener = sys::ListenUnix(path);
  if (absl::IsAlreadyExists(listener.status())) {
    // A member of the group serves already: it takes this container, too.
    RETURN_IF_ERROR(sys::WriteFileAtomically("address", address, 0644));
    return Answer(input, address);
  }
  RETURN_IF_ERROR(listener.status());
  if (::getenv("SCHED_CORE") != nullptr &&
      ::prctl(PR_SCHED_CORE, 1 /* create */, 0, 2 /* process group */, 0) != 0) {
    const absl::Status status = sys::ErrnoError(errno, "enable core scheduling");
    (void)sys::Unlink(path);
    return status;
  }
  absl::StatusOr<sys::Child> server = SpawnServer(arguments, input, *listener);
  absl::Status status = server.status();
  if (status.ok() && !options.shim_cgroup.empty()) {
    status = Annotate(JoinCgroup(server->pid(), options.shim_cgroup),
                      absl::StrCat("join shim cgroup '", options.shim_cgroup, "'"));
  }
  if (status.ok()) status = sys::WriteFileAtomically("address", address, 0644);
  if (status.ok()) status = FAILPOINT("shim.start.before_answer");
  if (!status.ok()) {
    (void)sys::Unlink(path);
    return status;  // The server dies with its Child.
  }
  SetOomScore(server->pid());
  server->Release();
  return Answer(input, address);
}

}  // namespace gantry::shim
