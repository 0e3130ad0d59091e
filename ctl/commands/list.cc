// ps, port, top: what runs.

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "ctl/commands/commands.h"
#include "ctl/names.h"
#include "ctl/progress.h"
#include "ctl/table.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

namespace engine = ::gantry::engine::v1;

constexpr size_t kShortCommand = 20;  // Characters of COMMAND, the ellipsis included.

// Cut at a character, not inside of one.
std::string Shorten(std::string text) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<uint8_t>(text[i]) & 0xC0) == 0x80) continue;
    if (++characters == kShortCommand) {
      const bool more =
          std::any_of(text.begin() + static_cast<ptrdiff_t>(i) + 1, text.end(),
                      [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
      if (more) return absl::StrCat(text.substr(0, i), "…");
    }
  }
  return text;
}

std::string SizeText(const engine::ContainerSummary& container) {
  const std::string own = DecimalSize(container.size_rw_bytes());
  if (container.size_root_bytes() == 0) return own;  // Nobody asked for sizes.
  return absl::StrCat(own, " (virtual ", DecimalSize(container.size_root_bytes()), ")");
}

std::string LabelsText(const engine::ContainerSummary& container) {
  std::vector<std::string> labels;
  for (const auto& [key, value] : container.labels())
    labels.push_back(absl::StrCat(key, "=", value));
  std::sort(labels.begin(), labels.end());
  return EscapeForTerminal(absl::StrJoin(labels, ","));
}

std::string MountsText(const engine::ContainerSummary& container) {
  std::vector<std::string> mounts;
  for (const engine::Mount& mount : container.mounts()) {
    mounts.push_back(mount.source().empty() ? mount.target() : mount.source());
  }
  return EscapeForTerminal(absl::StrJoin(mounts, ","));
}

Value Row(const engine::ContainerSummary& container, bool truncate, absl::Time now) {
  std::string command = EscapeForTerminal(absl::StrJoin(container.command(), " "));
  if (truncate) command = Shorten(std::move(command));
  const auto volumes = std::count_if(container.mounts().begin(), container.mounts().end(),
                                     [](const engine::Mount& m) { return m.type() == "volume"; });
  Value row = Value::Object();
  row.Set("Command", absl::StrCat("\"", command, "\""))
      .Set("CreatedAt", CreatedText(ToTime(container.created_at())))
      .Set("ID", truncate ? container.id().substr(0, 12) : container.id())
      .Set("Image", EscapeForTerminal(FamiliarName(container.image())))
      .Set("Labels", LabelsText(container))
      .Set("LocalVolumes", absl::StrCat(volumes))
      .Set("Mounts", MountsText(container))
      .Set("Names", EscapeForTerminal(container.name()))
      .Set("Networks", EscapeForTerminal(container.network()))
      .Set("Ports", PortsText(container))
      .Set("RunningFor", AgeText(ToTime(container.created_at()), now))
      .Set("Size", SizeText(container))
      .Set("State", StateName(container.state().status()))
      .Set("Status", StatusText(container.state(), now));
  return row.SetHidden("Label", Value::MapOf(container.labels()));
}

int Ps(Context& context, const Arguments& arguments) {
  engine::ListContainersRequest request;
  engine::ListContainersResponse response;
  request.set_all(arguments.Is("all"));
  for (const std::string& filter : arguments.List("filter")) request.add_filters(filter);
  if (arguments.Is("latest")) request.set_last(1);
  if (arguments.Has("last")) {
    int32_t last;
    if (!absl::SimpleAtoi(arguments.Text("last"), &last)) {
      return context.Fail("cannot list containers",
                          absl::InvalidArgumentError("--last wants a number"));
    }
    request.set_last(last > 0 ? static_cast<uint32_t>(last) : 0);
  }
  // A size is only worth its walk over the disk where it is shown.
  const bool size = arguments.Is("size") || absl::StrContains(arguments.Text("format"), ".Size");
  request.set_size(size);
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Containers/List", request, &response);
  if (!status.ok()) return context.Fail("cannot list containers", status);

  Listing listing;
  listing.headers = {
      {"Command", "COMMAND"}, {"CreatedAt", "CREATED AT"}, {"ID", "CONTAINER ID"},
      {"Image", "IMAGE"},     {"Labels", "LABELS"},        {"LocalVolumes", "LOCAL VOLUMES"},
      {"Mounts", "MOUNTS"},   {"Names", "NAMES"},          {"Networks", "NETWORKS"},
      {"Ports", "PORTS"},     {"RunningFor", "CREATED"},   {"Size", "SIZE"},
      {"State", "STATE"},     {"Status", "STATUS"}};
  listing.columns = {"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"};
  if (size) listing.columns.push_back("Size");
  listing.id_column = "ID";
  const absl::Time now = absl::Now();
  for (const engine::ContainerSummary& container : response.containers()) {
    listing.rows.push_back(Row(container, !arguments.Is("no-trunc"), now));
  }
  absl::StatusOr<std::string> text =
      FormatListing(listing, arguments.Text("format"), arguments.Is("quiet"));
  if (!text.ok()) return context.Fail("cannot format the list", text.status());
  context.out().Write(*text);
  return kExitOk;
}

