// The durable truth of the suite: tables of checksummed values in LMDB, behind a group commit.
//
// Reading: Read() answers a consistent snapshot that no writer can disturb; it costs about a
// microsecond and no lock. Writing: Write(mutate) runs `mutate` inside a transaction that it may
// share with other writers: whoever comes first leads, runs everybody's mutations one after the
// other and pays the one sync for all. A mutation that fails leaves no trace, while the others of
// its group go on. Write returns when the outcome is durable.
//
// Durability: LMDB itself is not synced on commit. Each group is appended to a redo log
// (redo_log.h) with one fdatasync. From time to time a checkpoint syncs LMDB, keeps a copy of its
// meta pages aside and begins a new epoch of the log; a pinned reader keeps LMDB from reusing the
// pages of that checkpoint until the next one. Opening always goes back to the last checkpoint and
// replays the log, so recovery from a killed process and from lost power is the same code as an
// ordinary start.
//
// Disk full: data.mdb owns more disk than it uses, a reserve at its end. Commits that only free
// (Purpose::kFree) go on with its help; growing ones are refused until it is whole again. Errors of
// a sync are fatal: the database refuses all further writes and tells `on_fatal` once.
//
// docs/formats/metadata.md describes the files.
#pragma once

#include <lmdb.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "lib/sys/unique_fd.h"
#include "services/metadata/checkpoint.h"
#include "services/metadata/redo_log.h"

namespace gantry::metadata {

// Numbers are part of the redo log's format: append only.
enum class Table : uint8_t {
  kState = 0,
  kNamespaces = 1,
  kContainers = 2,
  kImages = 3,
  kLeases = 4,
  kLeaseResources = 5,
  kSnapshots = 6,
  kSnapshotChildren = 7,
  kCommits = 8,
  kBlobs = 9,
  kBlobOwners = 10,
  kIngests = 11,
  kSandboxes = 12,
  kRecords = 13,
  kJournal = 14,
};
inline constexpr int kTableCount = 15;

const char* TableName(Table table);

// A key of several parts, joined by a zero byte; parts never hold one (CheckKey, CheckIdentifier).
std::string JoinKey(std::initializer_list<absl::string_view> parts);
// The same with a zero byte at the end: the prefix of all keys that begin with these parts.
std::string JoinPrefix(std::initializer_list<absl::string_view> parts);
std::vector<absl::string_view> SplitKey(absl::string_view key);

class Database;

// Big-endian, so that numbers sort as keys.
std::string EncodeNumber(uint64_t number);
uint64_t DecodeNumber(absl::string_view bytes);

// One consistent view. Views into it (string_view) live as long as it does. Thread-compatible.
class Reader {
 public:
  Reader(Reader&& other) noexcept;
  Reader& operator=(Reader&&) = delete;
  ~Reader();

  // nullopt when the key is not there. Errors: DataLoss — the value's checksum is wrong.
  absl::StatusOr<std::optional<absl::string_view>> Find(Table table, absl::string_view key) const;

  // Calls `visit` for each key that starts with `prefix`, in order (keys over 400 bytes: by their
  // first bytes), beginning at `from` when that is greater. `visit` answers whether to go on.
  using Visit = absl::FunctionRef<absl::StatusOr<bool>(absl::string_view, absl::string_view)>;
  absl::Status Scan(Table table, absl::string_view prefix, Visit visit,
                    absl::string_view from = "") const;

  // Smallest and greatest key; nullopt when the table is empty.
  absl::StatusOr<std::optional<std::string>> FirstKey(Table table) const;
  absl::StatusOr<std::optional<std::string>> LastKey(Table table) const;

  absl::StatusOr<uint64_t> Count(Table table) const;

 protected:
  friend class Database;
  Reader(const std::array<MDB_dbi, kTableCount>* tables, MDB_txn* txn, bool owned)
      : tables_(tables), txn_(txn), owned_(owned) {}
  absl::StatusOr<std::optional<std::string>> EdgeKey(Table table, MDB_cursor_op operation) const;

