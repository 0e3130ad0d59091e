#include "services/image/blob_store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::image {
namespace {

constexpr size_t kReadBytes = 1 << 20;

// Metadata makes the ids; what is not plain must not become a path all the same.
absl::Status CheckBackendId(absl::string_view id) {
  const bool fine = !id.empty() && id.size() <= 128 && id[0] != '.' &&
                    std::all_of(id.begin(), id.end(), [](char c) {
                      return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                    });
  if (fine) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("metadata answered the ingest id '", id, "', which is not a file name"));
}

// Tells ext4 that the directories below are unrelated, so that it spreads them: creating files
// after deleting many is slow otherwise (COSTS 5). Other file systems do not know the flag.
void SpreadDirectories(const std::string& path) {
  sys::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int flags = 0;
  if (!fd.ok() || ::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_TOPDIR_FL;
  (void)::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags);
}

// Whether a record that failed so may have been made all the same.
bool MayBeRecorded(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status) || absl::IsUnknown(status) || absl::IsInternal(status);
}

absl::Status Broken() {
  return absl::DataLossError(
      "an earlier fsync failed, so nothing more is committed; check the disk, then restart "
      "gantry-image");
}

}  // namespace

class BlobStore::Hold {
 public:
  Hold(absl::Mutex& mutex, absl::flat_hash_set<std::string>& held, std::string key)
      : mutex_(mutex), held_(held), key_(std::move(key)) {
    absl::MutexLock lock(&mutex_);
    const auto is_free = [this] { return !held_.contains(key_); };
    mutex_.Await(absl::Condition(&is_free));
    held_.insert(key_);
  }
  ~Hold() {
    absl::MutexLock lock(&mutex_);
    held_.erase(key_);
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  absl::Mutex& mutex_;
  absl::flat_hash_set<std::string>& held_;
  const std::string key_;
};

BlobStore::BlobStore(std::string root) : root_(std::move(root)) {}

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const std::string& root) {
  RETURN_IF_ERROR(sys::MakeDirectories(root + "/blobs/sha256"));
  RETURN_IF_ERROR(sys::MakeDirectories(root + "/ingests"));
  SpreadDirectories(root + "/ingests");
  return std::unique_ptr<BlobStore>(new BlobStore(root));
}

std::string BlobStore::BlobPath(const Digest& digest) const {
  return absl::StrCat(root_, "/blobs/sha256/", digest.hex());
}

std::string BlobStore::IngestPath(const std::string& backend_id) const {
  return absl::StrCat(root_, "/ingests/", backend_id);
}

absl::StatusOr<sys::UniqueFd> BlobStore::OpenBlob(const Digest& digest,
                                                  uint64_t* size_bytes) const {
  sys::UniqueFd fd(::open(BlobPath(digest).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.ok() && errno == ENOENT) {
    return absl::NotFoundError(absl::StrCat("content ", digest.str(), ": not found"));
  }
  struct stat status = {};
  if (!fd.ok() || ::fstat(fd.get(), &status) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("open content ", digest.str()));
  }
  *size_bytes = static_cast<uint64_t>(status.st_size);
  return fd;
}

absl::StatusOr<std::string> BlobStore::ReadBlob(const Digest& digest, size_t limit) const {
  uint64_t size = 0;
  ASSIGN_OR_RETURN(sys::UniqueFd fd, OpenBlob(digest, &size));
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadAll(fd, limit));
  if (archive::Sha256Of(bytes) != digest) {
    return absl::DataLossError(absl::StrCat("content ", digest.str(),
                                            " has changed on the disk; remove the image and pull "
                                            "it again"));
  }
  return bytes;
}

absl::StatusOr<uint64_t> BlobStore::BlobSize(const Digest& digest) const {
  struct stat status = {};
  if (::lstat(BlobPath(digest).c_str(), &status) != 0) {
    if (errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat("content ", digest.str(), ": not found"));
    }
    return sys::ErrnoError(errno, absl::StrCat("look at content ", digest.str()));
  }
  return static_cast<uint64_t>(status.st_size);
}

