// Reading all objects of a table that match a filter.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// `field` answers std::optional<std::string> for (object, path).
template <typename Message, typename Field>
absl::StatusOr<std::vector<Message>> ListMatching(const Reader& reader, Table table,
                                                  absl::string_view prefix,
                                                  const filter::Filter& filter, Field field) {
  std::vector<Message> matching;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    Message message;
    RETURN_IF_ERROR(ParseStored(table, key, value, message));
    auto fields = [&](const std::vector<std::string>& path) -> std::optional<std::string> {
      return field(message, path);
    };
    if (filter.matches_everything() || filter.Matches(fields))
      matching.push_back(std::move(message));
    return true;
  };
  RETURN_IF_ERROR(reader.Scan(table, prefix, visit));
  return matching;
}

// Keys below `prefix`, for deleting while nothing is scanned.
inline absl::StatusOr<std::vector<std::string>> ListKeys(const Reader& reader, Table table,
                                                         absl::string_view prefix,
                                                         size_t limit = SIZE_MAX) {
  std::vector<std::string> keys;
  if (limit == 0) return keys;
  auto visit = [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
    keys.emplace_back(key);
    return keys.size() < limit;
  };
  RETURN_IF_ERROR(reader.Scan(table, prefix, visit));
  return keys;
}

// A text field as filters see it: empty means not present.
inline std::optional<std::string> TextField(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return text;
}

}  // namespace gantry::metadata
