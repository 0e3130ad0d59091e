#include "services/task/publish.h"

#include <grpcpp/client_context.h>
#include <stdio.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/rpc/channel.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"
#include "lib/sys/file.h"
#include "lib/sys/unique_fd.h"

namespace gantry::task {
namespace {

namespace events = containerd::services::events::v1;

constexpr char kUsage[] =
    "use: gantry-task --address SOCKET publish --topic TOPIC --namespace NAMESPACE < ANY";
constexpr char kAction[] = "publish";
constexpr size_t kMaxEventBytes = 4 << 20;

absl::StatusOr<std::string> ReadEvent() {
  sys::UniqueFd input(0);
  absl::StatusOr<std::string> bytes = sys::ReadAll(input, kMaxEventBytes);
  (void)input.Release();
  return bytes;
}

absl::Status Run(const std::vector<std::string>& words) {
  ASSIGN_OR_RETURN(const PublishArguments arguments, ParsePublish(words));
  ASSIGN_OR_RETURN(const std::string any, ReadEvent());
  return Publish(arguments, any);
}

}  // namespace

bool IsPublish(const std::vector<std::string>& words) {
  return std::find(words.begin(), words.end(), kAction) != words.end();
}

absl::StatusOr<PublishArguments> ParsePublish(const std::vector<std::string>& words) {
  PublishArguments arguments;
  const struct {
    absl::string_view name;
    std::string* value;
  } flags[] = {
      {"address", &arguments.address}, {"topic", &arguments.topic}, {"namespace", &arguments.ns}};
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == kAction) continue;
    absl::string_view word = words[i];
    const bool dashed = absl::ConsumePrefix(&word, "--") || absl::ConsumePrefix(&word, "-");
    const size_t equals = word.find('=');
    const auto* const flag =
        std::find_if(std::begin(flags), std::end(flags),
                     [&](const auto& known) { return known.name == word.substr(0, equals); });
    if (!dashed || flag == std::end(flags)) {
      return absl::InvalidArgumentError(
          absl::StrCat("publish: '", words[i], "' is not known; ", kUsage));
    }
    if (equals != absl::string_view::npos) {
      *flag->value = std::string(word.substr(equals + 1));
    } else if (i + 1 < words.size()) {
      *flag->value = words[++i];
    }
  }
  for (const auto& flag : flags) {
    if (!flag.value->empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("publish: --", flag.name, " is missing; ", kUsage));
  }
  RETURN_IF_ERROR(CheckIdentifier("namespace", arguments.ns));
  return arguments;
}

absl::Status Publish(const PublishArguments& arguments, absl::string_view any) {
  events::PublishRequest request;
  request.set_topic(arguments.topic);
  if (!request.mutable_event()->ParseFromArray(any.data(), static_cast<int>(any.size())) ||
      request.event().type_url().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("publish '", arguments.topic, "': stdin is not a google.protobuf.Any"));
  }
  const std::string path(absl::StripPrefix(arguments.address, "unix://"));
  const std::unique_ptr<events::Events::Stub> stub = events::Events::NewStub(rpc::Dial(path));
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, arguments.ns);
  google::protobuf::Empty response;
  const grpc::Status status = stub->Publish(&context, request, &response);
  return Annotate(rpc::FromGrpcStatus(status),
                  absl::StrCat("publish '", arguments.topic, "' to '", path, "'"));
}

int PublishMain(const std::vector<std::string>& words) {
  const absl::Status status = Run(words);
  if (status.ok()) return 0;
  ::fprintf(stderr, "gantry-task: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace gantry::task
