#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/tar.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

// `name` with `top` in place of its first component.
std::string Renamed(absl::string_view name, const std::string& top) {
  const size_t slash = name.find('/');
  if (slash == name.npos) return top;
  return absl::StrCat(top, name.substr(slash));
}

}  // namespace

absl::StatusOr<uint64_t> ForwardTree(TarReader& reader, const std::string& top,
                                     const TarSink& sink) {
  TarWriter writer(sink);
  uint64_t bytes = 0;
  while (true) {
    ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader.Next());
    if (!entry) break;
    if (entry->type == TarEntry::Type::kSpecial) continue;
    entry->name = Renamed(entry->name, top);
    if (entry->type == TarEntry::Type::kHardLink) entry->link = Renamed(entry->link, top);
    RETURN_IF_ERROR(writer.Entry(*entry));
    if (entry->type != TarEntry::Type::kFile) continue;
    while (true) {
      ASSIGN_OR_RETURN(absl::string_view data, reader.ReadData());
      if (data.empty()) break;
      bytes += data.size();
      RETURN_IF_ERROR(writer.Data(data));
    }
    RETURN_IF_ERROR(writer.EndData());
  }
  RETURN_IF_ERROR(writer.Finish());
  return bytes;
}

}  // namespace gantry::ctl
