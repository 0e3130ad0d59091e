// Drives a shim binary as a daemon does: bundle, `start`, ttrpc calls, events, `delete`. For tests
// and benchmarks; works with containerd's own shims as well.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/oci/spec.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"
#include "lib/ttrpc/client.h"
#include "shim/testing/event_daemon.h"
#include "shim/wire.h"

namespace gantry::shim::testing {

struct Exited {
  int code = -1;
  absl::Time time;
};

// A private state directory with bundles, and one shim (or several). Not thread-safe.
class ShimHarness {
 public:
  // `binary`: a path. `runtime_binary`: empty for the shim's default, else named in the options.
  explicit ShimHarness(std::string binary, std::string runtime_binary = "");
  ~ShimHarness();

  const std::string& root() const { return root_.path(); }
  std::string BundleOf(const std::string& id) const;
  EventDaemon& daemon() { return *daemon_; }
  ttrpc::Client& client() { return *client_; }
  const std::string& address() const { return address_; }

  // A busybox bundle that runs `args`; `edit` changes the configuration before it is written.
  absl::Status MakeBundle(const std::string& id, const std::vector<std::string>& args,
                          const std::function<void(oci::Spec&)>& edit = nullptr);
  // Runs `start` and connects. The answer, as printed, is returned.
  absl::StatusOr<std::string> StartShim(const std::string& id, const std::string& input = "");
  // Serves with the listener on descriptor 3, without `start`.
  absl::Status StartServer(const std::string& id);
  absl::Status Connect(const std::string& address);

  struct Streams {
    std::string in, out, err;
    bool terminal = false;
  };
  absl::StatusOr<int> Create(const std::string& id, const Streams& streams);
  absl::StatusOr<int> Create(const std::string& id) { return Create(id, Streams()); }
  absl::StatusOr<int> Start(const std::string& id, const std::string& exec_id = "");
  absl::Status Exec(const std::string& id, const std::string& exec_id,
                    const std::vector<std::string>& args, const Streams& streams);
  absl::Status Exec(const std::string& id, const std::string& exec_id,
                    const std::vector<std::string>& args) {
    return Exec(id, exec_id, args, Streams());
  }
  absl::StatusOr<Exited> Wait(const std::string& id, const std::string& exec_id = "");
  absl::Status Kill(const std::string& id, int signal, const std::string& exec_id = "",
                    bool all = false);
  absl::StatusOr<Exited> Delete(const std::string& id, const std::string& exec_id = "");
  absl::StatusOr<TaskStatus> State(const std::string& id, const std::string& exec_id = "");
  absl::Status Shutdown(const std::string& id);
  // Steps of the last Create or Start, in order: name and microseconds.
  const std::vector<std::pair<std::string, int64_t>>& timings() const { return timings_; }
  absl::StatusOr<std::string> Call(const std::string& method, const std::string& payload,
                                   absl::Duration timeout = absl::Seconds(60));
  absl::Status Simple(const std::string& method, const std::string& id);  // Pause, Resume …
  // Cgroup directories of this container that are there.
  std::vector<std::string> CgroupsOf(const std::string& id) const;
  // GANTRY_FAILPOINTS of processes started from now on.
  void SetFailpoints(std::string specification) { failpoints_ = std::move(specification); }
  // Pid of the serving process (Connect).
  absl::StatusOr<int> ShimPid(const std::string& id);
  // Runs the binary in the bundle of `id` with the usual flags, `words` after them, and `input` on
  // stdin; what it printed.
  absl::StatusOr<std::string> Run(const std::string& id, const std::vector<std::string>& words,
                                  const std::string& input);
  // Runs `delete`; the raw DeleteResponse.
  absl::StatusOr<Exited> RunDelete(const std::string& id);

 private:
  std::string CgroupName() const;
  absl::StatusOr<int> ParseStarted(const absl::StatusOr<std::string>& answer);
  const std::string binary_;
  const std::string runtime_binary_;
  std::string failpoints_;
  sys::TempDir root_;
  std::unique_ptr<EventDaemon> daemon_;
  std::string address_;
  std::unique_ptr<ttrpc::Client> client_;
  std::map<std::string, sys::UniqueFd> log_fifos_;
  std::vector<std::string> ids_;
  std::vector<sys::Child> servers_;
  std::vector<std::pair<std::string, int64_t>> timings_;
};

// Waits until `condition` holds, looking once a millisecond; false after `patience`.
bool Eventually(const std::function<bool()>& condition,
                absl::Duration patience = absl::Seconds(10));

// "<build>/bin/<name>", from GANTRY_BIN.
std::string BuiltBinary(const std::string& name);

}  // namespace gantry::shim::testing
