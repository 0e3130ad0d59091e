#include "services/metadata/reference_graph.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "containerd/services/containers/v1/containers.pb.h"
#include "containerd/services/images/v1/images.pb.h"
#include "containerd/services/leases/v1/leases.pb.h"
#include "containerd/types/types.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "lib/base/status.h"
#include "services/metadata/objects.h"
#include "services/metadata/snapshot_records.h"

namespace gantry::metadata {
namespace {

constexpr size_t kNone = SIZE_MAX;

std::string NodeKey(ObjectKind kind, absl::string_view namespace_name,
                    absl::string_view snapshotter, absl::string_view key) {
  return JoinKey({KindName(kind), namespace_name, snapshotter, key});
}

std::string NodeKey(const GraphObject& object) {
  return NodeKey(object.kind, object.namespace_name, object.snapshotter, object.key);
}

// The node a label refers to, for a key below gc.ref. or gc.bref.; empty when it is no reference.
std::string LabelTarget(absl::string_view namespace_name, absl::string_view reference,
                        const std::string& value) {
  for (const auto& [word, kind] :
       {std::pair<absl::string_view, ObjectKind>{"content", ObjectKind::kContent},
        {"image", ObjectKind::kImage},
        {"container", ObjectKind::kContainer}}) {
    absl::string_view rest = reference;
    if (!absl::ConsumePrefix(&rest, word)) continue;
    // A name may follow, behind '.' or '/': "content.l.0".
    if (rest.empty() || rest[0] == '.' || rest[0] == '/')
      return NodeKey(kind, namespace_name, "", value);
  }
  if (absl::ConsumePrefix(&reference, "snapshot.")) {
    const absl::string_view snapshotter = reference.substr(0, reference.find('/'));
    return NodeKey(ObjectKind::kSnapshot, namespace_name, snapshotter, value);
  }
  return "";
}

template <typename Message>
absl::Status ForEach(
    const Reader& reader, Table table,
    absl::FunctionRef<absl::Status(const std::vector<absl::string_view>&, const Message&)> visit) {
  auto each = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    Message message;
    RETURN_IF_ERROR(ParseStored(table, key, value, message));
    RETURN_IF_ERROR(visit(SplitKey(key), message));
    return true;
  };
  return reader.Scan(table, "", each);
}

}  // namespace

const char* KindName(ObjectKind kind) {
  switch (kind) {
    case ObjectKind::kContent:
      return "content";
    case ObjectKind::kSnapshot:
      return "snapshot";
    case ObjectKind::kImage:
      return "image";
    case ObjectKind::kIngest:
      return "ingest";
    case ObjectKind::kLease:
      return "lease";
    case ObjectKind::kContainer:
      return "container";
    case ObjectKind::kSandbox:
      return "sandbox";
  }
  return "";
}

absl::StatusOr<ReferenceGraph> ReferenceGraph::Build(const Reader& reader, absl::Time now) {
  ReferenceGraph graph;
  graph.now_ = now;
  RETURN_IF_ERROR(graph.AddContent(reader));
  RETURN_IF_ERROR(graph.AddSnapshots(reader));
  RETURN_IF_ERROR(graph.AddImages(reader));
  RETURN_IF_ERROR(graph.AddContainers(reader));
  RETURN_IF_ERROR(graph.AddSandboxes(reader));
  RETURN_IF_ERROR(graph.AddIngests(reader));
  RETURN_IF_ERROR(graph.AddLeases(reader));
  RETURN_IF_ERROR(graph.AddOpenCommits(reader));
  graph.Mark();
  return graph;
}

size_t ReferenceGraph::Add(GraphObject object) {
  if (object.why_garbage.empty()) object.why_garbage = "unreferenced";
  const size_t number = objects_.size();
  index_[NodeKey(object)] = number;
  objects_.push_back(std::move(object));
  edges_.emplace_back();
  return number;
}

void ReferenceGraph::AddLabelEdges(size_t object, const Labels& labels) {
  const std::string namespace_name = objects_[object].namespace_name;
  for (const auto& [key, value] : labels) {
    absl::string_view reference = key;
    if (absl::ConsumePrefix(&reference, kLabelGcRef)) {
      std::string target = LabelTarget(namespace_name, reference, value);
      if (!target.empty()) edges_[object].push_back({std::move(target), false, false});
    } else if (absl::ConsumePrefix(&reference, kLabelGcBackRef)) {
      std::string holder = LabelTarget(namespace_name, reference, value);
      if (!holder.empty()) back_references_[holder].push_back(object);
    }
  }
  if (!LabelOr(labels, kLabelGcRoot).empty() && (objects_[object].kind == ObjectKind::kContent ||
                                                 objects_[object].kind == ObjectKind::kSnapshot)) {
    objects_[object].why_root = absl::StrCat("label ", kLabelGcRoot);
  }
}

