#include "shim/command_runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"

extern char** environ;

namespace gantry::shim {
namespace {

constexpr absl::Duration kConsolePatience = absl::Seconds(30);
constexpr absl::Duration kCommandPatience = absl::Minutes(5);
constexpr size_t kMaxLogBytes = 1 << 20;

std::vector<std::string> Environment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.push_back(*variable);
  return variables;
}

std::vector<std::string> CommonArguments(const std::string& binary, const RuntimeConfig& config) {
  std::vector<std::string> argv = {binary,
                                   "--root",
                                   StateRoot(config),
                                   "--log",
                                   absl::StrCat(config.bundle, "/log.json"),
                                   "--log-format",
                                   "json"};
  if (config.options.systemd_cgroup) argv.push_back("--systemd-cgroup");
  return argv;
}

// What the runtime has to say about its failure: the last error of its log, else its stderr.
std::string FailureText(const std::string& log_path, const std::string& stderr_path) {
  std::string text;
  if (const absl::StatusOr<std::string> log = sys::ReadFile(log_path, kMaxLogBytes); log.ok()) {
    for (absl::string_view line : absl::StrSplit(*log, '\n', absl::SkipEmpty())) {
      const absl::StatusOr<json::Document> entry = json::Document::Parse(line);
      std::string level, message;
      if (entry.ok() && entry->root().Optional("level", &level).ok() &&
          entry->root().Optional("msg", &message).ok() && level == "error") {
        text = message;
      }
    }
  }
  if (text.empty()) {
    if (const absl::StatusOr<std::string> said = sys::ReadFile(stderr_path, kMaxLogBytes);
        said.ok()) {
      text = std::string(absl::StripSuffix(*said, "\n"));
    }
  }
  return text.empty() ? "it gave no reason" : text;
}

// Each hierarchy as the kernel has it for this process.
absl::StatusOr<cgroup::Cgroup> CgroupOf(pid_t pid) {
  ASSIGN_OR_RETURN(const cgroup::Layout layout, cgroup::Layout::Detect());
  ASSIGN_OR_RETURN(const std::string table, sys::ReadFile(absl::StrCat("/proc/", pid, "/cgroup")));
  std::vector<cgroup::Directory> directories;
  for (absl::string_view line : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    for (const cgroup::Hierarchy& hierarchy : layout.hierarchies) {
      if (hierarchy.controllers != fields[1] || fields[2] == "/") continue;
      directories.push_back(
          {absl::StrCat(hierarchy.mount_point, fields[2]), hierarchy.controllers});
    }
  }
  return cgroup::Cgroup(layout.mode, std::move(directories));
}

class CommandRuntime : public OciRuntime {
 public:
  CommandRuntime(sys::EventLoop& loop, Reaper& reaper, std::string binary, RuntimeConfig config)
      : loop_(loop), reaper_(reaper), binary_(std::move(binary)), config_(std::move(config)) {}

  ~CommandRuntime() override { *alive_ = false; }

  void Create(const ProgramStdio& stdio, bool terminal, Done<Spawned> done) override {
    const std::string pid_file = absl::StrCat(config_.bundle, "/init.pid");
    std::vector<std::string> arguments = {"create", "--bundle", config_.bundle, "--pid-file",
                                          pid_file};
    if (config_.options.no_pivot_root) arguments.push_back("--no-pivot");
    if (config_.options.no_new_keyring) arguments.push_back("--no-new-keyring");
    Make("create", std::move(arguments), config_.id, pid_file, stdio, terminal,
         [this, done = std::move(done)](absl::StatusOr<Spawned> spawned) {
           if (spawned.ok()) {
             const absl::Status status = LearnInit(spawned->pid);
             if (!status.ok()) spawned = status;
           }
           done(std::move(spawned));
         });
  }

