// From files on disk to an open database: back to the last checkpoint, then forward through the
// redo logs.
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/metadata/database.h"
#include "services/metadata/database_format.h"

namespace gantry::metadata {
namespace {

constexpr char kFormatKey[] = "format";
constexpr uint64_t kFormat = 1;
constexpr unsigned kMaxReaders = 1024;
// What deletions may use beyond the limit: they copy pages before they free them.
constexpr size_t kBeyondLimitBytes = 64 << 20;

}  // namespace

absl::Status Database::OpenFiles() {
  const std::string& directory = options_.directory;
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0700));
  ASSIGN_OR_RETURN(lock_, sys::Open(directory + "/lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return absl::FailedPreconditionError("another process has it open; stop that one first");
    }
    return sys::ErrnoError(errno, "lock it");
  }
  ASSIGN_OR_RETURN(checkpoints_file_, CheckpointFile::Open(directory + "/checkpoint"));
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(redo_logs_[i],
                     RedoLog::Open(absl::StrCat(directory, "/redo.", i), options_.redo_log_bytes));
  }
  // Versions before the reserve was part of data.mdb kept it in a file.
  RETURN_IF_ERROR(sys::Unlink(directory + "/reserve"));
  return sys::SyncDirectory(directory);
}

// Puts back the meta pages of the last checkpoint: what was committed since is in the redo logs.
absl::Status Database::RestoreCheckpoint() {
  const std::string path = options_.directory + "/data.mdb";
  ASSIGN_OR_RETURN(std::optional<Checkpoint> newest, checkpoints_file_->Newest());
  if (!newest) {
    // Nothing was ever acknowledged: an interrupted first start.
    return sys::Unlink(path);
  }
  if (!sys::Exists(path)) {
    return absl::DataLossError(
        absl::StrCat("'", path, "' is missing; restore a backup of the state directory"));
  }
  epoch_ = newest->epoch;
  ASSIGN_OR_RETURN(sys::UniqueFd data, sys::Open(path, O_RDWR | O_NOFOLLOW));
  const std::string& pages = newest->meta_pages;
  if (::pwrite(data.get(), pages.data(), pages.size(), 0) != static_cast<ssize_t>(pages.size())) {
    return sys::ErrnoError(errno, "go back to the last checkpoint");
  }
  return absl::OkStatus();
}

absl::Status Database::OpenEnvironment() {
  if (int code = mdb_env_create(&environment_); code != 0) return LmdbError(code, "set up LMDB");
  mdb_env_set_maxdbs(environment_, kTableCount);
  mdb_env_set_maxreaders(environment_, kMaxReaders);
  mdb_env_set_mapsize(environment_, options_.limit_bytes + kBeyondLimitBytes);
  // Not synced by LMDB: the redo log and the checkpoints do that. Readers are not tied to threads.
  const unsigned flags = MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD;
  if (int code = mdb_env_open(environment_, options_.directory.c_str(), flags, 0600); code != 0) {
    return LmdbError(code, "open LMDB");
  }
  MDB_stat statistics;
  mdb_env_stat(environment_, &statistics);
  page_bytes_ = statistics.ms_psize;
  ASSIGN_OR_RETURN(data_, sys::Open(options_.directory + "/data.mdb", O_RDWR | O_NOFOLLOW));
  RETURN_IF_ERROR(CheckSize());

  MDB_txn* txn = nullptr;
  if (int code = mdb_txn_begin(environment_, nullptr, 0, &txn); code != 0)
    return LmdbError(code, "open LMDB");
  absl::Cleanup abort = [&] { mdb_txn_abort(txn); };
  for (int i = 0; i < kTableCount; ++i) {
    if (int code = mdb_dbi_open(txn, TableName(static_cast<Table>(i)), MDB_CREATE, &tables_[i]);
        code != 0) {
      return LmdbError(code, absl::StrCat("open table ", TableName(static_cast<Table>(i))));
    }
  }
  std::move(abort).Cancel();
  if (int code = mdb_txn_commit(txn); code != 0) return LmdbError(code, "make the tables");
  return absl::OkStatus();
}

// A file cut short would answer reads of its lost end with SIGBUS.
absl::Status Database::CheckSize() const {
  MDB_envinfo info;
  mdb_env_info(environment_, &info);
  struct stat status;
  if (::fstat(data_.get(), &status) != 0) return sys::ErrnoError(errno, "look at data.mdb");
  const uint64_t needed = (uint64_t{info.me_last_pgno} + 1) * page_bytes_;
  if (static_cast<uint64_t>(status.st_size) >= needed) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("data.mdb has ", status.st_size, " bytes, ", needed,
                                          " are in use; restore a backup of the state directory"));
}

absl::Status Database::Replay() {
  // The second log holds records only if the last checkpoint was begun and not finished.
  for (uint64_t epoch : {epoch_, epoch_ + 1}) {
    RETURN_IF_ERROR(redo_logs_[epoch & 1]->Replay(
        epoch, [this](absl::string_view payload) { return ApplyRedo(payload); }));
  }
  return absl::OkStatus();
}

absl::Status Database::ApplyRedo(absl::string_view payload) {
  MDB_txn* txn = nullptr;
  if (int code = mdb_txn_begin(environment_, nullptr, 0, &txn); code != 0)
    return LmdbError(code, "replay");
  Writer writer(&tables_, txn, this, 0, false);
  absl::Status applied = ForEachRedo(payload,
                                     [&](RedoKind kind, Table table, absl::string_view key,
                                         absl::string_view value) -> absl::Status {
                                       if (kind == RedoKind::kPut)
                                         return writer.PutStored(table, key, value);
                                       return writer.DeleteStored(table, key).status();
                                     });
  if (!applied.ok()) {
    mdb_txn_abort(txn);
    return Annotate(applied, "replay the redo log");
  }
  if (int code = mdb_txn_commit(txn); code != 0) return LmdbError(code, "replay the redo log");
  return absl::OkStatus();
}

absl::Status Database::CheckFormat() {
  ASSIGN_OR_RETURN(Reader reader, Read());
  ASSIGN_OR_RETURN(std::optional<absl::string_view> format, reader.Find(Table::kState, kFormatKey));
  if (format) {
    if (DecodeNumber(*format) == kFormat) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("it has format ", DecodeNumber(*format), ", this version knows ", kFormat,
                     "; use the version of Gantry that wrote it, or a newer one"));
  }
  MDB_txn* txn = nullptr;
  if (int code = mdb_txn_begin(environment_, nullptr, 0, &txn); code != 0)
    return LmdbError(code, "write the format");
  Writer writer(&tables_, txn, this, 0, false);
  absl::Status put = writer.Put(Table::kState, kFormatKey, EncodeNumber(kFormat));
  if (!put.ok()) {
    mdb_txn_abort(txn);
    return put;
  }
  if (int code = mdb_txn_commit(txn); code != 0) return LmdbError(code, "write the format");
  return absl::OkStatus();
}

absl::Status Database::LoadSequence() {
  ASSIGN_OR_RETURN(Reader reader, Read());
  ASSIGN_OR_RETURN(std::optional<std::string> last, reader.LastKey(Table::kJournal));
  next_sequence_ = last ? DecodeNumber(*last) + 1 : 1;
  durable_sequence_.store(next_sequence_ - 1, std::memory_order_release);
  return absl::OkStatus();
}

}  // namespace gantry::metadata
