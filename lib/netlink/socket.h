// A raw netlink socket and the batches of requests it carries out. Own code instead of libnl: what
// a container needs is a dozen messages, and several of them in one sendmsg(2) is what libnl does
// not do.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::netlink {

// Requests, one after the other, as the kernel wants them. Begin starts a request, the Put
// functions add to the one begun last.
//
//   Batch batch;
//   batch.Begin(RTM_SETLINK, 0, "set 'lo' up");
//   batch.PutStruct(ifinfomsg{...});
//   batch.PutString(IFLA_IFNAME, "lo");
//   RETURN_IF_ERROR(socket.Execute(batch));
//
// Thread-compatible.
class Batch {
 public:
  // `attempt` says what it is about, for errors. Every request is acknowledged by the kernel.
  // `tolerated` is an errno that counts as success (EEXIST, ENODEV), 0 none.
  void Begin(uint16_t type, uint16_t flags, absl::string_view attempt, int tolerated = 0);

  // As Begin for messages that the kernel does not answer (the brackets of an nfnetlink batch).
  void BeginUnanswered(uint16_t type, uint16_t flags);

  template <typename Struct>
  void PutStruct(const Struct& value) {
    Append(&value, sizeof(value));
  }
  void PutBytes(uint16_t attribute, absl::string_view bytes);
  void PutString(uint16_t attribute, absl::string_view text);  // With its terminating 0.
  void PutU32(uint16_t attribute, uint32_t value);
  void PutFlag(uint16_t attribute) { PutBytes(attribute, ""); }

  // Attributes put between the two are inside. The value goes from one to the other.
  [[nodiscard]] size_t OpenNest(uint16_t attribute);
  void CloseNest(size_t nest);

  bool empty() const { return requests_.empty(); }

 private:
  friend class Socket;
  struct Request {
    size_t offset;  // Of its header in bytes_.
    std::string attempt;
    int tolerated;
    bool answered;
  };

  void Append(const void* data, size_t size);

  std::string bytes_;
  std::vector<Request> requests_;
};

// The attributes of a message received, by number.
class Attributes {
 public:
  // `bytes` is what follows the fixed part of a message, or the payload of a nest.
  explicit Attributes(absl::string_view bytes);

  // The payload; null data when absent.
  absl::string_view Get(uint16_t attribute) const;
  bool Has(uint16_t attribute) const { return Get(attribute).data() != nullptr; }
  uint32_t GetU32(uint16_t attribute) const;  // 0 when absent.
  std::string GetString(uint16_t attribute) const;

 private:
  std::vector<std::pair<uint16_t, absl::string_view>> all_;
};

// Calls `each` for the attributes in `bytes`, which may repeat, in their order.
void ForEachAttribute(absl::string_view bytes,
                      const std::function<void(uint16_t, absl::string_view)>& each);

// Calls `each` with header and body of the messages in a datagram.
void ForEachMessage(absl::string_view datagram,
                    const std::function<void(const nlmsghdr&, absl::string_view)>& each);

// One netlink socket. It belongs to the network namespace of the thread that opened it, and works
// on that one from any thread. Thread-compatible.
class Socket {
 public:
  // `protocol`: NETLINK_ROUTE, NETLINK_NETFILTER.
  static absl::StatusOr<Socket> Open(int protocol);

  // Sends all requests in one system call and waits for all answers. The kernel goes on after a
  // request that failed (rtnetlink) or drops them all (nfnetlink); either way the first error is
  // returned. Errors: what the kernel said, with its own explanation where it gives one;
  // DeadlineExceeded — no answer for half a minute.
  absl::Status Execute(Batch& batch);

  // Sends the one request of `batch` as a dump (or a single get) and hands each answer's message
  // type and body (without its header) to `each`. A dump that was disturbed by a change is
  // repeated, after `restart` has been called to forget what came so far.
  absl::Status Query(Batch& batch, const std::function<void(uint16_t, absl::string_view)>& each,
                     const std::function<void()>& restart);

  const sys::UniqueFd& fd() const { return fd_; }
  // Its own address, by which others see who made a change.
  uint32_t port() const { return port_; }

 private:
  Socket(sys::UniqueFd fd, uint32_t port) : fd_(std::move(fd)), port_(port) {}
  absl::Status Send(Batch& batch);
  // One datagram into buffer_. `what` is for the error.
  absl::StatusOr<absl::string_view> Receive(absl::string_view what);
  absl::Status QueryOnce(Batch& batch, const std::function<void(uint16_t, absl::string_view)>& each,
                         bool* interrupted);

  sys::UniqueFd fd_;
  uint32_t port_;
  uint32_t sequence_ = 0;
  std::string buffer_;
};

}  // namespace gantry::netlink