bool ReferenceGraph::HasExpired(const Labels& labels) {
  const std::string text = LabelOr(labels, kLabelGcExpire);
  absl::Time expiry;
  std::string error;
  // A time nobody can read is no reason to delete anything.
  if (text.empty() || !absl::ParseTime(absl::RFC3339_full, text, &expiry, &error)) return false;
  if (expiry < now_) return true;
  next_expiry_ = std::min(next_expiry_, expiry);
  return false;
}

absl::Status ReferenceGraph::AddContent(const Reader& reader) {
  return ForEach<v1::Blob>(reader, Table::kBlobs,
                           [&](const auto& key, const v1::Blob& blob) -> absl::Status {
                             GraphObject object{ObjectKind::kContent, std::string(key[0])};
                             object.key = blob.digest();
                             object.size_bytes = blob.size_bytes();
                             AddLabelEdges(Add(std::move(object)), blob.labels());
                             return absl::OkStatus();
                           });
}

absl::Status ReferenceGraph::AddSnapshots(const Reader& reader) {
  return ForEach<v1::StoredSnapshot>(
      reader, Table::kSnapshots,
      [&](const auto& key, const v1::StoredSnapshot& stored) -> absl::Status {
        if (key.size() != 3) return absl::DataLossError("a snapshot has a damaged key");
        GraphObject object{ObjectKind::kSnapshot, std::string(key[0]), std::string(key[1]),
                           std::string(key[2])};
        object.backend_key = stored.backend_key();
        const std::string parent = stored.info().parent();
        const size_t number = Add(std::move(object));
        if (!parent.empty()) {
          edges_[number].push_back(
              {NodeKey(ObjectKind::kSnapshot, key[0], key[1], parent), true, false});
        }
        AddLabelEdges(number, stored.info().labels());
        return absl::OkStatus();
      });
}

absl::Status ReferenceGraph::AddImages(const Reader& reader) {
  using Image = containerd::services::images::v1::Image;
  return ForEach<Image>(
      reader, Table::kImages, [&](const auto& key, const Image& image) -> absl::Status {
        GraphObject object{ObjectKind::kImage, std::string(key[0])};
        object.key = image.name();
        if (HasExpired(image.labels())) {
          object.why_garbage = "image expired";
        } else {
          object.why_root = "image";
        }
        const size_t number = Add(std::move(object));
        edges_[number].push_back(
            {NodeKey(ObjectKind::kContent, key[0], "", image.target().digest()), true, false});
        AddLabelEdges(number, image.labels());
        return absl::OkStatus();
      });
}

absl::Status ReferenceGraph::AddContainers(const Reader& reader) {
  using Container = containerd::services::containers::v1::Container;
  return ForEach<Container>(
      reader, Table::kContainers, [&](const auto& key, const Container& container) -> absl::Status {
        GraphObject object{ObjectKind::kContainer, std::string(key[0])};
        object.key = container.id();
        object.why_root = "container";
        const size_t number = Add(std::move(object));
        if (!container.snapshot_key().empty()) {
          edges_[number].push_back({NodeKey(ObjectKind::kSnapshot, key[0], container.snapshotter(),
                                            container.snapshot_key()),
                                    true, false});
        }
        AddLabelEdges(number, container.labels());
        return absl::OkStatus();
      });
}

absl::Status ReferenceGraph::AddSandboxes(const Reader& reader) {
  using Sandbox = containerd::types::Sandbox;
  return ForEach<Sandbox>(reader, Table::kSandboxes,
                          [&](const auto& key, const Sandbox& sandbox) -> absl::Status {
                            GraphObject object{ObjectKind::kSandbox, std::string(key[0])};
                            object.key = sandbox.sandbox_id();
                            object.why_root = "sandbox";
                            AddLabelEdges(Add(std::move(object)), sandbox.labels());
                            return absl::OkStatus();
                          });
}

absl::Status ReferenceGraph::AddIngests(const Reader& reader) {
  return ForEach<v1::StoredIngest>(
      reader, Table::kIngests,
      [&](const auto& key, const v1::StoredIngest& stored) -> absl::Status {
        GraphObject object{ObjectKind::kIngest, std::string(key[0])};
        object.key = stored.ingest().ref();
        object.backend_key = stored.ingest().backend_id();
        object.expected_digest = stored.ingest().expected_digest();
        object.why_garbage = stored.has_expires_at() ? "ingest expired" : "lease ended";
        if (stored.has_expires_at()) {
          const absl::Time expiry = FromProto(stored.expires_at());
          if (expiry >= now_) {
            object.why_root = "ingest under way";
            next_expiry_ = std::min(next_expiry_, expiry);
          }
        }
        Add(std::move(object));
        return absl::OkStatus();
      });
}

