// A shim for tests of the supervisor: speaks the whole protocol, runs nothing. It behaves as its
// bundle's config.json tells it by a word in it:
//   create-fails     Create answers an error           create-dies   the shim dies in Create
//   hangs            State is never answered           refuses-params  `start` wants the options
//   alone start-fails      `start` exits with 1 and a text
//   refuses-to-run   Start answers an error
// Its tasks' pids are made up. "Kill" stops the task with 128 + signal.
//
// Named containerd-shim-gantry-v2 it is spawned in its serving form; under any other name it is
// started by `start` as a stranger's.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/sys/event_loop.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/client.h"
#include "lib/ttrpc/minipb.h"
#include "lib/ttrpc/server.h"

namespace {

using gantry::pb::Reader;
using gantry::pb::Writer;

struct Arguments {
  std::string ns, id, address, bundle, action;
};

Arguments ParseArguments(int argc, char** argv) {
  Arguments arguments;
  const std::map<std::string, std::string*> flags = {{"-namespace", &arguments.ns},
                                                     {"-id", &arguments.id},
                                                     {"-address", &arguments.address},
                                                     {"-bundle", &arguments.bundle}};
  std::string ignored;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    auto flag = flags.find(word);
    if (flag != flags.end() && i + 1 < argc) {
      *flag->second = argv[++i];
    } else if (word == "-publish-binary") {
      ++i;
    } else if (word[0] != '-') {
      arguments.action = word;
    }
  }
  return arguments;
}

class FakeShim {
 public:
  FakeShim(gantry::sys::EventLoop& loop, Arguments arguments, std::string config)
      : loop_(loop),
        arguments_(std::move(arguments)),
        config_(std::move(config)),
        server_(loop, [this](const gantry::ttrpc::Request& request,
                             gantry::ttrpc::Responder responder) { Handle(request, responder); }) {
    const char* events = ::getenv("TTRPC_ADDRESS");
    if (events == nullptr) return;
    auto client = gantry::ttrpc::LoopClient::Connect(loop_, events, [] {});
    if (client.ok()) events_ = std::move(*client);
  }

  gantry::ttrpc::Server& server() { return server_; }

 private:
  bool Told(const char* word) const { return config_.find(word) != std::string::npos; }

  void Handle(const gantry::ttrpc::Request& request, const gantry::ttrpc::Responder& responder) {
    const std::string method(request.method);
    std::string exec_id;
    uint64_t third = 0;
    for (Reader reader(request.payload); reader.Next();) {
      if (reader.field() == 2 && method != "Create" && method != "Shutdown")
        exec_id = reader.text();
      if (reader.field() == 3) third = reader.varint();
    }
    std::string out;
    Writer writer(&out);
    if (method == "Connect") {
      writer.Varint(1, static_cast<uint64_t>(::getpid()));
      return responder.Reply(absl::OkStatus(), out);
    }
    if (method == "Shutdown") {
      responder.Reply(absl::OkStatus());
      loop_.Post([this] { Leave(); });
      return;
    }
    if (method == "Create") return Create(responder);
    if (!created_) return responder.Reply(absl::NotFoundError("no such task"));
    if (method == "State" && Told("hangs")) return;
    if (method == "State") return responder.Reply(absl::OkStatus(), State(exec_id));
    if (method == "Start") {
      if (Told("refuses-to-run"))
        return responder.Reply(absl::FailedPreconditionError("no such program"));
      running_ = true;
      Publish("/tasks/start", "containerd.events.TaskStart",
              [](Writer& event) { event.Varint(2, 4711); });
      writer.Varint(1, 4711);
      writer.Message(100, [](Writer& entry) {
        entry.String(1, "shim.start");
        entry.Varint(2, 1234);
      });
      return responder.Reply(absl::OkStatus(), out);
    }
    if (method == "Kill") {
      if (exited_) return responder.Reply(absl::NotFoundError("process has ended"));
      Exit(128 + third);
      return responder.Reply(absl::OkStatus());
    }
    if (method == "Wait") {
      if (exited_) return responder.Reply(absl::OkStatus(), WaitAnswer());
      waiters_.push_back(responder);
      return;
    }
    if (method == "Delete") {
      if (running_ && !exited_)
        return responder.Reply(absl::FailedPreconditionError("task is running"));
      created_ = false;
      writer.Varint(1, 4711);
      writer.Varint(2, code_);
      Time(writer, 3);
      Publish("/tasks/delete", "containerd.events.TaskDelete", [](Writer&) {});
      return responder.Reply(absl::OkStatus(), out);
    }
    if (method == "Stats") {
      writer.Message(1, [](Writer& any) { any.String(1, "io.containerd.cgroups.v2.Metrics"); });
      return responder.Reply(absl::OkStatus(), out);
    }
    responder.Reply(absl::OkStatus());
  }

  void Create(const gantry::ttrpc::Responder& responder) {
    if (Told("create-dies")) ::_exit(9);
    if (Told("create-fails")) return responder.Reply(absl::UnknownError("the fake refuses"));
    created_ = true;
    std::string out;
    Writer writer(&out);
    writer.Varint(1, 4711);
    Publish("/tasks/create", "containerd.events.TaskCreate", [](Writer&) {});
    responder.Reply(absl::OkStatus(), out);
  }

