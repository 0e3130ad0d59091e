#include "snapshotter/snapshot_audit.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"

namespace gantry::snapshotter {
namespace {

// Ids of snapshots that one mount stands on, from its mountinfo line: overlays name their layers.
std::vector<std::string> SnapshotsOfMount(absl::string_view line, const std::string& prefix) {
  std::vector<std::string> ids;
  const std::string text = sys::UnescapeMountinfo(line);
  for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
    const size_t begin = at + prefix.size();
    ids.push_back(text.substr(begin, text.find_first_of("/:, \n", begin) - begin));
  }
  return ids;
}

}  // namespace

absl::Status AuditSnapshots(OverlaySnapshotter& snapshotter, absl::string_view mountinfo,
                            rpc::AuditReport& report) {
  const std::string directory = absl::StrCat(snapshotter.root(), "/snapshots");
  // Directories first: one made between the two looks is then in the index, not a finding.
  ASSIGN_OR_RETURN(std::vector<std::string> ids, sys::ListDirectory(directory));
  const OverlaySnapshotter::Inventory inventory = snapshotter.TakeInventory();
  const std::set<std::string> present(ids.begin(), ids.end());
  for (const std::string& id : ids) {
    // Removed between the two looks: gone by now.
    if (inventory.keys_by_id.contains(id) || !sys::Exists(absl::StrCat(directory, "/", id)))
      continue;
    report.findings.push_back({"snapshot", absl::StrCat(directory, "/", id),
                               "the directory has no record",
                               "restart gantry-snapshotter, which removes it"});
  }
  for (const auto& [id, key] : inventory.keys_by_id) {
    if (present.contains(id) || sys::Exists(absl::StrCat(directory, "/", id))) continue;
    if (absl::IsNotFound(snapshotter.Stat(key).status())) continue;
    report.findings.push_back(
        {"snapshot", key, "its directory is gone", "remove the snapshot and make it anew"});
  }
  for (const std::string& key : inventory.without_parent) {
    report.findings.push_back(
        {"snapshot", key, "its parent is lost", "remove the snapshot and make it anew"});
  }
  ASSIGN_OR_RETURN(std::vector<std::string> damaged,
                   sys::ListDirectory(absl::StrCat(snapshotter.root(), "/damaged")));
  for (const std::string& id : damaged) {
    report.findings.push_back({"snapshot", absl::StrCat(snapshotter.root(), "/damaged/", id),
                               "its record could not be read",
                               "save what is needed, then delete the directory"});
  }
  report.checked["snapshot"] += ids.size();
  report.checked["snapshot in trash"] += inventory.trash;

  const std::string prefix = directory + "/";
  uint64_t mounts = 0;
  for (absl::string_view line : absl::StrSplit(mountinfo, '\n', absl::SkipEmpty())) {
    std::set<std::string> lost;
    for (const std::string& id : SnapshotsOfMount(line, prefix)) {
      ++mounts;
      if (!inventory.keys_by_id.contains(id)) lost.insert(id);
    }
    if (lost.empty()) continue;
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    report.findings.push_back(
        {"mount", fields.size() > 4 ? fields[4] : std::string(line),
         absl::StrCat("stands on the removed snapshot directory ", *lost.begin()), "unmount it"});
  }
  report.checked["mount of a snapshot"] += mounts;
  return absl::OkStatus();
}

}  // namespace gantry::snapshotter
