#include "shim/testing/shim_harness.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::shim::testing {
namespace {

constexpr char kNamespace[] = "test";
constexpr char kService[] = "containerd.task.v2.Task";
constexpr char kProcessType[] = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const char* const kApplets[] = {"sh",   "sleep", "echo", "cat",  "true", "false", "tty",
                                "stty", "dd",    "ps",   "kill", "id",   "head",  "yes",
                                "seq",  "grep",  "test", "ls",   "wc",   "tr"};

std::string IdPayload(const std::string& id, const std::string& exec_id = "") {
  std::string payload;
  pb::Writer writer(&payload);
  writer.String(1, id);
  writer.String(2, exec_id);
  return payload;
}

Exited ParseExit(absl::string_view bytes, uint32_t code_field, uint32_t time_field) {
  Exited exited;
  exited.code = 0;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == code_field) exited.code = static_cast<int>(reader.varint());
    if (reader.field() != time_field) continue;
    int64_t seconds = 0, nanos = 0;
    pb::Reader time(reader.bytes());
    while (time.Next()) {
      if (time.field() == 1) seconds = time.signed_varint();
      if (time.field() == 2) nanos = time.signed_varint();
    }
    exited.time = absl::FromUnixSeconds(seconds) + absl::Nanoseconds(nanos);
  }
  return exited;
}

}  // namespace

absl::StatusOr<int> ShimHarness::ParseStarted(const absl::StatusOr<std::string>& answer) {
  RETURN_IF_ERROR(answer.status());
  timings_.clear();
  int pid = 0;
  pb::Reader reader(*answer);
  while (reader.Next()) {
    if (reader.field() == 1) pid = static_cast<int>(reader.varint());
    if (reader.field() != 100) continue;
    auto& [step, microseconds] = timings_.emplace_back();
    pb::Reader timing(reader.bytes());
    while (timing.Next()) {
      if (timing.field() == 1) step = timing.text();
      if (timing.field() == 2) microseconds = timing.signed_varint();
    }
  }
  return pid;
}

ShimHarness::ShimHarness(std::string binary, std::string runtime_binary)
    : binary_(std::move(binary)),
      runtime_binary_(std::move(runtime_binary)),
      root_(sys::TempDir::Create("/tmp").value()),
      daemon_(std::make_unique<EventDaemon>(absl::StrCat(root_.path(), "/d.sock.ttrpc"))) {}

ShimHarness::~ShimHarness() {
  failpoints_.clear();
  client_.reset();
  servers_.clear();
  // Whatever a failed test left: its processes, mounts and shims, by the way that `delete` knows.
  for (const std::string& id : ids_) {
    const absl::StatusOr<std::string> address =
        sys::ReadFile(absl::StrCat(BundleOf(id), "/address"), 4096);
    if (address.ok()) {
      auto client = ttrpc::Client::Connect(*address);
      if (client.ok()) {
        std::string now = IdPayload(id);
        pb::Writer(&now).Bool(2, true);
        (void)(*client)->Call(kService, "Shutdown", now, {}, absl::Seconds(3));
      }
    }
    (void)RunDelete(id);
    (void)sys::UnmountTree(absl::StrCat(BundleOf(id), "/rootfs"));
  }
  // The parents of the containers' cgroups, ours alone by their name.
  for (const std::string& hierarchy :
       sys::ListDirectory("/sys/fs/cgroup").value_or(std::vector<std::string>())) {
    ::rmdir(absl::StrCat("/sys/fs/cgroup/", hierarchy, "/", CgroupName()).c_str());
  }
  ::rmdir(absl::StrCat("/sys/fs/cgroup/", CgroupName()).c_str());
}

std::string ShimHarness::CgroupName() const {
  return absl::StrCat("shim-test-", root_.path().substr(root_.path().rfind('/') + 1));
}

std::vector<std::string> ShimHarness::CgroupsOf(const std::string& id) const {
  std::vector<std::string> found;
  const auto look = [&](const std::string& hierarchy) {
    const std::string path = absl::StrCat(hierarchy, "/", CgroupName(), "/", id);
    if (sys::Exists(path)) found.push_back(path);
  };
  look("/sys/fs/cgroup");
  for (const std::string& name :
       sys::ListDirectory("/sys/fs/cgroup").value_or(std::vector<std::string>())) {
    look(absl::StrCat("/sys/fs/cgroup/", name));
  }
  return found;
}

std::string ShimHarness::BundleOf(const std::string& id) const {
  return absl::StrCat(root_.path(), "/b/", id);
}

