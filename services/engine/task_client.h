// gantry-task as the engine uses it: the running halves of containers.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/services/tasks/v1/tasks.grpc.pb.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/task/v1/task.grpc.pb.h"

namespace gantry::engine {

// How a process ended.
struct TaskExit {
  int32_t code = 0;
  absl::Time exited_at;
};

// What a run answers.
struct TaskAnswer {
  int64_t pid = 0;
  std::string shim_socket;  // Where the shim takes attach connections.
  std::vector<v1::StepTiming> timings;
};

// One task, as List and Get tell it.
struct TaskStatus {
  std::string container_id;
  containerd::v1::types::Status status = containerd::v1::types::UNKNOWN;
  int64_t pid = 0;
  TaskExit exit;
  std::string shim_socket;  // Get only.
};

struct TaskStdio {
  std::string in, out, err;  // As Tasks.Create takes them; empty: none.
  bool terminal = false;
};

// What Run starts.
struct TaskRun {
  std::string spec;     // config.json; empty: as recorded, and `runtime` does not count.
  std::string runtime;  // Name.
  std::vector<containerd::types::Mount> rootfs;
  TaskStdio stdio;
  uint32_t rows = 0, columns = 0;  // Of the terminal; 0: as it is.
};

inline constexpr char kShimAddressHeader[] = "gantry-shim-address";

// "step=microseconds" joined by ';', deeper ones after as many '>' (docs/formats/shim-timings.md);
// what does not look like that is left out.
std::vector<v1::StepTiming> ParseTimings(absl::string_view text);

// Thread-safe. `exec_id` is empty for the container's own process.
class TaskClient {
 public:
  using ExitCallback = std::function<void(absl::StatusOr<TaskExit>)>;

  // Waits park on a channel of their own, so that a thousand of them hold up nothing.
  TaskClient(const std::shared_ptr<grpc::Channel>& channel,
             const std::shared_ptr<grpc::Channel>& wait_channel, std::string namespace_name);
  ~TaskClient();

  // Creates and starts the container's task. On errors `*created` says whether there is one that
  // was not started; when the answer was lost, there may be one in any case.
  absl::StatusOr<TaskAnswer> Run(const std::string& id, const TaskRun& run, bool* created);

  // Fine when there is none: safe to repeat. Errors: FailedPrecondition — it runs.
  absl::Status Delete(const std::string& id);
  absl::Status DeleteProcess(const std::string& id, const std::string& exec_id);

  // Errors: NotFound — gone already.
  absl::Status Kill(const std::string& id, const std::string& exec_id, int signal,
                    bool all = false);
  absl::Status Pause(const std::string& id);
  absl::Status Resume(const std::string& id);
  // Starts one more process; answers its pid. After an error there may be one that was not started.
  absl::StatusOr<int64_t> Exec(const std::string& id, const std::string& exec_id,
                               const std::string& process_json, const TaskStdio& stdio);
  absl::Status Resize(const std::string& id, const std::string& exec_id, uint32_t rows,
                      uint32_t columns);
  absl::Status CloseStdin(const std::string& id, const std::string& exec_id);
  absl::StatusOr<std::vector<int64_t>> ListPids(const std::string& id);
  absl::StatusOr<TaskStatus> Get(const std::string& id);
  absl::StatusOr<std::vector<TaskStatus>> List();

  // Calls back on a thread of gRPC when the process has ended, or with NotFound when there is no
  // such process. A task service that dies meanwhile is waited for, and asked again. After
  // CancelWaits the answer is Cancelled.
  void Wait(const std::string& id, const std::string& exec_id, ExitCallback callback);

  // Ends all waits, now and to come, and returns when their callbacks have returned.
  void CancelWaits();

 private:
  struct PendingWait;
  void SendWait(std::shared_ptr<PendingWait> wait);

  const std::string namespace_;
  std::unique_ptr<containerd::services::tasks::v1::Tasks::Stub> tasks_;
  std::unique_ptr<task::v1::Runs::Stub> runs_;
  std::unique_ptr<containerd::services::tasks::v1::Tasks::Stub> waits_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<PendingWait*, grpc::ClientContext*> pending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::engine
