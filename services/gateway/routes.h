// Which process answers which gRPC service. The gateway owns nothing else.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gantry::gateway {

// The service of a method path: "/containerd.services.images.v1.Images/Get" →
// "containerd.services.images.v1.Images". Empty when the path has another shape.
absl::string_view ServiceOf(absl::string_view method);

// The process that serves `service`, or empty when nobody does: the caller then hears
// UNIMPLEMENTED, on which containerd's clients probe and fall back.
absl::string_view ProcessFor(absl::string_view service);

// Why a service of containerd's contract has no process; empty for all others.
absl::string_view WhyUnserved(absl::string_view service);

// Every process that is routed to, sorted.
std::vector<std::string> RoutedProcesses();

}  // namespace gantry::gateway
