#include "lib/archive/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::archive {
namespace {

constexpr size_t kMaxXattrsPerEntry = 256;
constexpr size_t kMaxXattrBytesPerEntry = 1 << 20;

std::string Bytes(const char* text) { return text == nullptr ? std::string() : std::string(text); }

absl::StatusOr<EntryType> TypeOf(struct archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr) return EntryType::kHardLink;
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
      return EntryType::kRegular;
    case AE_IFDIR:
      return EntryType::kDirectory;
    case AE_IFLNK:
      return EntryType::kSymlink;
    case AE_IFCHR:
      return EntryType::kCharacterDevice;
    case AE_IFBLK:
      return EntryType::kBlockDevice;
    case AE_IFIFO:
      return EntryType::kFifo;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("'", EscapeForTerminal(Bytes(archive_entry_pathname(entry))),
                       "' has a type that a tar archive of files cannot have"));
  }
}

absl::Status ReadXattrs(struct archive_entry* entry, TarEntry* out) {
  size_t total = 0;
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  archive_entry_xattr_reset(entry);
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    total += size;
    if (out->xattrs.size() >= kMaxXattrsPerEntry || total > kMaxXattrBytesPerEntry) {
      return absl::ResourceExhaustedError(absl::StrCat("'", EscapeForTerminal(out->path),
                                                       "' has more than ", kMaxXattrsPerEntry,
                                                       " extended attributes or 1 MiB of them"));
    }
    out->xattrs.emplace_back(Bytes(name), std::string(static_cast<const char*>(value), size));
  }
  return absl::OkStatus();
}

}  // namespace

struct TarReader::Impl {
  Source source;
  struct archive* handle = nullptr;
  absl::Status opened;
  bool any_bytes = false;
  absl::Status source_error;  // Survives libarchive, which only passes numbers on.

  static la_ssize_t Read(struct archive* handle, void* data, const void** buffer) {
    Impl* self = static_cast<Impl*>(data);
    absl::StatusOr<absl::string_view> piece = self->source();
    if (!piece.ok()) {
      self->source_error = piece.status();
      archive_set_error(handle, EIO, "source failed");
      return ARCHIVE_FATAL;
    }
    self->any_bytes |= !piece->empty();
    *buffer = piece->data();
    return static_cast<la_ssize_t>(piece->size());
  }

  absl::Status Error(absl::string_view attempt) const {
    if (!source_error.ok()) return source_error;
    const char* text = archive_error_string(handle);
    return absl::InvalidArgumentError(
        absl::StrCat(attempt, ": ", EscapeForTerminal(text == nullptr ? "damaged archive" : text)));
  }
};

TarReader::TarReader(Source source) : impl_(std::make_unique<Impl>()) {
  impl_->source = std::move(source);
  impl_->handle = archive_read_new();
  archive_read_support_filter_none(impl_->handle);
  archive_read_support_format_tar(impl_->handle);
  if (archive_read_open(impl_->handle, impl_.get(), nullptr, &Impl::Read, nullptr) != ARCHIVE_OK) {
    impl_->opened = impl_->Error("read the tar archive");
  }
}

TarReader::~TarReader() { archive_read_free(impl_->handle); }

absl::StatusOr<bool> TarReader::Next(TarEntry* out) {
  // No bytes at all is an archive without entries to Go's reader, so to everybody who makes layers.
  if (!impl_->opened.ok() && !impl_->any_bytes && impl_->source_error.ok()) return false;
  RETURN_IF_ERROR(impl_->opened);
  struct archive_entry* entry = nullptr;
  const int result = archive_read_next_header(impl_->handle, &entry);
  if (result == ARCHIVE_EOF) return false;
  // Warnings are about names in other character sets; we take names as bytes.
  if (result != ARCHIVE_OK && result != ARCHIVE_WARN) return impl_->Error("read a tar header");
  *out = TarEntry();
  out->path = Bytes(archive_entry_pathname(entry));
  ASSIGN_OR_RETURN(out->type, TypeOf(entry));
  out->link_target = out->type == EntryType::kHardLink ? Bytes(archive_entry_hardlink(entry))
                                                       : Bytes(archive_entry_symlink(entry));
  out->permissions = archive_entry_perm(entry) & 07777;
  out->uid = archive_entry_uid(entry);
  out->gid = archive_entry_gid(entry);
  const int64_t size = archive_entry_size(entry);
  if (size < 0) return absl::InvalidArgumentError("a tar header has a negative size");
  out->size_bytes = static_cast<uint64_t>(size);
  out->modified = absl::FromUnixSeconds(archive_entry_mtime(entry)) +
                  absl::Nanoseconds(archive_entry_mtime_nsec(entry));
  out->device_major = static_cast<uint32_t>(archive_entry_rdevmajor(entry));
  out->device_minor = static_cast<uint32_t>(archive_entry_rdevminor(entry));
  RETURN_IF_ERROR(ReadXattrs(entry, out));
  return true;
}

absl::Status TarReader::ReadData(
    const std::function<absl::Status(uint64_t offset, absl::string_view bytes)>& consume) {
  for (;;) {
    const void* bytes = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    const int result = archive_read_data_block(impl_->handle, &bytes, &size, &offset);
    if (result == ARCHIVE_EOF) return absl::OkStatus();
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) return impl_->Error("read a tar member");
    if (offset < 0) return absl::InvalidArgumentError("a sparse map has a negative offset");
    if (size == 0) continue;
    RETURN_IF_ERROR(consume(static_cast<uint64_t>(offset),
                            absl::string_view(static_cast<const char*>(bytes), size)));
  }
}

}  // namespace gantry::archive
