#include "services/engine/container_index.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/engine/random_name.h"

namespace gantry::engine {
namespace {

constexpr size_t kMaxNamedCandidates = 5;

absl::Status Conflict(absl::string_view name, absl::string_view holder) {
  return absl::AlreadyExistsError(absl::StrCat(
      "Conflict. The container name \"/", name, "\" is already in use by container \"", holder,
      "\". You have to remove (or rename) that container to be able to reuse that name."));
}

}  // namespace

absl::Status ContainerIndex::ReserveName(const std::string& name, const std::string& id) {
  absl::MutexLock lock(&mutex_);
  auto [at, inserted] = names_.emplace(name, id);
  return inserted || at->second == id ? absl::OkStatus() : Conflict(name, at->second);
}

void ContainerIndex::ReleaseName(const std::string& name, const std::string& id) {
  absl::MutexLock lock(&mutex_);
  auto found = names_.find(name);
  if (found != names_.end() && found->second == id) names_.erase(found);
}

std::string ContainerIndex::ReserveRandomName(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  for (int attempt = 0;; ++attempt) {
    std::string name = RandomName(attempt);
    if (names_.emplace(name, id).second) return name;
  }
}

void ContainerIndex::Add(ContainerPtr container) {
  const std::string name = container->name();
  absl::MutexLock lock(&mutex_);
  names_[name] = container->id();
  by_id_[container->id()] = std::move(container);
}

void ContainerIndex::Remove(const Container& container) {
  const std::string name = container.name();
  ContainerPtr dropped;  // Destroyed after the lock is released.
  absl::MutexLock lock(&mutex_);
  auto found = by_id_.find(container.id());
  if (found != by_id_.end()) {
    dropped = std::move(found->second);
    by_id_.erase(found);
  }
  auto named = names_.find(name);
  if (named != names_.end() && named->second == container.id()) names_.erase(named);
}

absl::StatusOr<ContainerPtr> ContainerIndex::Find(absl::string_view reference) const {
  const auto none = [&] {
    return absl::NotFoundError(absl::StrCat("No such container: ", reference));
  };
  const std::string name(absl::StripPrefix(reference, "/"));
  if (name.empty()) return none();
  absl::MutexLock lock(&mutex_);
  if (auto found = by_id_.find(name); found != by_id_.end()) return found->second;
  if (auto found = names_.find(name); found != names_.end()) {
    auto container = by_id_.find(found->second);
    if (container != by_id_.end()) return container->second;
  }
  std::vector<ContainerPtr> candidates;
  for (auto at = by_id_.lower_bound(name); at != by_id_.end() && absl::StartsWith(at->first, name);
       ++at) {
    candidates.push_back(at->second);
  }
  if (candidates.empty()) return none();
  if (candidates.size() == 1) return candidates[0];
  std::string text;
  for (size_t i = 0; i < std::min(candidates.size(), kMaxNamedCandidates); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", candidates[i]->id().substr(0, 12));
  }
  if (candidates.size() > kMaxNamedCandidates) absl::StrAppend(&text, ", …");
  return absl::FailedPreconditionError(absl::StrCat(
      "the id prefix '", reference, "' is ambiguous: it fits ", text, "; give more of the id"));
}

ContainerPtr ContainerIndex::FindById(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<ContainerPtr> ContainerIndex::All() const {
  std::vector<ContainerPtr> all;
  {
    absl::MutexLock lock(&mutex_);
    all.reserve(by_id_.size());
    for (const auto& [id, container] : by_id_) all.push_back(container);
  }
  std::sort(all.begin(), all.end(), [](const ContainerPtr& a, const ContainerPtr& b) {
    const auto& left = a->definition().created_at();
    const auto& right = b->definition().created_at();
    if (left.seconds() != right.seconds()) return left.seconds() > right.seconds();
    if (left.nanos() != right.nanos()) return left.nanos() > right.nanos();
    return a->id() < b->id();
  });
  return all;
}

}  // namespace gantry::engine
