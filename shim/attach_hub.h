// Clients attached to one process, and the door they come in by. Protocol and rules:
// docs/formats/attach.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/attach/protocol.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "shim/log_writer.h"

namespace gantry::shim {

// Hands a process's output to its attached clients, and their input to it. Output goes through
// Output(); blocked() says when the owner should stop reading the process: a client with flow
// control is behind, or output is held for the first client and there is no more room.
// Single-threaded.
class AttachHub {
 public:
  static constexpr size_t kHoldBytes = 64 << 10;
  static constexpr size_t kFlowControlBytes = 64 << 10;
  static constexpr size_t kMaxQueuedBytes = 256 << 10;
  static constexpr size_t kMaxClients = 64;

  // What the hub asks of the process it belongs to. Outlives the hub.
  class Process {
   public:
    virtual ~Process() = default;
    virtual attach::Accepted Describe() const = 0;
    virtual void Input(absl::string_view bytes) = 0;
    virtual void CloseInput() = 0;
    virtual bool InputFull() const = 0;
    virtual void Resize(uint16_t columns, uint16_t rows) = 0;
    // blocked() may have become false, or idle() true.
    virtual void HubChanged() = 0;
  };

  AttachHub(sys::EventLoop& loop, Process& process) : loop_(loop), process_(process) {}
  ~AttachHub();

  // Keeps output for the first client. A process that runs without one for `patience` (from
  // StartWaiting) is no longer held up, and what was kept is forgotten.
  void Hold() { holding_ = true; }
  void StartWaiting(absl::Duration patience);

  void Add(sys::UniqueFd socket, attach::FrameParser parser, const attach::Hello& hello);
  void Output(StreamName stream, absl::string_view bytes);
  void InputDrained();                    // InputFull() has become false.
  void Finish(const attach::Exit& exit);  // After the last Output.

  bool blocked() const;
  // Everything has been sent to everybody, and no first client is waited for: what was kept for it
  // would be lost with the process' deletion.
  bool idle() const;
  size_t client_count() const { return clients_.size(); }

 private:
  struct Client {
    sys::UniqueFd socket;
    sys::EventLoop::Watch watch = 0;
    uint32_t watched_events = 0;
    attach::FrameParser parser;
    attach::Hello hello;
    std::string out;
    uint64_t lost = 0;
    bool closing = false;  // Close once `out` is sent.
  };

  void Deliver(Client& client, StreamName stream, absl::string_view bytes);
  void OnEvents(uint64_t id, uint32_t events);
  void Read(uint64_t id);
  bool Handle(Client& client, const attach::Frame& frame);
  void Flush(uint64_t id);
  void UpdateWatch(Client& client);
  void Close(uint64_t id);

  sys::EventLoop& loop_;
  Process& process_;
  std::map<uint64_t, Client> clients_;
  uint64_t next_id_ = 1;
  bool holding_ = false;
  sys::EventLoop::Timer patience_ = 0;
  std::vector<std::pair<StreamName, std::string>> held_;
  size_t held_bytes_ = 0;
  std::optional<attach::Exit> exit_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Takes connections that are not ttrpc, reads magic and HELLO, and brings each to its hub. Who does
// not say hello within ten seconds is sent away. Single-threaded.
class AttachDoor {
 public:
  using Finder = std::function<absl::StatusOr<AttachHub*>(const attach::Hello& hello)>;
  AttachDoor(sys::EventLoop& loop, Finder finder) : loop_(loop), finder_(std::move(finder)) {}
  ~AttachDoor();

  void Admit(sys::UniqueFd socket);

 private:
  struct Guest {
    sys::UniqueFd socket;
    sys::EventLoop::Watch watch = 0;
    sys::EventLoop::Timer timer = 0;
    std::string magic;
    attach::FrameParser parser;
  };
  void Read(uint64_t id);
  void Dismiss(uint64_t id);

  sys::EventLoop& loop_;
  Finder finder_;
  std::map<uint64_t, Guest> guests_;
  uint64_t next_id_ = 1;
};

}  // namespace gantry::shim
