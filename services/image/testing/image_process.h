// Everything gantry-image is made of, on a fake metadata and in a temporary directory. The unpack
// worker is the real program.
#pragma once

#include <signal.h>
#include <stdlib.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/metrics/registry.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "services/image/blob_store.h"
#include "services/image/catalog.h"
#include "services/image/collector.h"
#include "services/image/differ.h"
#include "services/image/http_client.h"
#include "services/image/importer.h"
#include "services/image/installer.h"
#include "services/image/metadata.h"
#include "services/image/puller.h"
#include "services/image/registry.h"
#include "services/image/testing/fake_metadata.h"
#include "services/image/unpacker.h"

namespace gantry::image {

inline std::string WorkerProgram() {
  const char* bin = ::getenv("GANTRY_BIN");
  return absl::StrCat(bin == nullptr ? "bin" : bin, "/gantry-unpack");
}

struct ImageProcess {
  explicit ImageProcess(FakeMetadata& fake, const std::string& root,
                        InstallerOptions installer_options = {},
                        RegistryOptions registry_options = FastRetries())
      : metadata(fake.channel()),
        blobs(*BlobStore::Open(root + "/state")),
        unpacker({WorkerProgram(), {}, 1000}),
        registry(http, registry_options),
        installer(*blobs, metadata, unpacker, metrics, WithScratch(installer_options, root)),
        importer(installer, metadata, unpacker, root + "/state/spool", {}),
        puller(registry, installer, metadata, metrics),
        catalog(*blobs, metadata, "overlayfs", {}),
        differ(*blobs, metadata, unpacker, root + "/scratch"),
        collector(*blobs, metadata) {
    ::signal(SIGPIPE, SIG_IGN);
    (void)sys::MakeDirectories(root + "/scratch");
    (void)importer.Clean();
  }

  static RegistryOptions FastRetries() {
    RegistryOptions options;
    options.first_pause = absl::Milliseconds(1);
    return options;
  }
  static InstallerOptions WithScratch(InstallerOptions options, const std::string& root) {
    options.scratch = root + "/scratch";
    return options;
  }

  absl::StatusOr<Puller::Outcome> Pull(const std::string& reference,
                                       const std::string& namespace_name = "n",
                                       Credentials credentials = {}) {
    ASSIGN_OR_RETURN(oci::ImageReference parsed, oci::ImageReference::Parse(reference));
    ASSIGN_OR_RETURN(oci::Platform platform, oci::ParsePlatform("linux/amd64"));
    Progress progress;
    return puller.Pull({namespace_name, parsed, platform, credentials}, progress, nullptr);
  }

  metrics::Registry metrics;
  Metadata metadata;
  std::unique_ptr<BlobStore> blobs;
  Unpacker unpacker;
  HttpClient http;
  Registry registry;
  Installer installer;
  Importer importer;
  Puller puller;
  Catalog catalog;
  Differ differ;
  Collector collector;
};

}  // namespace gantry::image
