// gantry-metadata and gantry-snapshotter as gantry-image sees them, in memory and one directory:
// blobs and ingests per namespace, images, leases, containers, snapshots with `rebase`, garbage
// collection over gc labels.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/images/v1/images.grpc.pb.h"
#include "containerd/services/leases/v1/leases.grpc.pb.h"
#include "containerd/services/namespaces/v1/namespace.grpc.pb.h"
#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"

namespace gantry::image {

struct FakeSnapshot {
  std::string directory;
  std::string parent;
  bool committed = false;
  bool view = false;
};

struct FakeNamespace {
  std::map<std::string, metadata::v1::Blob> blobs;
  std::map<std::string, metadata::v1::Ingest> ingests;  // By ref.
  std::map<std::string, containerd::services::images::v1::Image> images;
  std::map<std::string, std::set<std::string>> leases;  // "type/id" by lease.
  std::map<std::string, std::map<std::string, std::string>> lease_labels;
  std::map<std::string, FakeSnapshot> snapshots;
  std::vector<containerd::services::containers::v1::Container> containers;
};

// Thread-safe.
class FakeMetadata {
 public:
  // Snapshots live below `directory`. Without `rebase` Commit ignores the parent field, as
  // snapshotters do that do not know it.
  explicit FakeMetadata(std::string directory, bool rebase = true);
  ~FakeMetadata();

  std::shared_ptr<grpc::Channel> channel();

  // For tests to look at and to change; everything, or one namespace's.
  FakeNamespace Get(const std::string& name);
  void AddContainer(const std::string& name, const std::string& id, const std::string& image);

  // Upper directories of a committed snapshot and those below it, newest first.
  std::vector<std::string> Layers(const std::string& name, const std::string& key);

  // What nobody refers to goes; blobs without any record are announced to watchers.
  void Collect();

  struct State;

 private:
  std::unique_ptr<State> state_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gantry::image
