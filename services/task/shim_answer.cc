#include "services/task/shim_answer.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "containerd/runtime/bootstrap/v1/bootstrap.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"

namespace gantry::task {
namespace {

constexpr size_t kMaxShownBytes = 512;

absl::Status NotAnAnswer(absl::string_view bytes) {
  return absl::InvalidArgumentError(absl::StrCat("the shim answered '",
                                                 EscapeForTerminal(bytes.substr(0, kMaxShownBytes)),
                                                 "', which is no address"));
}

absl::StatusOr<ShimAnswer> Check(ShimAnswer answer, absl::string_view protocol) {
  if (answer.version != 2 && answer.version != 3) {
    return absl::UnimplementedError(absl::StrCat("the shim speaks version ", answer.version,
                                                 " of the task API; 2 and 3 are known"));
  }
  if (!protocol.empty() && protocol != "ttrpc") {
    return absl::UnimplementedError(
        absl::StrCat("the shim speaks '", protocol, "'; only ttrpc is known"));
  }
  if (!absl::StartsWith(answer.address, "unix:///")) {
    return absl::UnimplementedError(absl::StrCat("the shim listens on '",
                                                 EscapeForTerminal(answer.address),
                                                 "'; only unix:///path can be dialled"));
  }
  return answer;
}

absl::StatusOr<ShimAnswer> ParseJson(absl::string_view bytes) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(bytes));
  ShimAnswer answer;
  std::string protocol;
  RETURN_IF_ERROR(document.root().Required("version", &answer.version));
  RETURN_IF_ERROR(document.root().Required("address", &answer.address));
  RETURN_IF_ERROR(document.root().Optional("protocol", &protocol));
  return Check(std::move(answer), protocol);
}

}  // namespace

absl::StatusOr<ShimAnswer> ParseShimAnswer(absl::string_view bytes) {
  const absl::string_view text = absl::StripAsciiWhitespace(bytes);
  if (absl::StartsWith(text, "{")) {
    absl::StatusOr<ShimAnswer> answer = ParseJson(text);
    if (absl::IsInvalidArgument(answer.status())) return NotAnAnswer(bytes);
    return answer;
  }
  if (absl::StartsWith(text, "unix://") || absl::StartsWith(text, "vsock://") ||
      absl::StartsWith(text, "hvsock://")) {
    if (text.find_first_of("\n\r ") != absl::string_view::npos) return NotAnAnswer(bytes);
    return Check({.version = 2, .address = std::string(text)}, "");
  }
  containerd::runtime::bootstrap::v1::BootstrapResult result;
  if (result.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) &&
      !result.address().empty()) {
    return Check({.version = result.version(), .address = result.address()}, result.protocol());
  }
  return NotAnAnswer(bytes);
}

}  // namespace gantry::task