  std::string State(const std::string& exec_id) {
    std::string out;
    Writer writer(&out);
    writer.String(1, arguments_.id);
    writer.Varint(3, 4711);
    writer.Varint(4, exited_ ? 3 : running_ ? 2 : 1);
    writer.Varint(9, code_);
    if (exited_) Time(writer, 10);
    writer.String(11, exec_id);
    return out;
  }

  std::string WaitAnswer() {
    std::string out;
    Writer writer(&out);
    writer.Varint(1, code_);
    Time(writer, 2);
    return out;
  }

  void Exit(uint64_t code) {
    exited_ = true;
    code_ = code;
    at_ = ::time(nullptr);
    Publish("/tasks/exit", "containerd.events.TaskExit", [this](Writer& event) {
      event.String(2, arguments_.id);
      event.Varint(3, 4711);
      event.Varint(4, code_);
      Time(event, 5);
    });
    for (const auto& waiter : waiters_) waiter.Reply(absl::OkStatus(), WaitAnswer());
    waiters_.clear();
  }

  void Time(Writer& writer, uint32_t field) {
    writer.Message(field, [this](Writer& time) { time.Varint(1, static_cast<uint64_t>(at_)); });
  }

  template <typename Fill>
  void Publish(const char* topic, const char* type, Fill fill) {
    if (events_ == nullptr) return;
    std::string event;
    Writer event_writer(&event);
    event_writer.String(1, arguments_.id);
    fill(event_writer);
    std::string out;
    Writer writer(&out);
    writer.Message(1, [&](Writer& envelope) {
      envelope.String(2, arguments_.ns);
      envelope.String(3, topic);
      envelope.Message(4, [&](Writer& any) {
        any.String(1, type);
        any.String(2, event);
      });
    });
    ++unanswered_;
    events_->Call("containerd.services.events.ttrpc.v1.Events", "Forward", out, {},
                  absl::Seconds(5), [this](absl::StatusOr<std::string>) {
                    --unanswered_;
                    if (leaving_) Leave();
                  });
  }

  void Leave() {
    leaving_ = true;
    if (unanswered_ == 0 && server_.flushed()) ::_exit(0);
    if (unanswered_ == 0) loop_.After(absl::Milliseconds(5), [this] { Leave(); });
  }

  gantry::sys::EventLoop& loop_;
  const Arguments arguments_;
  const std::string config_;
  gantry::ttrpc::Server server_;
  std::unique_ptr<gantry::ttrpc::LoopClient> events_;
  std::vector<gantry::ttrpc::Responder> waiters_;
  bool created_ = false, running_ = false, exited_ = false, leaving_ = false;
  uint64_t code_ = 0;
  time_t at_ = 0;
  int unanswered_ = 0;
};

int Serve(const Arguments& arguments) {
  ::fcntl(3, F_SETFL, O_NONBLOCK);
  auto loop = gantry::sys::EventLoop::Create();
  if (!loop.ok()) return 1;
  FakeShim shim(**loop, arguments, gantry::sys::ReadFile("config.json").value_or(""));
  if (!shim.server().Listen(gantry::sys::UniqueFd(3)).ok()) return 1;
  return (*loop)->Run().ok() ? 0 : 1;
}

int Start(const Arguments& arguments, char** argv) {
  const std::string config = gantry::sys::ReadFile("config.json").value_or("");
  if (config.find("start-fails") != std::string::npos) {
    ::fprintf(stderr, "cannot do it\n");
    return 1;
  }
  const std::string input = gantry::sys::ReadAll(gantry::sys::UniqueFd(::dup(0))).value_or("");
  if (config.find("refuses-params") != std::string::npos &&
      input.find(arguments.id) != std::string::npos) {
    ::fprintf(stderr, "what is this\n");
    return 1;
  }
  char directory[4096];
  if (::getcwd(directory, sizeof directory) == nullptr) return 1;
  const std::string path = std::string(directory) + "/fake.sock";
  auto listener = gantry::sys::ListenUnix(path);
  if (!listener.ok()) return 1;
  if (::fork() == 0) {
    ::setsid();
    ::dup2(listener->get(), 3);
    ::fcntl(3, F_SETFD, 0);  // dup2 onto itself keeps close-on-exec.
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 0);
    ::dup2(null, 1);
    // Its log, as Go shims open it: this blocks unless the supervisor holds the fifo open.
    const int log = ::open("log", O_WRONLY);
    ::dup2(log, 2);
    ::fprintf(stderr, "fake shim serves\n");
    const char* words[] = {argv[0],
                           "-namespace",
                           arguments.ns.c_str(),
                           "-id",
                           arguments.id.c_str(),
                           "-address",
                           arguments.address.c_str(),
                           nullptr};
    ::execv(argv[0], const_cast<char**>(words));
    ::_exit(1);
  }
  ::printf("{\"version\":3,\"address\":\"unix://%s\",\"protocol\":\"ttrpc\"}", path.c_str());
  return 0;
}

int Delete(const Arguments& arguments) {
  // A mark for the test, beside the daemon's socket.
  const std::string mark =
      arguments.address.substr(0, arguments.address.rfind('/')) + "/deleted-" + arguments.id;
  ::close(::open(mark.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  std::string out;
  Writer writer(&out);
  writer.Varint(1, 4711);
  writer.Varint(2, 137);
  ::fwrite(out.data(), 1, out.size(), stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  const Arguments arguments = ParseArguments(argc, argv);
  if (arguments.action == "start") return Start(arguments, argv);
  if (arguments.action == "delete") return Delete(arguments);
  return Serve(arguments);
}
