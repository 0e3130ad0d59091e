#include "lib/base/failpoint.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"

// Bounds of the section the sites lie in; the linker provides them. Weak: a program without any
// failpoint has no such section.
extern "C" {
extern gantry::failpoint::Site __start_gantry_failpoints[] __attribute__((weak));
extern gantry::failpoint::Site __stop_gantry_failpoints[] __attribute__((weak));
}

namespace gantry::failpoint {
namespace {

enum class Action { kOff, kError, kDelay, kKill, kPause, kNoSpace };

struct Plan {
  std::string name;
  Action action = Action::kOff;
  std::string text;          // For kError.
  int64_t milliseconds = 0;  // For kDelay.
  int64_t only_hit = 0;      // 0: every hit.
  int64_t hits = 0;
};

// Process-wide by nature: a failpoint is a place in the program, not in an object.
ABSL_CONST_INIT absl::Mutex mutex(absl::kConstInit);
std::vector<Plan>* plans ABSL_GUARDED_BY(mutex) = nullptr;

Site* FindSite(absl::string_view name) {
  for (Site* site = __start_gantry_failpoints; site < __stop_gantry_failpoints; ++site) {
    if (name == site->name) return site;
  }
  return nullptr;
}

absl::Status Malformed(absl::string_view item) {
  return absl::InvalidArgumentError(absl::StrCat(
      "failpoint '", item,
      "' is not of the form name=error|error(text)|delay(ms)|kill|pause|enospc|off[@n]"));
}

absl::StatusOr<Plan> ParsePlan(absl::string_view item) {
  Plan plan;
  std::vector<absl::string_view> sides = absl::StrSplit(item, absl::MaxSplits('=', 1));
  if (sides.size() != 2 || sides[0].empty()) return Malformed(item);
  plan.name = std::string(sides[0]);
  absl::string_view action = sides[1];
  if (size_t at = action.rfind('@'); at != absl::string_view::npos) {
    if (!absl::SimpleAtoi(action.substr(at + 1), &plan.only_hit) || plan.only_hit < 1) {
      return Malformed(item);
    }
    action = action.substr(0, at);
  }
  absl::string_view argument;
  if (size_t open = action.find('('); open != absl::string_view::npos) {
    if (action.back() != ')') return Malformed(item);
    argument = action.substr(open + 1, action.size() - open - 2);
    action = action.substr(0, open);
  }
  if (action == "off") {
    plan.action = Action::kOff;
  } else if (action == "error") {
    plan.action = Action::kError;
    plan.text = std::string(argument);
  } else if (action == "enospc") {
    plan.action = Action::kNoSpace;
  } else if (action == "kill") {
    plan.action = Action::kKill;
  } else if (action == "pause") {
    plan.action = Action::kPause;
  } else if (action == "delay" && absl::SimpleAtoi(argument, &plan.milliseconds) &&
             plan.milliseconds >= 0) {
    plan.action = Action::kDelay;
  } else {
    return Malformed(item);
  }
  return plan;
}

absl::StatusOr<std::vector<Plan>> ParseAll(absl::string_view specification, bool skip_unknown) {
  std::vector<Plan> parsed;
  for (absl::string_view item : absl::StrSplit(specification, ';', absl::SkipWhitespace())) {
    absl::StatusOr<Plan> plan = ParsePlan(absl::StripAsciiWhitespace(item));
    if (!plan.ok()) return plan.status();
    if (FindSite(plan->name) == nullptr) {
      if (skip_unknown) continue;
      return absl::NotFoundError(
          absl::StrCat("no failpoint is called '", plan->name, "' in this program"));
    }
    parsed.push_back(*std::move(plan));
  }
  return parsed;
}

void Install(std::vector<Plan> fresh) {
  absl::MutexLock lock(&mutex);
  if (plans == nullptr) plans = new std::vector<Plan>();
  for (Plan& plan : fresh) {
    plans->erase(std::remove_if(plans->begin(), plans->end(),
                                [&](const Plan& old) { return old.name == plan.name; }),
                 plans->end());
    const bool armed = plan.action != Action::kOff;
    FindSite(plan.name)->armed.store(armed, std::memory_order_relaxed);
    if (armed) plans->push_back(std::move(plan));
  }
}

// The plan of this hit, or a plan of kOff when it is not this hit's turn.
Plan TakeTurn(absl::string_view name) {
  absl::MutexLock lock(&mutex);
  if (plans == nullptr) return Plan();
  for (Plan& plan : *plans) {
    if (plan.name != name) continue;
    ++plan.hits;
    if (plan.only_hit != 0 && plan.hits != plan.only_hit) return Plan();
    return plan;
  }
  return Plan();
}

void Delay(int64_t milliseconds) {
  timespec left = {milliseconds / 1000, (milliseconds % 1000) * 1000000};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

}  // namespace

absl::Status Hit(Site& site) {
  const Plan plan = TakeTurn(site.name);
  switch (plan.action) {
    case Action::kOff:
      return absl::OkStatus();
    case Action::kError:
      return absl::UnavailableError(plan.text.empty() ? absl::StrCat("failpoint ", site.name)
                                                      : plan.text);
    case Action::kNoSpace:
      return absl::ResourceExhaustedError(
          absl::StrCat("failpoint ", site.name, ": no space left on device"));
    case Action::kDelay:
      Delay(plan.milliseconds);
      return absl::OkStatus();
    case Action::kPause:
      ::kill(::getpid(), SIGSTOP);
      return absl::OkStatus();
    case Action::kKill:
      ::kill(::getpid(), SIGKILL);
      std::abort();  // Not reached: SIGKILL cannot be blocked.
  }
  return absl::OkStatus();
}

absl::Status Arm(absl::string_view specification) {
  absl::StatusOr<std::vector<Plan>> parsed = ParseAll(specification, /*skip_unknown=*/false);
  if (!parsed.ok()) return parsed.status();
  Install(*std::move(parsed));
  return absl::OkStatus();
}

absl::Status ArmFromEnvironment() {
  const char* specification = std::getenv("GANTRY_FAILPOINTS");
  if (specification == nullptr) return absl::OkStatus();
  absl::StatusOr<std::vector<Plan>> parsed = ParseAll(specification, /*skip_unknown=*/true);
  if (!parsed.ok()) return parsed.status();
  Install(*std::move(parsed));
  return absl::OkStatus();
}

void DisarmAll() {
  absl::MutexLock lock(&mutex);
  for (Site* site = __start_gantry_failpoints; site < __stop_gantry_failpoints; ++site) {
    site->armed.store(false, std::memory_order_relaxed);
  }
  if (plans != nullptr) plans->clear();
}

std::vector<std::string> List() {
  std::vector<std::string> names;
  for (Site* site = __start_gantry_failpoints; site < __stop_gantry_failpoints; ++site) {
    names.emplace_back(site->name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace gantry::failpoint
