// Mounts as containerd describes them: a list of (type, source, options) that becomes a root file
// system. All processes share the host's mount namespace; who needs a mount list, mounts it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

// One mount, as in containerd.types.Mount.
struct MountSpec {
  std::string type;  // "bind", "overlay", "tmpfs" …
  std::string source;
  std::string target;  // Below the directory given to MountAll; empty: the directory itself.
  std::vector<std::string> options;  // As in fstab: "ro", "rbind", "lowerdir=/a:/b" …
};

// Options taken apart: what the kernel wants as flags, and what the file system wants as text.
struct MountOptions {
  unsigned long flags = 0;        // MS_RDONLY, MS_BIND …
  unsigned long propagation = 0;  // MS_PRIVATE, MS_SHARED … with MS_REC; 0: leave it.
  std::vector<std::string> data;  // Handed to the file system, in order.
  // "container:host:size", several joined by ',', from `uidmap=` and `gidmap=`; empty: none.
  std::string uid_map;
  std::string gid_map;
};

// Never fails: an unknown word belongs to the file system. "X-containerd.…", "_netdev" and the
// like, which speak to programs and not to the kernel, are left out.
MountOptions ParseMountOptions(const std::vector<std::string>& options);

// Mounts one after the other onto `directory` (or below it, where a spec names a target). A bind
// that is read-only is made so in a second step, as the kernel wants it. Overlay options may be
// longer than a page: then the layers are handed over one by one (Linux 6.8), or relative to their
// common directory. When one fails, those before it are unmounted again.
//
// Errors: NotFound — source or directory is missing; InvalidArgument — the file system refuses the
// options; PermissionDenied — needs CAP_SYS_ADMIN; ResourceExhausted — more layers than this kernel
// can take. Thread-safe. Source: mount(2), fsopen(2).
absl::Status MountAll(const std::vector<MountSpec>& mounts, const std::string& directory);

// Unmounts everything mounted at or below `path`, the newest first. What is busy is detached: gone
// from the tree now, freed with its last user. Fine when nothing is mounted there or `path` is
// missing. A symlink at the end of `path` is not followed.
absl::Status UnmountTree(const std::string& path);

// Mount points at or below `path`, in the order they were mounted.
absl::StatusOr<std::vector<std::string>> MountPointsBelow(const std::string& path);

// The text after one mountinfo escape pass ("\040" is a space). For readers of /proc/*/mountinfo.
std::string UnescapeMountinfo(absl::string_view field);

}  // namespace gantry::sys
