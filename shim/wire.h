// The messages of containerd's shim API that we read and write, on lib/ttrpc/minipb.h.
// Source: contracts/containerd/messages.tsv (containerd.task.v2, equal in v3; containerd.events).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/sys/mount.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::shim {

// google.protobuf.Any, with the bare type URLs that containerd uses.
struct Any {
  std::string type_url;
  std::string value;
};

// Where a process has its standard streams (stdio_uri.h). In this order in every message.
struct Stdio {
  bool terminal = false;
  std::string in, out, err;
};

struct CreateTaskRequest {
  std::string id;
  std::string bundle;
  std::vector<sys::MountSpec> rootfs;
  Stdio stdio;
  std::string checkpoint;
  Any options;
};

struct ExecProcessRequest {
  std::string id;
  std::string exec_id;
  Stdio stdio;
  Any spec;
};

// The requests that name a process and say little more. Fields a message does not have stay at
// their defaults.
struct ProcessRequest {
  std::string id;
  std::string exec_id;
  uint64_t third = 0;   // Kill: signal. ResizePty: width. CloseIO: stdin.
  uint64_t fourth = 0;  // Kill: all. ResizePty: height.
};

struct UpdateTaskRequest {
  std::string id;
  Any resources;
};

// containerd.runtime.sandbox.v1.CreateSandboxRequest.
struct CreateSandboxRequest {
  std::string id;
  std::string bundle;
  std::vector<sys::MountSpec> rootfs;
  Any options;
  std::string netns_path;
};

// containerd.runc.v1.Options, what we honour of it.
struct RuncOptions {
  bool no_pivot_root = false;
  bool no_new_keyring = false;
  std::string shim_cgroup;
  uint32_t io_uid = 0;
  uint32_t io_gid = 0;
  std::string binary_name;
  std::string root;
  bool systemd_cgroup = false;
};

struct BootstrapParams {
  std::string instance_id;
  std::string ns;
  int64_t log_level = 0;
  std::string containerd_version;
  std::string ttrpc_address;
  std::string grpc_address;
  std::string socket_dir;
  Any options;  // The first extension that is runtime options.
};

// Errors: InvalidArgument — not such a message.
absl::StatusOr<CreateTaskRequest> ParseCreateTask(absl::string_view bytes);
absl::StatusOr<ExecProcessRequest> ParseExecProcess(absl::string_view bytes);
absl::StatusOr<ProcessRequest> ParseProcessRequest(absl::string_view bytes);
// KillRequest, ResizePtyRequest, CloseIORequest, WaitRequest … all have 1 id and 2 exec_id.
// Requests without exec_id (Pause, Stats, Shutdown …) keep something else in field 2 or nothing:
// use this.
absl::StatusOr<std::string> ParseId(absl::string_view bytes);
absl::StatusOr<CreateSandboxRequest> ParseCreateSandbox(absl::string_view bytes);
absl::StatusOr<UpdateTaskRequest> ParseUpdateTask(absl::string_view bytes);
absl::StatusOr<Any> ParseAny(absl::string_view bytes);
absl::StatusOr<BootstrapParams> ParseBootstrapParams(absl::string_view bytes);
// Any other type than containerd.runc.v1.Options, such as the generic runtimeoptions.v1.Options,
// holds nothing for us and gives defaults. Errors: InvalidArgument — malformed.
absl::StatusOr<RuncOptions> ParseOptions(const Any& options);

void WriteAny(pb::Writer& writer, uint32_t field, absl::string_view type_url,
              absl::string_view value);
void WriteTimestamp(pb::Writer& writer, uint32_t field, absl::Time time);
void WriteMount(pb::Writer& writer, uint32_t field, const sys::MountSpec& mount);

// containerd.v1.types.Status.
enum class TaskStatus { kUnknown, kCreated, kRunning, kStopped, kPaused, kPausing };

}  // namespace gantry::shim
