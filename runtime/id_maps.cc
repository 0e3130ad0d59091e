#include "runtime/id_maps.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"

namespace gantry::runtime {
namespace {

std::string MapText(const std::vector<oci::IdMapping>& mappings) {
  std::string text;
  for (const oci::IdMapping& one : mappings) {
    absl::StrAppend(&text, one.container_id, " ", one.host_id, " ", one.size, "\n");
  }
  return text;
}

absl::Status RunMapper(const char* program, pid_t pid,
                       const std::vector<oci::IdMapping>& mappings) {
  sys::SpawnOptions options;
  for (const char* directory : {"/usr/bin/", "/bin/", "/usr/local/bin/"}) {
    const std::string path = absl::StrCat(directory, program);
    if (sys::Exists(path)) options.program = path;
  }
  if (options.program.empty()) {
    return absl::NotFoundError(
        absl::StrCat("map ids: ", program,
                     " is not installed, and more than this user's own id is to be mapped"));
  }
  options.argv = {program, absl::StrCat(pid)};
  for (const oci::IdMapping& one : mappings) {
    options.argv.push_back(absl::StrCat(one.container_id));
    options.argv.push_back(absl::StrCat(one.host_id));
    options.argv.push_back(absl::StrCat(one.size));
  }
  options.descriptors = {{2, 2}};
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(options));
  ASSIGN_OR_RETURN(sys::ExitStatus status, child.Wait());
  if (status.code == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("map ids: ", program, " refused (exit status ",
                                                  status.code,
                                                  "); see /etc/subuid and /etc/subgid"));
}

bool IsOwnIdOnly(const std::vector<oci::IdMapping>& mappings, uint32_t own) {
  return mappings.size() == 1 && mappings[0].size == 1 && mappings[0].host_id == own;
}

}  // namespace

absl::Status WriteIdMaps(pid_t pid, const std::vector<oci::IdMapping>& uids,
                         const std::vector<oci::IdMapping>& gids) {
  const std::string proc = absl::StrCat("/proc/", pid, "/");
  const bool privileged = ::geteuid() == 0;
  if (privileged || IsOwnIdOnly(uids, ::geteuid())) {
    RETURN_IF_ERROR(
        Annotate(sys::WriteControlFile(proc + "uid_map", MapText(uids)), "map user ids"));
  } else {
    RETURN_IF_ERROR(RunMapper("newuidmap", pid, uids));
  }
  if (privileged || IsOwnIdOnly(gids, ::getegid())) {
    if (!privileged) {
      RETURN_IF_ERROR(
          Annotate(sys::WriteControlFile(proc + "setgroups", "deny"), "deny setgroups"));
    }
    return Annotate(sys::WriteControlFile(proc + "gid_map", MapText(gids)), "map group ids");
  }
  return RunMapper("newgidmap", pid, gids);
}

bool InUserNamespace() {
  absl::StatusOr<std::string> map = sys::ReadFile("/proc/self/uid_map", 65536);
  if (!map.ok()) return false;
  const std::vector<std::string> words =
      absl::StrSplit(*map, absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
  return words != std::vector<std::string>{"0", "0", "4294967295"};
}

}  // namespace gantry::runtime
