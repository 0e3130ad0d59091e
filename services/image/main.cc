// gantry-image: a program of its own beside gantryd, because libcurl brings two dozen shared
// objects that the other daemons should not load.
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/rpc/daemon.h"
#include "services/image/blob_store.h"
#include "services/image/catalog.h"
#include "services/image/collector.h"
#include "services/image/content_service.h"
#include "services/image/diff_service.h"
#include "services/image/differ.h"
#include "services/image/exporter.h"
#include "services/image/http_client.h"
#include "services/image/images_service.h"
#include "services/image/importer.h"
#include "services/image/installer.h"
#include "services/image/metadata.h"
#include "services/image/options.h"
#include "services/image/puller.h"
#include "services/image/registry.h"
#include "services/image/streams.h"
#include "services/image/transfer_service.h"
#include "services/image/transfers.h"
#include "services/image/unpacker.h"

namespace gantry::image {
namespace {

constexpr char kHostsDirectory[] = "/etc/gantry/certs.d";

// gantry-unpack lies beside this program, wherever that was installed.
std::string UnpackProgram() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  const std::string self(path, length > 0 ? static_cast<size_t>(length) : 0);
  return absl::StrCat(self.substr(0, self.rfind('/') + 1), "gantry-unpack");
}

absl::Status Run(rpc::Daemon& daemon) {
  // A worker that ends early is told by EPIPE.
  ::signal(SIGPIPE, SIG_IGN);
  // Mounts are under the runtime directory: a reboot ends both.
  const std::string scratch = daemon.runtime_directory() + "/mounts";
  // A suite of its own root leaves the machine's files unread.
  const std::string hosts_directory = daemon.instance_suffix().empty() ? kHostsDirectory : "";
  ASSIGN_OR_RETURN(Options options,
                   ReadOptions(daemon.section(), scratch, UnpackProgram(), hosts_directory));
  RETURN_IF_ERROR(Annotate(CleanScratch(scratch), "clean up after an earlier run"));

  ASSIGN_OR_RETURN(std::unique_ptr<BlobStore> blobs, BlobStore::Open(daemon.state_directory()));
  Metadata metadata(daemon.Dial("metadata"));
  Unpacker unpacker(options.unpacker);
  HttpClient http;
  Registry registry(http, options.registry);
  Installer installer(*blobs, metadata, unpacker, daemon.metrics(), options.installer);
  Importer importer(installer, metadata, unpacker, daemon.state_directory() + "/spool",
                    options.limits);
  RETURN_IF_ERROR(Annotate(importer.Clean(), "clean up after an earlier run"));
  Puller puller(registry, installer, metadata, daemon.metrics());
  Catalog catalog(*blobs, metadata, options.installer.snapshotter, options.limits);
  Differ differ(*blobs, metadata, unpacker, scratch);
  Collector collector(*blobs, metadata);

  Exporter exporter(*blobs, metadata, options.limits);
  Streams streams;
  Transfers transfers(streams, puller, importer, exporter, metadata, options.installer.snapshotter);

  ContentService content_service(*blobs, metadata);
  DiffService diff_service(differ);
  ImagesService images_service(puller, importer, catalog);
  TransferService transfer_service(transfers);
  daemon.AddService(&content_service);
  daemon.AddService(&diff_service);
  daemon.AddService(&images_service);
  daemon.AddService(&streams);
  daemon.AddService(&transfer_service);
  daemon.AddAuditor([&collector](rpc::AuditReport& report) { return collector.Audit(report); });
  daemon.OnStop([&] {
    puller.CancelAll();
    streams.Stop();
    collector.Stop();
  });
  collector.Start();
  return daemon.Serve();
}

}  // namespace
}  // namespace gantry::image

int main(int argc, char** argv) {
  return gantry::rpc::RunDaemon(argc, argv, "image", &gantry::image::Run);
}
