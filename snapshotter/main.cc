// gantry-snapshotter: one overlay snapshotter on one socket.
#include <memory>

#include "lib/base/status.h"
#include "lib/rpc/daemon.h"
#include "lib/sys/file.h"
#include "snapshotter/overlay_snapshotter.h"
#include "snapshotter/snapshot_audit.h"
#include "snapshotter/snapshot_service.h"

namespace gantry::snapshotter {

int Main(int argc, char** argv) {
  return rpc::RunDaemon(argc, argv, "snapshotter", [](rpc::Daemon& daemon) -> absl::Status {
    ASSIGN_OR_RETURN(const bool report_upperdir, daemon.section().GetBool("upperdir_label", false));
    ASSIGN_OR_RETURN(std::unique_ptr<OverlaySnapshotter> snapshotter,
                     OverlaySnapshotter::Open(
                         {.root = daemon.state_directory(),
                          .report_upperdir = report_upperdir,
                          .metrics = &daemon.metrics(),
                          .on_failure = [&daemon](const absl::Status&) { daemon.RequestStop(); }}));
    SnapshotService service(*snapshotter);
    daemon.AddService(&service);
    daemon.AddAuditor([&snapshotter](rpc::AuditReport& report) -> absl::Status {
      ASSIGN_OR_RETURN(const std::string mountinfo,
                       sys::ReadFile("/proc/self/mountinfo", 256 << 20));
      return AuditSnapshots(*snapshotter, mountinfo, report);
    });
    return daemon.Serve();
  });
}

}  // namespace gantry::snapshotter
