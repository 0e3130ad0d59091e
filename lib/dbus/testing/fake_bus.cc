#include "lib/dbus/testing/fake_bus.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/sys/socket.h"

namespace gantry::dbus {
namespace {

// What arrives on `socket`, until the connection or the bus ends.
class Input {
 public:
  Input(int socket, int stop) : socket_(socket), stop_(stop) {}
  bool Fill(std::string& bytes) {
    pollfd polls[] = {{socket_, POLLIN, 0}, {stop_, POLLIN, 0}};
    if (::poll(polls, 2, -1) <= 0 || polls[1].revents != 0) return false;
    char part[4096];
    const ssize_t size = ::read(socket_, part, sizeof part);
    if (size > 0) bytes.append(part, static_cast<size_t>(size));
    return size > 0;
  }

 private:
  int socket_, stop_;
};

void Send(int socket, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

}  // namespace

FakeBus::FakeBus(const std::string& path, Handler handler, std::string says_to_authentication)
    : handler_(std::move(handler)), says_to_authentication_(std::move(says_to_authentication)) {
  auto listener = sys::ListenUnix(path);
  EXPECT_TRUE(listener.ok()) << listener.status();
  if (!listener.ok()) return;
  listener_ = *std::move(listener);
  stop_.Reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { Serve(); });
}

FakeBus::~FakeBus() {
  const uint64_t one = 1;
  EXPECT_EQ(::write(stop_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  if (thread_.joinable()) thread_.join();
}

void FakeBus::Serve() {
  for (;;) {
    pollfd polls[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(polls, 2, -1) <= 0 || polls[1].revents != 0) return;
    auto socket = sys::Accept(listener_);
    if (socket.ok()) ServeOne(*socket);
  }
}

void FakeBus::ServeOne(const sys::UniqueFd& socket) {
  Input input(socket.get(), stop_.get());
  std::string bytes;
  while (!absl::StrContains(bytes, "BEGIN\r\n")) {
    if (!input.Fill(bytes)) return;
  }
  EXPECT_TRUE(absl::StartsWith(bytes, absl::string_view("\0AUTH EXTERNAL\r\nDATA\r\n", 22)));
  Send(socket.get(), says_to_authentication_);
  bytes.erase(0, bytes.find("BEGIN\r\n") + 7);
  for (;;) {
    auto length = bytes.size() < kFixedHeaderBytes ? absl::StatusOr<size_t>(kFixedHeaderBytes)
                                                   : MessageLength(bytes);
    if (!length.ok()) return;
    if (bytes.size() < kFixedHeaderBytes || bytes.size() < *length) {
      if (!input.Fill(bytes)) return;
      continue;
    }
    auto call = ReadMessage(absl::string_view(bytes).substr(0, *length));
    bytes.erase(0, *length);
    EXPECT_TRUE(call.ok()) << call.status();
    if (!call.ok()) return;
    uint32_t serial = call->serial * 100;
    for (Answer& answer : handler_(*call)) {
      answer.message.serial = ++serial;
      Send(socket.get(), WriteMessage(answer.message, answer.body));
    }
  }
}

FakeBus::Answer FakeBus::Reply(const Message& call, std::vector<Value> body) {
  Answer answer;
  answer.message.type = MessageType::kReply;
  answer.message.reply_serial = call.serial;
  answer.body = std::move(body);
  return answer;
}

FakeBus::Answer FakeBus::Error(const Message& call, std::string name, std::string text) {
  Answer answer;
  answer.message.type = MessageType::kError;
  answer.message.reply_serial = call.serial;
  answer.message.error_name = std::move(name);
  answer.body = {Value::String(text)};
  return answer;
}

FakeBus::Answer FakeBus::Signal(std::string path, std::string interface, std::string member,
                                std::vector<Value> body) {
  Answer answer;
  answer.message.type = MessageType::kSignal;
  answer.message.path = std::move(path);
  answer.message.interface = std::move(interface);
  answer.message.member = std::move(member);
  answer.body = std::move(body);
  return answer;
}

}  // namespace gantry::dbus
