// What an audit finds: things without a record, records without their thing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gantry::rpc {

struct Finding {
  std::string kind;  // mount, cgroup, netns, veth, shim, socket, bundle, blob, ingest, snapshot …
  std::string object;   // A path, an id, a digest.
  std::string problem;  // One clause.
  std::string remedy;   // One clause.
};

struct AuditReport {
  std::vector<Finding> findings;
  std::map<std::string, uint64_t> checked;  // Objects looked at, by kind.
};

}  // namespace gantry::rpc
