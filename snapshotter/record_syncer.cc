#include "snapshotter/record_syncer.h"

#include <fcntl.h>

#include <utility>

#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::snapshotter {

RecordSyncer::RecordSyncer(std::string root, std::function<void(const absl::Status&)> on_failure)
    : root_(std::move(root)), on_failure_(std::move(on_failure)), thread_([this] { Run(); }) {}

RecordSyncer::~RecordSyncer() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void RecordSyncer::Add(std::string file) {
  absl::MutexLock lock(&mutex_);
  files_.push_back(std::move(file));
}

absl::Status RecordSyncer::SyncBatch(const std::vector<std::string>& files) {
  RETURN_IF_ERROR(FAILPOINT("snapshotter.syncer.before_sync"));
  for (const std::string& file : files) {
    absl::StatusOr<sys::UniqueFd> record = sys::Open(file, O_RDONLY);
    if (absl::IsNotFound(record.status())) continue;  // Removed or committed meanwhile.
    if (!record.ok()) return record.status();
    RETURN_IF_ERROR(sys::Sync(*record));
    const absl::Status directory = sys::SyncDirectory(file.substr(0, file.rfind('/')));
    if (!directory.ok() && !absl::IsNotFound(directory)) return directory;
  }
  return sys::SyncDirectory(root_);
}

void RecordSyncer::Run() {
  const auto has_work = [this]()
                            ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stop_ || !files_.empty(); };
  bool stopping = false;
  while (!stopping) {
    std::vector<std::string> batch;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      mutex_.AwaitWithTimeout(absl::Condition(&stop_), kBatch);
      batch.swap(files_);
      stopping = stop_;
    }
    if (batch.empty()) continue;
    if (absl::Status synced = SyncBatch(batch); !synced.ok()) on_failure_(synced);
  }
}

}  // namespace gantry::snapshotter
