#include "lib/base/request_id.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "lib/base/identifier.h"

namespace gantry {
namespace {

constexpr size_t kLongest = 64;

std::string& Slot() {
  thread_local std::string id;
  return id;
}

}  // namespace

std::string NewRequestId() { return RandomHex(8); }

bool IsRequestId(absl::string_view text) {
  return !text.empty() && text.size() <= kLongest &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '-';
         });
}

const std::string& CurrentRequestId() { return Slot(); }

void SetCurrentRequestId(std::string id) { Slot() = std::move(id); }

ScopedRequestId::ScopedRequestId(std::string id) : former_(std::exchange(Slot(), std::move(id))) {}

ScopedRequestId::~ScopedRequestId() { Slot() = std::move(former_); }

}  // namespace gantry
