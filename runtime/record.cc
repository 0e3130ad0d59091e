#include "runtime/record.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"

namespace gantry::runtime {
namespace {

constexpr int64_t kVersion1 = 1;

absl::Status ReadRecord(const json::Value& root, Record* record) {
  int64_t version = 0, created = 0;
  int32_t pid = 0, manager = 0, mode = 0;
  RETURN_IF_ERROR(root.Required("version", &version));
  if (version != kVersion1) {
    return absl::DataLossError(absl::StrCat("the state has version ", version, "; known is 1"));
  }
  RETURN_IF_ERROR(root.Required("id", &record->id));
  RETURN_IF_ERROR(root.Required("bundle", &record->bundle));
  RETURN_IF_ERROR(root.Required("rootfs", &record->rootfs));
  RETURN_IF_ERROR(root.Required("owner", &record->owner));
  RETURN_IF_ERROR(root.Required("ociVersion", &record->oci_version));
  RETURN_IF_ERROR(root.Required("created", &created));
  RETURN_IF_ERROR(root.Required("pid", &pid));
  RETURN_IF_ERROR(root.Required("startTime", &record->start_time));
  RETURN_IF_ERROR(root.Required("bootId", &record->boot_id));
  RETURN_IF_ERROR(root.Required("ownPidNamespace", &record->own_pid_namespace));
  RETURN_IF_ERROR(root.Required("startByOthers", &record->start_by_others));
  RETURN_IF_ERROR(root.Required("rootless", &record->rootless));
  RETURN_IF_ERROR(root.Optional("noNewKeyring", &record->no_new_keyring));
  RETURN_IF_ERROR(root.Optional("poststart", &record->has_poststart));
  RETURN_IF_ERROR(root.Optional("poststop", &record->has_poststop));
  RETURN_IF_ERROR(root.Required("cgroupManager", &manager));
  RETURN_IF_ERROR(root.Required("cgroupMode", &mode));
  RETURN_IF_ERROR(root.Optional("systemdUnit", &record->systemd_unit));
  RETURN_IF_ERROR(root.Optional("systemdUser", &record->systemd_user));
  RETURN_IF_ERROR(root.Optional("resctrlGroup", &record->resctrl.group));
  RETURN_IF_ERROR(root.Optional("resctrlMonitor", &record->resctrl.monitor));
  RETURN_IF_ERROR(root.Optional("resctrlOwned", &record->resctrl.owned));
  RETURN_IF_ERROR(root.Optional("annotations", &record->annotations));
  RETURN_IF_ERROR(root.Optional("seccompCache", &record->seccomp_cache));
  if (manager < 0 || manager > 2 || mode < 0 || mode > 2) {
    return absl::DataLossError("the state names a cgroup manager or mode that does not exist");
  }
  record->created = absl::FromUnixNanos(created);
  record->pid = pid;
  record->cgroup_manager = static_cast<CgroupManager>(manager);
  record->cgroup_mode = static_cast<cgroup::Mode>(mode);
  json::Value cgroups;
  RETURN_IF_ERROR(root.Required("cgroups", &cgroups));
  RETURN_IF_ERROR(cgroups.ExpectArray());
  for (size_t i = 0; i < cgroups.size(); ++i) {
    cgroup::Directory directory;
    RETURN_IF_ERROR(cgroups.at(i).Required("path", &directory.path));
    RETURN_IF_ERROR(cgroups.at(i).Required("controllers", &directory.controllers));
    record->cgroups.push_back(std::move(directory));
  }
  return absl::OkStatus();
}

}  // namespace

std::string BootId() {
  absl::StatusOr<std::string> text = sys::ReadFile("/proc/sys/kernel/random/boot_id", 64);
  return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
}

namespace {

std::string WriteRecord(const Record& record) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("version", kVersion1);
  writer.Member("id", record.id);
  writer.Member("bundle", record.bundle);
  writer.Member("rootfs", record.rootfs);
  writer.Member("owner", record.owner);
  writer.Member("ociVersion", record.oci_version);
  writer.Member("created", absl::ToUnixNanos(record.created));
  writer.Member("pid", static_cast<int32_t>(record.pid));
  writer.Member("startTime", record.start_time);
  writer.Member("bootId", record.boot_id);
  writer.Member("ownPidNamespace", record.own_pid_namespace);
  writer.Member("startByOthers", record.start_by_others);
  writer.Member("rootless", record.rootless);
  if (record.no_new_keyring) writer.Member("noNewKeyring", true);
  if (record.has_poststart) writer.Member("poststart", true);
  if (record.has_poststop) writer.Member("poststop", true);
  writer.Member("cgroupManager", static_cast<int32_t>(record.cgroup_manager));
  writer.Member("cgroupMode", static_cast<int32_t>(record.cgroup_mode));
  if (!record.systemd_unit.empty()) writer.Member("systemdUnit", record.systemd_unit);
  if (record.systemd_user) writer.Member("systemdUser", true);
  if (!record.resctrl.empty()) {
    writer.Member("resctrlGroup", record.resctrl.group);
    writer.Member("resctrlMonitor", record.resctrl.monitor);
    writer.Member("resctrlOwned", record.resctrl.owned);
  }
  writer.Key("cgroups");
  writer.BeginArray();
  for (const cgroup::Directory& one : record.cgroups) {
    writer.BeginObject();
    writer.Member("path", one.path);
    writer.Member("controllers", one.controllers);
    writer.EndObject();
  }
  writer.EndArray();
  writer.Member("annotations", record.annotations);
  writer.Member("seccompCache", record.seccomp_cache);
  writer.EndObject();
  return writer.Take();
}

absl::Status WriteNewFile(const std::string& path, absl::string_view bytes) {
  ASSIGN_OR_RETURN(sys::UniqueFd file,
                   sys::Open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  return Annotate(sys::WriteAll(file, bytes), absl::StrCat("write '", path, "'"));
}

}  // namespace

absl::Status SaveRecord(const std::string& directory, const Record& record) {
  RETURN_IF_ERROR(FAILPOINT("runtime.record.before_replace"));
  return sys::WriteFileAtomically(absl::StrCat(directory, "/", kRecordName), WriteRecord(record));
}

absl::Status SaveFirstRecord(const std::string& directory, const Record& record,
                             absl::string_view config_json) {
  RETURN_IF_ERROR(FAILPOINT("runtime.record.before_write"));
  RETURN_IF_ERROR(WriteNewFile(absl::StrCat(directory, "/", kRecordName), WriteRecord(record)));
  return WriteNewFile(absl::StrCat(directory, "/", kConfigName), config_json);
}

absl::Status RemoveContainerDirectory(const std::string& directory) {
  for (const char* name : {kConfigName, kStartSocketName, kRecordName}) {
    (void)::unlink(absl::StrCat(directory, "/", name).c_str());
  }
  if (::rmdir(directory.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return sys::RemoveTree(directory);
}

absl::StatusOr<Record> LoadRecord(const std::string& directory) {
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(absl::StrCat(directory, "/", kRecordName)));
  absl::StatusOr<json::Document> document = json::Document::Parse(bytes);
  Record record;
  absl::Status status = document.ok() ? ReadRecord(document->root(), &record) : document.status();
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat("the state in '", directory, "' cannot be read: ",
                                            status.message(), "; remove it with delete --force"));
  }
  return record;
}

}  // namespace gantry::runtime
