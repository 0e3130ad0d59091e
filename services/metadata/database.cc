#include "services/metadata/database.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/metadata/database_format.h"

namespace gantry::metadata {
namespace {

constexpr size_t kMaxGroup = 256;
constexpr int kMaxTrimmed = 1024;
constexpr uint64_t kMaxGatheredPages = 64;
constexpr size_t kLmdbPageHeaderBytes = 16;
constexpr uint64_t kAllocationStepBytes = 1 << 20;

constexpr const char* kTableNames[kTableCount] = {
    "state",           "namespaces", "containers",        "images",  "leases",
    "lease_resources", "snapshots",  "snapshot_children", "commits", "blobs",
    "blob_owners",     "ingests",    "sandboxes",         "records", "journal"};

// Whether `code` says that the disk or the database is full. LMDB calls a short write EIO, which is
// what a full disk often answers first; nothing was committed then, so it is safe to take it for
// that.
bool IsFull(int code, const sys::UniqueFd& data) {
  if (code == ENOSPC || code == EDQUOT || code == MDB_MAP_FULL) return true;
  struct statvfs disk;
  constexpr uint64_t kNearlyFullBytes = 4 << 20;
  return code == EIO && ::fstatvfs(data.get(), &disk) == 0 &&
         uint64_t{disk.f_bavail} * disk.f_frsize < kNearlyFullBytes;
}

}  // namespace

const char* TableName(Table table) { return kTableNames[static_cast<int>(table)]; }

struct Database::Pending {
  Purpose purpose;
  Mutation mutate;
  absl::Status result;
  bool done = false;
  absl::CondVar turn;
};

struct Database::Group {
  std::string redo;
  uint64_t next_sequence;
  bool graph_changed = false;
  bool dirty = false;
};

Database::Database(DatabaseOptions options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(DatabaseOptions options) {
  std::unique_ptr<Database> database(new Database(std::move(options)));
  const std::string context =
      absl::StrCat("open the metadata in '", database->options_.directory, "'");
  RETURN_IF_ERROR(Annotate(database->OpenFiles(), context));
  RETURN_IF_ERROR(Annotate(database->RestoreCheckpoint(), context));
  RETURN_IF_ERROR(Annotate(database->OpenEnvironment(), context));
  RETURN_IF_ERROR(Annotate(database->Replay(), context));
  RETURN_IF_ERROR(Annotate(database->CheckFormat(), context));
  RETURN_IF_ERROR(Annotate(database->LoadSequence(), context));
  // The numbers of the epochs just replayed must not come again while their records lie in the
  // logs. An odd step beyond them writes the other slot, so the checkpoint we stand on survives a
  // torn write.
  if (database->epoch_ > 0) database->epoch_ += 2;
  RETURN_IF_ERROR(Annotate(database->CheckpointNow(), context));
  (void)database->MayGrow();  // Makes the reserve; what it cannot, a later write tries again.
  database->checkpoint_thread_ = std::thread([raw = database.get()] { raw->CheckpointLoop(); });
  return database;
}

Database::~Database() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (checkpoint_thread_.joinable()) checkpoint_thread_.join();
  if (environment_ == nullptr) return;
  if (captured_) mdb_txn_abort(captured_->pin);
  if (pinned_ != nullptr) mdb_txn_abort(pinned_);
  mdb_env_close(environment_);
}

absl::StatusOr<Reader> Database::Read() const {
  MDB_txn* txn = nullptr;
  if (int code = mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &txn); code != 0) {
    return LmdbError(code, "begin to read the metadata");
  }
  return Reader(&tables_, txn, /*owned=*/true);
}

absl::Status Database::Write(Purpose purpose, Mutation mutate) {
  Pending self{purpose, mutate};
  absl::MutexLock lock(&mutex_);
  queue_.push_back(&self);
  while (!self.done && queue_.front() != &self) self.turn.Wait(&mutex_);
  if (self.done) return self.result;

  // This thread leads: it runs everyone who has come so far.
  std::vector<Pending*> members(queue_.begin(),
                                queue_.begin() + std::min(queue_.size(), kMaxGroup));
  const absl::Status broken = broken_;
  mutex_.Unlock();
  if (broken.ok()) {
    RunGroup(members);
  } else {
    for (Pending* member : members) member->result = broken;
  }
  mutex_.Lock();
  queue_.erase(queue_.begin(), queue_.begin() + members.size());
  for (Pending* member : members) {
    member->done = true;
    if (member != &self) member->turn.Signal();
  }
  if (!queue_.empty()) queue_.front()->turn.Signal();
  return self.result;
}

