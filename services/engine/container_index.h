// All containers of the engine, by id and by name.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/container.h"

namespace gantry::engine {

using ContainerPtr = std::shared_ptr<Container>;

// In memory; the truth is in metadata. Containers are shared with the calls that work on them,
// which outlive their removal from here. Thread-safe.
class ContainerIndex {
 public:
  // Takes the name for this id before the container is there. Errors: AlreadyExists "Conflict. The
  // container name "/web" is already in use by container "…"".
  absl::Status ReserveName(const std::string& name, const std::string& id);
  void ReleaseName(const std::string& name, const std::string& id);

  // A random free name, reserved.
  std::string ReserveRandomName(const std::string& id);

  void Add(ContainerPtr container);
  // Takes out the container and its name.
  void Remove(const Container& container);

  // By id, by name (a leading slash is fine), by a prefix of the id; in this order. Errors:
  // NotFound "No such container: X"; FailedPrecondition — the prefix fits several (named).
  absl::StatusOr<ContainerPtr> Find(absl::string_view reference) const;
  ContainerPtr FindById(const std::string& id) const;  // Null: none.

  // Newest first.
  std::vector<ContainerPtr> All() const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, ContainerPtr> by_id_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> names_ ABSL_GUARDED_BY(mutex_);  // Name to id.
};

}  // namespace gantry::engine
