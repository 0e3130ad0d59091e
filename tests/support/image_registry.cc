#include "tests/support/image_registry.h"

#include <fcntl.h>
#include <stdlib.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "tests/support/command.h"
#include "tests/support/suite.h"

namespace gantry::testing {
namespace {

constexpr char kAddress[] = "127.0.0.1:5000";

absl::Status Succeed(const CommandResult& result, absl::string_view attempt) {
  if (result.code == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(attempt, ": exit ", result.code, ": ", result.err));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageRegistry>> ImageRegistry::Start() {
  ASSIGN_OR_RETURN(sys::TempDir folder, sys::TempDir::Create());
  const std::string config = absl::StrCat(folder.path(), "/config.yml");
  RETURN_IF_ERROR(sys::WriteFileAtomically(
      config,
      absl::StrCat("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ",
                   folder.path(), "/data}, delete: {enabled: true}}\nhttp: {addr: ", kAddress,
                   "}\n")));
  std::unique_ptr<ImageRegistry> registry(new ImageRegistry(std::move(folder), kAddress));
  sys::SpawnOptions options;
  options.argv = {"/usr/bin/docker-registry", "serve", config};
  options.environment = {"PATH=/usr/bin:/bin"};
  options.die_with_parent_thread = true;
  ASSIGN_OR_RETURN(registry->process_, sys::Spawn(options));
  RETURN_IF_ERROR(
      Succeed(RunShell("for i in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:5000/v2/ "
                       "&& exit 0; sleep 0.05; done; exit 1"),
              "wait for docker-registry"));
  RETURN_IF_ERROR(registry->Push("busybox", 0, 0));
  return registry;
}

std::string ImageRegistry::busybox() const { return absl::StrCat(address_, "/busybox:latest"); }

absl::Status ImageRegistry::Push(const std::string& name, int layers, int megabytes) {
  const std::string layout = absl::StrCat(folder_.path(), "/layout-", name);
  CommandOptions options;
  options.timeout = absl::Minutes(5);
  RETURN_IF_ERROR(
      Succeed(RunCommand({absl::StrCat(SourceDirectory(), "/deploy/make-image"), layout, "latest",
                          "--layers", absl::StrCat(layers), "--megabytes", absl::StrCat(megabytes)},
                         options),
              "build an image"));
  return Succeed(RunCommand({"skopeo", "copy", "--quiet", "--insecure-policy",
                             "--dest-tls-verify=false", absl::StrCat("oci:", layout, ":latest"),
                             absl::StrCat("docker://", address_, "/", name, ":latest")},
                            options),
                 "push an image");
}

}  // namespace gantry::testing
