// Files of a container as tar streams, for `cp`. What lies below the root belongs to the container:
// no path is resolved but by openat2(2) with the root as "/", no link is followed out.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

// Sends what is at `path`: first a chunk with its `stat` (st_mode as the kernel has it), then,
// unless only that was asked for, the tar. The archive's one top entry is called as the last part
// of the path. A link at the end of the path is sent as a link, or with follow_link as what it
// leads to. Errors: NotFound "Could not find the file X in container"; whatever `emit` answered.
absl::Status SendArchive(const sys::UniqueFd& root, const std::string& path,
                         const v1::GetArchiveRequest& request,
                         const std::function<absl::Status(const v1::ArchiveChunk&)>& emit);

// Unpacks a tar into the directory `path`. Owners are those of the archive with `keep_owner`, else
// root. `next` answers the pieces, the last one empty; a piece is valid until the next call.
// Errors: NotFound — no such directory; InvalidArgument — the stream is no tar, or an entry would
// leave the directory; ResourceExhausted — the disk is full. What was unpacked before an error
// stays.
absl::Status ReceiveArchive(const sys::UniqueFd& root, const std::string& path, bool keep_owner,
                            const std::function<absl::StatusOr<absl::string_view>()>& next);

}  // namespace gantry::engine