int Port(Context& context, const Arguments& arguments) {
  const std::string& name = arguments.positional()[0];
  engine::InspectContainerRequest request;
  engine::ContainerDetails details;
  request.set_container(name);
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Containers/Inspect", request, &details);
  if (!status.ok())
    return context.Fail(absl::StrCat("cannot show ports of \"", name, "\""), status);
  std::string wanted = arguments.positional().size() > 1 ? arguments.positional()[1] : "";
  if (!wanted.empty() && !absl::StrContains(wanted, '/')) wanted += "/tcp";
  bool found = false;
  for (const engine::PortBinding& binding : details.network().ports()) {
    if (binding.host_port() == 0) continue;  // Declared, not published.
    const std::string port = absl::StrCat(binding.container_port(), "/", binding.protocol());
    if (!wanted.empty() && port != wanted) continue;
    found = true;
    std::string host = binding.host_ip().empty() ? "0.0.0.0" : binding.host_ip();
    if (absl::StrContains(host, ':')) host = absl::StrCat("[", host, "]");
    context.out().Write(
        absl::StrCat(wanted.empty() ? port + " -> " : "", host, ":", binding.host_port(), "\n"));
  }
  if (wanted.empty() || found) return kExitOk;
  return context.Fail(absl::StrCat("cannot show ports of \"", name, "\""),
                      absl::NotFoundError(absl::StrCat("no public port '", wanted, "' published")));
}

int Top(Context& context, const Arguments& arguments) {
  engine::TopRequest request;
  engine::TopResponse response;
  const std::vector<std::string>& words = arguments.positional();
  request.set_container(words[0]);
  for (size_t i = 1; i < words.size(); ++i) request.add_ps_args(words[i]);
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Containers/Top", request, &response);
  if (!status.ok()) {
    return context.Fail(absl::StrCat("cannot list processes of \"", words[0], "\""), status);
  }
  std::vector<std::vector<std::string>> rows;
  rows.emplace_back(response.titles().begin(), response.titles().end());
  for (const engine::TopResponse::Process& process : response.processes()) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const std::string& field : process.fields()) row.push_back(EscapeForTerminal(field));
  }
  context.out().Write(FormatTable(rows));
  return kExitOk;
}

constexpr FlagSpec kPsFlags[] = {
    {"all", 'a', FlagKind::kSwitch, "", "Show all containers (default: only running ones)"},
    {"filter", 'f', FlagKind::kList, "filter",
     "Only those that match: id name label exited status ancestor before since volume network "
     "publish expose health"},
    {"format", 0, FlagKind::kText, "string", "'table', 'table TEMPLATE', 'json' or a template"},
    {"last", 'n', FlagKind::kText, "int", "Show the n newest, of any state"},
    {"latest", 'l', FlagKind::kSwitch, "", "Show the newest, of any state"},
    {"no-trunc", 0, FlagKind::kSwitch, "", "Do not shorten"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Only print ids"},
    {"size", 's', FlagKind::kSwitch, "", "Show how much disk each one uses"},
};

}  // namespace

absl::Span<const CommandSpec> ListCommands() {
  static const CommandSpec kCommands[] = {
      {"ps", "[OPTIONS]", "List containers", kPsFlags, 0, 0, false,
       "gantryctl ps -a --filter status=exited\n"
       "gantryctl ps --format 'table {{.Names}}\\t{{.Status}}'",
       Ps},
      {"port",
       "CONTAINER [PORT[/PROTO]]",
       "List published ports of a container",
       {},
       1,
       2,
       false,
       "",
       Port},
      // ps(1) has its own flags: they start after the container.
      {"top",
       "CONTAINER [ps OPTIONS]",
       "Show the processes of a container",
       {},
       1,
       -1,
       true,
       "gantryctl top web -o pid,args",
       Top},
  };
  return kCommands;
}

}  // namespace gantry::ctl