void Database::RunGroup(const std::vector<Pending*>& members) {
  const absl::Time begin = absl::Now();
  const uint64_t commits_before = commits_.load(std::memory_order_relaxed);
  const bool may_grow = MayGrow();
  std::vector<Pending*> admitted;
  for (Pending* member : members) {
    if (may_grow || member->purpose == Purpose::kFree) {
      admitted.push_back(member);
    } else {
      member->result = absl::ResourceExhaustedError(
          absl::StrCat("the metadata in '", options_.directory,
                       "' cannot grow: its disk is full or it has reached limit_bytes; remove "
                       "images or containers, or free space"));
    }
  }
  if (!admitted.empty() && !TryGroup(admitted)) {
    for (Pending* member : admitted) RunGroupAlone(*member);
  }
  if (commits_.load(std::memory_order_relaxed) != commits_before) {
    on_commit_(admitted.size(), absl::Now() - begin);
  }
}

void Database::RunGroupAlone(Pending& member) {
  if (TryGroup({&member})) return;
  // What was deleted since the last checkpoint keeps its pages until the next one. On a slow disk
  // many deletions fit between two, so the reserve may be used up before any page came back.
  if (absl::Status checkpoint = CheckpointNow(); !checkpoint.ok()) {
    member.result = Fail(checkpoint);
    return;
  }
  if (TryGroup({&member}, Room::kGathered)) return;
  member.result = absl::ResourceExhaustedError(
      absl::StrCat("write the metadata in '", options_.directory, "': no space left; free space"));
}

bool Database::TryGroup(const std::vector<Pending*>& members, Room room) {
  auto fail_all = [&](const absl::Status& status) {
    for (Pending* member : members) member->result = status;
    return true;
  };
  MDB_txn* txn = nullptr;
  if (int code = mdb_txn_begin(environment_, nullptr, 0, &txn); code != 0) {
    return fail_all(LmdbError(code, "begin to write the metadata"));
  }
  absl::Cleanup abort = [&] { mdb_txn_abort(txn); };
  if (room == Room::kGathered && !GatherFreePages(txn).ok()) return false;

  Group group;
  group.next_sequence = next_sequence_;
  for (Pending* member : members) {
    // Alone, a failure may take the whole transaction with it; among others it must not.
    MDB_txn* own = txn;
    if (members.size() > 1) {
      if (int code = mdb_txn_begin(environment_, txn, 0, &own); code != 0) {
        return fail_all(LmdbError(code, "begin to write the metadata"));
      }
    }
    Writer writer(&tables_, own, this, group.next_sequence, group.graph_changed);
    member->result = member->mutate(writer);
    if (writer.full_) {
      if (own != txn) mdb_txn_abort(own);
      return false;
    }
    if (!member->result.ok()) {
      if (own == txn) return true;
      mdb_txn_abort(own);
      continue;
    }
    if (own != txn) {
      if (int code = mdb_txn_commit(own); code != 0) {
        if (IsFull(code, data_)) return false;
        return fail_all(LmdbError(code, "write the metadata"));
      }
    }
    group.redo += writer.redo_;
    group.next_sequence = writer.next_sequence_;
    group.graph_changed = writer.graph_changed_;
    group.dirty = group.dirty || writer.dirty_;
  }
  if (!group.dirty) return true;
  if (group.next_sequence != next_sequence_) {
    Writer writer(&tables_, txn, this, group.next_sequence, group.graph_changed);
    if (absl::Status trimmed = TrimJournal(writer); !trimmed.ok()) {
      return writer.full_ ? false : fail_all(trimmed);
    }
    group.redo += writer.redo_;
  }

  if (absl::Status injected = FAILPOINT("metadata.database.before_commit"); !injected.ok()) {
    return absl::IsResourceExhausted(injected) ? false : fail_all(injected);
  }
  std::move(abort).Cancel();
  if (int code = mdb_txn_commit(txn); code != 0) {
    if (IsFull(code, data_)) return false;
    return fail_all(Fail(LmdbError(code, "write the metadata")));
  }
  if (absl::Status durable = MakeDurable(group); !durable.ok()) return fail_all(Fail(durable));

  commits_.fetch_add(1, std::memory_order_relaxed);
  mutations_.fetch_add(members.size(), std::memory_order_relaxed);
  if (group.graph_changed) graph_generation_.fetch_add(1, std::memory_order_release);
  if (group.next_sequence != next_sequence_) {
    next_sequence_ = group.next_sequence;
    durable_sequence_.store(next_sequence_ - 1, std::memory_order_release);
    on_journal_(next_sequence_ - 1);
  }
  return true;
}

// LMDB looks for free pages only until it has the one it needs, and grows the file for the pages of
// its own table of them. Values of a page each make it look further; given back they serve the
// transaction. (One value of many pages would not: LMDB takes the end of the file for that, as it
// does when it has no free page left.)
absl::Status Database::GatherFreePages(MDB_txn* txn) const {
  const uint64_t pages = std::min(kMaxGatheredPages, FreePages() / 2);
  const MDB_dbi table = tables_[static_cast<int>(Table::kState)];
  for (bool give_back : {false, true}) {
    for (uint64_t i = 0; i < pages; ++i) {
      const std::string key = absl::StrCat("gather.", i);
      MDB_val mdb_key{key.size(), const_cast<char*>(key.data())};
      MDB_val mdb_value{page_bytes_ - kLmdbPageHeaderBytes, nullptr};
      const int code = give_back ? mdb_del(txn, table, &mdb_key, nullptr)
                                 : mdb_put(txn, table, &mdb_key, &mdb_value, MDB_RESERVE);
      if (code != 0) return LmdbError(code, "gather free pages");
    }
  }
  return absl::OkStatus();
}

