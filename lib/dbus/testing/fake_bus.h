// The other end of a D-Bus connection, for tests: a socket, the authentication, and answers that a
// function of the test's makes.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "lib/dbus/message.h"
#include "lib/sys/unique_fd.h"

namespace gantry::dbus {

// Thread-safe. Serves one connection after the other in a thread of its own.
class FakeBus {
 public:
  // What to send for one call, in order: replies (MakeReply), errors, signals.
  struct Answer {
    Message message;
    std::vector<Value> body;
  };
  using Handler = std::function<std::vector<Answer>(const Message& call)>;

  // Listens at `path`. `says_to_authentication` are its answers there.
  FakeBus(const std::string& path, Handler handler,
          std::string says_to_authentication = "DATA\r\nOK 0123\r\n");
  ~FakeBus();

  static Answer Reply(const Message& call, std::vector<Value> body = {});
  static Answer Error(const Message& call, std::string name, std::string text);
  static Answer Signal(std::string path, std::string interface, std::string member,
                       std::vector<Value> body);

 private:
  void Serve();
  void ServeOne(const sys::UniqueFd& socket);

  sys::UniqueFd listener_, stop_;
  Handler handler_;
  std::string says_to_authentication_;
  std::thread thread_;
};

}  // namespace gantry::dbus
