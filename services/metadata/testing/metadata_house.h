// All of metadata's domain objects on one directory, as main builds them, with a fake snapshotter:
// for tests that close it, reopen it, or let it die.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "services/metadata/blobs.h"
#include "services/metadata/bundles.h"
#include "services/metadata/collector.h"
#include "services/metadata/containers.h"
#include "services/metadata/database.h"
#include "services/metadata/images.h"
#include "services/metadata/journal.h"
#include "services/metadata/leases.h"
#include "services/metadata/namespaces.h"
#include "services/metadata/records.h"
#include "services/metadata/sandboxes.h"
#include "services/metadata/snapshots.h"
#include "services/metadata/testing/fake_snapshotter.h"

namespace gantry::metadata {

inline constexpr char kSnapshotter[] = "overlayfs";

class MetadataHouse {
 public:
  // Opens below `root`. `clock` is collection's idea of now.
  static absl::StatusOr<std::unique_ptr<MetadataHouse>> Open(const std::string& root,
                                                             DatabaseOptions options = {},
                                                             Collector::Clock clock = absl::Now) {
    RETURN_IF_ERROR(sys::MakeDirectories(root + "/layers"));
    options.directory = root + "/state";
    ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(std::move(options)));
    return std::unique_ptr<MetadataHouse>(
        new MetadataHouse(root, std::move(database), std::move(clock)));
  }

  ~MetadataHouse() {
    collector.Stop();
    sweeper.Stop();
    journal.Stop();
  }

  // Begins repair and collection.
  void Start() {
    sweeper.Start();
    collector.Start();
  }

 private:
  MetadataHouse(const std::string& root, std::unique_ptr<Database> opened, Collector::Clock clock)
      : database(std::move(opened)),
        backends(MakeBackends(root + "/layers")),
        snapshotter(static_cast<FakeSnapshotter&>(*backends.at(kSnapshotter))),
        journal(*database),
        sweeper(*database, backends),
        blob_garbage(*database),
        collector(*database, sweeper, blob_garbage, std::move(clock)) {}

  static Backends MakeBackends(const std::string& directory) {
    Backends backends;
    backends[kSnapshotter] = std::make_unique<FakeSnapshotter>(directory);
    return backends;
  }

  std::function<void()> on_garbage_ = [this] { collector.MarkDirty(); };

 public:
  const std::unique_ptr<Database> database;
  const Backends backends;
  FakeSnapshotter& snapshotter;
  Journal journal;
  BackendSweeper sweeper;
  BlobGarbage blob_garbage;
  Collector collector;
  Namespaces namespaces{*database};
  Containers containers{*database, on_garbage_};
  Images images{*database, on_garbage_};
  Leases leases{*database, on_garbage_};
  Sandboxes sandboxes{*database, on_garbage_};
  Records records{*database};
  Blobs blobs{*database, blob_garbage, on_garbage_};
  Snapshots snapshots{*database, backends, sweeper, on_garbage_};
  Bundles bundles{*database, snapshots, sweeper, on_garbage_};
};

}  // namespace gantry::metadata
