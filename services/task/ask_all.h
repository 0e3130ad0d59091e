// One question to many shims.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

// Calls `method`, whose request is a task's id alone, in each of the tasks, side by side, and
// `done` once with their answers in the order of the names: now when there are none. A shim that
// does not answer within three seconds has answered DeadlineExceeded.
void AskAll(TaskSupervisor& supervisor, const std::vector<TaskName>& names,
            const std::string& method,
            std::function<void(std::vector<absl::StatusOr<std::string>>)> done);

}  // namespace gantry::task
