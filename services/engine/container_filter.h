// `ps --filter`: which containers to list.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gantry/engine/v1/engine.pb.h"
#include "services/engine/container.h"
#include "services/engine/container_index.h"

namespace gantry::engine {

// "key=value" texts; the same key twice means either, different keys mean both. Thread-compatible.
class ContainerFilter {
 public:
  // Errors: InvalidArgument — an unknown key, or a value that is none for its key.
  static absl::StatusOr<ContainerFilter> Parse(const std::vector<std::string>& texts);

  // Looks up the containers that `before` and `since` name. Errors: NotFound.
  absl::Status Bind(const ContainerIndex& index);

  // Whether it asks for states, so that containers that do not run count as well.
  bool NamesStates() const { return values_.count("status") + values_.count("exited") > 0; }

  bool Matches(const Container& container, const v1::ContainerSummary& summary) const;

 private:
  using Values = std::set<std::string>;
  bool MatchesKey(const std::string& key, const std::string& value, const Container& container,
                  const v1::ContainerSummary& summary) const;

  std::map<std::string, Values> values_;
  std::map<std::string, std::pair<absl::Time, std::string>> bounds_;  // Reference to time and id.
};

}  // namespace gantry::engine