absl::Status ShimHarness::MakeBundle(const std::string& id, const std::vector<std::string>& args,
                                     const std::function<void(oci::Spec&)>& edit) {
  const std::string bin = absl::StrCat(BundleOf(id), "/rootfs/bin");
  RETURN_IF_ERROR(sys::MakeDirectories(bin, 0755));
  for (const char* directory : {"proc", "sys", "dev", "tmp", "etc"}) {
    RETURN_IF_ERROR(sys::MakeDirectories(absl::StrCat(BundleOf(id), "/rootfs/", directory), 0755));
  }
  ASSIGN_OR_RETURN(const std::string busybox, sys::ReadFile("/bin/busybox"));
  RETURN_IF_ERROR(sys::WriteFileAtomically(absl::StrCat(bin, "/busybox"), busybox, 0755));
  for (const char* applet : kApplets) {
    if (::symlink("busybox", absl::StrCat(bin, "/", applet).c_str()) != 0 && errno != EEXIST) {
      return sys::ErrnoError(errno, "link an applet");
    }
  }
  oci::Spec spec = oci::DefaultSpec();
  spec.oci_version = "1.0.2";
  spec.root = oci::Root{"rootfs", false};
  spec.process->args = args;
  spec.process->env = {"PATH=/bin"};
  spec.hostname = id;
  spec.linux_.cgroups_path = absl::StrCat("/", CgroupName(), "/", id);
  if (edit) edit(spec);
  ids_.push_back(id);
  return sys::WriteFileAtomically(absl::StrCat(BundleOf(id), "/config.json"), oci::WriteSpec(spec),
                                  0644);
}

absl::StatusOr<std::string> ShimHarness::Run(const std::string& id,
                                             const std::vector<std::string>& words,
                                             const std::string& input) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) {
    return sys::ErrnoError(errno, "make pipes");
  }
  sys::UniqueFd in_read(in[0]), in_write(in[1]), out_read(out[0]), out_write(out[1]);
  sys::SpawnOptions spawn;
  spawn.argv = {binary_,
                "-namespace",
                kNamespace,
                "-address",
                absl::StrCat(root_.path(), "/d.sock"),
                "-publish-binary",
                "/bin/true",
                "-id",
                id};
  spawn.argv.insert(spawn.argv.end(), words.begin(), words.end());
  spawn.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                       absl::StrCat("TTRPC_ADDRESS=", root_.path(), "/d.sock.ttrpc"),
                       "MAX_SHIM_VERSION=2", "GOMAXPROCS=2"};
  if (!failpoints_.empty()) {
    spawn.environment.push_back(absl::StrCat("GANTRY_FAILPOINTS=", failpoints_));
  }
  spawn.working_directory = BundleOf(id);
  spawn.descriptors = {{in_read.get(), 0}, {out_write.get(), 1}, {out_write.get(), 2}};
  spawn.new_process_group = true;
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  out_write.Reset();
  RETURN_IF_ERROR(sys::WriteAll(in_write, input));
  in_write.Reset();
  ASSIGN_OR_RETURN(std::string output, sys::ReadAll(out_read));
  ASSIGN_OR_RETURN(const sys::ExitStatus exit, child.Wait(absl::Seconds(30)));
  if (exit.code != 0) return absl::UnknownError(absl::StrCat("exit ", exit.code, ": ", output));
  return output;
}

absl::StatusOr<std::string> ShimHarness::StartShim(const std::string& id,
                                                   const std::string& input) {
  const std::string fifo = absl::StrCat(BundleOf(id), "/log");
  ::mkfifo(fifo.c_str(), 0700);
  ASSIGN_OR_RETURN(log_fifos_[id], sys::Open(fifo, O_RDWR | O_NONBLOCK));
  ASSIGN_OR_RETURN(std::string answer, Run(id, {"start"}, input));
  std::string address = answer;
  if (const size_t at = answer.find("unix://"); at != std::string::npos) {
    address = answer.substr(at, answer.find('"', at) - at);
  }
  RETURN_IF_ERROR(Connect(address));
  return answer;
}

absl::Status ShimHarness::StartServer(const std::string& id) {
  const std::string path = absl::StrCat(root_.path(), "/", RandomHex(4), ".s");
  ASSIGN_OR_RETURN(const sys::UniqueFd listener, sys::ListenUnix(path));
  sys::SpawnOptions spawn;
  spawn.argv = {binary_,
                "-namespace",
                kNamespace,
                "-id",
                id,
                "-address",
                absl::StrCat(root_.path(), "/d.sock")};
  spawn.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  spawn.working_directory = BundleOf(id);
  spawn.descriptors = {{listener.get(), 3}};
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  servers_.push_back(std::move(child));
  return Connect(absl::StrCat("unix://", path));
}

