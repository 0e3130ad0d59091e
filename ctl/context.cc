#include "ctl/context.h"

#include <stdlib.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/value.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

}  // namespace

std::optional<std::string> Context::Environment(const std::string& name) const {
  const char* value = ::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

void Context::Note(absl::string_view line) {
  out_.Flush();  // So that the two streams keep their order on one terminal.
  err_.Write(absl::StrCat(line, "\n"));
  err_.Flush();
}

int Context::Fail(absl::string_view attempt, const absl::Status& status) {
  // The service has said what was tried, and on what.
  if (absl::StartsWith(status.message(), "cannot ")) attempt = "";
  const std::string hint = HintFor(status);
  if (json_errors) {
    Value error = Value::Object();
    error.Set("code", CodeName(status.code()))
        .Set("message", absl::StrCat(attempt, attempt.empty() ? "" : ": ", status.message()))
        .Set("hint", hint)
        .Set("request", suite_.request_id());
    Note(error.ToJson());
    return kExitFailed;
  }
  Note(absl::StrCat("gantryctl: ", EscapeForTerminal(attempt), attempt.empty() ? "" : ": ",
                    EscapeForTerminal(status.message())));
  if (!hint.empty()) Note(absl::StrCat("hint: ", hint));
  if (debug) {
    Note(absl::StrCat("code: ", CodeName(status.code()), " request=", suite_.request_id()));
  }
  return kExitFailed;
}

int Context::ForEach(const std::vector<std::string>& names, absl::string_view attempt, bool echo,
                     const std::function<absl::Status(const std::string&)>& action) {
  int exit_code = kExitOk;
  for (const std::string& name : names) {
    const absl::Status status = action(name);
    if (!status.ok()) {
      exit_code = Fail(absl::StrCat("cannot ", attempt, " \"", name, "\""), status);
    } else if (echo) {
      out_.Write(absl::StrCat(name, "\n"));
    }
  }
  return exit_code;
}

std::string HintFor(const absl::Status& status) {
  const absl::string_view message = status.message();
  if (absl::StartsWith(message, "Cannot connect to the Gantry")) {
    return "start the suite with deploy/quickstart, or name another one with GANTRY_HOST or -H";
  }
  if (absl::StrContains(message, "is already in use by container")) {
    return "remove or rename that container, or choose another name";
  }
  if (absl::EndsWith(message, "; this is an image")) return "gantryctl rmi removes images";
  if (absl::EndsWith(message, "; this is a container")) return "gantryctl rm removes containers";
  if (absl::StrContains(message, "No such container")) {
    return "`gantryctl ps -a` lists all containers";
  }
  if (absl::StrContains(message, "No such image")) return "`gantryctl images` lists all images";
  if (absl::StrContains(message, "cannot remove a running container")) {
    return "stop the container first, or remove it with -f";
  }
  return "";
}

}  // namespace gantry::ctl
