// How containers, images and times are shown to people.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

// "docker.io/library/busybox:latest" as people say it: "busybox:latest".
std::string FamiliarName(absl::string_view full_name);

// Repository and tag (or digest) of a familiar name.
struct NameParts {
  std::string repository;
  std::string tag;     // "" for a name by digest.
  std::string digest;  // "sha256:…", or "".
};
NameParts SplitName(absl::string_view familiar_name);

absl::Time ToTime(const google::protobuf::Timestamp& timestamp);

// "Up 3 minutes", "Up 3 minutes (Paused)", "Exited (0) 5 minutes ago", "Created" … as in `docker
// ps`.
std::string StatusText(const engine::v1::ContainerState& state, absl::Time now);

// "running", "exited" … as in inspect.
std::string StateName(engine::v1::ContainerState::Status status);

// "2 minutes ago"; "N/A" for no time at all.
std::string AgeText(absl::Time time, absl::Time now);

// "2026-11-23 10:02:11 +0000 UTC", as lists print it in JSON.
std::string CreatedText(absl::Time time);

// "0.0.0.0:8080->80/tcp, 443/tcp", runs of ports as ranges.
std::string PortsText(const engine::v1::ContainerSummary& container);

}  // namespace gantry::ctl
