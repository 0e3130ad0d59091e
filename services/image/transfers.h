// Images from one place to another at a client's word: containerd's Transfer service.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "containerd/services/transfer/v1/transfer.pb.h"
#include "containerd/types/transfer/transfer.pb.h"
#include "services/image/exporter.h"
#include "services/image/importer.h"
#include "services/image/metadata.h"
#include "services/image/puller.h"
#include "services/image/streams.h"

namespace gantry::image {

// From registry to store (pull), archive to store (import), store to archive (export), store to
// store (tag). What a pull or an import brings is always unpacked for the snapshotter of this
// suite, also when the client asks for content only. Thread-safe.
class Transfers {
 public:
  Transfers(Streams& streams, Puller& puller, Importer& importer, Exporter& exporter,
            Metadata& metadata, std::string snapshotter)
      : streams_(streams),
        puller_(puller),
        importer_(importer),
        exporter_(exporter),
        metadata_(metadata),
        snapshotter_(std::move(snapshotter)) {}

  // Returns when the transfer is done. Errors: Unimplemented — no such pair; InvalidArgument;
  // NotFound — no such image or stream; those of the transfer itself.
  absl::Status Run(const Caller& caller,
                   const containerd::services::transfer::v1::TransferRequest& request,
                   const std::function<bool()>& cancelled);

 private:
  class Reporter;
  using Store = containerd::types::transfer::ImageStore;

  absl::Status Pull(const Caller& caller, const containerd::types::transfer::OCIRegistry& from,
                    const Store& to, Reporter& reporter, const std::function<bool()>& cancelled);
  absl::Status PullOne(const Puller::Request& request, Reporter& reporter,
                       const std::function<bool()>& cancelled);
  absl::Status Import(const Caller& caller,
                      const containerd::types::transfer::ImageImportStream& from, const Store& to,
                      Reporter& reporter, const std::function<bool()>& cancelled);
  absl::Status Export(const Caller& caller, const Store& from,
                      const containerd::types::transfer::ImageExportStream& to, Reporter& reporter,
                      const std::function<bool()>& cancelled);
  absl::Status Tag(const Caller& caller, const Store& from, const Store& to);

  Streams& streams_;
  Puller& puller_;
  Importer& importer_;
  Exporter& exporter_;
  Metadata& metadata_;
  const std::string snapshotter_;
};

}  // namespace gantry::image
