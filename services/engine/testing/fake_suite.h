// The other processes of the suite, as far as the engine sees them: gantry-metadata, gantry-image
// and gantry-task in one object, served on three unix sockets. They keep their state over restarts
// of the engine, as the real ones do.
#pragma once

#include <grpcpp/server.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"

namespace gantry::engine {

// Thread-safe.
class FakeSuite {
 public:
  // `directory` gets the sockets metadata.sock, image.sock, task.sock and the snapshots' files.
  explicit FakeSuite(std::string directory);
  ~FakeSuite();

  std::string SocketPath(const std::string& process) const;

  // Restarts one of the processes: connections break, state stays.
  void StopServer(const std::string& process);
  void StartServer(const std::string& process);

  // --- Images ---

  // Known under `name`, which may have been another's; its top snapshot is a directory with these
  // files.
  image::v1::ImageDetails& AddImage(const std::string& name,
                                    const std::map<std::string, std::string>& files = {});

  int image_inspections() const;  // Calls of gantry-image so far.

  // --- Metadata ---

  std::vector<std::string> RecordKeys(const std::string& bucket) const;
  std::string RecordValue(const std::string& bucket, const std::string& key) const;
  std::vector<std::string> ContainerIds() const;
  std::string SpecOf(const std::string& id) const;
  std::vector<std::string> SnapshotKeys() const;
  std::string UpperDirectory(const std::string& key) const;
  int durable_writes() const;  // Transactions so far.
  // What the engine told the journal, in order.
  std::vector<v1::Event> Events() const;
  // Announces /tasks/oom.
  void PublishOom(const std::string& id);

  // --- Tasks ---

  struct TaskView {
    bool running = false;
    bool paused = false;
    bool ended = false;
    int exit_code = 0;
    std::string stdout_uri;
    std::vector<int> signals;
    std::vector<std::string> execs;
  };
  std::map<std::string, TaskView> Tasks() const;
  std::vector<std::string> RootfsOf(const std::string& id) const;  // Options of its mount.
  // The program ends by itself.
  void EndTask(const std::string& id, int code);
  void EndExec(const std::string& id, const std::string& exec_id, int code);
  // Every task from now on ignores SIGTERM.
  void IgnoreTerm(bool ignore);
  // The shim and its task are gone without a trace, as after a reboot.
  void LoseTask(const std::string& id);
  // Pid that tasks are said to have; default: this process.
  void SetPid(int64_t pid);

  // --- Faults: the next call of this method ("Tasks.Create", "Store.DeleteContainer" …) fails ---

  void FailNext(const std::string& method, int grpc_code, const std::string& message);

  // Waits until `condition` holds, at most ten seconds.
  static bool Eventually(const std::function<bool()>& condition);

 private:
  struct State;
  struct Services;
  std::unique_ptr<State> state_;
  std::unique_ptr<Services> services_;
};

}  // namespace gantry::engine
