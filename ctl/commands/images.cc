// images, pull, rmi, tag, load.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/pull.h"
#include "ctl/flag_values.h"
#include "ctl/names.h"
#include "ctl/progress.h"
#include "ctl/table.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

namespace image = ::gantry::image::v1;

constexpr size_t kChunkBytes = 1 << 20;  // The Import call's limit.

// One row a name; an image without names has one of "<none>".
struct NamedImage {
  const image::ImageDetails* details = nullptr;
  NameParts name;
};

std::vector<NamedImage> NamesOf(const image::ImageDetails& details) {
  std::vector<NamedImage> named;
  for (const std::string& full : details.names()) {
    NameParts parts = SplitName(FamiliarName(full));
    if (parts.tag.empty()) parts.tag = "<none>";
    named.push_back({&details, std::move(parts)});
  }
  if (named.empty()) named.push_back({&details, NameParts{"<none>", "<none>", ""}});
  // The digest column: the image's, under the repository of the row.
  for (NamedImage& row : named) {
    for (const std::string& digest : details.repo_digests()) {
      NameParts parts = SplitName(FamiliarName(digest));
      if (parts.repository == row.name.repository) row.name.digest = parts.digest;
    }
  }
  return named;
}

bool MatchesLabel(const image::ImageDetails& details, const std::string& wanted) {
  auto [key, value] = SplitPair(wanted);
  const auto& labels = details.config().labels();
  const auto found = labels.find(key);
  return found != labels.end() && (!absl::StrContains(wanted, '=') || found->second == value);
}

// `*` and `?`, over repository or repository:tag.
bool MatchesPattern(absl::string_view text, absl::string_view pattern) {
  if (pattern.empty()) return text.empty();
  if (pattern.front() == '*') {
    for (size_t i = 0; i <= text.size(); ++i) {
      if (MatchesPattern(text.substr(i), pattern.substr(1))) return true;
    }
    return false;
  }
  return !text.empty() && (pattern.front() == '?' || pattern.front() == text.front()) &&
         MatchesPattern(text.substr(1), pattern.substr(1));
}

// The image filters of E.5. Same key twice is or, different keys are and.
class ImageFilter {
 public:
  // Errors: InvalidArgument — an unknown key, a bad value; NotFound — no image of that name.
  static absl::StatusOr<ImageFilter> Make(const std::vector<std::string>& filters,
                                          const image::ListImagesResponse& all) {
    ImageFilter made;
    for (const std::string& text : filters) {
      auto [key, value] = SplitPair(text);
      if (key == "dangling") {
        if (value != "true" && value != "false") {
          return absl::InvalidArgumentError("filter 'dangling' wants true or false");
        }
        made.dangling_ = value == "true";
      } else if (key == "label") {
        made.labels_.push_back(value);
      } else if (key == "reference") {
        if (value.size() > 512) return absl::InvalidArgumentError("filter 'reference' is too long");
        made.references_.push_back(value);
      } else if (key == "before" || key == "since") {
        ASSIGN_OR_RETURN(absl::Time time, TimeOf(value, all));
        (key == "before" ? made.before_ : made.since_) = time;
      } else if (key == "until") {
        ASSIGN_OR_RETURN(made.before_, ParseMoment(value, absl::Now()));
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("unknown filter '", EscapeForTerminal(key),
                         "': use dangling, label, before, since, reference or until"));
      }
    }
    return made;
  }

  bool Matches(const NamedImage& row) const {
    const absl::Time created = ToTime(row.details->created_at());
    const auto any = [](const std::vector<std::string>& values, const auto& matches) {
      return values.empty() || std::any_of(values.begin(), values.end(), matches);
    };
    return (!dangling_ || *dangling_ == row.details->names().empty()) && created < before_ &&
           created > since_ &&
           any(labels_, [&](const std::string& l) { return MatchesLabel(*row.details, l); }) &&
           any(references_, [&](const std::string& pattern) {
             return MatchesPattern(row.name.repository, pattern) ||
                    MatchesPattern(absl::StrCat(row.name.repository, ":", row.name.tag), pattern);
           });
  }

 private:
  static absl::StatusOr<absl::Time> TimeOf(const std::string& name,
                                           const image::ListImagesResponse& all) {
    for (const image::ImageDetails& details : all.images()) {
      const bool by_id = name.size() >= 2 && (absl::StartsWith(details.id(), name) ||
                                              absl::StartsWith(details.id(), "sha256:" + name));
      const bool by_name =
          std::any_of(details.names().begin(), details.names().end(), [&](const std::string& full) {
            const std::string familiar = FamiliarName(full);
            return familiar == name || familiar == name + ":latest" || full == name;
          });
      if (by_id || by_name) return ToTime(details.created_at());
    }
    return absl::NotFoundError(absl::StrCat("No such image: ", name));
  }

  std::optional<bool> dangling_;
  std::vector<std::string> labels_;
  std::vector<std::string> references_;
  absl::Time before_ = absl::InfiniteFuture();
  absl::Time since_ = absl::InfinitePast();
};

