// Tables and lists as Docker prints them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ctl/value.h"

namespace gantry::ctl {

// Rows of cells as aligned lines: columns are three spaces apart and at least ten wide, the last
// one is not padded, nothing is cut to the terminal (E.9). Widths count characters, not bytes.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// What a list command can print.
struct Listing {
  // Header of every field, for `--format 'table {{.ID}}'`; in the order of JSON's members.
  std::vector<std::pair<std::string, std::string>> headers;
  // Fields of the ordinary table.
  std::vector<std::string> columns;
  // The field -q prints.
  std::string id_column;
  std::vector<Value> rows;
};

// The listing as `format` says: "" or "table" the ordinary table, "json" one object a line, "table
// TEMPLATE" a table of the template's columns (separated by tabs, a literal \t included), else a
// template a row. `quiet` prints ids, unless a format is given. Errors: InvalidArgument — the
// template.
absl::StatusOr<std::string> FormatListing(const Listing& listing, absl::string_view format,
                                          bool quiet);

// A template as typed in a shell: \t and \n outside of actions become a tab and a line feed.
std::string UnescapeFormat(absl::string_view format);

}  // namespace gantry::ctl
