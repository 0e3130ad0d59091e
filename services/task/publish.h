// `gantry-task --address SOCKET publish --topic TOPIC --namespace NAMESPACE`, with a protobuf Any
// on stdin: hands one event to the daemon at SOCKET and ends.
//
// Shims that know no event service over ttrpc execute the binary they were given as
// `-publish-binary` like this, once for every event (contracts/containerd, 5.7).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::task {

struct PublishArguments {
  std::string address;  // Of the daemon's gRPC socket, with or without "unix://".
  std::string topic;
  std::string ns;
};

// Whether the words (without the program's name) have the action `publish`.
bool IsPublish(const std::vector<std::string>& words);

// Flags take one or two dashes, and their value as the next word or after '='. Errors:
// InvalidArgument — a flag is missing, or unknown.
absl::StatusOr<PublishArguments> ParsePublish(const std::vector<std::string>& words);

// `any`: the bytes of a google.protobuf.Any. The daemon adds the time. Errors: InvalidArgument — no
// such bytes; Unavailable — nobody serves there; what the daemon said.
absl::Status Publish(const PublishArguments& arguments, absl::string_view any);

// The whole command: the exit code, after a message on stderr when it is not 0.
int PublishMain(const std::vector<std::string>& words);

}  // namespace gantry::task
