// containerd.runtime.sandbox.v1.Sandbox: the RPCs around the sandbox of this shim, of which there
// is one at most.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/sys/event_loop.h"
#include "lib/ttrpc/server.h"
#include "shim/reaper.h"
#include "shim/sandbox.h"
#include "shim/task_service.h"

namespace gantry::shim {

inline constexpr char kSandboxService[] = "containerd.runtime.sandbox.v1.Sandbox";

// Reads requests, asks the sandbox, writes answers. Single-threaded.
class SandboxService {
 public:
  // While there is a sandbox, `tasks` does not end the shim with its last container; `shut_down` is
  // called after ShutdownSandbox was answered.
  SandboxService(sys::EventLoop& loop, Reaper& reaper, TaskService& tasks, std::string ns,
                 std::string seccomp_cache, std::function<void()> shut_down);
  ~SandboxService();

  // For ttrpc::Server.
  void Handle(const ttrpc::Request& request, const ttrpc::Responder& responder);

 private:
  using Method = void (SandboxService::*)(absl::string_view payload,
                                          const ttrpc::Responder& responder);
  static Method FindMethod(absl::string_view name);

  void CreateSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void StartSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void Platform(absl::string_view payload, const ttrpc::Responder& responder);
  void StopSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void WaitSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void SandboxStatus(absl::string_view payload, const ttrpc::Responder& responder);
  void PingSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void ShutdownSandbox(absl::string_view payload, const ttrpc::Responder& responder);
  void SandboxMetrics(absl::string_view payload, const ttrpc::Responder& responder);

  // Errors: NotFound — another one, or none.
  absl::StatusOr<Sandbox*> Find(absl::string_view payload);
  void Drop();

  sys::EventLoop& loop_;
  Reaper& reaper_;
  TaskService& tasks_;
  const std::string ns_;
  const std::string seccomp_cache_;
  const std::function<void()> shut_down_;
  std::unique_ptr<Sandbox> sandbox_;
};

}  // namespace gantry::shim
