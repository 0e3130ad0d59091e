// What the shim asks of an OCI runtime: our library in this process, or a foreign binary.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "shim/reaper.h"
#include "shim/wire.h"

namespace gantry::shim {

// One step and how long it took.
struct StepTiming {
  std::string step;
  int64_t microseconds = 0;
};

// A process that was made, as a child of the shim.
struct Spawned {
  pid_t pid = 0;
  sys::UniqueFd pidfd;
  sys::UniqueFd console;  // The terminal's master, when it has one.
  std::vector<StepTiming> timings;
};

// Descriptors of the program; borrowed. -1: the null device.
struct ProgramStdio {
  int in = -1, out = -1, err = -1;
};

// One container. Answers come through `done`, at once (the library) or later (a binary); one call
// is made after the other. `done` is not called after the object was destroyed. Single-threaded.
class OciRuntime {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T> result)>;
  using DoneStatus = std::function<void(absl::Status status)>;

  virtual ~OciRuntime() = default;

  virtual void Create(const ProgramStdio& stdio, bool terminal, Done<Spawned> done) = 0;
  virtual void Start(Done<std::vector<StepTiming>> done) = 0;
  // `process`: JSON of config.json's process object.
  virtual void Exec(const std::string& exec_id, const std::string& process,
                    const ProgramStdio& stdio, bool terminal, Done<Spawned> done) = 0;
  // To init, or to all processes. Errors: NotFound — there is none any more.
  virtual void Kill(int signal, bool all, DoneStatus done) = 0;
  virtual void Pause(DoneStatus done) = 0;
  virtual void Resume(DoneStatus done) = 0;
  // `resources`: JSON of linux.resources.
  virtual void Update(const std::string& resources, DoneStatus done) = 0;
  // `force`: also when it is not stopped. Fine when there is nothing left.
  virtual void Delete(bool force, DoneStatus done) = 0;

  // After Create.
  virtual const cgroup::Cgroup& cgroup() const = 0;
  // Whether the end of init is the end of all: it is the first process of a pid namespace.
  virtual bool has_own_pid_namespace() const = 0;
};

struct RuntimeConfig {
  std::string ns;
  std::string id;
  std::string bundle;
  RuncOptions options;
  std::string seccomp_cache;
};

// `<options.root>/<ns>`, or `<bundle>/runtime`: with the bundle goes the state.
std::string StateRoot(const RuntimeConfig& config);

// The library, unless options.binary_name names a binary (a path, or a name looked up in PATH).
std::unique_ptr<OciRuntime> MakeRuntime(sys::EventLoop& loop, Reaper& reaper, RuntimeConfig config);

// For `delete`, without an event loop: ends what is left of the container. Fine when nothing is.
absl::Status ForceDelete(const RuntimeConfig& config);

// What the bundle remembers of the options, for `delete`: `options.pb`, a
// containerd.runc.v1.Options.
absl::Status SaveOptions(const std::string& bundle, const Any& options);
absl::StatusOr<RuncOptions> LoadOptions(
    const std::string& bundle);  // Defaults when there is no file.

}  // namespace gantry::shim
