// The suite's configuration: one TOML file, `version = 1`, a section per process. Keys nobody knows
// are errors that name file and line (docs/operations/configuration.md lists all keys).
//
//   version = 1
//   [suite]
//   state_dir = "/var/lib/gantry"
//   run_dir = "/run/gantry"
//   log_level = "info"
//   log_format = "text"
//   [image]
//   insecure_registries = ["10.0.0.0/8"]
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::config {

// One section. A getter returns the default when the key is absent and InvalidArgument, naming
// file, line, section and key, when the value has another type or range. Getters mark a key as
// known. Thread-compatible.
class Section {
 public:
  absl::StatusOr<std::string> GetString(const std::string& key, absl::string_view fallback) const;
  absl::StatusOr<int64_t> GetInteger(const std::string& key, int64_t fallback, int64_t minimum,
                                     int64_t maximum) const;
  absl::StatusOr<bool> GetBool(const std::string& key, bool fallback) const;
  // Go-like text: "10s", "250ms", "1h30m".
  absl::StatusOr<absl::Duration> GetDuration(const std::string& key, absl::Duration fallback) const;
  absl::StatusOr<std::vector<std::string>> GetStrings(
      const std::string& key, const std::vector<std::string>& fallback) const;

  // InvalidArgument for the first key no getter asked for. Call it after reading all keys.
  absl::Status CheckAllKnown() const;

 private:
  friend class File;
  struct Data;
  Section(std::shared_ptr<const Data> data, std::string name)
      : data_(std::move(data)), name_(std::move(name)) {}
  std::shared_ptr<const Data> data_;
  std::string name_;
  mutable std::set<std::string> known_;
};

// A parsed configuration. Thread-compatible.
class File {
 public:
  // The defaults: as if the file were empty.
  File();

  // Reads `path`. Errors: NotFound; InvalidArgument — not TOML, another version, unknown section.
  static absl::StatusOr<File> Load(const std::string& path);
  static absl::StatusOr<File> Parse(absl::string_view text, const std::string& name);

  // The section `name`; empty when the file has none.
  Section GetSection(const std::string& name) const;

 private:
  std::shared_ptr<const Section::Data> data_;
};

}  // namespace gantry::config
