// A container's cgroup as a unit of systemd: its name, and its limits as the unit's properties.
// Pure functions (but for /proc/devices); systemd.h talks to systemd.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/limits.h"
#include "lib/dbus/value.h"
#include "lib/oci/spec.h"

namespace gantry::cgroup {

struct UnitName {
  std::string slice;  // Where it is: "machine-web.slice". Empty for "-.slice", the root.
  std::string unit;   // "libpod-1234.scope", or a slice when the path names one.
  bool is_slice() const;
};

// Reads linux.cgroupsPath in the form of the systemd driver, "slice:prefix:name": unit
// "prefix-name.scope" in `slice` ("name.scope" without a prefix; a name that ends in ".slice" is
// the unit itself). No slice: system.slice, for a user's own systemd user.slice. An empty path:
// "gantry-<id>.scope". Errors: InvalidArgument — not three parts, or not names of units.
absl::StatusOr<UnitName> ParseUnitPath(absl::string_view path, absl::string_view id, bool user);

// Where systemd puts a slice, seen from its root: "a-b.slice" is "/a.slice/a-b.slice".
std::string ExpandSlice(absl::string_view slice);

struct UnitProperty {
  std::string name;  // "MemoryMax"
  dbus::Value value;
};

// What systemd has to know so that it does not undo it: it writes its own idea of a unit's limits
// whenever it reloads. Later properties of a name replace earlier ones. What has no property is
// left to the files. `version` is systemd's: properties that it does not know are left out.
// Errors: InvalidArgument — a list of processors or memory nodes is none.
absl::StatusOr<std::vector<UnitProperty>> LimitProperties(Mode mode,
                                                          const oci::Resources& resources,
                                                          int version);

// DevicePolicy and DeviceAllow that let the same devices through; none where rules say more than a
// list of what is allowed can. `proc_devices` is the content of /proc/devices.
std::vector<UnitProperty> DeviceProperties(const std::vector<oci::DeviceRule>& rules,
                                           absl::string_view proc_devices);

// Annotations "org.systemd.property.NAME", whose values are in GVariant's text format. NAME has
// only letters; one that ends in "Sec" is given in seconds and becomes "…USec".
// Errors: InvalidArgument — with the annotation's key.
absl::StatusOr<std::vector<UnitProperty>> AnnotationProperties(const oci::StringMap& annotations);

// "0-2,7" as the bytes of a bit mask, lowest first. Errors: InvalidArgument.
absl::StatusOr<std::string> BitMask(absl::string_view list);

}  // namespace gantry::cgroup
