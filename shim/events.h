// The events of a task (contracts/containerd/events.tsv), as payloads for a publisher.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shim/wire.h"

namespace gantry::shim {

struct Event {
  const char* topic;
  const char* type_url;
  std::string payload;
};

Event TaskCreate(const CreateTaskRequest& request, int pid);
Event TaskStart(absl::string_view id, int pid);
// `process_id`: the exec id, or the container's id for init.
Event TaskExit(absl::string_view id, absl::string_view process_id, int pid, int code,
               absl::Time time);
Event TaskDelete(absl::string_view id, absl::string_view process_id, int pid, int code,
                 absl::Time time);
Event TaskOom(absl::string_view id);
Event TaskExecAdded(absl::string_view id, absl::string_view exec_id);
Event TaskExecStarted(absl::string_view id, absl::string_view exec_id, int pid);
Event TaskPaused(absl::string_view id);
Event TaskResumed(absl::string_view id);

}  // namespace gantry::shim
