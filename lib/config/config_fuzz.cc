// Any bytes as a configuration file: an error or a configuration, never a crash.

#include <cstdint>

#include "lib/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::StatusOr<gantry::config::File> file = gantry::config::File::Parse(
      absl::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!file.ok()) return 0;
  gantry::config::Section section = file->GetSection("suite");
  (void)section.GetString("log_level", "");
  (void)section.GetDuration("log_level", absl::ZeroDuration());
  (void)section.CheckAllKnown();
  return 0;
}
