// cp: files between the host and containers, as tar streams.

#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ctl/commands/commands.h"
#include "ctl/tar.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"

namespace gantry::ctl {
namespace {

namespace engine = ::gantry::engine::v1;

constexpr char kGetArchive[] = "/gantry.engine.v1.Containers/GetArchive";
constexpr char kPutArchive[] = "/gantry.engine.v1.Containers/PutArchive";
constexpr size_t kChunkBytes = 1 << 20;

// "CONTAINER:PATH", or a path of the host: whatever begins with '/' or '.', or has no colon.
struct Place {
  std::string container;  // Empty: the host.
  std::string path;
};

Place ParsePlace(absl::string_view text) {
  const size_t colon = text.find(':');
  if (colon == text.npos || colon == 0 || absl::StartsWith(text, "/") ||
      absl::StartsWith(text, ".")) {
    return {"", std::string(text)};
  }
  return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

// Last component, slashes at the end apart.
std::string BaseName(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  return std::string(path.substr(path.rfind('/') + 1));
}

std::string ParentOf(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

// "dir/." means what is in the directory, not the directory.
bool TakeContentsMark(std::string* path) {
  if (*path == ".") return true;
  if (!absl::EndsWith(*path, "/.")) return false;
  path->resize(path->size() - 1);
  while (path->size() > 1 && path->back() == '/') path->pop_back();
  return true;
}

// Reads the data of GetArchive messages as one stream of bytes.
class ArchiveSource {
 public:
  explicit ArchiveSource(Stream stream) : stream_(std::move(stream)) {}

  // The first message.
  absl::StatusOr<engine::PathStat> ReadStat() {
    ASSIGN_OR_RETURN(bool got, stream_.call->Read(&chunk_));
    if (!got || !chunk_.has_stat()) {
      return absl::InternalError("the engine sent an archive without its description");
    }
    return chunk_.stat();
  }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) {
    while (position_ == chunk_.data().size()) {
      position_ = 0;
      chunk_.Clear();
      ASSIGN_OR_RETURN(bool more, stream_.call->Read(&chunk_));
      if (!more) return 0;
    }
    const size_t count = chunk_.data().copy(buffer, size, position_);
    position_ += count;
    return count;
  }

 private:
  Stream stream_;
  engine::ArchiveChunk chunk_;
  size_t position_ = 0;
};

absl::StatusOr<ArchiveSource> GetArchive(Context& context, const Place& place, bool follow_link,
                                         bool stat_only) {
  engine::GetArchiveRequest request;
  request.set_container(place.container);
  request.set_path(place.path);
  request.set_follow_link(follow_link);
  request.set_stat_only(stat_only);
  ASSIGN_OR_RETURN(Stream stream, context.suite().Open("engine", kGetArchive, &request));
  return ArchiveSource(std::move(stream));
}

// Gathers bytes into PutArchive messages of a useful size.
class ArchiveSink {
 public:
  ArchiveSink(Stream stream, const Place& directory, bool copy_ownership)
      : stream_(std::move(stream)) {
    request_.set_container(directory.container);
    request_.set_path(directory.path);
    request_.set_copy_ownership(copy_ownership);
  }

  absl::Status Write(absl::string_view bytes) {
    absl::StrAppend(request_.mutable_data(), bytes);
    return request_.data().size() >= kChunkBytes ? Send(false) : absl::OkStatus();
  }

  absl::Status Finish() {
    RETURN_IF_ERROR(Send(true));
    engine::PutArchiveResponse response;
    ASSIGN_OR_RETURN(bool answered, stream_.call->Read(&response));
    if (!answered) return absl::InternalError("the engine did not answer");
    return stream_.call->Read(nullptr).status();
  }

 private:
  absl::Status Send(bool last) {
    RETURN_IF_ERROR(stream_.call->Write(request_, last));
    request_.Clear();  // Only the first message has the target.
    return absl::OkStatus();
  }

  Stream stream_;
  engine::PutArchiveRequest request_;
};

std::optional<struct stat> StatHost(const std::string& path, bool follow = true) {
  struct stat status;
  if ((follow ? ::stat : ::lstat)(path.c_str(), &status) != 0) return std::nullopt;
  return status;
}

void Report(Context& context, const Arguments& arguments, uint64_t bytes,
            const std::string& target) {
  if (arguments.Is("quiet")) return;
  context.Note(
      absl::StrCat("Successfully copied ", DecimalSize(bytes), " to ", EscapeForTerminal(target)));
}

absl::Status ArchiveToStdout(Context& context, ArchiveSource& source) {
  if (context.out().IsTerminal()) {
    return absl::FailedPreconditionError("refusing to write an archive to a terminal");
  }
  std::string chunk(kChunkBytes, '\0');
  while (true) {
    ASSIGN_OR_RETURN(size_t count, source.Read(chunk.data(), chunk.size()));
    if (count == 0) return absl::OkStatus();
    context.out().Write(absl::string_view(chunk).substr(0, count));
  }
}

absl::Status CopyFrom(Context& context, const Arguments& arguments, Place from,
                      const std::string& to) {
  const bool contents = TakeContentsMark(&from.path);
  ASSIGN_OR_RETURN(ArchiveSource source,
                   GetArchive(context, from, arguments.Is("follow-link"), false));
  ASSIGN_OR_RETURN(engine::PathStat stat, source.ReadStat());
  if (to == "-") return ArchiveToStdout(context, source);

  const std::optional<struct stat> target = StatHost(to);
  const bool target_is_directory = target && S_ISDIR(target->st_mode);
  UnpackOptions options;
  options.keep_owners = arguments.Is("archive");
  std::string directory = to;
  if (target_is_directory) {
    if (contents) {
      options.top = "";
    } else {
      // The name that was asked for: the archive's own is the link's target after -L.
      const std::string base = BaseName(from.path);
      if (!base.empty() && base != "..") options.top = base;
    }
  } else {
    if (absl::EndsWith(to, "/") && !stat.directory()) {
      return absl::NotFoundError(
          absl::StrCat("there is no directory '", EscapeForTerminal(to), "' to copy a file into"));
    }
    if (target && stat.directory()) {
      return absl::FailedPreconditionError("cannot copy a directory onto a file");
    }
    directory = ParentOf(to);
    options.top = BaseName(to);
  }
  TarReader reader([&](char* buffer, size_t size) { return source.Read(buffer, size); });
  ASSIGN_OR_RETURN(UnpackResult result, UnpackTree(reader, directory, options));
  for (const std::string& skipped : result.skipped) {
    context.Note(
        absl::StrCat("gantryctl: skipped the special file '", EscapeForTerminal(skipped), "'"));
  }
  Report(context, arguments, result.bytes, to);
  return absl::OkStatus();
}

absl::Status StdinToArchive(Context& context, ArchiveSink& sink, uint64_t* bytes) {
  std::string chunk(kChunkBytes, '\0');
  while (true) {
    const ssize_t count = ::read(context.in_fd(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys::ErrnoError(errno, "read the archive from stdin");
    if (count == 0) return absl::OkStatus();
    *bytes += static_cast<uint64_t>(count);
    RETURN_IF_ERROR(sink.Write(absl::string_view(chunk).substr(0, static_cast<size_t>(count))));
  }
}

// What the target is in the container; nothing when it is not there.
absl::StatusOr<std::optional<engine::PathStat>> StatContainer(Context& context,
                                                              const Place& place) {
  ASSIGN_OR_RETURN(ArchiveSource source, GetArchive(context, place, true, true));
  absl::StatusOr<engine::PathStat> stat = source.ReadStat();
  if (stat.ok()) return std::optional<engine::PathStat>(*stat);
  // "No such container" is NotFound too; the copy itself will say that.
  if (absl::IsNotFound(stat.status()) &&
      !absl::StrContains(stat.status().message(), "No such container")) {
    return std::optional<engine::PathStat>();
  }
  return stat.status();
}

enum class SourceKind { kFile, kDirectory, kContents, kArchive };

// Where an archive is unpacked in a container, and what its top is called there.
struct Landing {
  Place directory;
  std::string top;
};

// Docker's rules: into a directory that is there, or under the name that was given.
absl::StatusOr<Landing> PlanLanding(SourceKind kind, const std::string& source,
                                    const std::optional<engine::PathStat>& target,
                                    const Place& to) {
  Landing landing{to, kind == SourceKind::kContents ? "." : BaseName(source)};
  if (landing.top == "..") landing.top = "parent";  // It has no name of its own there.
  if (target && target->directory()) return landing;
  const absl::Status missing = absl::NotFoundError(
      absl::StrCat("there is no directory '", EscapeForTerminal(to.path), "' in the container"));
  if (kind == SourceKind::kArchive || (target && kind == SourceKind::kContents)) return missing;
  if (target && kind == SourceKind::kDirectory) {
    return absl::FailedPreconditionError("cannot copy a directory onto a file");
  }
  if (!target && absl::EndsWith(to.path, "/") && kind == SourceKind::kFile) return missing;
  // The archive's top gets the name; a directory's contents make that directory.
  landing.directory.path = ParentOf(to.path);
  landing.top = BaseName(to.path);
  return landing;
}

absl::Status CopyTo(Context& context, const Arguments& arguments, std::string from, Place to) {
  const bool from_stdin = from == "-";
  const bool contents = !from_stdin && TakeContentsMark(&from);
  const bool follow = arguments.Is("follow-link");
  std::optional<struct stat> source;
  if (!from_stdin) {
    source = StatHost(from, follow || absl::EndsWith(from, "/"));
    if (!source)
      return absl::NotFoundError(absl::StrCat("no such file or directory: '", from, "'"));
  }
  const bool source_is_directory = source && S_ISDIR(source->st_mode);
  ASSIGN_OR_RETURN(std::optional<engine::PathStat> target, StatContainer(context, to));
  SourceKind kind = contents              ? SourceKind::kContents
                    : from_stdin          ? SourceKind::kArchive
                    : source_is_directory ? SourceKind::kDirectory
                                          : SourceKind::kFile;
  ASSIGN_OR_RETURN(Landing landing, PlanLanding(kind, from, target, to));
  ASSIGN_OR_RETURN(Stream stream, context.suite().Open("engine", kPutArchive, nullptr));
  ArchiveSink sink(std::move(stream), landing.directory, arguments.Is("archive"));
  uint64_t bytes = 0;
  if (from_stdin) {
    RETURN_IF_ERROR(StdinToArchive(context, sink, &bytes));
  } else {
    PackOptions options;
    options.top = landing.top;
    options.follow_link = follow || absl::EndsWith(from, "/");
    ASSIGN_OR_RETURN(
        bytes, PackTree(from, options, [&](absl::string_view part) { return sink.Write(part); }));
  }
  RETURN_IF_ERROR(sink.Finish());
  Report(context, arguments, bytes, absl::StrCat(to.container, ":", to.path));
  return absl::OkStatus();
}

// Through here, from one stream into the other.
absl::Status CopyBetween(Context& context, const Arguments& arguments, Place from,
                         const Place& to) {
  const bool contents = TakeContentsMark(&from.path);
  ASSIGN_OR_RETURN(ArchiveSource source,
                   GetArchive(context, from, arguments.Is("follow-link"), false));
  ASSIGN_OR_RETURN(engine::PathStat stat, source.ReadStat());
  ASSIGN_OR_RETURN(std::optional<engine::PathStat> target, StatContainer(context, to));
  const SourceKind kind = contents           ? SourceKind::kContents
                          : stat.directory() ? SourceKind::kDirectory
                                             : SourceKind::kFile;
  ASSIGN_OR_RETURN(Landing landing, PlanLanding(kind, from.path, target, to));
  ASSIGN_OR_RETURN(Stream stream, context.suite().Open("engine", kPutArchive, nullptr));
  ArchiveSink sink(std::move(stream), landing.directory, arguments.Is("archive"));
  TarReader reader([&](char* buffer, size_t size) { return source.Read(buffer, size); });
  ASSIGN_OR_RETURN(uint64_t bytes, ForwardTree(reader, landing.top, [&](absl::string_view part) {
                     return sink.Write(part);
                   }));
  RETURN_IF_ERROR(sink.Finish());
  Report(context, arguments, bytes, absl::StrCat(to.container, ":", to.path));
  return absl::OkStatus();
}

int Copy(Context& context, const Arguments& arguments) {
  const std::string& source = arguments.positional()[0];
  const std::string& target = arguments.positional()[1];
  const Place from = source == "-" ? Place{"", "-"} : ParsePlace(source);
  const Place to = target == "-" ? Place{"", "-"} : ParsePlace(target);
  absl::Status status;
  if (from.container.empty() && to.container.empty()) {
    status = absl::InvalidArgumentError("one of the two must be CONTAINER:PATH");
  } else if (!from.container.empty() && !to.container.empty()) {
    status = CopyBetween(context, arguments, from, to);
  } else if (!from.container.empty()) {
    status = CopyFrom(context, arguments, from, to.path);
  } else {
    status = CopyTo(context, arguments, from.path, to);
  }
  if (status.ok()) return kExitOk;
  return context.Fail(absl::StrCat("cannot copy \"", source, "\" to \"", target, "\""), status);
}

constexpr FlagSpec kCopyFlags[] = {
    {"archive", 'a', FlagKind::kSwitch, "", "Keep owners and set-id bits"},
    {"follow-link", 'L', FlagKind::kSwitch, "", "Copy what the source links to"},
    {"quiet", 'q', FlagKind::kSwitch, "", "Do not report"},
};

}  // namespace

absl::Span<const CommandSpec> CopyCommands() {
  static const CommandSpec kCommands[] = {
      {"cp",
       "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        gantryctl cp [OPTIONS] SRC_PATH|- "
       "CONTAINER:DEST_PATH",
       "Copy files between containers and the host", kCopyFlags, 2, 2, false,
       "gantryctl cp web:/etc/nginx.conf .\n"
       "tar -c site | gantryctl cp - web:/srv",
       Copy},
  };
  return kCommands;
}

}  // namespace gantry::ctl
