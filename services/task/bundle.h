// Bundles: one directory per task under <runtime_directory>/<namespace>/<id>/, gone with a reboot.
//
// Files (contracts/containerd/shim-bundle.tsv): config.json, rootfs/, bootstrap.json,
// shim-binary-path, address, and for shims of strangers log (a fifo) and work (a symlink). Ours
// beside them:
//   exit        the shim's exit record (docs/formats/exit-record.md); written by us when it could
//   not shim-ended  the shim is gone and cleaned up after; the task waits as stopped for its Delete
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::task {

// How to reach the shim of a bundle again.
struct Bootstrap {
  int version = 2;      // Of the task API: 2 or 3.
  std::string address;  // "unix:///path"
  std::string binary;   // Of the shim.
};

// Names the directory; owns nothing. Thread-compatible.
class Bundle {
 public:
  Bundle(const std::string& root, const std::string& ns, const std::string& id)
      : path_(root + "/" + ns + "/" + id) {}

  const std::string& path() const { return path_; }
  std::string rootfs() const { return path_ + "/rootfs"; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  // Makes the directory, rootfs and config.json. Errors: AlreadyExists — a bundle is left there.
  absl::Status Make(absl::string_view config_json) const;

  // Must be written before the shim is spawned: a shim that runs can then always be found again.
  absl::Status WriteBootstrap(const Bootstrap& bootstrap) const;
  // Reads bootstrap.json, else `address`. Errors: NotFound — the shim was never started.
  absl::StatusOr<Bootstrap> ReadBootstrap() const;

  // Unmounts what is mounted in it, then removes it; fine when it is not there. The namespace's
  // directory goes when it is empty.
  absl::Status Remove() const;

  // The same as far as others can see, at the price of one rename: its files lie in `trash` (made
  // when it is not there), under the path in the answer, and are the caller's to remove. Empty:
  // there were none.
  absl::StatusOr<std::string> Discard(const std::string& trash) const;

 private:
  absl::Status FreeRootfs() const;
  void LeaveNamespace() const;

  std::string path_;
};

struct BundleName {
  std::string ns;
  std::string id;
};
// All bundles below `root`, by namespace and id. Names that start with '.' are not namespaces.
absl::StatusOr<std::vector<BundleName>> ListBundles(const std::string& root);

}  // namespace gantry::task