  const std::array<MDB_dbi, kTableCount>* tables_;
  MDB_txn* txn_;
  bool owned_;
};

// What a mutation may do; sees its own writes and those of the group before it.
class Writer : public Reader {
 public:
  absl::Status Put(Table table, absl::string_view key, absl::string_view value);
  // Whether it was there.
  absl::StatusOr<bool> Delete(Table table, absl::string_view key);

  // Adds an entry to the journal, in this transaction: a serialized containerd.types.Envelope.
  absl::Status Journal(absl::string_view envelope);

  // One time for everything this mutation records.
  absl::Time now() const { return now_; }

  // Whether references between objects changed since Database::graph_generation() was `generation`.
  bool GraphChangedSince(uint64_t generation) const;

 private:
  friend class Database;
  Writer(const std::array<MDB_dbi, kTableCount>* tables, MDB_txn* txn, const Database* database,
         uint64_t next_sequence, bool graph_changed);
  absl::Status PutStored(Table table, absl::string_view stored_key, absl::string_view frame);
  absl::StatusOr<bool> DeleteStored(Table table, absl::string_view stored_key);

  const Database* database_;
  absl::Time now_;
  uint64_t next_sequence_;
  bool dirty_ = false;
  bool full_ = false;  // A write failed for lack of room.
  bool graph_changed_;
  std::string redo_;
};

struct DatabaseOptions {
  std::string directory;
  size_t limit_bytes = size_t{4} << 30;  // Of data.mdb; deletions may use a little more.
  size_t redo_log_bytes = 4 << 20;       // Of each of the two logs.
  size_t reserve_bytes = 8 << 20;
  int commits_per_checkpoint = 256;
  uint64_t journal_entries = 100'000;  // Kept; older ones go.
  std::function<void(const absl::Status&)> on_fatal = [](const absl::Status&) {};
};

struct DatabaseStatistics {
  uint64_t commits = 0;    // Groups made durable.
  uint64_t mutations = 0;  // Writers in them.
  uint64_t checkpoints = 0;
  uint64_t size_bytes = 0;  // Used part of data.mdb.
};

// Thread-safe.
class Database {
 public:
  enum class Purpose {
    kGrow,  // Refused when the disk or the database is full.
    kFree,  // Must work then: deletions.
  };

