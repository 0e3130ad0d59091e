// Layers for tests, in memory.
#pragma once

#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "lib/archive/compression.h"
#include "lib/archive/tar_writer.h"

namespace gantry::archive {

class TarBuilder {
 public:
  TarBuilder()
      : writer_([this](absl::string_view bytes) {
          tar_.append(bytes.data(), bytes.size());
          return absl::OkStatus();
        }) {}

  TarBuilder& Directory(std::string path, mode_t mode = 0755) {
    return Add(EntryType::kDirectory, std::move(path), "", mode);
  }
  TarBuilder& File(std::string path, absl::string_view bytes, mode_t mode = 0644) {
    TarEntry entry = Entry(EntryType::kRegular, std::move(path), "", mode);
    return File(entry, bytes);
  }
  TarBuilder& File(TarEntry entry, absl::string_view bytes) {
    (void)writer_.AddFile(entry, bytes);
    return *this;
  }
  TarBuilder& Symlink(std::string path, std::string target) {
    return Add(EntryType::kSymlink, std::move(path), std::move(target), 0777);
  }
  TarBuilder& HardLink(std::string path, std::string target) {
    return Add(EntryType::kHardLink, std::move(path), std::move(target), 0644);
  }
  TarBuilder& Add(EntryType type, std::string path, std::string target, mode_t mode) {
    (void)writer_.Add(Entry(type, std::move(path), std::move(target), mode));
    return *this;
  }
  TarBuilder& Add(const TarEntry& entry) {
    (void)writer_.Add(entry);
    return *this;
  }

  // Ends the archive.
  std::string Take() {
    (void)writer_.Finish();
    return std::move(tar_);
  }

  static TarEntry Entry(EntryType type, std::string path, std::string target, mode_t mode) {
    TarEntry entry;
    entry.type = type;
    entry.path = std::move(path);
    entry.link_target = std::move(target);
    entry.permissions = mode;
    entry.modified = absl::FromUnixSeconds(1700000000);
    return entry;
  }

 private:
  std::string tar_;
  TarWriter writer_;
};

inline std::string CompressAll(Compression compression, absl::string_view bytes) {
  std::string out;
  auto compressor = Compressor::Create(compression);
  if (!compressor.ok()) return out;
  (void)(*compressor)->Write(bytes, &out);
  (void)(*compressor)->Finish(&out);
  return out;
}

}  // namespace gantry::archive
