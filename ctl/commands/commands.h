// Every command there is: one function each, found through a table.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ctl/command_line.h"
#include "ctl/context.h"

namespace gantry::ctl {

// Each room of commands hands out its part of the table.
absl::Span<const CommandSpec> RunCommands();        // run, create
absl::Span<const CommandSpec> AttachCommands();     // start, attach
absl::Span<const CommandSpec> ExecCommands();       // exec
absl::Span<const CommandSpec> LifecycleCommands();  // stop, kill, rm …
absl::Span<const CommandSpec> ListCommands();       // ps, port, top
absl::Span<const CommandSpec> InspectCommands();    // inspect
absl::Span<const CommandSpec> LogCommands();        // logs
absl::Span<const CommandSpec> EventCommands();      // events
absl::Span<const CommandSpec> CopyCommands();       // cp
absl::Span<const CommandSpec> ImageCommands();      // images, pull, rmi, tag, load
absl::Span<const CommandSpec> VolumeCommands();     // volume …
absl::Span<const CommandSpec> SystemCommands();     // version, info, system …
absl::Span<const CommandSpec> HelpCommands();       // completion, man

// The command that the first words name, and how many words that took; "image rm" is `rmi`,
// "container ls" is `ps`. nullptr when there is none.
struct FoundCommand {
  const CommandSpec* command = nullptr;
  size_t words = 0;
};
FoundCommand FindCommand(absl::Span<const std::string> words);

// All specs, for help and for the nearest name.
std::vector<const CommandSpec*> AllCommands();

// Every way to write a command that people are meant to know, aliases included.
std::vector<std::string> AllCommandNames();

// The text of `gantryctl --help`, and of a group (`gantryctl volume`); "" when there is no such
// group.
std::string OverviewText();
std::string GroupText(absl::string_view group);

// What was probably meant by words that name no command: a hint, or "".
std::string MeantCommand(absl::Span<const std::string> words);

}  // namespace gantry::ctl