Value Row(const NamedImage& row, bool truncate, absl::Time now) {
  const absl::Time created = ToTime(row.details->created_at());
  Value value = Value::Object();
  return value.Set("Containers", "N/A")
      .Set("CreatedAt", CreatedText(created))
      .Set("CreatedSince", AgeText(created, now))
      .Set("Digest", row.name.digest.empty() ? "<none>" : EscapeForTerminal(row.name.digest))
      .Set("ID", truncate ? ShortDigest(row.details->id()) : row.details->id())
      .Set("Repository", EscapeForTerminal(row.name.repository))
      .Set("SharedSize", "N/A")
      .Set("Size", DecimalSize(row.details->size_bytes()))
      .Set("Tag", EscapeForTerminal(row.name.tag))
      .Set("UniqueSize", "N/A")
      .Set("VirtualSize", DecimalSize(row.details->size_bytes()));
}

int Images(Context& context, const Arguments& arguments) {
  image::ListImagesRequest request;
  image::ListImagesResponse response;
  if (!arguments.positional().empty()) request.set_pattern(arguments.positional()[0]);
  const absl::Status status =
      context.suite().Call("image", "/gantry.image.v1.Images/List", request, &response);
  if (!status.ok()) return context.Fail("cannot list images", status);
  absl::StatusOr<ImageFilter> filter = ImageFilter::Make(arguments.List("filter"), response);
  if (!filter.ok()) return context.Fail("cannot list images", filter.status());

  Listing listing;
  listing.headers = {{"Containers", "CONTAINERS"},
                     {"CreatedAt", "CREATED AT"},
                     {"CreatedSince", "CREATED"},
                     {"Digest", "DIGEST"},
                     {"ID", "IMAGE ID"},
                     {"Repository", "REPOSITORY"},
                     {"SharedSize", "SHARED SIZE"},
                     {"Size", "SIZE"},
                     {"Tag", "TAG"},
                     {"UniqueSize", "UNIQUE SIZE"},
                     {"VirtualSize", "VIRTUAL SIZE"}};
  listing.columns = {"Repository", "Tag", "ID", "CreatedSince", "Size"};
  if (arguments.Is("digests")) listing.columns.insert(listing.columns.begin() + 2, "Digest");
  listing.id_column = "ID";
  const absl::Time now = absl::Now();
  for (const image::ImageDetails& details : response.images()) {
    for (const NamedImage& row : NamesOf(details)) {
      if (filter->Matches(row)) listing.rows.push_back(Row(row, !arguments.Is("no-trunc"), now));
    }
  }
  absl::StatusOr<std::string> text =
      FormatListing(listing, arguments.Text("format"), arguments.Is("quiet"));
  if (!text.ok()) return context.Fail("cannot format the list", text.status());
  context.out().Write(*text);
  const std::string word = arguments.positional().empty() ? "" : arguments.positional()[0];
  if (listing.rows.empty() && (word == "ls" || word == "list" || word == "rm")) {
    context.Note(absl::StrCat("hint: no image is called '", word,
                              "'; did you mean gantryctl image ", word, "?"));
  }
  return kExitOk;
}

