// The states of a container and the ways between them.
//
//   created ──► running ◄──► paused          restarting: ended, and waiting for its next start
//      │         │  ▲           │            removing:   on its way out; never seen again, or dead
//      │         ▼  │           │            dead:       the removal failed; it can only be tried
//      again │   exited / restarting ◄┘ └──────► removing ──► (gone) or dead
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry::engine {

enum class State { kCreated, kRunning, kPaused, kRestarting, kExited, kRemoving, kDead };

// "created", "running" …
absl::string_view StateName(State state);

// Whether a container may go from `from` to `to`.
bool IsLegalTransition(State from, State to);

// Whether it has a task whose program runs or is frozen.
inline bool IsLive(State state) { return state == State::kRunning || state == State::kPaused; }

// FailedPrecondition "cannot <verb> container 'web': it is paused; unpause it first": what to do
// comes from the state and the verb. `verb` is one of start stop pause unpause kill exec remove …
absl::Status WrongState(absl::string_view verb, absl::string_view container, State state);

}  // namespace gantry::engine