  // Opens or makes the database; one process at a time. Errors: FailedPrecondition — another
  // process has it, or a newer version of the program wrote it; DataLoss — files are damaged or
  // missing.
  static absl::StatusOr<std::unique_ptr<Database>> Open(DatabaseOptions options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  absl::StatusOr<Reader> Read() const;

  // Runs `mutate` and returns when its writes are durable, or its error. `mutate` may run more than
  // once (a group that did not fit is retried one by one), always with the same view of its own
  // effects: none. It must not block. Errors besides its own: ResourceExhausted — disk or database
  // full; Unavailable — the store failed before.
  using Mutation = absl::FunctionRef<absl::Status(Writer&)>;
  absl::Status Write(Purpose purpose, Mutation mutate);

  // Grows with every commit that may have changed what references what.
  uint64_t graph_generation() const { return graph_generation_.load(std::memory_order_acquire); }

  // Greatest journal sequence number that is durable.
  uint64_t durable_sequence() const { return durable_sequence_.load(std::memory_order_acquire); }

  // Called after each commit with new journal entries, with the newest; must not block. Set once,
  // before the first Write.
  void OnJournal(std::function<void(uint64_t)> listener) { on_journal_ = std::move(listener); }
  // Called with the number of mutations and the time of each durable commit.
  void OnCommit(std::function<void(size_t, absl::Duration)> listener) {
    on_commit_ = std::move(listener);
  }

  DatabaseStatistics statistics() const;

 private:
  friend class Writer;
  struct Pending;
  struct Group;
  // A checkpoint that waits for data.mdb to be synced.
  struct Captured {
    Checkpoint checkpoint;
    MDB_txn* pin = nullptr;
  };

  explicit Database(DatabaseOptions options);
  absl::Status OpenFiles();
  absl::Status RestoreCheckpoint();
  absl::Status OpenEnvironment();
  absl::Status CheckSize() const;
  absl::Status Replay();
  absl::Status ApplyRedo(absl::string_view payload);
  absl::Status CheckFormat();
  absl::Status LoadSequence();

  void RunGroup(const std::vector<Pending*>& members);
  void RunGroupAlone(Pending& member);
  // False when nothing was committed for lack of room; the members' results are not set then.
  enum class Room { kAsFound, kGathered };
  bool TryGroup(const std::vector<Pending*>& members, Room room = Room::kAsFound);
  absl::Status GatherFreePages(MDB_txn* txn) const;
  absl::Status MakeDurable(const Group& group);
  absl::Status TrimJournal(Writer& writer) const;
  bool MayGrow();
  uint64_t FreePages() const;
  absl::Status Allocate(uint64_t bytes);
  absl::Status Fail(const absl::Status& status);

  // Begins a new epoch: everything committed so far belongs to its checkpoint.
  absl::Status CaptureCheckpoint();
  absl::Status FinishCheckpoint(Captured captured);
  absl::Status CheckpointNow();
  void CheckpointLoop();

  const DatabaseOptions options_;
  std::function<void(uint64_t)> on_journal_ = [](uint64_t) {};
  std::function<void(size_t, absl::Duration)> on_commit_ = [](size_t, absl::Duration) {};

  sys::UniqueFd lock_;
  sys::UniqueFd data_;  // data.mdb, for its meta pages.
  std::optional<CheckpointFile> checkpoints_file_;
  std::array<std::optional<RedoLog>, 2> redo_logs_;  // By the parity of the epoch.
  MDB_env* environment_ = nullptr;
  std::array<MDB_dbi, kTableCount> tables_ = {};
  size_t page_bytes_ = 0;

  // Below: only the leader of the moment touches these.
  uint64_t epoch_ = 0;
  int commits_in_epoch_ = 0;
  uint64_t next_sequence_ = 1;
  uint64_t allocated_bytes_ = 0;  // Of data.mdb, from its beginning; what it uses and the reserve.
  bool disk_full_ = false;

  std::atomic<uint64_t> graph_generation_{0};
  std::atomic<uint64_t> durable_sequence_{0};
  std::atomic<uint64_t> commits_{0}, mutations_{0}, checkpoints_{0};

  mutable absl::Mutex mutex_;
  std::deque<Pending*> queue_ ABSL_GUARDED_BY(mutex_);
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::optional<Captured> captured_ ABSL_GUARDED_BY(mutex_);
  bool checkpoint_running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  MDB_txn* pinned_ =
      nullptr;  // Keeps the pages of the last checkpoint; whoever finishes one moves it.
  std::thread checkpoint_thread_;
};

// A stored message. Errors: DataLoss — the bytes are not one.
template <typename Message>
absl::StatusOr<std::optional<Message>> Load(const Reader& reader, Table table,
                                            absl::string_view key);

absl::Status ParseStored(Table table, absl::string_view key, absl::string_view value,
                         google::protobuf::MessageLite& message);
absl::Status Store(Writer& writer, Table table, absl::string_view key,
                   const google::protobuf::MessageLite& message);

template <typename Message>
absl::StatusOr<std::optional<Message>> Load(const Reader& reader, Table table,
                                            absl::string_view key) {
  absl::StatusOr<std::optional<absl::string_view>> value = reader.Find(table, key);
  if (!value.ok()) return value.status();
  if (!value->has_value()) return std::optional<Message>();
  Message message;
  if (absl::Status parsed = ParseStored(table, key, **value, message); !parsed.ok()) return parsed;
  return std::optional<Message>(std::move(message));
}

}  // namespace gantry::metadata
