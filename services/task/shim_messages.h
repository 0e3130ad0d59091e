// Between containerd's messages and ours: times, answers of shims, envelopes of events.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"
#include "lib/base/status.h"

namespace gantry::task {

absl::Time ToTime(const google::protobuf::Timestamp& time);
void SetTime(absl::Time time, google::protobuf::Timestamp* proto);

// What a shim answered to a call. Errors: the call's; Internal — the bytes are no such message.
template <typename Message>
absl::StatusOr<Message> ParseAnswer(const absl::StatusOr<std::string>& payload) {
  RETURN_IF_ERROR(payload.status());
  Message message;
  if (!message.ParseFromString(*payload)) {
    return absl::InternalError(
        absl::StrCat("the shim's answer is not a ", Message::descriptor()->full_name()));
  }
  return message;
}

// An event as of now, with the bare type URL that Go compares.
containerd::types::Envelope MakeEnvelope(const std::string& ns, const std::string& topic,
                                         const google::protobuf::Message& event);

}  // namespace gantry::task
