// Checkpoints: LMDB synced, its meta pages kept aside, a new epoch of the redo log.
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "services/metadata/database.h"
#include "services/metadata/database_format.h"

namespace gantry::metadata {

absl::Status Database::CaptureCheckpoint() {
  Captured captured;
  captured.checkpoint.epoch = epoch_ + 1;
  // LMDB's file begins with its two meta pages.
  captured.checkpoint.meta_pages.resize(2 * page_bytes_);
  if (::pread(data_.get(), captured.checkpoint.meta_pages.data(), 2 * page_bytes_, 0) !=
      static_cast<ssize_t>(2 * page_bytes_)) {
    return sys::ErrnoError(errno, "read LMDB's meta pages");
  }
  if (int code = mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &captured.pin); code != 0) {
    return LmdbError(code, "pin a checkpoint");
  }
  epoch_ += 1;
  commits_in_epoch_ = 0;
  redo_logs_[epoch_ & 1]->Restart(epoch_);
  absl::MutexLock lock(&mutex_);
  captured_ = std::move(captured);
  checkpoint_running_ = true;
  return absl::OkStatus();
}

absl::Status Database::FinishCheckpoint(Captured captured) {
  absl::Cleanup unpin = [&] { mdb_txn_abort(captured.pin); };
  RETURN_IF_ERROR(FAILPOINT("metadata.database.before_checkpoint_sync"));
  if (int code = mdb_env_sync(environment_, 1); code != 0) return LmdbError(code, "sync data.mdb");
  RETURN_IF_ERROR(checkpoints_file_->Write(captured.checkpoint));
  // The pages of the checkpoint before may be reused from here on.
  std::swap(pinned_, captured.pin);
  if (captured.pin == nullptr) std::move(unpin).Cancel();
  checkpoints_.fetch_add(1, std::memory_order_relaxed);
  return absl::OkStatus();
}

// For the leader: waits for a checkpoint under way, then makes everything committed so far durable.
absl::Status Database::CheckpointNow() {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Database* database) ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return !database->checkpoint_running_ || !database->broken_.ok();
        },
        this));
    RETURN_IF_ERROR(broken_);
  }
  RETURN_IF_ERROR(CaptureCheckpoint());
  Captured captured;
  {
    absl::MutexLock lock(&mutex_);
    // The thread may have taken it already.
    if (captured_) {
      captured = *std::exchange(captured_, std::nullopt);
    } else {
      mutex_.Await(absl::Condition(
          +[](Database* database) ABSL_NO_THREAD_SAFETY_ANALYSIS {
            return !database->checkpoint_running_ || !database->broken_.ok();
          },
          this));
      return broken_;
    }
  }
  absl::Status finished = FinishCheckpoint(std::move(captured));
  absl::MutexLock lock(&mutex_);
  checkpoint_running_ = false;
  return finished;
}

void Database::CheckpointLoop() {
  while (true) {
    Captured captured;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](Database* database) ABSL_NO_THREAD_SAFETY_ANALYSIS {
            return database->stopping_ || database->captured_.has_value();
          },
          this));
      if (stopping_) return;
      captured = *std::exchange(captured_, std::nullopt);
    }
    absl::Status finished = FinishCheckpoint(std::move(captured));
    if (!finished.ok()) (void)Fail(finished);
    absl::MutexLock lock(&mutex_);
    checkpoint_running_ = false;
  }
}

}  // namespace gantry::metadata
