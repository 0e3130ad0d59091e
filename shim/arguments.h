// The shim's command line, in Go's flag style: one or two dashes, a value after '=' or as the next
// word, flags first, the action last. Source: contracts/containerd/shim-invocation.tsv.
#pragma once

#include <string>
#include <vector>

namespace gantry::shim {

struct Arguments {
  std::string ns;              // -namespace
  std::string id;              // -id
  std::string address;         // -address: the daemon's gRPC socket
  std::string publish_binary;  // -publish-binary
  std::string bundle;          // -bundle
  bool debug = false;          // -debug
  bool await = false;          // -await: who it is for comes on descriptor 4 (assignment.h)
  bool version = false;        // -v
  bool info = false;           // -info
  bool failpoints = false;     // -failpoints: their names, for tests
  std::string action;          // start, delete, or empty: serve
};

// Flags that nobody knows yet are skipped, with their value when one follows: a newer daemon may
// send them.
Arguments ParseArguments(const std::vector<std::string>& words);

}  // namespace gantry::shim
