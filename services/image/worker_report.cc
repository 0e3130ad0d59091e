#include "services/image/worker_report.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::image {
namespace {

// A report is a sequence of fields: one byte of kind, four bytes of length (little-endian), the
// bytes. kEnd comes last, so that a cut report shows.
enum Kind : char {
  kErrorCode = 'c',
  kErrorMessage = 'm',
  kDiffId = 'd',
  kTarBytes = 't',
  kFileBytes = 'f',
  kEntries = 'n',
  kImplicit = 'i',
  kOpaque = 'o',
  kEnd = 'e',
};

void Put(Kind kind, absl::string_view bytes, std::string* out) {
  const uint32_t size = static_cast<uint32_t>(bytes.size());
  out->push_back(kind);
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(size >> shift));
  out->append(bytes.data(), bytes.size());
}

void PutNumber(Kind kind, uint64_t number, std::string* out) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(number >> (8 * i));
  Put(kind, absl::string_view(bytes, sizeof(bytes)), out);
}

uint64_t Number(absl::string_view bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < bytes.size() && i < 8; ++i) {
    number |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return number;
}

absl::Status Malformed() {
  return absl::InternalError("the unpack worker ended without a whole report");
}

}  // namespace

std::string EncodeReport(const absl::StatusOr<archive::UnpackResult>& result) {
  std::string out;
  if (!result.ok()) {
    PutNumber(kErrorCode, static_cast<uint64_t>(result.status().code()), &out);
    Put(kErrorMessage, result.status().message().substr(0, 4096), &out);
  } else {
    Put(kDiffId, result->diff_id.str(), &out);
    PutNumber(kTarBytes, result->tar_bytes, &out);
    PutNumber(kFileBytes, result->file_bytes, &out);
    PutNumber(kEntries, result->entries, &out);
    for (const std::string& path : result->implicit_directories) Put(kImplicit, path, &out);
    for (const std::string& path : result->opaque_directories) Put(kOpaque, path, &out);
  }
  Put(kEnd, "", &out);
  return out;
}

absl::StatusOr<archive::UnpackResult> DecodeReport(absl::string_view bytes) {
  archive::UnpackResult result;
  uint64_t code = 0;
  std::string message;
  for (;;) {
    if (bytes.size() < 5) return Malformed();
    const char kind = bytes[0];
    const uint64_t size = Number(bytes.substr(1, 4));
    bytes.remove_prefix(5);
    if (size > bytes.size()) return Malformed();
    const absl::string_view value = bytes.substr(0, size);
    bytes.remove_prefix(size);
    switch (kind) {
      case kErrorCode:
        code = Number(value);
        break;
      case kErrorMessage:
        message = std::string(value);
        break;
      case kDiffId: {
        absl::StatusOr<Digest> digest = Digest::Parse(value);
        if (!digest.ok()) return Malformed();
        result.diff_id = *digest;
        break;
      }
      case kTarBytes:
        result.tar_bytes = Number(value);
        break;
      case kFileBytes:
        result.file_bytes = Number(value);
        break;
      case kEntries:
        result.entries = Number(value);
        break;
      case kImplicit:
        result.implicit_directories.emplace(value);
        break;
      case kOpaque:
        result.opaque_directories.emplace(value);
        break;
      case kEnd:
        if (!bytes.empty()) return Malformed();
        if (code > 0 && code <= static_cast<uint64_t>(absl::StatusCode::kUnauthenticated)) {
          return absl::Status(static_cast<absl::StatusCode>(code), EscapeForTerminal(message));
        }
        if (code != 0 || result.diff_id.empty()) return Malformed();
        return result;
      default:
        return Malformed();
    }
  }
}

}  // namespace gantry::image