int Pull(Context& context, const Arguments& arguments) {
  PullOptions options;
  options.reference = arguments.positional()[0];
  options.platform = arguments.Text("platform");
  options.quiet = arguments.Is("quiet");
  std::string name;
  const absl::Status status = PullImage(context, options, context.out(), &name);
  if (!status.ok()) {
    return context.Fail(absl::StrCat("cannot pull \"", options.reference, "\""), status);
  }
  if (options.quiet) context.out().Write(absl::StrCat(EscapeForTerminal(name), "\n"));
  return kExitOk;
}

// `rmi CONTAINER` is a common slip.
bool IsContainer(Context& context, const std::string& name) {
  engine::v1::InspectContainerRequest request;
  engine::v1::ContainerDetails details;
  request.set_container(name);
  return context.suite()
      .Call("engine", "/gantry.engine.v1.Containers/Inspect", request, &details)
      .ok();
}

int Remove(Context& context, const Arguments& arguments) {
  return context.ForEach(
      arguments.positional(), "remove", false, [&](const std::string& name) -> absl::Status {
        engine::v1::RemoveImageRequest request;
        engine::v1::RemoveImageResponse response;
        request.set_reference(name);
        request.set_force(arguments.Is("force"));
        request.set_strict(arguments.Is("strict"));
        // The engine, since it knows the containers that stand on the image.
        const absl::Status status = context.suite().Call(
            "engine", "/gantry.engine.v1.Images/Remove", request, &response, kSlowCall);
        if (arguments.Is("force") && absl::IsNotFound(status)) {
          context.Note(absl::StrCat("gantryctl: ", EscapeForTerminal(status.message())));
          return absl::OkStatus();
        }
        if (absl::IsNotFound(status) && IsContainer(context, name)) {
          return absl::NotFoundError(absl::StrCat(status.message(), "; this is a container"));
        }
        RETURN_IF_ERROR(status);
        for (const std::string& untagged : response.untagged()) {
          context.out().Write(
              absl::StrCat("Untagged: ", EscapeForTerminal(FamiliarName(untagged)), "\n"));
        }
        for (const std::string& deleted : response.deleted()) {
          context.out().Write(absl::StrCat("Deleted: ", EscapeForTerminal(deleted), "\n"));
        }
        return absl::OkStatus();
      });
}

int Tag(Context& context, const Arguments& arguments) {
  image::TagImageRequest request;
  image::TagImageResponse response;
  request.set_source(arguments.positional()[0]);
  request.set_target(arguments.positional()[1]);
  const absl::Status status =
      context.suite().Call("image", "/gantry.image.v1.Images/Tag", request, &response);
  if (status.ok()) return kExitOk;
  return context.Fail(
      absl::StrCat("cannot tag \"", request.source(), "\" as \"", request.target(), "\""), status);
}

// Sends what `source` holds; `*response` names what was loaded.
absl::Status Import(Context& context, const sys::UniqueFd& source, const std::string& platform,
                    image::ImportResponse* response) {
  ASSIGN_OR_RETURN(Stream stream,
                   context.suite().Open("image", "/gantry.image.v1.Images/Import", nullptr));
  image::ImportRequest request;
  request.set_platform(platform);
  std::string chunk;
  bool at_end = false;
  while (!at_end) {
    // Pipes hand over 64 KiB at a time: gather, so that a message is worth its cost.
    chunk.clear();
    while (chunk.size() < kChunkBytes && !at_end) {
      const size_t used = chunk.size();
      chunk.resize(kChunkBytes);
      const ssize_t count = ::read(source.get(), chunk.data() + used, kChunkBytes - used);
      chunk.resize(used + (count > 0 ? static_cast<size_t>(count) : 0));
      if (count < 0 && errno != EINTR) return sys::ErrnoError(errno, "read the archive");
      at_end = count == 0;
    }
    request.set_data(chunk);
    RETURN_IF_ERROR(stream.call->Write(request, at_end));
    request.clear_platform();
  }
  ASSIGN_OR_RETURN(bool answered, stream.call->Read(response));
  if (!answered) return absl::InternalError("the image service named nothing");
  return stream.call->Read(nullptr).status();
}

