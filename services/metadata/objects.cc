#include "services/metadata/objects.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "containerd/services/namespaces/v1/namespace.pb.h"
#include "containerd/types/types.pb.h"
#include "lib/base/status.h"

namespace gantry::metadata {

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp timestamp;
  const int64_t seconds = absl::ToUnixSeconds(time);
  timestamp.set_seconds(seconds);
  timestamp.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return timestamp;
}

absl::Time FromProto(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

google::protobuf::Any MakeAny(const google::protobuf::Message& message) {
  google::protobuf::Any any;
  any.set_type_url(message.GetDescriptor()->full_name());
  message.SerializeToString(any.mutable_value());
  return any;
}

absl::Status PublishEvent(Writer& writer, absl::string_view namespace_name, absl::string_view topic,
                          const google::protobuf::Message& event) {
  containerd::types::Envelope envelope;
  *envelope.mutable_timestamp() = ToProto(writer.now());
  envelope.set_namespace_(std::string(namespace_name));
  envelope.set_topic(std::string(topic));
  *envelope.mutable_event() = MakeAny(event);
  return writer.Journal(envelope.SerializeAsString());
}

absl::Status EnsureNamespace(Writer& writer, absl::string_view namespace_name) {
  ASSIGN_OR_RETURN(auto present, writer.Find(Table::kNamespaces, namespace_name));
  if (present) return absl::OkStatus();
  containerd::services::namespaces::v1::Namespace created;
  created.set_name(std::string(namespace_name));
  return Store(writer, Table::kNamespaces, namespace_name, created);
}

absl::Status AddToLease(Writer& writer, const Caller& caller, absl::string_view type,
                        absl::string_view id) {
  if (caller.lease.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(auto lease,
                   writer.Find(Table::kLeases, JoinKey({caller.namespace_name, caller.lease})));
  if (!lease) {
    return absl::NotFoundError(absl::StrCat(
        "lease '", caller.lease, "' does not exist in namespace '", caller.namespace_name, "'"));
  }
  const std::string key = JoinKey({caller.namespace_name, caller.lease, type, id});
  ASSIGN_OR_RETURN(auto present, writer.Find(Table::kLeaseResources, key));
  if (present) return absl::OkStatus();
  return writer.Put(Table::kLeaseResources, key, "");
}

absl::Status RemoveFromLease(Writer& writer, const Caller& caller, absl::string_view type,
                             absl::string_view id) {
  if (caller.lease.empty()) return absl::OkStatus();
  return writer
      .Delete(Table::kLeaseResources, JoinKey({caller.namespace_name, caller.lease, type, id}))
      .status();
}

}  // namespace gantry::metadata
