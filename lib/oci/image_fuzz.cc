// Any bytes as a reference, an index, a manifest and a configuration. What is accepted must be
// readable again after it was written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/oci/image_manifest.h"
#include "lib/oci/image_reference.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gantry;  // NOLINT: a fuzz target is one function.
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<oci::ImageReference> reference = oci::ImageReference::Parse(bytes);
  if (reference.ok()) {
    absl::StatusOr<oci::ImageReference> again = oci::ImageReference::Parse(reference->str());
    if (!again.ok() || again->str() != reference->str()) std::abort();
  }
  (void)oci::ParsePlatform(bytes);
  (void)oci::DocumentMediaType(bytes, "");
  (void)oci::ParseImageConfiguration(bytes);
  absl::StatusOr<oci::Index> index = oci::ParseIndex(bytes);
  if (index.ok()) (void)oci::SelectManifest(*index, oci::HostPlatform());
  absl::StatusOr<oci::Manifest> manifest = oci::ParseManifest(bytes);
  if (manifest.ok() && !oci::ParseManifest(oci::WriteManifest(*manifest)).ok()) std::abort();
  return 0;
}
