#include "shim/cleanup.h"

#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/client.h"
#include "shim/exit_record.h"
#include "shim/oci_runtime.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

// With grouping some daemons run us in the directory of another container, so the id counts.
absl::StatusOr<std::string> FindBundle(const Arguments& arguments) {
  std::string bundle = arguments.bundle;
  if (bundle.empty()) {
    char directory[4096];
    if (::getcwd(directory, sizeof directory) == nullptr) {
      return absl::FailedPreconditionError("the working directory is gone; name a -bundle");
    }
    bundle = directory;
  }
  while (bundle.size() > 1 && bundle.back() == '/') bundle.pop_back();
  const size_t slash = bundle.rfind('/');
  const std::string sibling =
      absl::StrCat(slash == std::string::npos ? "." : bundle.substr(0, slash), "/", arguments.id);
  return sys::Exists(sibling) ? sibling : bundle;
}

// A shim that was killed leaves its socket behind.
void RemoveStaleSocket(const std::string& bundle) {
  const absl::StatusOr<std::string> address = sys::ReadFile(absl::StrCat(bundle, "/address"), 4096);
  if (!address.ok() || address->empty()) return;
  const std::string path = ttrpc::SocketPath(*address);
  if (sys::Exists(path) && !sys::ConnectUnix(path).ok()) (void)sys::Unlink(path);
}

}  // namespace

absl::StatusOr<std::string> CleanUp(const Arguments& arguments) {
  RETURN_IF_ERROR(CheckIdentifier("id", arguments.id));
  RETURN_IF_ERROR(CheckIdentifier("namespace", arguments.ns));
  RETURN_IF_ERROR(FAILPOINT("shim.cleanup.before"));
  ASSIGN_OR_RETURN(const std::string bundle, FindBundle(arguments));
  absl::StatusOr<RuncOptions> options = LoadOptions(bundle);
  if (!options.ok()) {
    log::Warning("options are lost, taking defaults", {{"status", options.status()}});
    options = RuncOptions();
  }
  // Each step is tried, whatever became of the one before.
  absl::Status status = ForceDelete({arguments.ns, arguments.id, bundle, *options, ""});
  status = FirstError(status, sys::UnmountTree(absl::StrCat(bundle, "/rootfs")));
  RemoveStaleSocket(bundle);
  RETURN_IF_ERROR(status);
  ExitRecord exit;
  const absl::StatusOr<ExitRecord> recorded = ReadExitRecord(ExitRecordPath(bundle));
  if (recorded.ok()) {
    exit = *recorded;
  } else {
    exit.code = 137;
    exit.time = absl::Now();
    const absl::StatusOr<std::string> pid = sys::ReadFile(absl::StrCat(bundle, "/init.pid"), 64);
    if (pid.ok()) (void)absl::SimpleAtoi(*pid, &exit.pid);
  }
  std::string response;
  pb::Writer writer(&response);
  writer.Varint(1, static_cast<uint64_t>(exit.pid));
  writer.Varint(2, static_cast<uint64_t>(exit.code));
  WriteTimestamp(writer, 3, exit.time);
  return response;
}

}  // namespace gantry::shim
