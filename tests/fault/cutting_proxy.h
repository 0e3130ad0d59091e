// A TCP proxy that breaks every connection after so many bytes, as bad networks do.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/sys/unique_fd.h"

namespace gantry::testing {

// Forwards 127.0.0.1:`port` to 127.0.0.1:`upstream_port` while it lives. Thread-safe.
class CuttingProxy {
 public:
  enum class Cut { kReset, kTruncate };  // RST; or an end of the stream that looks orderly.

  static absl::StatusOr<std::unique_ptr<CuttingProxy>> Start(uint16_t port, uint16_t upstream_port);
  ~CuttingProxy();

  // From now on each connection ends after `answer_bytes` of answers. 0: none is sent at all.
  void CutAfter(uint64_t answer_bytes, Cut how);

  int cuts() const { return cuts_; }

 private:
  CuttingProxy(sys::UniqueFd listener, sys::UniqueFd stop, uint16_t upstream_port)
      : listener_(std::move(listener)), stop_(std::move(stop)), upstream_port_(upstream_port) {}
  void Accept();
  void Forward(sys::UniqueFd client);

  const sys::UniqueFd listener_;
  const sys::UniqueFd stop_;  // An eventfd that stays readable.
  const uint16_t upstream_port_;
  std::atomic<uint64_t> limit_{UINT64_MAX};
  std::atomic<Cut> how_{Cut::kReset};
  std::atomic<int> cuts_{0};
  absl::Mutex mutex_;
  std::vector<std::thread> connections_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace gantry::testing
