// Engine: making containers.
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/oci/image_manifest.h"
#include "lib/oci/spec.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"
#include "services/engine/engine.h"
#include "services/engine/snapshot_root.h"

namespace gantry::engine {
namespace {

constexpr size_t kMaxCachedUsers = 1024;

std::string UserKey(const v1::ContainerDefinition& definition) {
  return absl::StrCat(definition.snapshot_parent(), "\n", definition.config().user(), "\n",
                      absl::StrJoin(definition.config().group_add(), ","));
}

std::vector<std::string> GroupAdd(const v1::ContainerConfig& config) {
  return {config.group_add().begin(), config.group_add().end()};
}

// An image that is there and not of the wanted platform is as good as missing: the same words as
// for a missing one make the caller pull.
absl::Status CheckPlatform(const v1::ContainerConfig& config,
                           const image::v1::ImageDetails& image) {
  if (config.platform().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(oci::Platform wanted, oci::ParsePlatform(config.platform()));
  const oci::Platform built = {
      .os = image.os(), .architecture = image.architecture(), .variant = image.variant()};
  if (oci::MatchPlatform(built, wanted) > 0) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("Unable to find image '", config.image(),
                                          "' locally for platform ", wanted.str(),
                                          ": what is here is for ", built.str()));
}

}  // namespace

absl::StatusOr<Engine::MountPlan> Engine::PlanMounts(const v1::ContainerConfig& config) {
  MountPlan plan;
  std::set<std::string> targets;
  for (const v1::Mount& mount : config.mounts()) {
    v1::MountPoint& point = plan.points.emplace_back();
    point.set_type(mount.type());
    point.set_destination(std::string(absl::StripSuffix(mount.target(), "/")));
    targets.insert(point.destination());
    point.set_rw(!mount.read_only());
    point.set_mode(mount.read_only() ? "ro" : "");
    if (mount.type() == "tmpfs") continue;
    point.set_propagation(mount.propagation().empty() ? "rprivate" : mount.propagation());
    if (mount.type() == "bind") {
      point.set_source(mount.source());
      if (!mount.create_source() && !sys::Exists(mount.source())) {
        return absl::InvalidArgumentError(
            absl::StrCat("invalid mount: bind source path does not exist: ", mount.source()));
      }
      continue;
    }
    point.set_driver("local");
    if (mount.source().empty()) {
      point.set_name(RandomHex(32));
      plan.anonymous.push_back(point.name());
    } else {
      ASSIGN_OR_RETURN(VolumeStore::Hold hold, volumes_.Use(mount.source()));
      plan.holds.push_back(std::move(hold));
      point.set_name(mount.source());
    }
    point.set_source(volumes_.Mountpoint(point.name()));
    if (!mount.no_copy()) plan.copy_up.push_back(point.destination());
  }
  for (const std::string& text : config.volumes_from()) {
    // "NAME[:ro|:rw]"
    const size_t colon = text.rfind(':');
    const std::string mode = colon == std::string::npos ? "" : text.substr(colon + 1);
    if (mode != "" && mode != "ro" && mode != "rw") {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid mode for volumes-from: ", mode, "; use ro or rw"));
    }
    ASSIGN_OR_RETURN(ContainerPtr other, index_.Find(text.substr(0, colon)));
    for (const v1::MountPoint& point : other->definition().mounts()) {
      if (point.type() == "tmpfs" || !targets.insert(point.destination()).second) continue;
      plan.points.push_back(point);
      if (mode == "ro") plan.points.back().set_rw(false);
    }
  }
  return plan;
}

// "container:NAME" becomes "container:ID", so that a rename changes nothing.
absl::Status Engine::ResolveReferences(v1::ContainerConfig& config) {
  for (std::string* mode :
       {config.mutable_network(), config.mutable_pid_mode(), config.mutable_ipc_mode()}) {
    const absl::string_view name = SharedContainer(*mode);
    if (name.empty()) continue;
    ASSIGN_OR_RETURN(ContainerPtr other, index_.Find(name));
    if (mode == config.mutable_ipc_mode() && other->config().ipc_mode() != "shareable" &&
        other->config().ipc_mode() != "host") {
      return absl::FailedPreconditionError(
          absl::StrCat("can't join IPC of container ", other->id(),
                       ": non-shareable IPC; make that container with --ipc shareable (hint: use "
                       "IpcMode:shareable "
                       "for the donor container)"));
    }
    // Who shares a network shares its names.
    if (mode == config.mutable_network() && config.uts_mode() != "host") {
      config.set_hostname(HostnameOf(other->definition()));
      config.set_domainname(other->config().domainname());
    }
    *mode = absl::StrCat("container:", other->id());
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ContainerDefinition> Engine::Define(const std::string& id,
                                                       const v1::ContainerConfig& config,
                                                       const image::v1::ImageDetails& image,
                                                       bool single_run,
                                                       std::vector<VolumeStore::Hold>& holds) {
  if (image.chain_id().empty() && image.diff_ids_size() > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("image '", config.image(), "' is not unpacked; pull it again"));
  }
  v1::ContainerDefinition definition;
  definition.set_id(id);
  *definition.mutable_created_at() = ToProto(absl::Now());
  *definition.mutable_config() = CompleteConfig(config, image.config());
  RETURN_IF_ERROR(ResolveReferences(*definition.mutable_config()));
  ASSIGN_OR_RETURN(std::vector<std::string> args, CommandLine(definition.config()));
  definition.mutable_args()->Assign(args.begin(), args.end());
  definition.set_image_id(image.id());
  definition.set_image_size_bytes(image.size_bytes());
  ASSIGN_OR_RETURN(MountPlan plan, PlanMounts(definition.config()));
  holds = std::move(plan.holds);
  definition.mutable_mounts()->Assign(plan.points.begin(), plan.points.end());
  definition.mutable_copy_up()->Assign(plan.copy_up.begin(), plan.copy_up.end());
  definition.mutable_anonymous_volumes()->Assign(plan.anonymous.begin(), plan.anonymous.end());
  definition.set_snapshotter(options_.snapshotter);
  definition.set_snapshot_key(id);
  definition.set_snapshot_parent(image.chain_id());
  definition.set_runtime(config.runtime().empty() ? options_.runtime : config.runtime());
  definition.set_single_run(single_run);
  const std::string& signal = definition.config().stop_signal();
  ASSIGN_OR_RETURN(int number, oci::ParseSignal(signal.empty() ? "TERM" : signal));
  definition.set_stop_signal(static_cast<uint32_t>(number));
  return definition;
}

std::optional<ResolvedUser> Engine::CachedUser(const v1::ContainerDefinition& definition) const {
  absl::MutexLock lock(&mutex_);
  auto found = users_.find(UserKey(definition));
  if (found == users_.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<ResolvedUser> Engine::UserOf(const v1::ContainerDefinition& definition,
                                            const std::vector<containerd::types::Mount>& rootfs) {
  absl::StatusOr<UserDatabase> database = ReadUserDatabaseFromLayers(LayerDirectories(rootfs));
  if (absl::IsUnavailable(database.status()) || LayerDirectories(rootfs).empty()) {
    // The layers alone cannot tell (links, another snapshotter): look at the whole.
    ASSIGN_OR_RETURN(
        sys::UniqueFd root,
        OpenSnapshotRoot(rootfs, absl::StrCat(options_.runtime_directory, "/mounts"), true));
    database = ReadUserDatabase(root);
  }
  RETURN_IF_ERROR(database.status());
  return ResolveUser(definition.config().user(), GroupAdd(definition.config()), *database);
}

absl::Status Engine::Record(const v1::ContainerRecord& record, const ImageClient::Resolved& image,
                            const std::string& spec_json,
                            std::vector<containerd::types::Mount>* rootfs) {
  const v1::ContainerDefinition& definition = record.definition();
  metadata::v1::CreateContainerRequest request;
  containerd::services::containers::v1::Container& container = *request.mutable_container();
  container.set_id(definition.id());
  container.set_image(definition.config().image());
  container.mutable_runtime()->set_name(definition.runtime());
  container.mutable_spec()->set_type_url(kSpecTypeUrl);
  container.mutable_spec()->set_value(spec_json);
  container.set_snapshotter(definition.snapshotter());
  container.set_snapshot_key(definition.snapshot_key());
  (*container.mutable_labels())["gantry.engine/name"] = record.name();
  request.set_snapshot_parent(definition.snapshot_parent());
  if (image.remembered) {
    request.mutable_expected_image()->set_name(image.name);
    request.mutable_expected_image()->set_digest(image.digest);
  }
  metadata::v1::RecordWrite* write = request.add_records();
  write->set_bucket(kContainerBucket);
  write->set_key(definition.id());
  write->set_value(record.SerializeAsString());
  write->set_must_not_exist(true);
  write = request.add_records();
  write->set_bucket(kNameBucket);
  write->set_key(record.name());
  write->set_value(definition.id());
  write->set_must_not_exist(true);
  for (const std::string& volume : definition.anonymous_volumes()) {
    *request.add_records() = volumes_.AnonymousWrite(volume);
  }
  ASSIGN_OR_RETURN(metadata::v1::CreateContainerResponse response,
                   metadata_.CreateContainer(request));
  rootfs->assign(response.mounts().begin(), response.mounts().end());
  return absl::OkStatus();
}

absl::StatusOr<v1::CreateContainerResponse> Engine::Create(
    const v1::CreateContainerRequest& request) {
  const absl::Time began = absl::Now();
  StepTimer timer;
  RETURN_IF_ERROR(CheckConfig(request.config()));
  bool stale = false;
  absl::StatusOr<v1::CreateContainerResponse> created;
  do {
    if (std::exchange(stale, false)) images_.Forget(request.config().image());
    ASSIGN_OR_RETURN(const ImageClient::Resolved image, images_.Resolve(request.config().image()));
    RETURN_IF_ERROR(CheckPlatform(request.config(), image.details));
    timer.Step("resolve");
    created = CreateFrom(request, image, timer, &stale);
  } while (stale);
  if (created.ok()) CountAction(request.start() ? "start" : "create", began);
  return created;
}

absl::StatusOr<v1::CreateContainerResponse> Engine::CreateFrom(
    const v1::CreateContainerRequest& request, const ImageClient::Resolved& image, StepTimer& timer,
    bool* stale) {
  const absl::Time began = absl::Now();
  v1::CreateContainerResponse response;
  const std::string id = RandomHex(32);
  std::string name = request.config().name();
  if (name.empty()) {
    name = index_.ReserveRandomName(id);
  } else {
    RETURN_IF_ERROR(index_.ReserveName(name, id));
  }
  auto release_name = absl::MakeCleanup([&] { index_.ReleaseName(name, id); });

  std::vector<VolumeStore::Hold> holds;
  v1::ContainerRecord record;
  record.set_version(1);
  record.set_name(name);
  ASSIGN_OR_RETURN(*record.mutable_definition(),
                   Define(id, request.config(), image.details,
                          request.start() && request.config().auto_remove(), holds));
  const v1::ContainerDefinition& definition = record.definition();
  std::vector<std::string> warnings;
  const std::optional<ResolvedUser> cached = CachedUser(definition);
  ResolvedUser user;
  if (cached.has_value()) {
    user = *cached;
  } else if (absl::StatusOr<ResolvedUser> guess = ResolveUser(
                 definition.config().user(), GroupAdd(definition.config()), UserDatabase());
             guess.ok()) {
    user = *guess;
  } else if (absl::IsInvalidArgument(guess.status())) {
    return guess.status();
  }
  ASSIGN_OR_RETURN(oci::Spec spec, BuildSpec(definition, user, places_, &warnings));

  // The endpoint does not depend on the container: it is made while metadata writes.
  StartOptions start;
  start.attach = request.config().attach();
  start.rows = request.tty_rows();
  start.columns = request.tty_columns();
  if (request.start() && SharedContainer(definition.config().network()).empty()) {
    start.endpoint = PendingEndpoint::Begin(
        executor_,
        [this, endpoint = EndpointRequestOf(definition)] { return network_.Connect(endpoint); });
  }
  auto release_endpoint = absl::MakeCleanup([&] {
    if (start.endpoint == nullptr || !start.endpoint->Get().ok()) return;
    const absl::Status released = network_.Release(id);
    if (!released.ok()) log::Warning("an endpoint stays", {{"container", id}, {"error", released}});
  });

  RETURN_IF_ERROR(FAILPOINT("engine.create.before_record"));
  std::vector<containerd::types::Mount> rootfs;
  start.spec = oci::WriteSpec(spec);
  const absl::Status recorded = Record(record, image, start.spec, &rootfs);
  *stale = image.remembered && (absl::IsAborted(recorded) || absl::IsNotFound(recorded));
  RETURN_IF_ERROR(recorded);
  auto container = std::make_shared<Container>(record);
  container->SetRootfs(rootfs);
  for (const std::string& volume : definition.anonymous_volumes()) volumes_.AddAnonymous(volume);
  ASSIGN_OR_RETURN(Container::Operation operation,
                   container->Begin("create", absl::ZeroDuration()));
  std::move(release_name).Cancel();
  index_.Add(container);
  holds.clear();
  RETURN_IF_ERROR(FAILPOINT("engine.create.after_record"));
  timer.Step("create");
  {
    absl::MutexLock lock(&mutex_);
    spec_users_[id] = user;
  }
  if (!cached.has_value()) {
    // Only now are there layers to look into. What cannot be resolved fails the start, not this.
    absl::StatusOr<ResolvedUser> resolved = UserOf(definition, rootfs);
    if (resolved.ok()) {
      absl::MutexLock lock(&mutex_);
      if (users_.size() >= kMaxCachedUsers) users_.clear();
      users_[UserKey(definition)] = *resolved;
    }
  }

  response.set_id(id);
  response.set_name(name);
  for (std::string& warning : warnings) response.add_warnings(std::move(warning));
  Tell(*container, "create");
  UpdateGauges();
  if (!request.start()) return response;
  CountAction("create", began);

  std::move(release_endpoint).Cancel();
  const absl::Status started = StartRun(container, std::move(start), timer);
  if (!started.ok()) {
    if (definition.config().auto_remove()) {
      const absl::Status removed = RemoveHeld(container, true, timer);
      if (!removed.ok()) SettleLater(container, absl::Seconds(1), 1);
    }
    return started;
  }
  *response.mutable_attach() = AddressOf(*container);
  for (const v1::StepTiming& step : timer.steps()) *response.add_timings() = step;
  return response;
}

}  // namespace gantry::engine
