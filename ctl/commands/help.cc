// completion and man: what the table of commands says of itself. Neither needs the suite.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/completion.h"
#include "ctl/manual.h"
#include "ctl/names.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

// Somebody waits with a finger on the tabulator.
constexpr absl::Duration kCompletionCall = absl::Milliseconds(100);

std::vector<std::string> ContainerNames(Context& context) {
  engine::v1::ListContainersRequest request;
  engine::v1::ListContainersResponse response;
  request.set_all(true);
  std::vector<std::string> names;
  if (context.suite()
          .Call("engine", "/gantry.engine.v1.Containers/List", request, &response, kCompletionCall)
          .ok()) {
    for (const auto& container : response.containers()) names.push_back(container.name());
  }
  return names;
}

std::vector<std::string> ImageNames(Context& context) {
  image::v1::ListImagesRequest request;
  image::v1::ListImagesResponse response;
  std::vector<std::string> names;
  if (context.suite()
          .Call("image", "/gantry.image.v1.Images/List", request, &response, kCompletionCall)
          .ok()) {
    for (const auto& image : response.images()) {
      for (const std::string& name : image.names()) names.push_back(FamiliarName(name));
    }
  }
  return names;
}

std::vector<std::string> VolumeNames(Context& context) {
  engine::v1::ListVolumesRequest request;
  engine::v1::ListVolumesResponse response;
  std::vector<std::string> names;
  if (context.suite()
          .Call("engine", "/gantry.engine.v1.Volumes/List", request, &response, kCompletionCall)
          .ok()) {
    for (const auto& volume : response.volumes()) names.push_back(volume.name());
  }
  return names;
}

int Completion(Context& context, const Arguments& arguments) {
  absl::StatusOr<std::string> script = CompletionScript(arguments.positional()[0]);
  if (!script.ok()) return context.Fail("", script.status());
  context.out().Write(*script);
  return kExitOk;
}

// Asked by the scripts of Completion.
int Complete(Context& context, const Arguments& arguments) {
  const std::vector<std::string> candidates =
      Candidates(arguments.positional(), [&](absl::string_view kind) {
        if (kind == "container") return ContainerNames(context);
        return kind == "image" ? ImageNames(context) : VolumeNames(context);
      });
  for (const std::string& candidate : candidates) {
    context.out().Write(absl::StrCat(candidate, "\n"));
  }
  return kExitOk;
}

absl::Status WritePages(const std::string& directory) {
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0755));
  const auto write = [&](const std::string& name, const std::string& page) {
    return sys::WriteFileAtomically(absl::StrCat(directory, "/", name, ".1"), page, 0644);
  };
  RETURN_IF_ERROR(write("gantryctl", ManualOverview()));
  for (const CommandSpec* command : AllCommands()) {
    if (command->summary[0] == '\0') continue;
    RETURN_IF_ERROR(write(ManualName(*command), ManualPage(*command)));
  }
  return absl::OkStatus();
}

int Man(Context& context, const Arguments& arguments) {
  if (arguments.Has("directory")) {
    const absl::Status written = WritePages(arguments.Text("directory"));
    return written.ok() ? kExitOk : context.Fail("cannot write the manual", written);
  }
  if (arguments.positional().empty()) {
    context.out().Write(ManualOverview());
    return kExitOk;
  }
  const FoundCommand found = FindCommand(arguments.positional());
  if (found.command == nullptr || found.words != arguments.positional().size()) {
    return context.Fail("", absl::NotFoundError(absl::StrCat("there is no command '",
                                                             arguments.positional()[0], "'")));
  }
  context.out().Write(ManualPage(*found.command));
  return kExitOk;
}

constexpr FlagSpec kManFlags[] = {
    {"directory", 0, FlagKind::kText, "path", "Write all pages into this directory"},
};

}  // namespace

absl::Span<const CommandSpec> HelpCommands() {
  static const CommandSpec kCommands[] = {
      {"completion",
       "bash|zsh|fish",
       "Print the completion script of a shell",
       {},
       1,
       1,
       false,
       "source <(gantryctl completion bash)",
       Completion},
      // Without a summary: not for people.
      {"__complete", "WORDS...", "", {}, 0, -1, true, "", Complete},
      {"man", "[OPTIONS] [COMMAND]", "Print the manual page of a command", kManFlags, 0, 3, false,
       "gantryctl man run | man -l -", Man},
  };
  return kCommands;
}

}  // namespace gantry::ctl