absl::Status Database::MakeDurable(const Group& group) {
  RedoLog* log = &*redo_logs_[epoch_ & 1];
  if (!log->Fits(group.redo.size())) return CheckpointNow();
  RETURN_IF_ERROR(log->Append(group.redo));
  ++commits_in_epoch_;
  if (commits_in_epoch_ < options_.commits_per_checkpoint &&
      log->used_bytes() < options_.redo_log_bytes / 2) {
    return absl::OkStatus();
  }
  {
    absl::MutexLock lock(&mutex_);
    if (checkpoint_running_) return absl::OkStatus();
  }
  return CaptureCheckpoint();
}

absl::Status Database::TrimJournal(Writer& writer) const {
  ASSIGN_OR_RETURN(uint64_t count, writer.Count(Table::kJournal));
  if (count <= options_.journal_entries) return absl::OkStatus();
  std::vector<std::string> oldest;
  const uint64_t wanted = std::min<uint64_t>(count - options_.journal_entries, kMaxTrimmed);
  RETURN_IF_ERROR(writer.Scan(
      Table::kJournal, "", [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
        oldest.emplace_back(key);
        return oldest.size() < wanted;
      }));
  for (const std::string& key : oldest)
    RETURN_IF_ERROR(writer.Delete(Table::kJournal, key).status());
  return absl::OkStatus();
}

// What lies free inside data.mdb; the table of it is LMDB's number 0.
uint64_t Database::FreePages() const {
  MDB_txn* txn = nullptr;
  if (mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &txn) != 0) return 0;
  absl::Cleanup abort = [&] { mdb_txn_abort(txn); };
  MDB_cursor* cursor = nullptr;
  if (mdb_cursor_open(txn, 0, &cursor) != 0) return 0;
  absl::Cleanup close = [&] { mdb_cursor_close(cursor); };
  uint64_t free_pages = 0;
  MDB_val key, value;
  while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
    size_t pages;  // A list of page numbers begins with its length.
    std::memcpy(&pages, value.mv_data, sizeof(pages));
    free_pages += pages;
  }
  return free_pages;
}

bool Database::MayGrow() {
  MDB_envinfo info;
  mdb_env_info(environment_, &info);
  const uint64_t used = (uint64_t{info.me_last_pgno} + 1) * page_bytes_;
  if (used >= options_.limit_bytes && used - FreePages() * page_bytes_ >= options_.limit_bytes) {
    return false;
  }
  if (options_.reserve_bytes == 0) return true;
  const uint64_t wanted = used + options_.reserve_bytes;
  if (wanted <= allocated_bytes_) return true;
  absl::Status allocated = Allocate(wanted + kAllocationStepBytes);
  if (!allocated.ok()) allocated = Allocate(wanted);
  // Once much was deleted there is room inside the file, whatever else fills the disk.
  const bool room = allocated.ok() || FreePages() * page_bytes_ >= 2 * options_.reserve_bytes;
  if (!room && !disk_full_) {
    log::Warning("disk full: the metadata takes only what frees space", {{"error", allocated}});
  }
  disk_full_ = !room;
  return room;
}

// Gives data.mdb its first `bytes`, none of them a hole: LMDB leaves pages unwritten that a
// transaction took and freed again, and would find a full disk when it writes them one day. The
// file is then also never shorter than LMDB believes it to be.
absl::Status Database::Allocate(uint64_t bytes) {
  const auto from = static_cast<off_t>(allocated_bytes_);
  if (::fallocate(data_.get(), 0, from, static_cast<off_t>(bytes) - from) != 0 &&
      errno != EOPNOTSUPP) {
    return sys::ErrnoError(errno, absl::StrCat("give data.mdb ", bytes, " bytes"));
  }
  allocated_bytes_ = bytes;
  return absl::OkStatus();
}

// After this nothing may be written: what is on disk is no longer known (SECURITY-RULES 39).
absl::Status Database::Fail(const absl::Status& status) {
  const absl::Status broken = absl::UnavailableError(
      absl::StrCat("the metadata store stopped after an error: ", status.message()));
  {
    absl::MutexLock lock(&mutex_);
    if (!broken_.ok()) return broken_;
    broken_ = broken;
  }
  options_.on_fatal(status);
  return broken;
}

DatabaseStatistics Database::statistics() const {
  MDB_envinfo info;
  mdb_env_info(environment_, &info);
  DatabaseStatistics statistics;
  statistics.commits = commits_.load(std::memory_order_relaxed);
  statistics.mutations = mutations_.load(std::memory_order_relaxed);
  statistics.checkpoints = checkpoints_.load(std::memory_order_relaxed);
  statistics.size_bytes = (uint64_t{info.me_last_pgno} + 1) * page_bytes_;
  return statistics;
}

}  // namespace gantry::metadata
