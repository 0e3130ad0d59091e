// The terminal gantryctl runs on: its size, and raw mode that never outlives the program.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gantry::ctl {

struct WindowSize {
  uint16_t columns = 0;
  uint16_t rows = 0;
};

// Nothing when `fd` is not a terminal, or one without a size.
std::optional<WindowSize> GetWindowSize(int fd);

// While it lives, the terminal hands every key through as it is: no echo, no line editing, no
// signals. The former settings return when it ends, and also when the program dies of a signal it
// can notice. One at a time. Move-only.
class RawMode {
 public:
  // Errors: FailedPrecondition — not a terminal.
  static absl::StatusOr<RawMode> Enter(int fd);

  RawMode(RawMode&& other) noexcept : active_(other.active_) { other.active_ = false; }
  RawMode& operator=(RawMode&&) = delete;
  ~RawMode();

 private:
  RawMode() = default;
  bool active_ = true;
};

// Ends raw mode if it is on. Async-signal-safe; for the ways out that run no destructors.
void RestoreTerminal();

}  // namespace gantry::ctl
