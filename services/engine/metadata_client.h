// gantry-metadata as the engine uses it: whole containers, small records, and the container's
// snapshot.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"

namespace gantry::engine {

inline constexpr char kContainerBucket[] = "engine.container";
inline constexpr char kNameBucket[] = "engine.name";
inline constexpr char kVolumeBucket[] = "engine.volume";
inline constexpr char kSpecTypeUrl[] = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

// Calls wait for a metadata process that is just being restarted, up to their deadline; what was on
// the way when it died is sent once more where that is safe. Thread-safe.
class MetadataClient {
 public:
  // The watch has a channel of its own: gRPC's callback threads wake up for whatever happens on a
  // connection they listen to, which doubled the cost of every call beside it.
  MetadataClient(const std::shared_ptr<grpc::Channel>& channel,
                 const std::shared_ptr<grpc::Channel>& watch_channel, std::string namespace_name);
  ~MetadataClient();

  // One durable write: container, snapshot, records. Errors: AlreadyExists — a record that must not
  // exist does (the message has bucket and key); NotFound — no such parent snapshot.
  absl::StatusOr<metadata::v1::CreateContainerResponse> CreateContainer(
      const metadata::v1::CreateContainerRequest& request);

  // Safe to repeat.
  absl::Status DeleteContainer(const metadata::v1::DeleteContainerRequest& request);

  absl::StatusOr<std::vector<metadata::v1::Record>> ListRecords(const std::string& bucket);

  // Not repeated when a write has a precondition. Errors: AlreadyExists, FailedPrecondition.
  absl::Status Commit(const metadata::v1::CommitRecordsRequest& request);

  absl::StatusOr<std::vector<containerd::types::Mount>> SnapshotMounts(
      const std::string& snapshotter, const std::string& key);

  // Bytes of the writable layer.
  absl::StatusOr<uint64_t> SnapshotUsage(const std::string& snapshotter, const std::string& key);

  // Replaces the OCI configuration of a container: durable.
  absl::Status UpdateSpec(const std::string& id, const std::string& spec_json);

  // Adds events to the journal. Sent twice they are told twice, which is better than not at all.
  absl::Status AppendEvents(const std::vector<containerd::types::Envelope>& envelopes);

  // Ids of all containers of the namespace that carry our label; for audits.
  absl::StatusOr<std::vector<std::string>> ListContainerIds();

  // Calls back with the container id of every `/tasks/oom` event of the namespace, on a thread of
  // gRPC, for as long as this object lives. Events while metadata is away are lost.
  void WatchOom(std::function<void(const std::string&)> callback);

  // Ends the watch; called before what the callback uses goes away.
  void StopWatching();

 private:
  class OomWatch;

  const std::string namespace_;
  std::unique_ptr<metadata::v1::Store::Stub> store_;
  std::unique_ptr<metadata::v1::Records::Stub> records_;
  std::unique_ptr<metadata::v1::Journal::Stub> journal_;
  std::unique_ptr<containerd::services::snapshots::v1::Snapshots::Stub> snapshots_;
  std::unique_ptr<containerd::services::containers::v1::Containers::Stub> containers_;
  std::unique_ptr<containerd::services::events::v1::Events::Stub> events_;
  std::shared_ptr<OomWatch> watch_;
};

}  // namespace gantry::engine
