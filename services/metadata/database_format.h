// Inside of the database, shared by its files: the operations of a redo record and errors of
// LMDB.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

absl::Status LmdbError(int code, absl::string_view attempt);

// Tables in which a change may make something garbage, or save it from being so.
inline bool IsGraphTable(Table table) {
  return table != Table::kState && table != Table::kRecords && table != Table::kJournal &&
         table != Table::kNamespaces;
}

// An operation of a redo record: 1 byte kind, 1 byte table, 4 bytes size of the key, 4 bytes size
// of the value (both little-endian), key, value.
enum class RedoKind : uint8_t { kPut = 1, kDelete = 2 };

inline void AppendRedo(std::string* redo, RedoKind kind, Table table, absl::string_view key,
                       absl::string_view value) {
  const uint32_t sizes[2] = {static_cast<uint32_t>(key.size()),
                             static_cast<uint32_t>(value.size())};
  redo->push_back(static_cast<char>(kind));
  redo->push_back(static_cast<char>(table));
  redo->append(reinterpret_cast<const char*>(sizes), sizeof(sizes));
  redo->append(key.data(), key.size());
  redo->append(value.data(), value.size());
}

inline void AppendRedoPut(std::string* redo, Table table, absl::string_view key,
                          absl::string_view value) {
  AppendRedo(redo, RedoKind::kPut, table, key, value);
}

inline void AppendRedoDelete(std::string* redo, Table table, absl::string_view key) {
  AppendRedo(redo, RedoKind::kDelete, table, key, "");
}

// Takes a redo record apart. Errors: DataLoss — not one; whatever `apply` says.
inline absl::Status ForEachRedo(
    absl::string_view redo,
    absl::FunctionRef<absl::Status(RedoKind, Table, absl::string_view key, absl::string_view value)>
        apply) {
  constexpr size_t kHeaderBytes = 2 + 2 * sizeof(uint32_t);
  while (!redo.empty()) {
    if (redo.size() < kHeaderBytes) return absl::DataLossError("redo record is cut short");
    const auto kind = static_cast<RedoKind>(redo[0]);
    const auto table = static_cast<uint8_t>(redo[1]);
    uint32_t sizes[2];
    std::memcpy(sizes, redo.data() + 2, sizeof(sizes));
    redo.remove_prefix(kHeaderBytes);
    if (table >= kTableCount || (kind != RedoKind::kPut && kind != RedoKind::kDelete) ||
        uint64_t{sizes[0]} + sizes[1] > redo.size()) {
      return absl::DataLossError("redo record is not one this version understands");
    }
    if (absl::Status status = apply(kind, static_cast<Table>(table), redo.substr(0, sizes[0]),
                                    redo.substr(sizes[0], sizes[1]));
        !status.ok()) {
      return status;
    }
    redo.remove_prefix(size_t{sizes[0]} + sizes[1]);
  }
  return absl::OkStatus();
}

}  // namespace gantry::metadata
