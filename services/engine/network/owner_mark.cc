#include "services/engine/network/owner_mark.h"

#include "absl/strings/str_cat.h"

namespace gantry::network {

uint64_t StableHash(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

uint32_t InterfaceGroup(absl::string_view directory) {
  const uint64_t hash = StableHash(directory);
  return static_cast<uint32_t>(hash ^ (hash >> 32)) | 0x80000000u;
}

std::string StableId(absl::string_view text) {
  std::string id;
  for (int part = 0; part < 4; ++part) {
    absl::StrAppend(&id, absl::Hex(StableHash(absl::StrCat(part, ":", text)), absl::kZeroPad16));
  }
  return id;
}

}  // namespace gantry::network
