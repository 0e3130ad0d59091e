// containerd's filters: `name==web`, `labels."a/b"~=^x`, `kind==active,parent!=base`.
//
// Commas mean AND, several filters mean OR, an empty list or an empty filter matches everything.
// Operators: == and != compare text, ~= searches with RE2 (not anchored); none asks whether the
// field is present. Fields are words joined by '.', a word with other characters is quoted ("a/b").
// Values run to the next comma or white space, or are quoted with Go's escapes; after ~= also /x/
// and |x|. Source: contracts/containerd/filter-fields.tsv.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::filter {

inline constexpr size_t kMaxFilterBytes = 16 << 10;
inline constexpr size_t kMaxFilters = 256;

// A field's value; nothing when the object does not have it. `path` is the field taken apart at its
// dots: {"labels", "com", "example"}; see JoinPath.
using Fields = std::function<std::optional<std::string>(const std::vector<std::string>& path)>;

// `path` from `first` on, joined by dots again: label keys with dots may come unquoted.
std::string JoinPath(const std::vector<std::string>& path, size_t first);

// A parsed list of filters. Immutable, cheap to copy, thread-safe.
class Filter {
 public:
  // Matches everything.
  Filter();

  // Errors: InvalidArgument — not the grammar (with the place), a bad expression after ~=, or
  // beyond the limits above.
  static absl::StatusOr<Filter> Parse(const std::vector<std::string>& filters);
  template <typename Strings>
  static absl::StatusOr<Filter> ParseAll(const Strings& filters) {
    return Parse(std::vector<std::string>(filters.begin(), filters.end()));
  }

  bool Matches(const Fields& fields) const;
  bool matches_everything() const;

 private:
  struct Selector;
  using Alternative = std::vector<Selector>;
  // Shared by copies: compiled expressions are large and never change.
  std::shared_ptr<const std::vector<Alternative>> alternatives_;
};

}  // namespace gantry::filter
