// inspect: everything about containers, images and volumes, as Docker's JSON or through a template.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/inspecting.h"
#include "ctl/details.h"
#include "ctl/table.h"
#include "ctl/template.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

absl::StatusOr<Value> FindContainer(Context& context, const std::string& name, bool size) {
  engine::v1::InspectContainerRequest request;
  engine::v1::ContainerDetails details;
  request.set_container(name);
  request.set_size(size);
  RETURN_IF_ERROR(
      context.suite().Call("engine", "/gantry.engine.v1.Containers/Inspect", request, &details));
  return ContainerValue(details, size);
}

absl::StatusOr<Value> FindImage(Context& context, const std::string& name) {
  image::v1::InspectImageRequest request;
  image::v1::ImageDetails details;
  request.set_reference(name);
  RETURN_IF_ERROR(
      context.suite().Call("image", "/gantry.image.v1.Images/Inspect", request, &details));
  return ImageValue(details);
}

absl::StatusOr<Value> FindVolume(Context& context, const std::string& name) {
  engine::v1::InspectVolumeRequest request;
  engine::v1::Volume volume;
  request.set_name(name);
  RETURN_IF_ERROR(
      context.suite().Call("engine", "/gantry.engine.v1.Volumes/Inspect", request, &volume));
  return VolumeValue(volume);
}

// Nothing of that name, as opposed to an error that stops the search. A name that cannot be one of
// a container may still be one of an image.
bool IsAbsence(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsInvalidArgument(status);
}

// As Docker: a container first, then an image, then a volume.
absl::StatusOr<Value> FindAny(Context& context, const std::string& name, bool size) {
  absl::StatusOr<Value> found = FindContainer(context, name, size);
  if (found.ok() || !IsAbsence(found.status())) return found;
  found = FindImage(context, name);
  if (found.ok() || !IsAbsence(found.status())) return found;
  found = FindVolume(context, name);
  if (found.ok() || !IsAbsence(found.status())) return found;
  return absl::NotFoundError(absl::StrCat("No such object: ", name));
}

int Inspect(Context& context, const Arguments& arguments) {
  const std::string type = arguments.Text("type");
  if (!type.empty() && type != "container" && type != "image" && type != "volume") {
    return context.Fail("cannot inspect",
                        absl::InvalidArgumentError("--type must be container, image or volume"));
  }
  return InspectEach(context, arguments, [&](const std::string& name) -> absl::StatusOr<Value> {
    const bool size = arguments.Is("size");
    if (type == "container") return FindContainer(context, name, size);
    if (type == "image") return FindImage(context, name);
    if (type == "volume") return FindVolume(context, name);
    return FindAny(context, name, size);
  });
}

int InspectContainers(Context& context, const Arguments& arguments) {
  return InspectEach(context, arguments, [&](const std::string& name) {
    return FindContainer(context, name, arguments.Is("size"));
  });
}

int InspectImages(Context& context, const Arguments& arguments) {
  return InspectEach(context, arguments,
                     [&](const std::string& name) { return FindImage(context, name); });
}

int InspectVolumes(Context& context, const Arguments& arguments) {
  return InspectEach(context, arguments,
                     [&](const std::string& name) { return FindVolume(context, name); });
}

constexpr FlagSpec kInspectFlags[] = {
    {"format", 'f', FlagKind::kText, "string", "'json' or a template"},
    {"size", 's', FlagKind::kSwitch, "", "Show sizes of containers"},
    {"type", 0, FlagKind::kText, "string", "Look only for a container, image or volume"},
};
constexpr FlagSpec kContainerFlags[] = {
    {"format", 'f', FlagKind::kText, "string", "'json' or a template"},
    {"size", 's', FlagKind::kSwitch, "", "Show sizes"},
};
constexpr FlagSpec kFormatFlags[] = {
    {"format", 'f', FlagKind::kText, "string", "'json' or a template"},
};

}  // namespace

int InspectEach(Context& context, const Arguments& arguments, const FindObject& find) {
  const std::string format = arguments.Text("format");
  std::optional<Template> text_template;
  if (!format.empty() && format != "json") {
    absl::StatusOr<Template> parsed = Template::Parse(UnescapeFormat(format));
    if (!parsed.ok()) return context.Fail("cannot inspect", parsed.status());
    text_template.emplace(*std::move(parsed));
  }
  Value found = Value::List();
  const int exit_code = context.ForEach(
      arguments.positional(), "inspect", false, [&](const std::string& name) -> absl::Status {
        ASSIGN_OR_RETURN(Value object, find(name));
        if (text_template) {
          ASSIGN_OR_RETURN(std::string text, text_template->Execute(object));
          context.out().Write(absl::StrCat(text, "\n"));
        } else {
          found.Add(std::move(object));
        }
        return absl::OkStatus();
      });
  if (!text_template) {
    context.out().Write(
        absl::StrCat(format == "json" ? found.ToJson() : found.ToIndentedJson(), "\n"));
  }
  return exit_code;
}

absl::Span<const CommandSpec> InspectCommands() {
  static const CommandSpec kCommands[] = {
      {"inspect", "[OPTIONS] NAME|ID [NAME|ID...]",
       "Show all there is to know about containers, images and volumes", kInspectFlags, 1, -1,
       false, "gantryctl inspect -f '{{.NetworkSettings.IPAddress}}' web", Inspect},
      {"container inspect", "[OPTIONS] CONTAINER [CONTAINER...]", "Show all about containers",
       kContainerFlags, 1, -1, false, "", InspectContainers},
      {"image inspect", "[OPTIONS] IMAGE [IMAGE...]", "Show all about images", kFormatFlags, 1, -1,
       false, "", InspectImages},
      {"volume inspect", "[OPTIONS] VOLUME [VOLUME...]", "Show all about volumes", kFormatFlags, 1,
       -1, false, "", InspectVolumes},
  };
  return kCommands;
}

}  // namespace gantry::ctl