absl::StatusOr<std::vector<Digest>> BlobStore::ListBlobs() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(root_ + "/blobs/sha256"));
  std::vector<Digest> digests;
  for (const std::string& name : names) {
    absl::StatusOr<Digest> digest = Digest::Parse(absl::StrCat("sha256:", name));
    if (digest.ok()) digests.push_back(*std::move(digest));
  }
  return digests;
}

absl::StatusOr<std::vector<std::string>> BlobStore::ListIngests() const {
  return sys::ListDirectory(root_ + "/ingests");
}

absl::StatusOr<std::unique_ptr<Ingest>> BlobStore::OpenIngest(const std::string& backend_id) {
  RETURN_IF_ERROR(CheckBackendId(backend_id));
  {
    absl::MutexLock lock(&mutex_);
    if (!held_ingests_.insert(backend_id).second) {
      return absl::UnavailableError("the ref is locked by another writer; try again later");
    }
  }
  std::unique_ptr<Ingest> ingest(new Ingest(*this, backend_id));
  RETURN_IF_ERROR(ingest->Load());
  return ingest;
}

absl::StatusOr<IngestState> BlobStore::StatIngest(const std::string& backend_id) const {
  RETURN_IF_ERROR(CheckBackendId(backend_id));
  struct stat status = {};
  if (::lstat(absl::StrCat(IngestPath(backend_id), "/data").c_str(), &status) != 0) {
    if (errno == ENOENT) return IngestState{0, absl::UnixEpoch()};
    return sys::ErrnoError(errno, absl::StrCat("look at the ingest ", backend_id));
  }
  return IngestState{static_cast<uint64_t>(status.st_size), absl::TimeFromTimespec(status.st_mtim)};
}

absl::Status BlobStore::RemoveIngest(const std::string& backend_id) {
  RETURN_IF_ERROR(CheckBackendId(backend_id));
  absl::MutexLock lock(&mutex_);
  if (held_ingests_.contains(backend_id)) {
    return absl::UnavailableError("the ref is locked by a writer; try again later");
  }
  return sys::RemoveTree(IngestPath(backend_id));
}

absl::Status BlobStore::DropIngest(const std::string& backend_id) {
  RETURN_IF_ERROR(CheckBackendId(backend_id));
  absl::MutexLock lock(&mutex_);
  if (!held_ingests_.contains(backend_id)) return sys::RemoveTree(IngestPath(backend_id));
  dropped_ingests_.insert(backend_id);
  return absl::OkStatus();
}

void BlobStore::LetGo(const std::string& backend_id) {
  absl::MutexLock lock(&mutex_);
  held_ingests_.erase(backend_id);
  if (dropped_ingests_.erase(backend_id) == 0) return;
  if (absl::Status removed = sys::RemoveTree(IngestPath(backend_id)); !removed.ok()) {
    log::Warning("an ingest without a record stays until the next look at all of them",
                 {{"ingest", backend_id}, {"error", removed}});
  }
}

absl::Status BlobStore::Sync(int fd, absl::string_view what) {
  {
    absl::MutexLock lock(&mutex_);
    if (broken_) return Broken();
  }
  if (::fsync(fd) == 0) return absl::OkStatus();
  const int error = errno;
  absl::MutexLock lock(&mutex_);
  broken_ = true;
  return sys::ErrnoError(error, absl::StrCat("sync ", what));
}

absl::Status BlobStore::RemoveBlob(const Digest& digest,
                                   const std::function<absl::Status()>& decide,
                                   const std::function<absl::Status()>& done) {
  Hold hold(mutex_, held_digests_, digest.str());
  RETURN_IF_ERROR(decide());
  RETURN_IF_ERROR(FAILPOINT("image.blob.before_unlink"));
  RETURN_IF_ERROR(sys::Unlink(BlobPath(digest)));
  RETURN_IF_ERROR(FAILPOINT("image.blob.after_unlink"));
  return done();
}