  void Start(Done<std::vector<StepTiming>> done) override {
    const int64_t began = sys::MonotonicNanos();
    Run("start", {"start", config_.id}, {},
        [done = std::move(done), began](const absl::Status& status) {
          if (!status.ok()) {
            done(status);
            return;
          }
          done(std::vector<StepTiming>{{"runtime.start", (sys::MonotonicNanos() - began) / 1000}});
        });
  }

  void Exec(const std::string& exec_id, const std::string& process, const ProgramStdio& stdio,
            bool terminal, Done<Spawned> done) override {
    const std::string pid_file = absl::StrCat(config_.bundle, "/", exec_id, ".pid");
    const std::string spec_file = absl::StrCat(config_.bundle, "/", exec_id, ".process.json");
    if (const absl::Status status = sys::WriteFileAtomically(spec_file, process); !status.ok()) {
      done(status);
      return;
    }
    std::vector<std::string> arguments = {"exec",       "--process", spec_file,
                                          "--pid-file", pid_file,    "--detach"};
    if (terminal) arguments.push_back("--tty");
    Make("exec", std::move(arguments), config_.id, pid_file, stdio, terminal,
         [spec_file, pid_file, done = std::move(done)](absl::StatusOr<Spawned> spawned) {
           (void)sys::Unlink(spec_file);
           (void)sys::Unlink(pid_file);
           done(std::move(spawned));
         });
  }

  void Kill(int signal, bool all, DoneStatus done) override {
    std::vector<std::string> arguments = {"kill"};
    if (all) arguments.push_back("--all");
    arguments.push_back(config_.id);
    arguments.push_back(absl::StrCat(signal));
    Run("kill", std::move(arguments), {}, std::move(done));
  }
  void Pause(DoneStatus done) override { Run("pause", {"pause", config_.id}, {}, std::move(done)); }
  void Resume(DoneStatus done) override {
    Run("resume", {"resume", config_.id}, {}, std::move(done));
  }
  void Update(const std::string& resources, DoneStatus done) override {
    const std::string file = absl::StrCat(config_.bundle, "/resources.json");
    if (const absl::Status status = sys::WriteFileAtomically(file, resources); !status.ok()) {
      done(status);
      return;
    }
    Run("update", {"update", "--resources", file, config_.id}, {},
        [file, done = std::move(done)](const absl::Status& status) {
          (void)sys::Unlink(file);
          done(status);
        });
  }
  void Delete(bool force, DoneStatus done) override {
    std::vector<std::string> arguments = {"delete"};
    if (force) arguments.push_back("--force");
    arguments.push_back(config_.id);
    Run("delete", std::move(arguments), {}, std::move(done));
  }

  const cgroup::Cgroup& cgroup() const override { return cgroup_; }
  bool has_own_pid_namespace() const override { return own_pid_namespace_; }

 private:
  // A command that makes a process: its pid comes in a file, its terminal over a socket.
  struct Making {
    sys::UniqueFd listener;
    sys::EventLoop::Watch watch = 0;
    sys::EventLoop::Timer timer = 0;
    std::string socket_path;
    sys::UniqueFd console;
    bool ended = false;
    absl::Status status;
    Done<Spawned> done;
  };

  void Make(const std::string& name, std::vector<std::string> arguments, const std::string& id,
            const std::string& pid_file, const ProgramStdio& stdio, bool terminal,
            Done<Spawned> done) {
    auto making = std::make_shared<Making>();
    making->done = std::move(done);
    (void)sys::Unlink(pid_file);
    absl::Status status;
    if (terminal) status = OpenConsoleSocket(*making, pid_file, &arguments);
    if (!status.ok()) {
      making->done(status);
      return;
    }
    arguments.push_back(id);
    reaper_.HoldUnknown();
    Run(name, std::move(arguments), terminal ? ProgramStdio{} : stdio,
        [this, making, pid_file](const absl::Status& status) {
          making->ended = true;
          making->status = status;
          Finish(making, pid_file);
        });
    if (terminal && !making->ended) {
      absl::StatusOr<sys::EventLoop::Watch> watch =
          loop_.Add(making->listener.get(), EPOLLIN, [this, making, pid_file](uint32_t) {
            ReceiveConsole(*making);
            Finish(making, pid_file);
          });
      if (watch.ok()) making->watch = *watch;
    }
  }

