#include "services/engine/exec_table.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace gantry::engine {
namespace {

constexpr size_t kRemembered = 100;

absl::Status NoSuchExec(absl::string_view exec_id) {
  return absl::NotFoundError(absl::StrCat("No such exec instance: ", exec_id));
}

}  // namespace

void ExecTable::Add(const std::string& exec_id) {
  absl::MutexLock lock(&mutex_);
  execs_[exec_id];
}

void ExecTable::End(const std::string& exec_id, int32_t exit_code) {
  std::map<uint64_t, Callback> waiters;
  {
    absl::MutexLock lock(&mutex_);
    auto found = execs_.find(exec_id);
    if (found == execs_.end() || found->second.ended) return;
    found->second.ended = true;
    found->second.exit_code = exit_code;
    waiters.swap(found->second.waiters);
    ended_.push_back(exec_id);
    if (ended_.size() > kRemembered) {
      execs_.erase(ended_.front());
      ended_.erase(ended_.begin());
    }
  }
  for (auto& [ticket, callback] : waiters) callback(exit_code);
}

void ExecTable::Forget(const std::string& exec_id) {
  std::map<uint64_t, Callback> waiters;
  {
    absl::MutexLock lock(&mutex_);
    auto found = execs_.find(exec_id);
    if (found == execs_.end()) return;
    waiters.swap(found->second.waiters);
    execs_.erase(found);
  }
  for (auto& [ticket, callback] : waiters) callback(NoSuchExec(exec_id));
}

std::vector<std::string> ExecTable::Running() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, exec] : execs_) {
    if (!exec.ended) ids.push_back(id);
  }
  return ids;
}

absl::Status ExecTable::CheckKnown(const std::string& exec_id) const {
  absl::MutexLock lock(&mutex_);
  return execs_.count(exec_id) > 0 ? absl::OkStatus() : NoSuchExec(exec_id);
}

uint64_t ExecTable::Wait(const std::string& exec_id, Callback callback) {
  absl::StatusOr<int32_t> answer = NoSuchExec(exec_id);
  {
    absl::MutexLock lock(&mutex_);
    auto found = execs_.find(exec_id);
    if (found != execs_.end()) {
      if (!found->second.ended) {
        found->second.waiters.emplace(++last_ticket_, std::move(callback));
        return last_ticket_;
      }
      answer = found->second.exit_code;
    }
  }
  callback(answer);
  return 0;
}

void ExecTable::CancelWait(uint64_t ticket) {
  Callback dropped;  // Destroyed after the lock is released.
  absl::MutexLock lock(&mutex_);
  for (auto& [id, exec] : execs_) {
    auto found = exec.waiters.find(ticket);
    if (found == exec.waiters.end()) continue;
    dropped = std::move(found->second);
    exec.waiters.erase(found);
    return;
  }
}

void ExecTable::EndAll(int32_t exit_code) {
  for (const std::string& id : Running()) End(id, exit_code);
}

void ExecTable::CancelAllWaits() {
  std::vector<Callback> waiters;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [id, exec] : execs_) {
      for (auto& [ticket, callback] : exec.waiters) waiters.push_back(std::move(callback));
      exec.waiters.clear();
    }
  }
  for (Callback& callback : waiters) callback(absl::CancelledError("the engine is stopping"));
}

}  // namespace gantry::engine