absl::Status BlobStore::WithBlob(const Digest& digest,
                                 const std::function<absl::Status(uint64_t size_bytes)>& record) {
  Hold hold(mutex_, held_digests_, digest.str());
  ASSIGN_OR_RETURN(const uint64_t size, BlobSize(digest));
  return record(size);
}

Ingest::~Ingest() { store_.LetGo(id_); }

absl::Status Ingest::Load() {
  const std::string directory = store_.IngestPath(id_);
  RETURN_IF_ERROR(FAILPOINT("image.ingest.before_open"));
  RETURN_IF_ERROR(sys::MakeDirectories(directory));
  ASSIGN_OR_RETURN(data_, sys::Open(directory + "/data", O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  auto buffer = std::make_unique<char[]>(kReadBytes);
  for (;;) {
    const ssize_t bytes =
        ::pread(data_.get(), buffer.get(), kReadBytes, static_cast<off_t>(offset_));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return sys::ErrnoError(errno, absl::StrCat("read the ingest ", id_));
    if (bytes == 0) return absl::OkStatus();
    hash_.Update(absl::string_view(buffer.get(), static_cast<size_t>(bytes)));
    offset_ += static_cast<uint64_t>(bytes);
  }
}

absl::Status Ingest::Append(absl::string_view bytes) {
  RETURN_IF_ERROR(FAILPOINT("image.ingest.append"));
  absl::string_view rest = bytes;
  uint64_t position = offset_;
  while (!rest.empty()) {
    const ssize_t written =
        ::pwrite(data_.get(), rest.data(), rest.size(), static_cast<off_t>(position));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      // Half a piece would be hashed as a whole one after a restart: cut it off again.
      (void)::ftruncate(data_.get(), static_cast<off_t>(offset_));
      return sys::ErrnoError(error, "write content");
    }
    position += static_cast<uint64_t>(written);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  hash_.Update(bytes);
  offset_ = position;
  return absl::OkStatus();
}

absl::Status Ingest::Truncate() {
  if (::ftruncate(data_.get(), 0) != 0) return sys::ErrnoError(errno, "truncate the ingest");
  offset_ = 0;
  hash_.Reset();
  return absl::OkStatus();
}

absl::StatusOr<sys::UniqueFd> Ingest::OpenForReading() const {
  return sys::Open(absl::StrCat(store_.IngestPath(id_), "/data"), O_RDONLY | O_NOFOLLOW);
}

absl::Status Ingest::Commit(const Digest& expected, const std::function<absl::Status()>& record) {
  const Digest actual = digest();
  if (actual != expected) {
    return absl::DataLossError(absl::StrCat("the bytes have the digest ", actual.str(),
                                            ", expected was ", expected.str()));
  }
  RETURN_IF_ERROR(FAILPOINT("image.commit.before_sync"));
  RETURN_IF_ERROR(store_.Sync(data_.get(), "content"));
  const std::string directory = store_.IngestPath(id_);
  const std::string blob = store_.BlobPath(actual);
  const std::string blobs = store_.root_ + "/blobs/sha256";
  BlobStore::Hold hold(store_.mutex_, store_.held_digests_, actual.str());
  const bool existed = sys::Exists(blob);
  (void)::fchmod(data_.get(), 0400);
  RETURN_IF_ERROR(FAILPOINT("image.commit.before_rename"));
  RETURN_IF_ERROR(sys::Rename(directory + "/data", blob));
  ASSIGN_OR_RETURN(sys::UniqueFd parent, sys::Open(blobs, O_RDONLY | O_DIRECTORY));
  RETURN_IF_ERROR(store_.Sync(parent.get(), "the directory of blobs"));
  absl::Status recorded = FAILPOINT("image.commit.before_record");
  if (recorded.ok()) recorded = record();
  if (!recorded.ok() && !absl::IsAlreadyExists(recorded)) {
    if (!existed && !MayBeRecorded(recorded)) {
      (void)::fchmod(data_.get(), 0600);
      (void)sys::Rename(blob, directory + "/data");
    }
    return recorded;
  }
  (void)sys::RemoveTree(directory);  // Empty now; the auditor sees to what is left over.
  return recorded;
}

}  // namespace gantry::image
