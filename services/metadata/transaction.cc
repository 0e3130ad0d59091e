// Reader and Writer: keys, checksummed values, cursors.
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "services/metadata/database.h"
#include "services/metadata/database_format.h"

namespace gantry::metadata {
namespace {

// LMDB's keys have at most 511 bytes. Longer ones keep their first bytes, so that prefixes still
// work, and end in a hash; the value then carries the whole key.
constexpr size_t kMaxPlainKeyBytes = 440;
constexpr size_t kKeptKeyBytes = 400;

constexpr uint8_t kValueVersion = 1;
constexpr uint8_t kHasKey = 1;
constexpr size_t kFrameBytes = 6;  // Version, flags, checksum.

// FNV-1a over 128 bits. Not cryptographic: a collision is found by the key in the value.
std::string HashKey(absl::string_view key) {
  unsigned __int128 hash =
      (static_cast<unsigned __int128>(0x6c62272e07bb0142u) << 64) | 0x62b821756295c58du;
  const unsigned __int128 prime = (static_cast<unsigned __int128>(0x1000000u) << 64) | 0x13bu;
  for (char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * prime;
  return absl::BytesToHexString(absl::StrCat(EncodeNumber(static_cast<uint64_t>(hash >> 64)),
                                             EncodeNumber(static_cast<uint64_t>(hash))));
}

std::string StoredKey(absl::string_view key) {
  if (key.size() <= kMaxPlainKeyBytes) return std::string(key);
  return absl::StrCat(key.substr(0, kKeptKeyBytes), "\x01", HashKey(key));
}

MDB_val ToVal(absl::string_view bytes) {
  return MDB_val{bytes.size(), const_cast<char*>(bytes.data())};
}

absl::string_view FromVal(const MDB_val& val) {
  return absl::string_view(static_cast<const char*>(val.mv_data), val.mv_size);
}

std::string Frame(absl::string_view key, bool has_key, absl::string_view value) {
  std::string body;
  if (has_key) {
    const uint16_t size = static_cast<uint16_t>(key.size());
    body.append(reinterpret_cast<const char*>(&size), sizeof(size));
    body.append(key.data(), key.size());
  }
  const uint32_t checksum = Checksum(value, Checksum(body, Checksum(key)));
  std::string frame;
  frame.reserve(kFrameBytes + body.size() + value.size());
  frame.push_back(static_cast<char>(kValueVersion));
  frame.push_back(static_cast<char>(has_key ? kHasKey : 0));
  frame.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  frame.append(body);
  frame.append(value.data(), value.size());
  return frame;
}

struct Entry {
  absl::string_view key;
  absl::string_view value;
};

absl::Status Damaged(Table table, absl::string_view stored_key, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("table ", TableName(table), ", key '",
                                          absl::CHexEscape(stored_key), "': ", what,
                                          "; restore a backup of the state directory"));
}

absl::StatusOr<Entry> Unframe(Table table, absl::string_view stored_key, absl::string_view frame) {
  if (frame.size() < kFrameBytes) return Damaged(table, stored_key, "the value is cut short");
  if (static_cast<uint8_t>(frame[0]) != kValueVersion) {
    return Damaged(table, stored_key, "the value has an unknown version");
  }
  Entry entry{stored_key, frame.substr(kFrameBytes)};
  uint32_t checksum = 0;
  std::memcpy(&checksum, frame.data() + 2, sizeof(checksum));
  absl::string_view body;
  if ((static_cast<uint8_t>(frame[1]) & kHasKey) != 0) {
    uint16_t size = 0;
    if (entry.value.size() < sizeof(size))
      return Damaged(table, stored_key, "the value is cut short");
    std::memcpy(&size, entry.value.data(), sizeof(size));
    if (entry.value.size() < sizeof(size) + size) {
      return Damaged(table, stored_key, "the value is cut short");
    }
    body = entry.value.substr(0, sizeof(size) + size);
    entry.key = entry.value.substr(sizeof(size), size);
    entry.value.remove_prefix(body.size());
  }
  if (Checksum(entry.value, Checksum(body, Checksum(entry.key))) != checksum) {
    return Damaged(table, stored_key, "the checksum of the value is wrong");
  }
  return entry;
}

class Cursor {
 public:
  ~Cursor() {
    if (cursor_ != nullptr) mdb_cursor_close(cursor_);
  }
  int Open(MDB_txn* txn, MDB_dbi table) { return mdb_cursor_open(txn, table, &cursor_); }
  int Get(MDB_val* key, MDB_val* value, MDB_cursor_op operation) {
    return mdb_cursor_get(cursor_, key, value, operation);
  }

