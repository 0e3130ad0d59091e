#include "ctl/table.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ctl/template.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

constexpr size_t kLeastWidth = 10;
constexpr size_t kGap = 3;

size_t Characters(absl::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string> Cells(const Value& row, const std::vector<std::string>& columns) {
  std::vector<std::string> cells;
  for (const std::string& column : columns) {
    const Value* value = row.Find(column);
    cells.push_back(value != nullptr ? value->ToText() : "");
  }
  return cells;
}

Value HeaderRow(const Listing& listing) {
  Value row = Value::Object();
  for (const auto& [field, header] : listing.headers) row.Set(field, header);
  // `{{.Label "key"}}` gets a header too.
  return row.SetHidden("Label", "LABEL");
}

}  // namespace

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Characters(row[i]));
  }
  std::string out;
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 == row.size()) break;
      const size_t width = std::max(widths[i] + kGap, kLeastWidth);
      out.append(width - Characters(row[i]), ' ');
    }
    out.push_back('\n');
  }
  return out;
}

std::string UnescapeFormat(absl::string_view format) {
  return absl::StrReplaceAll(format, {{"\\t", "\t"}, {"\\n", "\n"}});
}

absl::StatusOr<std::string> FormatListing(const Listing& listing, absl::string_view format,
                                          bool quiet) {
  std::string out;
  if (format == "json") {
    for (const Value& row : listing.rows) absl::StrAppend(&out, row.ToJson(), "\n");
    return out;
  }
  if (quiet && (format.empty() || format == "table")) {
    for (const Value& row : listing.rows) {
      absl::StrAppend(&out, Cells(row, {listing.id_column}).front(), "\n");
    }
    return out;
  }
  std::vector<std::vector<std::string>> table;
  if (format.empty() || format == "table") {
    table.push_back(Cells(HeaderRow(listing), listing.columns));
    for (const Value& row : listing.rows) table.push_back(Cells(row, listing.columns));
    return FormatTable(table);
  }
  const bool tabular = absl::ConsumePrefix(&format, "table ");
  ASSIGN_OR_RETURN(Template row_template, Template::Parse(UnescapeFormat(format)));
  const auto add = [&](const Value& row) -> absl::Status {
    ASSIGN_OR_RETURN(std::string text, row_template.Execute(row));
    if (tabular) {
      table.push_back(absl::StrSplit(text, '\t'));
    } else {
      absl::StrAppend(&out, text, "\n");
    }
    return absl::OkStatus();
  };
  if (tabular) RETURN_IF_ERROR(add(HeaderRow(listing)));
  for (const Value& row : listing.rows) RETURN_IF_ERROR(add(row));
  return tabular ? FormatTable(table) : out;
}

}  // namespace gantry::ctl
