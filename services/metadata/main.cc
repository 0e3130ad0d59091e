// gantry-metadata: the durable truth of the suite.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/daemon.h"
#include "services/metadata/audit.h"
#include "services/metadata/backend_sweeper.h"
#include "services/metadata/blob_garbage.h"
#include "services/metadata/blobs.h"
#include "services/metadata/bundles.h"
#include "services/metadata/collector.h"
#include "services/metadata/containerd_services.h"
#include "services/metadata/database.h"
#include "services/metadata/event_streams.h"
#include "services/metadata/garbage_service.h"
#include "services/metadata/journal.h"
#include "services/metadata/remote_snapshotter.h"
#include "services/metadata/suite_services.h"

namespace gantry::metadata {
namespace {

constexpr char kOwnSnapshotter[] = "overlayfs";

absl::StatusOr<DatabaseOptions> ReadOptions(const rpc::Daemon& daemon) {
  DatabaseOptions options;
  options.directory = daemon.state_directory();
  const config::Section& section = daemon.section();
  ASSIGN_OR_RETURN(int64_t entries,
                   section.GetInteger("journal_entries", 100'000, 1000, 100'000'000));
  ASSIGN_OR_RETURN(int64_t limit_mib, section.GetInteger("limit_mib", 4096, 64, 1 << 20));
  ASSIGN_OR_RETURN(int64_t reserve_mib, section.GetInteger("reserve_mib", 8, 0, 1024));
  options.journal_entries = static_cast<uint64_t>(entries);
  options.limit_bytes = static_cast<size_t>(limit_mib) << 20;
  options.reserve_bytes = static_cast<size_t>(reserve_mib) << 20;
  return options;
}

// Ours, and those of the configuration: proxy_snapshotters = ["name=/path.sock"].
absl::StatusOr<Backends> MakeBackends(rpc::Daemon& daemon) {
  Backends backends;
  backends[kOwnSnapshotter] =
      std::make_unique<RemoteSnapshotter>(kOwnSnapshotter, daemon.Dial("snapshotter"));
  ASSIGN_OR_RETURN(std::vector<std::string> proxies,
                   daemon.section().GetStrings("proxy_snapshotters", {}));
  for (const std::string& proxy : proxies) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(proxy, absl::MaxSplits('=', 1));
    RETURN_IF_ERROR(Annotate(CheckIdentifier("name", parts.first),
                             absl::StrCat("[metadata] proxy_snapshotters entry '", proxy, "'")));
    if (parts.second.empty() || parts.second[0] != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("[metadata] proxy_snapshotters entry '", proxy,
                       "' needs the form \"name=/path/of/its.sock\""));
    }
    if (!backends
             .emplace(parts.first,
                      std::make_unique<RemoteSnapshotter>(parts.first, rpc::Dial(parts.second)))
             .second) {
      return absl::InvalidArgumentError(
          absl::StrCat("[metadata] proxy_snapshotters names '", parts.first, "' twice"));
    }
  }
  return backends;
}

void MeasureDatabase(Database& database, metrics::Registry& registry) {
  metrics::Histogram& seconds =
      registry.GetHistogram("gantry_metadata_commit_seconds", "Time of a durable group commit.");
  metrics::Histogram& members =
      registry.GetHistogram("gantry_metadata_commit_group_size", "Mutations that shared a commit.",
                            {}, {1, 2, 4, 8, 16, 32, 64, 128, 256});
  metrics::Gauge& size =
      registry.GetGauge("gantry_metadata_database_bytes", "Used part of the database file.");
  database.OnCommit([&](size_t count, absl::Duration length) {
    seconds.Observe(length);
    members.Observe(static_cast<double>(count));
    size.Set(static_cast<double>(database.statistics().size_bytes));
  });
}

void MeasureCollector(Collector& collector, const Journal& journal, metrics::Registry& registry) {
  metrics::Histogram& seconds =
      registry.GetHistogram("gantry_metadata_gc_seconds", "Time of a garbage collection.");
  metrics::Gauge& length =
      registry.GetGauge("gantry_metadata_journal_entries", "Events the journal keeps.");
  collector.OnRun([&](absl::Duration duration, const Collected& collected) {
    seconds.Observe(duration);
    for (const Collected::Item& item : collected.removed) {
      registry
          .GetCounter("gantry_metadata_gc_removed_total", "Objects that collection removed.",
                      {{"kind", KindName(item.object.kind)}})
          .Add();
    }
    absl::StatusOr<Journal::Range> range = journal.GetRange();
    if (range.ok() && range->last > 0)
      length.Set(static_cast<double>(range->last - range->first + 1));
  });
}

absl::Status Run(rpc::Daemon& daemon) {
  absl::Mutex mutex;
  absl::Status fatal;
  ASSIGN_OR_RETURN(DatabaseOptions options, ReadOptions(daemon));
  // Nothing may be written after an error of the disk: the process ends, and its start looks
  // afresh.
  options.on_fatal = [&](const absl::Status& status) {
    log::Error("the metadata store failed; stopping", {{"error", status}});
    {
      absl::MutexLock lock(&mutex);
      fatal = status;
    }
    daemon.RequestStop();
  };
  ASSIGN_OR_RETURN(Backends backends, MakeBackends(daemon));
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(std::move(options)));
  MeasureDatabase(*database, daemon.metrics());
  Journal journal(*database);
  BackendSweeper sweeper(*database, backends);
  BlobGarbage blob_garbage(*database);
  Collector collector(*database, sweeper, blob_garbage);
  MeasureCollector(collector, journal, daemon.metrics());
  auto on_garbage = [&] { collector.MarkDirty(); };

  Namespaces namespaces(*database);
  Containers containers(*database, on_garbage);
  Images images(*database, on_garbage);
  Leases leases(*database, on_garbage);
  Sandboxes sandboxes(*database, on_garbage);
  Records records(*database);
  Blobs blobs(*database, blob_garbage, on_garbage);
  Snapshots snapshots(*database, backends, sweeper, on_garbage);
  Bundles bundles(*database, snapshots, sweeper, on_garbage);

  NamespacesService namespaces_service(namespaces);
  ContainersService containers_service(containers);
  ImagesService images_service(images, collector);
  LeasesService leases_service(leases, collector);
  SandboxStoreService sandbox_service(sandboxes);
  SnapshotsService snapshots_service(snapshots);
  EventsService events_service(journal);
  JournalService journal_service(journal);
  RecordsService records_service(records);
  StoreService store_service(bundles);
  BlobsService blobs_service(blobs);
  GarbageService garbage_service(collector, blob_garbage, backends);
  for (grpc::Service* service : std::initializer_list<grpc::Service*>{
           &namespaces_service, &containers_service, &images_service, &leases_service,
           &sandbox_service, &snapshots_service, &events_service, &journal_service,
           &records_service, &store_service, &blobs_service, &garbage_service}) {
    daemon.AddService(service);
  }
  daemon.AddAuditor([&](rpc::AuditReport& report) { return sweeper.Audit(report); });
  daemon.AddAuditor([&](rpc::AuditReport& report) { return AuditDatabase(*database, report); });
  daemon.OnStop([&] {
    journal.Stop();
    garbage_service.Stop();
    collector.Stop();
    sweeper.Stop();
  });

  sweeper.Start();
  collector.Start();
  RETURN_IF_ERROR(daemon.Serve());
  absl::MutexLock lock(&mutex);
  return fatal;
}

}  // namespace

int Main(int argc, char** argv) { return rpc::RunDaemon(argc, argv, "metadata", Run); }

}  // namespace gantry::metadata