absl::Status ReferenceGraph::AddLeases(const Reader& reader) {
  using Lease = containerd::services::leases::v1::Lease;
  absl::flat_hash_map<std::string, bool> flat;  // By the lease's key.
  RETURN_IF_ERROR(ForEach<Lease>(
      reader, Table::kLeases, [&](const auto& key, const Lease& lease) -> absl::Status {
        GraphObject object{ObjectKind::kLease, std::string(key[0])};
        object.key = lease.id();
        if (HasExpired(lease.labels())) {
          object.why_garbage = "lease expired";
        } else {
          object.why_root = "lease";
        }
        flat[NodeKey(object)] = lease.labels().find(kLabelGcFlat) != lease.labels().end();
        Add(std::move(object));
        return absl::OkStatus();
      }));
  auto visit = [&](absl::string_view raw, absl::string_view) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> key = SplitKey(raw);
    if (key.size() != 4) return absl::DataLossError("a lease's resource has a damaged key");
    const std::string lease = NodeKey(ObjectKind::kLease, key[0], "", key[1]);
    auto holder = index_.find(lease);
    if (holder == index_.end()) return true;
    absl::string_view type = key[2];
    Edge edge{"", true, flat[lease]};
    if (type == kContentResource) edge.target = NodeKey(ObjectKind::kContent, key[0], "", key[3]);
    if (type == kIngestResource) edge.target = NodeKey(ObjectKind::kIngest, key[0], "", key[3]);
    if (type == kImageResource) edge.target = NodeKey(ObjectKind::kImage, key[0], "", key[3]);
    if (absl::ConsumePrefix(&type, kSnapshotResource))
      edge.target = NodeKey(ObjectKind::kSnapshot, key[0], type, key[3]);
    if (!edge.target.empty()) edges_[holder->second].push_back(std::move(edge));
    return true;
  };
  return reader.Scan(Table::kLeaseResources, "", visit);
}

absl::Status ReferenceGraph::AddOpenCommits(const Reader& reader) {
  return ForEach<v1::StoredCommit>(
      reader, Table::kCommits,
      [&](const auto& key, const v1::StoredCommit& stored) -> absl::Status {
        if (key.size() != 3) return absl::DataLossError("a commit has a damaged key");
        Root(NodeKey(ObjectKind::kSnapshot, key[0], key[1], key[2]), "being committed");
        Root(NodeKey(ObjectKind::kSnapshot, key[0], key[1], stored.committed().info().parent()),
             "parent of a commit");
        return absl::OkStatus();
      });
}

void ReferenceGraph::Root(absl::string_view node_key, absl::string_view why) {
  auto found = index_.find(node_key);
  if (found != index_.end() && objects_[found->second].why_root.empty()) {
    objects_[found->second].why_root = std::string(why);
  }
}

void ReferenceGraph::Mark() {
  marks_.assign(objects_.size(), 0);
  reached_from_.assign(objects_.size(), kNone);
  std::deque<std::pair<size_t, uint8_t>> work;
  auto reach = [&](size_t object, uint8_t mark, size_t from) {
    if ((marks_[object] & mark) == mark) return;
    if (marks_[object] == 0) reached_from_[object] = from;
    marks_[object] |= mark;
    work.emplace_back(object, mark);
  };
  for (size_t i = 0; i < objects_.size(); ++i) {
    if (!objects_[i].why_root.empty()) reach(i, kFull, kNone);
  }
  while (!work.empty()) {
    const auto [object, mark] = work.front();
    work.pop_front();
    for (const Edge& edge : edges_[object]) {
      if (mark == kFlat && !edge.survives_flat) continue;
      auto target = index_.find(edge.target);
      if (target == index_.end()) continue;
      reach(target->second, edge.flat || mark == kFlat ? kFlat : kFull, object);
    }
    if (mark == kFlat) continue;
    auto held = back_references_.find(NodeKey(objects_[object]));
    if (held == back_references_.end()) continue;
    for (size_t target : held->second) reach(target, kFull, object);
  }
}

std::vector<size_t> ReferenceGraph::Garbage() const {
  std::vector<std::pair<size_t, size_t>> found;  // Depth, object.
  for (size_t i = 0; i < objects_.size(); ++i) {
    if (marks_[i] != 0) continue;
    size_t depth = 0;
    for (size_t at = i; objects_[at].kind == ObjectKind::kSnapshot && depth < objects_.size();
         ++depth) {
      // The first edge that survives a flat lease is the parent.
      auto parent = std::find_if(edges_[at].begin(), edges_[at].end(),
                                 [](const Edge& edge) { return edge.survives_flat; });
      if (parent == edges_[at].end()) break;
      auto next = index_.find(parent->target);
      if (next == index_.end()) break;
      at = next->second;
    }
    found.emplace_back(depth, i);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<size_t> garbage;
  for (const auto& [depth, object] : found) garbage.push_back(object);
  return garbage;
}

std::string ReferenceGraph::PathFromRoot(size_t object) const {
  if (marks_[object] == 0) return "";
  std::string path;
  for (size_t at = object; at != kNone; at = reached_from_[at]) {
    std::string step = absl::StrCat(KindName(objects_[at].kind), " ", objects_[at].key);
    if (reached_from_[at] == kNone && objects_[at].why_root != KindName(objects_[at].kind)) {
      absl::StrAppend(&step, " (", objects_[at].why_root, ")");
    }
    path = path.empty() ? step : absl::StrCat(step, " > ", path);
  }
  return path;
}

}  // namespace gantry::metadata
