#include "services/task/shim_messages.h"

#include <cstdint>

namespace gantry::task {

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t nanos = absl::ToUnixNanos(time);
  proto->set_seconds(nanos / 1000000000);
  proto->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

containerd::types::Envelope MakeEnvelope(const std::string& ns, const std::string& topic,
                                         const google::protobuf::Message& event) {
  containerd::types::Envelope envelope;
  SetTime(absl::Now(), envelope.mutable_timestamp());
  envelope.set_namespace_(ns);
  envelope.set_topic(topic);
  envelope.mutable_event()->set_type_url(event.GetDescriptor()->full_name());
  envelope.mutable_event()->set_value(event.SerializeAsString());
  return envelope;
}

}  // namespace gantry::task