  absl::Status OpenConsoleSocket(Making& making, const std::string& pid_file,
                                 std::vector<std::string>* arguments) {
    // A short name: bundles lie deep, and socket paths end at 107 bytes.
    making.socket_path = absl::StrCat("/run/gantry-console-", ::getpid(), "-", ++sockets_, ".sock");
    ASSIGN_OR_RETURN(making.listener, sys::ListenUnix(making.socket_path, 1));
    arguments->push_back("--console-socket");
    arguments->push_back(making.socket_path);
    return absl::OkStatus();
  }

  void ReceiveConsole(Making& making) {
    loop_.Remove(std::exchange(making.watch, 0));
    absl::StatusOr<sys::UniqueFd> connection = sys::Accept(making.listener);
    if (!connection.ok()) return;
    absl::StatusOr<sys::ReceivedMessage> message = sys::ReceiveDescriptors(*connection, 4096);
    if (message.ok() && !message->descriptors.empty()) {
      making.console = std::move(message->descriptors.front());
    }
  }

  // Through when the command has ended and, with a terminal, its master is here.
  void Finish(const std::shared_ptr<Making>& making, const std::string& pid_file) {
    if (!making->ended || !making->done) return;
    const bool wants_console = making->listener.ok() && making->status.ok();
    if (wants_console && !making->console.ok()) {
      if (making->timer == 0) {
        making->timer = loop_.After(kConsolePatience, [this, making, pid_file] {
          making->status =
              absl::DeadlineExceededError(absl::StrCat(binary_, " sent no terminal in 30 seconds"));
          Finish(making, pid_file);
        });
      }
      return;
    }
    loop_.Cancel(making->timer);
    loop_.Remove(std::exchange(making->watch, 0));
    if (!making->socket_path.empty()) (void)sys::Unlink(making->socket_path);
    const Done<Spawned> done = std::move(making->done);
    making->done = nullptr;
    absl::StatusOr<Spawned> spawned =
        making->status.ok() ? Adopt(pid_file) : absl::StatusOr<Spawned>(making->status);
    if (spawned.ok()) spawned->console = std::move(making->console);
    done(std::move(spawned));
    // After `done` has begun to watch the pid: it may have ended already.
    reaper_.ReleaseUnknown();
  }

  absl::StatusOr<Spawned> Adopt(const std::string& pid_file) {
    ASSIGN_OR_RETURN(const std::string text, sys::ReadFile(pid_file, 64));
    Spawned spawned;
    if (!absl::SimpleAtoi(text, &spawned.pid) || spawned.pid <= 0) {
      return absl::InternalError(absl::StrCat(binary_, " wrote no pid into '", pid_file, "'"));
    }
    // It may have ended, and been reaped: then there is nothing to signal any more.
    absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(spawned.pid);
    if (pidfd.ok()) {
      spawned.pidfd = *std::move(pidfd);
    } else if (!absl::IsNotFound(pidfd.status())) {
      return pidfd.status();
    }
    return spawned;
  }

  absl::Status LearnInit(pid_t pid) {
    if (absl::StatusOr<cgroup::Cgroup> cgroup = CgroupOf(pid); cgroup.ok()) {
      cgroup_ = *std::move(cgroup);
    }
    struct stat own, theirs;
    own_pid_namespace_ = ::stat("/proc/self/ns/pid", &own) == 0 &&
                         ::stat(absl::StrCat("/proc/", pid, "/ns/pid").c_str(), &theirs) == 0 &&
                         own.st_ino != theirs.st_ino;
    return absl::OkStatus();
  }

