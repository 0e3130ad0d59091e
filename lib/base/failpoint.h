// Named failpoints: places where a test may make the program fail, wait, stop or die
// (SECURITY-RULES 45). Every step with an outside effect has one, before and after where the
// difference matters.
//
//   RETURN_IF_ERROR(FAILPOINT("snapshotter.prepare.after_mkdir"));
//
// The name is `component.operation.step`, a string literal, used once, in a .cc file. A disarmed
// failpoint costs one relaxed load. Armed by the environment variable GANTRY_FAILPOINTS (read by
// ArmFromEnvironment at start), or while running through the Debug service (lib/rpc).
//
// A specification is `name=action[@n]`, several joined by ';'. Actions:
//   error        return Unavailable naming the failpoint      error(text)  the same with this text
//   delay(ms)    go on after this many milliseconds            kill         SIGKILL to this process
//   pause        SIGSTOP to this process; a test continues it with SIGCONT
//   enospc       return ResourceExhausted, as a full disk does
// With `@n` only the n-th hit (from 1) acts; without it every hit acts. `name=off` disarms.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry::failpoint {

struct Site {
  const char* name;
  std::atomic<bool> armed;
};

// What an armed site does now; called by the macro only. Thread-safe.
absl::Status Hit(Site& site);

// Errors: InvalidArgument — not the grammar above; NotFound — no such failpoint in this program.
// Nothing is armed unless all of `specification` is right.
absl::Status Arm(absl::string_view specification);
void DisarmAll();

// Arms what GANTRY_FAILPOINTS says; unset means nothing. Names unknown to this program are skipped,
// since the variable is handed to every process of the suite.
absl::Status ArmFromEnvironment();

// The names of all failpoints linked into this program, sorted.
std::vector<std::string> List();

}  // namespace gantry::failpoint

// The sites lie side by side in a section of their own, which makes them listable without a
// registry.
#define FAILPOINT(literal)                                                                     \
  ([]() -> absl::Status {                                                                      \
    __attribute__((section("gantry_failpoints"), used)) static ::gantry::failpoint::Site site{ \
        literal, {false}};                                                                     \
    if (!site.armed.load(std::memory_order_relaxed)) return absl::OkStatus();                  \
    return ::gantry::failpoint::Hit(site);                                                     \
  }())
