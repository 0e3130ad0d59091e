// GVariant's text format, in which annotations give properties of systemd units:
//   'a string'   true   uint64 120000000   ['one', 'two']   @as []   [('/etc/passwd', true)]
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/dbus/value.h"

namespace gantry::dbus {

// Reads one value. A number without a type is an int32, or a double when it has a point or an
// exponent; "@TYPE" or a type's name in front says otherwise; all elements of an array are of one
// type. Maybe-types, which D-Bus has not, are refused. At most 64 KiB and 32 levels.
// Errors: InvalidArgument, with the byte at which it went wrong.
absl::StatusOr<Value> ParseVariantText(absl::string_view text);

}  // namespace gantry::dbus
