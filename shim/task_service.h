// RPCs of containers: containerd.task.v2.Task and v3.Task (equal), and gantry.shim.v1.Logs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lib/attach/protocol.h"
#include "lib/sys/event_loop.h"
#include "lib/ttrpc/server.h"
#include "shim/container.h"
#include "shim/publisher.h"
#include "shim/reaper.h"

namespace gantry::shim {

// Reads requests, asks the container, writes answers. Single-threaded.
class TaskService {
 public:
  // `shut_down` is called after a Shutdown that ends the shim was answered.
  TaskService(sys::EventLoop& loop, Reaper& reaper, Publisher& publisher, std::string ns,
              std::string seccomp_cache, std::function<void()> shut_down);
  ~TaskService();

  // For ttrpc::Server.
  void Handle(const ttrpc::Request& request, const ttrpc::Responder& responder);
  // For AttachDoor.
  absl::StatusOr<AttachHub*> FindHub(const attach::Hello& hello);

  // Held, the shim does not end with its last container.
  void Hold(bool held) { held_ = held; }
  // Kills and deletes all containers; `done` when none is left that could be.
  void EndAll(std::function<void()> done);

 private:
  using Method = void (TaskService::*)(absl::string_view payload,
                                       const ttrpc::Responder& responder);
  static Method FindMethod(absl::string_view name);

  void Create(absl::string_view payload, const ttrpc::Responder& responder);
  void Start(absl::string_view payload, const ttrpc::Responder& responder);
  void Delete(absl::string_view payload, const ttrpc::Responder& responder);
  void State(absl::string_view payload, const ttrpc::Responder& responder);
  void Wait(absl::string_view payload, const ttrpc::Responder& responder);
  void Kill(absl::string_view payload, const ttrpc::Responder& responder);
  void Exec(absl::string_view payload, const ttrpc::Responder& responder);
  void Pids(absl::string_view payload, const ttrpc::Responder& responder);
  void Pause(absl::string_view payload, const ttrpc::Responder& responder);
  void Resume(absl::string_view payload, const ttrpc::Responder& responder);
  void Checkpoint(absl::string_view payload, const ttrpc::Responder& responder);
  void Update(absl::string_view payload, const ttrpc::Responder& responder);
  void Stats(absl::string_view payload, const ttrpc::Responder& responder);
  void ResizePty(absl::string_view payload, const ttrpc::Responder& responder);
  void CloseIo(absl::string_view payload, const ttrpc::Responder& responder);
  void Connect(absl::string_view payload, const ttrpc::Responder& responder);
  void Shutdown(absl::string_view payload, const ttrpc::Responder& responder);
  void ReopenLogs(absl::string_view payload, const ttrpc::Responder& responder);

  absl::StatusOr<Container*> Find(const std::string& id);
  void Drop(const std::string& id);

  sys::EventLoop& loop_;
  Reaper& reaper_;
  Publisher& publisher_;
  const std::string ns_;
  const std::string seccomp_cache_;
  const std::function<void()> shut_down_;
  std::map<std::string, std::unique_ptr<Container>> containers_;
  bool held_ = false;
};

}  // namespace gantry::shim
