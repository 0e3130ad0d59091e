// Network namespaces as files: made, entered, removed.
//
// unshare(2) and setns(2) change the namespace of the calling thread only. Everything here that
// needs another namespace therefore runs on a thread made for it, which ends with the call: nothing
// has to be switched back, so no thread of a pool (gRPC's, say) can be left in the wrong place by
// an error. A thread costs some 50 µs against the 500 of a new namespace; a helper process would
// cost ten times that.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::netlink {

// Makes a namespace and pins it to a new file at `path` (a bind mount of nsfs), so that it lives on
// without a process in it. `inside` then runs in it, and is handed the namespace. After an error
// file and namespace are gone.
//
// Errors: AlreadyExists — the file is there; PermissionDenied — needs CAP_SYS_ADMIN; what `inside`
// said. Thread-safe. Source: network_namespaces(7).
absl::StatusOr<sys::UniqueFd> MakeNamespace(
    const std::string& path, const std::function<absl::Status(const sys::UniqueFd&)>& inside);

// Opens a pinned namespace. Errors: NotFound — no such file; FailedPrecondition — the file is
// there, but it is not a network namespace (the mount is gone: a reboot, or somebody unmounted it).
absl::StatusOr<sys::UniqueFd> OpenNamespace(const std::string& path);

// Runs `inside` on a thread in that namespace and waits for it.
absl::Status RunInNamespace(const sys::UniqueFd& network_namespace,
                            const std::function<absl::Status()>& inside);

// Takes the file away; the namespace itself ends with its last process or socket. Fine when there
// is nothing at `path`, or only the plain file.
absl::Status RemoveNamespace(const std::string& path);

}  // namespace gantry::netlink
