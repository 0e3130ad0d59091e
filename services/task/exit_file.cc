#include "services/task/exit_file.h"

#include "lib/base/status.h"
#include "shim/exit_record.h"

namespace gantry::task {

absl::StatusOr<Exit> ReadExitFile(const std::string& path) {
  ASSIGN_OR_RETURN(const shim::ExitRecord record, shim::ReadExitRecord(path));
  return Exit{.pid = static_cast<uint32_t>(record.pid),
              .code = static_cast<uint32_t>(record.code),
              .at = record.time};
}

absl::Status WriteExitFile(const std::string& path, const Exit& exit) {
  shim::ExitRecord record;
  record.pid = static_cast<int>(exit.pid);
  record.code = static_cast<int>(exit.code);
  record.signal = record.code > 128 ? record.code - 128 : 0;
  record.time = exit.at;
  record.reason = record.signal != 0 ? "signalled" : "exited";
  return shim::WriteExitRecord(path, record);
}

}  // namespace gantry::task
