#include "lib/config/config.h"

#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"
#include "toml.hpp"

namespace gantry::config {

struct Section::Data {
  std::string name;  // Of the file, for errors.
  toml::value root;
};

namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int64_t kVersion = 1;
// One section per process; "suite" is for all.
constexpr absl::string_view kSections[] = {"suite", "metadata", "image",   "snapshotter",
                                           "task",  "engine",   "gateway", "cri"};

bool IsKnownSection(absl::string_view name) {
  for (absl::string_view known : kSections) {
    if (known == name) return true;
  }
  return false;
}

absl::Status Wrong(const std::string& file, const toml::value& value, absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ":", value.location().line(), ": ", problem));
}

absl::StatusOr<toml::value> ParseToml(absl::string_view text, const std::string& name) {
  // toml11 3.7.1 reads past its buffer when a quoted key is not UTF-8 (found by our fuzzer).
  if (!IsPlainText(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("configuration '", name, "' is not plain UTF-8 text"));
  }
  std::istringstream stream{std::string(text)};
  // toml11 reports by exception only; it stops here. Which types it throws for malformed numbers
  // and dates is not documented in full, so every standard exception counts as malformed input.
  try {
    return toml::parse(stream, name);
  } catch (const std::exception& error) {
    absl::string_view message = error.what();
    return absl::InvalidArgumentError(absl::StrCat("configuration '", name, "': ", message));
  }
}

absl::Status CheckTopLevel(const toml::value& root, const std::string& name) {
  bool has_version = false;
  for (const auto& [key, value] : root.as_table(std::nothrow)) {
    if (key == "version") {
      if (!value.is_integer() || value.as_integer(std::nothrow) != kVersion) {
        return Wrong(name, value, absl::StrCat("version must be ", kVersion));
      }
      has_version = true;
    } else if (!IsKnownSection(key)) {
      return Wrong(name, value, absl::StrCat("unknown section '", key, "'"));
    } else if (!value.is_table()) {
      return Wrong(name, value, absl::StrCat("'", key, "' must be a section: [", key, "]"));
    }
  }
  if (!has_version && !root.as_table(std::nothrow).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("configuration '", name, "' has no version; begin it with 'version = 1'"));
  }
  return absl::OkStatus();
}

const toml::value* Find(const toml::value& root, const std::string& section,
                        const std::string& key) {
  const auto& table = root.as_table(std::nothrow);
  auto found = table.find(section);
  if (found == table.end()) return nullptr;
  const auto& keys = found->second.as_table(std::nothrow);
  auto value = keys.find(key);
  return value == keys.end() ? nullptr : &value->second;
}

}  // namespace

absl::StatusOr<std::string> Section::GetString(const std::string& key,
                                               absl::string_view fallback) const {
  known_.insert(key);
  const toml::value* value = Find(data_->root, name_, key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) {
    return Wrong(data_->name, *value, absl::StrCat(name_, ".", key, " must be a string"));
  }
  return value->as_string(std::nothrow).str;
}

absl::StatusOr<int64_t> Section::GetInteger(const std::string& key, int64_t fallback,
                                            int64_t minimum, int64_t maximum) const {
  known_.insert(key);
  const toml::value* value = Find(data_->root, name_, key);
  if (value == nullptr) return fallback;
  if (!value->is_integer() || value->as_integer(std::nothrow) < minimum ||
      value->as_integer(std::nothrow) > maximum) {
    return Wrong(
        data_->name, *value,
        absl::StrCat(name_, ".", key, " must be a whole number from ", minimum, " to ", maximum));
  }
  return value->as_integer(std::nothrow);
}

absl::StatusOr<bool> Section::GetBool(const std::string& key, bool fallback) const {
  known_.insert(key);
  const toml::value* value = Find(data_->root, name_, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    return Wrong(data_->name, *value, absl::StrCat(name_, ".", key, " must be true or false"));
  }
  return value->as_boolean(std::nothrow);
}

absl::StatusOr<absl::Duration> Section::GetDuration(const std::string& key,
                                                    absl::Duration fallback) const {
  known_.insert(key);
  const toml::value* value = Find(data_->root, name_, key);
  if (value == nullptr) return fallback;
  absl::Duration duration;
  if (!value->is_string() || !absl::ParseDuration(value->as_string(std::nothrow).str, &duration) ||
      duration < absl::ZeroDuration()) {
    return Wrong(data_->name, *value,
                 absl::StrCat(name_, ".", key, " must be a duration such as \"10s\" or \"250ms\""));
  }
  return duration;
}

absl::StatusOr<std::vector<std::string>> Section::GetStrings(
    const std::string& key, const std::vector<std::string>& fallback) const {
  known_.insert(key);
  const toml::value* value = Find(data_->root, name_, key);
  if (value == nullptr) return fallback;
  const absl::Status wrong =
      Wrong(data_->name, *value, absl::StrCat(name_, ".", key, " must be a list of strings"));
  if (!value->is_array()) return wrong;
  std::vector<std::string> strings;
  for (const toml::value& item : value->as_array(std::nothrow)) {
    if (!item.is_string()) return wrong;
    strings.push_back(item.as_string(std::nothrow).str);
  }
  return strings;
}

absl::Status Section::CheckAllKnown() const {
  const auto& table = data_->root.as_table(std::nothrow);
  auto found = table.find(name_);
  if (found == table.end()) return absl::OkStatus();
  for (const auto& [key, value] : found->second.as_table(std::nothrow)) {
    if (known_.count(key) == 0) {
      return Wrong(data_->name, value, absl::StrCat("unknown key '", key, "' in [", name_, "]"));
    }
  }
  return absl::OkStatus();
}

File::File() {
  auto data = std::make_shared<Section::Data>();
  data->name = "defaults";
  data->root = toml::table();
  data_ = std::move(data);
}

absl::StatusOr<File> File::Load(const std::string& path) {
  absl::StatusOr<std::string> text = sys::ReadFile(path, kMaxFileBytes);
  if (!text.ok()) return Annotate(text.status(), "read the configuration");
  return Parse(*text, path);
}

absl::StatusOr<File> File::Parse(absl::string_view text, const std::string& name) {
  auto data = std::make_shared<Section::Data>();
  data->name = name;
  ASSIGN_OR_RETURN(data->root, ParseToml(text, name));
  RETURN_IF_ERROR(CheckTopLevel(data->root, name));
  File file;
  file.data_ = std::move(data);
  return file;
}

Section File::GetSection(const std::string& name) const { return Section(data_, name); }

}  // namespace gantry::config
