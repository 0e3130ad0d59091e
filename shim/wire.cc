#include "shim/wire.h"

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::shim {
namespace {

absl::Status Malformed(absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("malformed ", message));
}

// The four fields that messages with streams have side by side; `index`: which of them this is.
void ReadStdio(pb::Reader& reader, uint32_t index, Stdio* stdio) {
  if (index == 0) stdio->terminal = reader.boolean();
  if (index == 1) stdio->in = reader.text();
  if (index == 2) stdio->out = reader.text();
  if (index == 3) stdio->err = reader.text();
}

absl::StatusOr<sys::MountSpec> ParseMount(absl::string_view bytes) {
  sys::MountSpec mount;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) mount.type = reader.text();
    if (reader.field() == 2) mount.source = reader.text();
    if (reader.field() == 3) mount.target = reader.text();
    if (reader.field() == 4) mount.options.push_back(reader.text());
  }
  if (!reader.ok()) return Malformed("Mount");
  return mount;
}

}  // namespace

absl::StatusOr<Any> ParseAny(absl::string_view bytes) {
  Any any;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) any.type_url = reader.text();
    if (reader.field() == 2) any.value = reader.text();
  }
  if (!reader.ok()) return Malformed("Any");
  // "type.googleapis.com/x" and "x" are the same type.
  constexpr absl::string_view kPrefix = "type.googleapis.com/";
  if (any.type_url.compare(0, kPrefix.size(), kPrefix.data()) == 0) {
    any.type_url.erase(0, kPrefix.size());
  }
  return any;
}

absl::StatusOr<CreateTaskRequest> ParseCreateTask(absl::string_view bytes) {
  CreateTaskRequest request;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        request.id = reader.text();
        break;
      case 2:
        request.bundle = reader.text();
        break;
      case 3: {
        ASSIGN_OR_RETURN(request.rootfs.emplace_back(), ParseMount(reader.bytes()));
        break;
      }
      case 4:
      case 5:
      case 6:
      case 7:
        ReadStdio(reader, reader.field() - 4, &request.stdio);
        break;
      case 8:
        request.checkpoint = reader.text();
        break;
      case 10: {
        ASSIGN_OR_RETURN(request.options, ParseAny(reader.bytes()));
        break;
      }
    }
  }
  if (!reader.ok()) return Malformed("CreateTaskRequest");
  return request;
}

absl::StatusOr<ExecProcessRequest> ParseExecProcess(absl::string_view bytes) {
  ExecProcessRequest request;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        request.id = reader.text();
        break;
      case 2:
        request.exec_id = reader.text();
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        ReadStdio(reader, reader.field() - 3, &request.stdio);
        break;
      case 7: {
        ASSIGN_OR_RETURN(request.spec, ParseAny(reader.bytes()));
        break;
      }
    }
  }
  if (!reader.ok()) return Malformed("ExecProcessRequest");
  return request;
}

absl::StatusOr<ProcessRequest> ParseProcessRequest(absl::string_view bytes) {
  ProcessRequest request;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        request.id = reader.text();
        break;
      case 2:
        request.exec_id = reader.text();
        break;
      case 3:
        request.third = reader.varint();
        break;
      case 4:
        request.fourth = reader.varint();
        break;
    }
  }
  if (!reader.ok()) return Malformed("request");
  return request;
}

absl::StatusOr<std::string> ParseId(absl::string_view bytes) {
  std::string id;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) id = reader.text();
  }
  if (!reader.ok()) return Malformed("request");
  return id;
}

absl::StatusOr<UpdateTaskRequest> ParseUpdateTask(absl::string_view bytes) {
  UpdateTaskRequest request;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) request.id = reader.text();
    if (reader.field() == 2) {
      ASSIGN_OR_RETURN(request.resources, ParseAny(reader.bytes()));
    }
  }
  if (!reader.ok()) return Malformed("UpdateTaskRequest");
  return request;
}

absl::StatusOr<CreateSandboxRequest> ParseCreateSandbox(absl::string_view bytes) {
  CreateSandboxRequest request;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) request.id = reader.text();
    if (reader.field() == 2) request.bundle = reader.text();
    if (reader.field() == 3) {
      ASSIGN_OR_RETURN(request.rootfs.emplace_back(), ParseMount(reader.bytes()));
    }
    if (reader.field() == 4) {
      ASSIGN_OR_RETURN(request.options, ParseAny(reader.bytes()));
    }
    if (reader.field() == 5) request.netns_path = reader.text();
  }
  if (!reader.ok()) return Malformed("CreateSandboxRequest");
  return request;
}

absl::StatusOr<BootstrapParams> ParseBootstrapParams(absl::string_view bytes) {
  BootstrapParams params;
  pb::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        params.instance_id = reader.text();
        break;
      case 2:
        params.ns = reader.text();
        break;
      case 3:
        params.log_level = reader.signed_varint();
        break;
      case 4:
        params.containerd_version = reader.text();
        break;
      case 5:
        params.ttrpc_address = reader.text();
        break;
      case 6:
        params.grpc_address = reader.text();
        break;
      case 8: {
        pb::Reader extension(reader.bytes());
        while (extension.Next()) {
          if (extension.field() != 1) continue;
          ASSIGN_OR_RETURN(Any any, ParseAny(extension.bytes()));
          if (params.options.type_url.empty()) params.options = std::move(any);
        }
        if (!extension.ok()) return Malformed("Extension");
        break;
      }
      case 9:
        params.socket_dir = reader.text();
        break;
    }
  }
  if (!reader.ok()) return Malformed("BootstrapParams");
  return params;
}

absl::StatusOr<RuncOptions> ParseOptions(const Any& any) {
  RuncOptions options;
  if (any.type_url != "containerd.runc.v1.Options") return options;
  pb::Reader reader(any.value);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        options.no_pivot_root = reader.boolean();
        break;
      case 2:
        options.no_new_keyring = reader.boolean();
        break;
      case 3:
        options.shim_cgroup = reader.text();
        break;
      case 4:
        options.io_uid = static_cast<uint32_t>(reader.varint());
        break;
      case 5:
        options.io_gid = static_cast<uint32_t>(reader.varint());
        break;
      case 6:
        options.binary_name = reader.text();
        break;
      case 7:
        options.root = reader.text();
        break;
      case 9:
        options.systemd_cgroup = reader.boolean();
        break;
    }
  }
  if (!reader.ok()) return Malformed("containerd.runc.v1.Options");
  return options;
}

void WriteAny(pb::Writer& writer, uint32_t field, absl::string_view type_url,
              absl::string_view value) {
  writer.Message(field, [&](pb::Writer& any) {
    any.String(1, type_url);
    any.String(2, value);
  });
}

void WriteTimestamp(pb::Writer& writer, uint32_t field, absl::Time time) {
  const int64_t nanos = absl::ToUnixNanos(time);
  writer.Message(field, [&](pb::Writer& timestamp) {
    timestamp.Varint(1, static_cast<uint64_t>(nanos / 1'000'000'000));
    timestamp.Varint(2, static_cast<uint64_t>(nanos % 1'000'000'000));
  });
}

void WriteMount(pb::Writer& writer, uint32_t field, const sys::MountSpec& mount) {
  writer.Message(field, [&](pb::Writer& inner) {
    inner.String(1, mount.type);
    inner.String(2, mount.source);
    inner.String(3, mount.target);
    for (const std::string& option : mount.options) inner.AlwaysString(4, option);
  });
}

}  // namespace gantry::shim