absl::Status ShimHarness::Connect(const std::string& address) {
  address_ = address;
  ASSIGN_OR_RETURN(client_, ttrpc::Client::Connect(address));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ShimHarness::Call(const std::string& method, const std::string& payload,
                                              absl::Duration timeout) {
  if (client_ == nullptr) return absl::FailedPreconditionError("the shim was not started");
  return client_->Call(kService, method, payload, {{"containerd-namespace-ttrpc", kNamespace}},
                       timeout);
}

absl::Status ShimHarness::Simple(const std::string& method, const std::string& id) {
  return Call(method, IdPayload(id)).status();
}

absl::StatusOr<int> ShimHarness::Create(const std::string& id, const Streams& streams) {
  std::string payload;
  pb::Writer writer(&payload);
  writer.String(1, id);
  writer.String(2, BundleOf(id));
  writer.Bool(4, streams.terminal);
  writer.String(5, streams.in);
  writer.String(6, streams.out);
  writer.String(7, streams.err);
  // A state root of our own, so that shims of strangers do not meet in /run/containerd.
  std::string options;
  pb::Writer inner(&options);
  inner.String(6, runtime_binary_);
  inner.String(7, absl::StrCat(root_.path(), "/state"));
  WriteAny(writer, 10, "containerd.runc.v1.Options", options);
  return ParseStarted(Call("Create", payload));
}

absl::StatusOr<int> ShimHarness::Start(const std::string& id, const std::string& exec_id) {
  return ParseStarted(Call("Start", IdPayload(id, exec_id)));
}

absl::Status ShimHarness::Exec(const std::string& id, const std::string& exec_id,
                               const std::vector<std::string>& args, const Streams& streams) {
  oci::Process process;
  process.terminal = streams.terminal;
  process.args = args;
  process.env = {"PATH=/bin"};
  process.cwd = "/";
  std::string payload;
  pb::Writer writer(&payload);
  writer.String(1, id);
  writer.String(2, exec_id);
  writer.Bool(3, streams.terminal);
  writer.String(4, streams.in);
  writer.String(5, streams.out);
  writer.String(6, streams.err);
  WriteAny(writer, 7, kProcessType, oci::WriteProcess(process));
  return Call("Exec", payload).status();
}

absl::StatusOr<Exited> ShimHarness::Wait(const std::string& id, const std::string& exec_id) {
  ASSIGN_OR_RETURN(const std::string answer, Call("Wait", IdPayload(id, exec_id)));
  return ParseExit(answer, 1, 2);
}

absl::Status ShimHarness::Kill(const std::string& id, int signal, const std::string& exec_id,
                               bool all) {
  std::string payload = IdPayload(id, exec_id);
  pb::Writer writer(&payload);
  writer.Varint(3, static_cast<uint64_t>(signal));
  writer.Bool(4, all);
  return Call("Kill", payload).status();
}

absl::StatusOr<Exited> ShimHarness::Delete(const std::string& id, const std::string& exec_id) {
  ASSIGN_OR_RETURN(const std::string answer, Call("Delete", IdPayload(id, exec_id)));
  return ParseExit(answer, 2, 3);
}

absl::StatusOr<TaskStatus> ShimHarness::State(const std::string& id, const std::string& exec_id) {
  ASSIGN_OR_RETURN(const std::string answer, Call("State", IdPayload(id, exec_id)));
  pb::Reader reader(answer);
  while (reader.Next()) {
    if (reader.field() == 4) return static_cast<TaskStatus>(reader.varint());
  }
  return TaskStatus::kUnknown;
}

absl::Status ShimHarness::Shutdown(const std::string& id) {
  return Call("Shutdown", IdPayload(id)).status();
}

absl::StatusOr<int> ShimHarness::ShimPid(const std::string& id) {
  return ParseStarted(Call("Connect", IdPayload(id)));
}

absl::StatusOr<Exited> ShimHarness::RunDelete(const std::string& id) {
  ASSIGN_OR_RETURN(const std::string output, Run(id, {"-bundle", BundleOf(id), "delete"}, ""));
  return ParseExit(output, 2, 3);
}

bool Eventually(const std::function<bool()>& condition, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

std::string BuiltBinary(const std::string& name) {
  const char* directory = ::getenv("GANTRY_BIN");
  return absl::StrCat(directory == nullptr ? "build/dev/bin" : directory, "/", name);
}

}  // namespace gantry::shim::testing
