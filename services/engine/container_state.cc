#include "services/engine/container_state.h"

#include "absl/strings/str_cat.h"

namespace gantry::engine {

absl::string_view StateName(State state) {
  switch (state) {
    case State::kCreated:
      return "created";
    case State::kRunning:
      return "running";
    case State::kPaused:
      return "paused";
    case State::kRestarting:
      return "restarting";
    case State::kExited:
      return "exited";
    case State::kRemoving:
      return "removing";
    case State::kDead:
      return "dead";
  }
  return "unknown";
}

bool IsLegalTransition(State from, State to) {
  switch (from) {
    case State::kCreated:
      return to == State::kRunning || to == State::kRemoving;
    case State::kRunning:
      return to == State::kPaused || to == State::kExited || to == State::kRestarting;
    case State::kPaused:
      return to == State::kRunning || to == State::kExited || to == State::kRestarting;
    case State::kRestarting:
      return to == State::kRunning || to == State::kExited || to == State::kRestarting ||
             to == State::kRemoving;
    case State::kExited:
      return to == State::kRunning || to == State::kRestarting || to == State::kRemoving;
    case State::kRemoving:
      return to == State::kDead;
    case State::kDead:
      return to == State::kRemoving;
  }
  return false;
}

absl::Status WrongState(absl::string_view verb, absl::string_view container, State state) {
  absl::string_view remedy;
  switch (state) {
    case State::kCreated:
    case State::kExited:
      remedy = "it is not running; start it first";
      break;
    case State::kRunning:
      remedy = verb == "unpause" ? "it is not paused" : "stop it first";
      break;
    case State::kPaused:
      remedy = verb == "pause" ? "it is paused already" : "unpause it first";
      break;
    case State::kRestarting:
      remedy = "wait until it is running, or stop it";
      break;
    case State::kRemoving:
      remedy = "its removal is already in progress";
      break;
    case State::kDead:
      remedy = "it can only be removed";
      break;
  }
  return absl::FailedPreconditionError(absl::StrCat("cannot ", verb, " container '", container,
                                                    "': it is ", StateName(state), "; ", remedy));
}

}  // namespace gantry::engine
