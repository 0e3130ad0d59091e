// What references what, over everything metadata knows, and what nothing references
// (contracts 3.5).
//
// Roots: containers, sandboxes, images that have not expired, unexpired leases and what they hold,
// objects labelled gc.root, ingests that are under way, snapshots being committed. Edges: image →
// target, container → snapshot, snapshot → parent, the gc.ref.* labels, and the gc.bref.* labels
// backwards. What a lease labelled gc.flat holds keeps no more than itself (and a snapshot its
// parents, which it cannot exist without). References stay within a namespace.
//
// A graph is built from one reader's view; whoever acts on it checks that the view is still true.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/metadata/database.h"
#include "services/metadata/labels.h"

namespace gantry::metadata {

enum class ObjectKind { kContent, kSnapshot, kImage, kIngest, kLease, kContainer, kSandbox };

const char* KindName(ObjectKind kind);

struct GraphObject {
  ObjectKind kind;
  std::string namespace_name;
  std::string snapshotter;  // Snapshots only.
  std::string key;
  std::string backend_key;      // Snapshots: the layer; ingests: gantry-image's id.
  std::string expected_digest;  // Ingests only.
  uint64_t size_bytes = 0;      // Content only.
  std::string why_root;         // Empty: not a root.
  std::string why_garbage;      // Said when nothing keeps it.
};

// Thread-compatible.
class ReferenceGraph {
 public:
  static absl::StatusOr<ReferenceGraph> Build(const Reader& reader, absl::Time now);

  const std::vector<GraphObject>& objects() const { return objects_; }
  bool IsKept(size_t object) const { return marks_[object] != 0; }
  // Objects nothing keeps, such that snapshots come before their parents.
  std::vector<size_t> Garbage() const;
  // "image docker.io/library/busybox:latest > content sha256:…"; empty for garbage.
  std::string PathFromRoot(size_t object) const;
  // When something that is kept now by time alone expires.
  absl::Time next_expiry() const { return next_expiry_; }

 private:
  static constexpr uint8_t kFlat = 1;
  static constexpr uint8_t kFull = 2;
  struct Edge {
    std::string target;  // NodeKey.
    bool survives_flat;  // Followed from a flat object too.
    bool flat;           // The target is held flat.
  };

  size_t Add(GraphObject object);
  void AddLabelEdges(size_t object, const Labels& labels);
  absl::Status AddContent(const Reader& reader);
  absl::Status AddSnapshots(const Reader& reader);
  absl::Status AddImages(const Reader& reader);
  absl::Status AddContainers(const Reader& reader);
  absl::Status AddSandboxes(const Reader& reader);
  absl::Status AddIngests(const Reader& reader);
  absl::Status AddLeases(const Reader& reader);
  absl::Status AddOpenCommits(const Reader& reader);
  void Root(absl::string_view node_key, absl::string_view why);
  // Whether the label gc.expire names a time that has passed; remembers the nearest that has not.
  bool HasExpired(const Labels& labels);
  void Mark();

  absl::Time now_;
  absl::Time next_expiry_ = absl::InfiniteFuture();
  std::vector<GraphObject> objects_;
  std::vector<std::vector<Edge>> edges_;
  std::vector<uint8_t> marks_;
  std::vector<size_t> reached_from_;
  absl::flat_hash_map<std::string, size_t> index_;
  absl::flat_hash_map<std::string, std::vector<size_t>> back_references_;
};

}  // namespace gantry::metadata
