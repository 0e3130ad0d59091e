// Where the task process learns what a container is.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/any.pb.h"

namespace gantry::task {

struct ContainerRecord {
  std::string runtime;            // Name or path; may be empty.
  google::protobuf::Any options;  // Of the runtime; type_url empty: none.
  std::string spec;               // config.json.
};

// Thread-safe.
class ContainerSource {
 public:
  virtual ~ContainerSource() = default;
  // Errors: NotFound — no such container; Unavailable — metadata does not answer.
  virtual absl::StatusOr<ContainerRecord> Get(const std::string& ns, const std::string& id) = 0;
};

}  // namespace gantry::task
