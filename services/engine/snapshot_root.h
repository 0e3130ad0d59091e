// The root file system of a container that does not run, as a descriptor.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/types/types.pb.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

// The layers of a mount list, uppermost first (the writable one included); empty when the list is
// of a kind that has none to look into.
std::vector<std::string> LayerDirectories(const std::vector<containerd::types::Mount>& mounts);

// "LowerDir", "UpperDir", "WorkDir" of a mount list, as inspect shows them.
std::map<std::string, std::string> GraphDriverData(
    const std::vector<containerd::types::Mount>& mounts);

// Mounts the list on a fresh directory below `directory`, opens it, and detaches it at once: the
// mount lives as long as the descriptor and what is opened through it, and no crash leaves it
// behind. The container must not be started meanwhile. `read_only`: nothing can be written.
absl::StatusOr<sys::UniqueFd> OpenSnapshotRoot(const std::vector<containerd::types::Mount>& mounts,
                                               const std::string& directory, bool read_only);

// Undoes what a crash within OpenSnapshotRoot left below `directory`. Called once at start.
absl::Status SweepSnapshotRoots(const std::string& directory);

}  // namespace gantry::engine
