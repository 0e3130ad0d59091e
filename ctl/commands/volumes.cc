// volume create, ls, rm (inspect stands with the others).

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/flag_values.h"
#include "ctl/table.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

namespace engine = ::gantry::engine::v1;

int Create(Context& context, const Arguments& arguments) {
  engine::CreateVolumeRequest request;
  engine::Volume volume;
  if (!arguments.positional().empty()) request.set_name(arguments.positional()[0]);
  const std::string driver = arguments.Text("driver", "local");
  if (driver != "local") {
    return context.Fail("cannot create the volume",
                        absl::InvalidArgumentError(absl::StrCat(
                            "there is no volume driver '", driver, "'; the only one is local")));
  }
  for (const std::string& label : arguments.List("label")) {
    auto [key, value] = SplitPair(label);
    (*request.mutable_labels())[key] = value;
  }
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Volumes/Create", request, &volume);
  if (!status.ok()) {
    return context.Fail(absl::StrCat("cannot create the volume \"", request.name(), "\""), status);
  }
  context.out().Write(absl::StrCat(volume.name(), "\n"));
  return kExitOk;
}

bool Matches(const engine::Volume& volume, absl::string_view key, const std::string& value) {
  if (key == "name") return absl::StrContains(volume.name(), value);
  if (key == "driver") return value == "local";
  auto [label, wanted] = SplitPair(value);
  const auto found = volume.labels().find(label);
  return found != volume.labels().end() &&
         (!absl::StrContains(value, '=') || found->second == wanted);
}

int List(Context& context, const Arguments& arguments) {
  for (const std::string& filter : arguments.List("filter")) {
    const std::string key = SplitPair(filter).first;
    if (key != "name" && key != "driver" && key != "label") {
      return context.Fail("cannot list volumes",
                          absl::InvalidArgumentError(absl::StrCat("unknown filter '", key,
                                                                  "': use name, driver or label")));
    }
  }
  engine::ListVolumesRequest request;
  engine::ListVolumesResponse response;
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Volumes/List", request, &response);
  if (!status.ok()) return context.Fail("cannot list volumes", status);
  Listing listing;
  listing.headers = {{"Driver", "DRIVER"},
                     {"Labels", "LABELS"},
                     {"Mountpoint", "MOUNTPOINT"},
                     {"Name", "VOLUME NAME"},
                     {"Scope", "SCOPE"}};
  listing.columns = {"Driver", "Name"};
  listing.id_column = "Name";
  for (const engine::Volume& volume : response.volumes()) {
    bool wanted = true;
    for (const std::string& filter : arguments.List("filter")) {
      auto [key, value] = SplitPair(filter);
      wanted = wanted && Matches(volume, key, value);
    }
    if (!wanted) continue;
    std::string labels;
    for (const auto& [key, value] : volume.labels()) {
      absl::StrAppend(&labels, labels.empty() ? "" : ",", key, "=", value);
    }
    Value row = Value::Object();
    row.Set("Driver", volume.driver().empty() ? "local" : volume.driver())
        .Set("Labels", EscapeForTerminal(labels))
        .Set("Mountpoint", volume.mountpoint())
        .Set("Name", volume.name())
        .Set("Scope", "local");
    row.SetHidden("Label", Value::MapOf(volume.labels()));
    listing.rows.push_back(std::move(row));
  }
  absl::StatusOr<std::string> text =
      FormatListing(listing, arguments.Text("format"), arguments.Is("quiet"));
  if (!text.ok()) return context.Fail("cannot format the list", text.status());
  context.out().Write(*text);
  return kExitOk;
}

int Remove(Context& context, const Arguments& arguments) {
  return context.ForEach(arguments.positional(), "remove", true, [&](const std::string& name) {
    engine::RemoveVolumeRequest request;
    engine::RemoveVolumeResponse response;
    request.set_name(name);
    request.set_force(arguments.Is("force"));
    const absl::Status status =
        context.suite().Call("engine", "/gantry.engine.v1.Volumes/Remove", request, &response);
    if (request.force() && absl::IsNotFound(status)) return absl::OkStatus();
    return status;
  });
}

constexpr FlagSpec kCreateFlags[] = {
    {"driver", 'd', FlagKind::kText, "string", "Volume driver (local)"},
    {"label", 'l', FlagKind::kList, "list", "Set metadata"},
};
constexpr FlagSpec kListFlags[] = {
    {"filter", 'f', FlagKind::kList, "filter", "Only those that match: name driver label"},
    {"format", 0, FlagKind::kText, "string", "'table', 'table TEMPLATE', 'json' or a template"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Only print names"},
};
constexpr FlagSpec kRemoveFlags[] = {
    {"force", 'f', FlagKind::kSwitch, "", "A volume that is gone already is no error"},
};

}  // namespace

absl::Span<const CommandSpec> VolumeCommands() {
  static const CommandSpec kCommands[] = {
      {"volume create", "[OPTIONS] [VOLUME]", "Create a volume", kCreateFlags, 0, 1, false, "",
       Create},
      {"volume ls", "[OPTIONS]", "List volumes", kListFlags, 0, 0, false, "", List},
      {"volume rm", "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes", kRemoveFlags, 1, -1, false,
       "", Remove},
  };
  return kCommands;
}

}  // namespace gantry::ctl