 private:
  MDB_cursor* cursor_ = nullptr;
};

}  // namespace

std::string JoinKey(std::initializer_list<absl::string_view> parts) {
  return absl::StrJoin(parts, absl::string_view("\0", 1));
}

std::string JoinPrefix(std::initializer_list<absl::string_view> parts) {
  std::string prefix = JoinKey(parts);
  prefix.push_back('\0');
  return prefix;
}

std::vector<absl::string_view> SplitKey(absl::string_view key) { return absl::StrSplit(key, '\0'); }

std::string EncodeNumber(uint64_t number) {
  std::string bytes(8, '\0');
  for (int i = 7; i >= 0; --i, number >>= 8) bytes[i] = static_cast<char>(number & 0xff);
  return bytes;
}

uint64_t DecodeNumber(absl::string_view bytes) {
  uint64_t number = 0;
  for (char c : bytes.substr(0, 8)) number = (number << 8) | static_cast<unsigned char>(c);
  return number;
}

absl::Status LmdbError(int code, absl::string_view attempt) {
  const std::string text = absl::StrCat(attempt, ": ", mdb_strerror(code));
  switch (code) {
    case ENOSPC:
    case EDQUOT:
    case MDB_MAP_FULL:
    case ENOMEM:
    case MDB_READERS_FULL:
      return absl::ResourceExhaustedError(text);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
      return absl::DataLossError(text);
    case MDB_VERSION_MISMATCH:
      return absl::FailedPreconditionError(text);
    default:
      return absl::InternalError(text);
  }
}

Reader::Reader(Reader&& other) noexcept
    : tables_(other.tables_), txn_(std::exchange(other.txn_, nullptr)), owned_(other.owned_) {}

Reader::~Reader() {
  if (owned_ && txn_ != nullptr) mdb_txn_abort(txn_);
}

absl::StatusOr<std::optional<absl::string_view>> Reader::Find(Table table,
                                                              absl::string_view key) const {
  if (key.empty()) return std::optional<absl::string_view>();
  const std::string stored_key = StoredKey(key);
  MDB_val mdb_key = ToVal(stored_key), mdb_value;
  const int code = mdb_get(txn_, (*tables_)[static_cast<int>(table)], &mdb_key, &mdb_value);
  if (code == MDB_NOTFOUND) return std::optional<absl::string_view>();
  if (code != 0) return LmdbError(code, absl::StrCat("read table ", TableName(table)));
  ASSIGN_OR_RETURN(Entry entry, Unframe(table, stored_key, FromVal(mdb_value)));
  if (stored_key.size() != key.size() && entry.key != key)
    return std::optional<absl::string_view>();
  return std::optional<absl::string_view>(entry.value);
}

absl::Status Reader::Scan(Table table, absl::string_view prefix, Visit visit,
                          absl::string_view from) const {
  const std::string stored_prefix(prefix.substr(0, kKeptKeyBytes));
  const std::string start =
      from > absl::string_view(stored_prefix) ? StoredKey(from) : stored_prefix;
  Cursor cursor;
  int code = cursor.Open(txn_, (*tables_)[static_cast<int>(table)]);
  MDB_val mdb_key = ToVal(start), mdb_value;
  if (code == 0) code = cursor.Get(&mdb_key, &mdb_value, start.empty() ? MDB_FIRST : MDB_SET_RANGE);
  for (; code == 0; code = cursor.Get(&mdb_key, &mdb_value, MDB_NEXT)) {
    if (!absl::StartsWith(FromVal(mdb_key), stored_prefix)) return absl::OkStatus();
    ASSIGN_OR_RETURN(Entry entry, Unframe(table, FromVal(mdb_key), FromVal(mdb_value)));
    if (!absl::StartsWith(entry.key, prefix)) continue;
    ASSIGN_OR_RETURN(bool more, visit(entry.key, entry.value));
    if (!more) return absl::OkStatus();
  }
  if (code == MDB_NOTFOUND) return absl::OkStatus();
  return LmdbError(code, absl::StrCat("list table ", TableName(table)));
}

absl::StatusOr<std::optional<std::string>> Reader::EdgeKey(Table table,
                                                           MDB_cursor_op operation) const {
  Cursor cursor;
  int code = cursor.Open(txn_, (*tables_)[static_cast<int>(table)]);
  MDB_val mdb_key, mdb_value;
  if (code == 0) code = cursor.Get(&mdb_key, &mdb_value, operation);
  if (code == MDB_NOTFOUND) return std::optional<std::string>();
  if (code != 0) return LmdbError(code, absl::StrCat("read table ", TableName(table)));
  return std::optional<std::string>(std::string(FromVal(mdb_key)));
}

absl::StatusOr<std::optional<std::string>> Reader::FirstKey(Table table) const {
  return EdgeKey(table, MDB_FIRST);
}

absl::StatusOr<std::optional<std::string>> Reader::LastKey(Table table) const {
  return EdgeKey(table, MDB_LAST);
}

absl::StatusOr<uint64_t> Reader::Count(Table table) const {
  MDB_stat statistics;
  if (int code = mdb_stat(txn_, (*tables_)[static_cast<int>(table)], &statistics); code != 0) {
    return LmdbError(code, absl::StrCat("count table ", TableName(table)));
  }
  return statistics.ms_entries;
}

Writer::Writer(const std::array<MDB_dbi, kTableCount>* tables, MDB_txn* txn,
               const Database* database, uint64_t next_sequence, bool graph_changed)
    : Reader(tables, txn, /*owned=*/false),
      database_(database),
      now_(absl::Now()),
      next_sequence_(next_sequence),
      graph_changed_(graph_changed) {}

absl::Status Writer::Put(Table table, absl::string_view key, absl::string_view value) {
  if (key.empty() || key.size() > UINT16_MAX) return absl::InternalError("a key of this size");
  const std::string stored_key = StoredKey(key);
  const bool hashed = stored_key.size() != key.size() || key.size() > kMaxPlainKeyBytes;
  MDB_val mdb_key = ToVal(stored_key);
  if (hashed) {
    MDB_val present;
    if (mdb_get(txn_, (*tables_)[static_cast<int>(table)], &mdb_key, &present) == 0) {
      ASSIGN_OR_RETURN(Entry entry, Unframe(table, stored_key, FromVal(present)));
      if (entry.key != key)
        return absl::InvalidArgumentError("name collides with another; choose another");
    }
  }
  const std::string frame = Frame(key, hashed, value);
  RETURN_IF_ERROR(PutStored(table, stored_key, frame));
  AppendRedoPut(&redo_, table, stored_key, frame);
  return absl::OkStatus();
}

absl::Status Writer::PutStored(Table table, absl::string_view stored_key, absl::string_view frame) {
  MDB_val mdb_key = ToVal(stored_key), mdb_value = ToVal(frame);
  const unsigned flags = table == Table::kJournal ? MDB_APPEND : 0;
  int code = mdb_put(txn_, (*tables_)[static_cast<int>(table)], &mdb_key, &mdb_value, flags);
  if (code != 0) {
    if (code == MDB_MAP_FULL || code == ENOSPC) full_ = true;
    return LmdbError(code, absl::StrCat("write table ", TableName(table)));
  }
  dirty_ = true;
  graph_changed_ = graph_changed_ || IsGraphTable(table);
  return absl::OkStatus();
}

absl::StatusOr<bool> Writer::Delete(Table table, absl::string_view key) {
  const std::string stored_key = StoredKey(key);
  ASSIGN_OR_RETURN(bool deleted, DeleteStored(table, stored_key));
  if (deleted) AppendRedoDelete(&redo_, table, stored_key);
  return deleted;
}

absl::StatusOr<bool> Writer::DeleteStored(Table table, absl::string_view stored_key) {
  MDB_val mdb_key = ToVal(stored_key);
  const int code = mdb_del(txn_, (*tables_)[static_cast<int>(table)], &mdb_key, nullptr);
  if (code == MDB_NOTFOUND) return false;
  if (code != 0) {
    if (code == MDB_MAP_FULL || code == ENOSPC) full_ = true;
    return LmdbError(code, absl::StrCat("delete from table ", TableName(table)));
  }
  dirty_ = true;
  graph_changed_ = graph_changed_ || IsGraphTable(table);
  return true;
}

absl::Status Writer::Journal(absl::string_view envelope) {
  RETURN_IF_ERROR(Put(Table::kJournal, EncodeNumber(next_sequence_), envelope));
  ++next_sequence_;
  return absl::OkStatus();
}

bool Writer::GraphChangedSince(uint64_t generation) const {
  return graph_changed_ || database_->graph_generation() != generation;
}

absl::Status ParseStored(Table table, absl::string_view key, absl::string_view value,
                         google::protobuf::MessageLite& message) {
  if (message.ParseFromArray(value.data(), static_cast<int>(value.size()))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("table ", TableName(table), ", key '",
                                          absl::CHexEscape(key), "': not a ",
                                          message.GetTypeName()));
}

absl::Status Store(Writer& writer, Table table, absl::string_view key,
                   const google::protobuf::MessageLite& message) {
  return writer.Put(table, key, message.SerializeAsString());
}

}  // namespace gantry::metadata