  void Run(const std::string& name, std::vector<std::string> arguments, const ProgramStdio& stdio,
           DoneStatus done) {
    sys::SpawnOptions spawn;
    spawn.argv = CommonArguments(binary_, config_);
    spawn.argv.insert(spawn.argv.end(), arguments.begin(), arguments.end());
    spawn.environment = Environment();
    spawn.working_directory = config_.bundle;
    spawn.new_process_group = true;
    const std::string log_path = absl::StrCat(config_.bundle, "/log.json");
    const std::string stderr_path = absl::StrCat(config_.bundle, "/runtime.stderr");
    (void)sys::Unlink(log_path);
    (void)sys::Unlink(stderr_path);
    sys::UniqueFd stderr_file;
    if (stdio.in >= 0) spawn.descriptors.emplace_back(stdio.in, 0);
    if (stdio.out >= 0) spawn.descriptors.emplace_back(stdio.out, 1);
    if (stdio.err >= 0) {
      spawn.descriptors.emplace_back(stdio.err, 2);
    } else if (absl::StatusOr<sys::UniqueFd> file =
                   sys::Open(stderr_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
               file.ok() && name != "create" && name != "exec") {
      stderr_file = *std::move(file);
      spawn.descriptors.emplace_back(stderr_file.get(), 2);
    }
    absl::Status status = FAILPOINT("shim.runtime.command");
    absl::StatusOr<sys::Child> child = status.ok() ? sys::Spawn(spawn) : status;
    if (!child.ok()) {
      done(Annotate(child.status(), absl::StrCat("run ", binary_, " ", name)));
      return;
    }
    const pid_t pid = child->pid();
    auto pidfd = std::make_shared<sys::UniqueFd>(::fcntl(child->pidfd().get(), F_DUPFD_CLOEXEC, 3));
    child->Release();  // The reaper's.
    const sys::EventLoop::Timer timer =
        loop_.After(kCommandPatience, [pidfd] { (void)sys::SignalPidfd(*pidfd, SIGKILL); });
    reaper_.Watch(pid, [alive = alive_, name, log_path, stderr_path, timer, &loop = loop_,
                        done = std::move(done)](const ChildExit& exit) {
      loop.Cancel(timer);
      if (!*alive) return;
      if (exit.status.code == 0) {
        done(absl::OkStatus());
        return;
      }
      done(absl::UnknownError(
          absl::StrCat("OCI runtime ", name, " failed: ", FailureText(log_path, stderr_path))));
    });
  }

  sys::EventLoop& loop_;
  Reaper& reaper_;
  const std::string binary_;
  const RuntimeConfig config_;
  cgroup::Cgroup cgroup_;
  bool own_pid_namespace_ = true;
  int sockets_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

absl::StatusOr<std::string> FindBinary(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = ::getenv("PATH");
  for (absl::string_view directory : absl::StrSplit(
           path == nullptr ? "/usr/sbin:/usr/bin:/sbin:/bin" : path, ':', absl::SkipEmpty())) {
    std::string candidate = absl::StrCat(directory, "/", name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(
      absl::StrCat("OCI runtime '", name, "' is not in PATH; install it or name its path"));
}

absl::Status ForceDeleteByCommand(const std::string& binary, const RuntimeConfig& config) {
  sys::SpawnOptions spawn;
  spawn.argv = CommonArguments(binary, config);
  spawn.argv.insert(spawn.argv.end(), {"delete", "--force", config.id});
  spawn.environment = Environment();
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(spawn));
  ASSIGN_OR_RETURN(const sys::ExitStatus exit, child.Wait(absl::Seconds(10)));
  if (exit.code == 0) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat(
      binary, " delete failed: ", FailureText(absl::StrCat(config.bundle, "/log.json"), "")));
}

std::unique_ptr<OciRuntime> MakeCommandRuntime(sys::EventLoop& loop, Reaper& reaper,
                                               std::string binary, RuntimeConfig config) {
  return std::make_unique<CommandRuntime>(loop, reaper, std::move(binary), std::move(config));
}

}  // namespace gantry::shim
