// `start`: finds or starts the process that serves, and says where. Source: contracts/containerd,
// section 5.3.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shim/arguments.h"
#include "shim/wire.h"

namespace gantry::shim {

// What came on stdin, whichever of the two forms it has.
struct StartInput {
  bool has_params = false;  // BootstrapParams: the caller is containerd 2.3 or later.
  BootstrapParams params;
  Any options;
};

// Empty: nothing. BootstrapParams are told from an Any by their id and namespace being the
// arguments'; nothing else can, since both begin with two strings. Errors: InvalidArgument —
// neither.
absl::StatusOr<StartInput> ParseStartInput(absl::string_view bytes, const Arguments& arguments);

// The group that shares one shim: an annotation of config.json, else the id. `config` may be
// anything.
std::string GroupOf(absl::string_view config, const std::string& id);

// "<directory>/<sha256 of address/namespace/group>".
std::string SocketPathFor(const std::string& directory, const std::string& address,
                          const std::string& ns, const std::string& group);

// Returns what is to be printed. `self`: the shim's binary.
absl::StatusOr<std::string> Start(const Arguments& arguments, absl::string_view input);

}  // namespace gantry::shim