int Load(Context& context, const Arguments& arguments) {
  const std::string path = arguments.Text("input");
  sys::UniqueFd file(::fcntl(context.in_fd(), F_DUPFD_CLOEXEC, 3));
  if (!path.empty() && path != "-") {
    absl::StatusOr<sys::UniqueFd> opened = sys::Open(path, O_RDONLY);
    if (!opened.ok()) return context.Fail("cannot load", opened.status());
    file = *std::move(opened);
  } else if (::isatty(context.in_fd()) == 1) {
    return context.Fail("cannot load", absl::FailedPreconditionError(
                                           "requested load from stdin, but stdin is a terminal; "
                                           "name a file with -i"));
  }
  image::ImportResponse response;
  const absl::Status status = Import(context, file, arguments.Text("platform"), &response);
  if (!status.ok()) return context.Fail("cannot load", status);
  for (const std::string& name : response.names()) {
    const bool id = absl::StartsWith(name, "sha256:");
    if (arguments.Is("quiet")) continue;
    context.out().Write(absl::StrCat(
        id ? "Loaded image ID: " : "Loaded image: ", EscapeForTerminal(FamiliarName(name)), "\n"));
  }
  return kExitOk;
}

constexpr FlagSpec kImagesFlags[] = {
    {"all", 'a', FlagKind::kSwitch, "", "Show all images (as Docker; there are no hidden ones)"},
    {"digests", 0, FlagKind::kSwitch, "", "Show digests"},
    {"filter", 'f', FlagKind::kList, "filter",
     "Only those that match: dangling label before since reference until"},
    {"format", 0, FlagKind::kText, "string", "'table', 'table TEMPLATE', 'json' or a template"},
    {"no-trunc", 0, FlagKind::kSwitch, "", "Do not shorten ids"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Only print ids"},
};
constexpr FlagSpec kPullFlags[] = {
    {"platform", 0, FlagKind::kText, "string", "Platform, such as linux/arm64"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Only print the image's name"},
};
constexpr FlagSpec kRemoveFlags[] = {
    {"force", 'f', FlagKind::kSwitch, "", "Also when containers use the image, by all its names"},
    {"no-prune", 0, FlagKind::kSwitch, "", ""},
    {"strict", 0, FlagKind::kSwitch, "", "By id: refuse an image of several names, as Docker does"},
};
constexpr FlagSpec kLoadFlags[] = {
    {"input", 'i', FlagKind::kText, "string", "Read from a file instead of stdin"},
    {"platform", 0, FlagKind::kText, "string", "Platform to load"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Do not print the names"},
};

}  // namespace

absl::Span<const CommandSpec> ImageCommands() {
  static const CommandSpec kCommands[] = {
      {"images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", kImagesFlags, 0, 1, false,
       "gantryctl images --format '{{.Repository}}:{{.Tag}} {{.Size}}'", Images},
      {"pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Fetch an image from a registry", kPullFlags, 1, 1,
       false, "gantryctl pull busybox:1.36", Pull},
      {"rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove images", kRemoveFlags, 1, -1, false, "",
       Remove},
      {"tag",
       "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
       "Give an image a further name",
       {},
       2,
       2,
       false,
       "gantryctl tag busybox 127.0.0.1:5000/busybox",
       Tag},
      {"load", "[OPTIONS]", "Load images from an archive", kLoadFlags, 0, 0, false,
       "gantryctl load -i busybox.tar", Load},
  };
  return kCommands;
}

}  // namespace gantry::ctl
