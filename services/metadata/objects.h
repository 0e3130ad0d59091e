// Small steps that every mutation is made of: events, namespaces that come into being, leases,
// time.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

google::protobuf::Timestamp ToProto(absl::Time time);
absl::Time FromProto(const google::protobuf::Timestamp& timestamp);

// An Any with a bare type URL, which Go's clients insist on (contracts 3.9).
google::protobuf::Any MakeAny(const google::protobuf::Message& message);

// Writes an event into the journal, in the transaction that causes it.
absl::Status PublishEvent(Writer& writer, absl::string_view namespace_name, absl::string_view topic,
                          const google::protobuf::Message& event);

// A namespace comes into being by the first write into it.
absl::Status EnsureNamespace(Writer& writer, absl::string_view namespace_name);

// Types of leased resources; snapshots are "snapshots/<snapshotter>".
inline constexpr char kContentResource[] = "content";
inline constexpr char kIngestResource[] = "ingests";
inline constexpr char kImageResource[] = "images";
inline constexpr char kSnapshotResource[] = "snapshots/";

// Adds a resource to the caller's lease, if it has one. Errors: NotFound — no such lease.
absl::Status AddToLease(Writer& writer, const Caller& caller, absl::string_view type,
                        absl::string_view id);
absl::Status RemoveFromLease(Writer& writer, const Caller& caller, absl::string_view type,
                             absl::string_view id);

}  // namespace gantry::metadata
