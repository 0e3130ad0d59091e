// The request a thread works for: an id that a caller gives to what it asks for, that goes along
// with every call made on its behalf, and that stands in every log line it leads to.
//
// Kept per thread, so that nothing between the edge and the log has to hand it on. Whoever passes
// work to another thread takes the id along: `[id = CurrentRequestId()] { ScopedRequestId
// scope(id);`.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry {

// The key it travels under, in gRPC's metadata and in ttrpc's.
inline constexpr char kRequestIdHeader[] = "gantry-request-id";

// Sixteen hex digits, random.
std::string NewRequestId();

// Whether a peer's text can be an id: 1 to 64 letters, digits, '.', '_' or '-'. It goes into logs.
bool IsRequestId(absl::string_view text);

// Of the calling thread; empty: it works for nobody in particular.
const std::string& CurrentRequestId();

// For threads that end one piece of work and begin another without a scope.
void SetCurrentRequestId(std::string id);

// Makes `id` the calling thread's, until destroyed; then the former one is back. Not to be moved to
// another thread.
class ScopedRequestId {
 public:
  explicit ScopedRequestId(std::string id);
  ~ScopedRequestId();
  ScopedRequestId(const ScopedRequestId&) = delete;
  ScopedRequestId& operator=(const ScopedRequestId&) = delete;

 private:
  std::string former_;
};

}  // namespace gantry
