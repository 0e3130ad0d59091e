// Starts shims and their `delete` commands.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/runtime/task/v2/task.pb.h"
#include "google/protobuf/any.pb.h"
#include "lib/sys/process.h"
#include "lib/sys/unique_fd.h"
#include "services/task/bundle.h"
#include "services/task/runtime_name.h"

namespace gantry::task {

struct LaunchOptions {
  std::string gateway_socket;    // `-address`: what shims dial to call the daemon back.
  std::string events_socket;     // TTRPC_ADDRESS.
  std::string socket_directory;  // For sockets of our own shims.
  std::string work_directory;    // Parent of the work directories of strangers' shims.
  absl::Duration start_timeout = absl::Seconds(30);
  absl::Duration delete_timeout = absl::Seconds(10);
  bool debug = false;
  // How many of our own shims wait for their container, and the binary they are started from.
  size_t pool_size = 0;
  std::string pool_binary;
};

// What stands on the command line of a waiting shim until it has names: as long as the longest
// ones.
inline constexpr char kUnnamed[] =
    "............................................................................";

struct ShimSpec {
  std::string ns;
  std::string id;
  std::string binary;             // From FindShimBinary.
  google::protobuf::Any options;  // Runtime options; type_url empty: none.
};

// A shim that was started and can be dialled.
struct LaunchedShim {
  Bootstrap bootstrap;
  // Of our own shim, which we start ourselves. Strangers' shims detach from us.
  sys::Child child;
  // Read end of the log fifo (strangers' shims).
  sys::UniqueFd log;
};

// Thread-safe.
class ShimLauncher {
 public:
  explicit ShimLauncher(LaunchOptions options);
  ~ShimLauncher();  // Ends the waiting shims.

  // Own shims are spawned in their serving form with the listening socket as descriptor 3: no
  // `start` child, no waiting. Strangers' shims get the whole `start` protocol
  // (contracts/containerd, 5.3): first with BootstrapParams on stdin, and once more with the
  // options alone when the shim is too old for that, which is remembered for the binary. Errors
  // carry what the shim printed. On an error no process is left and the socket is gone; the bundle
  // stays to the caller.
  absl::StatusOr<LaunchedShim> Launch(const ShimSpec& spec, const Bundle& bundle);

  // Runs the shim's `delete`: kills and removes what is left of the container, from the bundle's
  // files alone. Safe to repeat.
  absl::StatusOr<containerd::task::v2::DeleteResponse> RunDelete(const ShimSpec& spec,
                                                                 const Bundle& bundle);

  // Makes (where it is missing) and opens the log fifo of a bundle, so that a shim never blocks on
  // it.
  absl::StatusOr<sys::UniqueFd> OpenLog(const Bundle& bundle);

  // Starts waiting shims until there are pool_size. Not on the path of a start: Launch takes one
  // when there is one, and spawns otherwise. They end by themselves when this process does.
  void FillPool();
  struct Waiting {
    pid_t pid = 0;
    std::string socket;
  };
  std::vector<Waiting> WaitingShims();
  // Sockets of our own shims that are being started, for whatever: they belong to no task yet.
  std::vector<std::string> SocketsInMaking();

  const LaunchOptions& options() const { return options_; }

 private:
  struct CommandResult {
    sys::ExitStatus exit;
    std::string out;
    std::string err;
  };
  struct Pooled {
    sys::Child child;
    std::string socket;
    sys::UniqueFd assignment;  // Write end of its pipe.
  };
  std::string NewSocketPath();
  void MadeSocket(const std::string& path);
  absl::StatusOr<Pooled> SpawnPooled(const std::string& socket);
  absl::StatusOr<LaunchedShim> LaunchPooled(const ShimSpec& spec, const Bundle& bundle);
  absl::StatusOr<LaunchedShim> LaunchOwn(const ShimSpec& spec, const Bundle& bundle);
  absl::StatusOr<LaunchedShim> LaunchStranger(const ShimSpec& spec, const Bundle& bundle);
  absl::StatusOr<CommandResult> RunCommand(const ShimSpec& spec, const Bundle& bundle,
                                           std::vector<std::string> arguments,
                                           const std::string& input, absl::Duration timeout,
                                           bool one_stream);
  std::vector<std::string> Environment(const ShimSpec& spec) const;
  std::vector<std::string> Arguments(const ShimSpec& spec) const;
  std::string BootstrapInput(const ShimSpec& spec) const;

  const LaunchOptions options_;
  const std::string publish_binary_;
  absl::Mutex mutex_;
  // Binaries (inode, modification time) that refused BootstrapParams.
  std::map<std::pair<uint64_t, int64_t>, bool> wants_options_ ABSL_GUARDED_BY(mutex_);
  std::deque<Pooled> pool_ ABSL_GUARDED_BY(mutex_);
  size_t spawning_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<std::string> sockets_in_making_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::task
