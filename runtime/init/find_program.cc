// ProcessSetup: the environment and the program.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/init/process_setup.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr size_t kPasswdLimitBytes = 1 << 20;

std::string EnvironmentValue(const std::vector<std::string>& environment, absl::string_view name) {
  for (absl::string_view entry : environment) {
    if (absl::ConsumePrefix(&entry, name) && absl::ConsumePrefix(&entry, "=")) {
      return std::string(entry);
    }
  }
  return "";
}

bool HasEnvironment(const std::vector<std::string>& environment, absl::string_view name) {
  return std::any_of(environment.begin(), environment.end(), [&](absl::string_view entry) {
    return absl::ConsumePrefix(&entry, name) && absl::StartsWith(entry, "=");
  });
}

// The home directory in the container's /etc/passwd, read as plain bytes: no name service, no
// devices, not more than a sensible size (SECURITY-RULES 7, 15).
std::string HomeOf(uint32_t uid) {
  const std::string otherwise = "/";
  UniqueFd file(::open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info = {};
  if (!file.ok() || ::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return otherwise;
  absl::StatusOr<std::string> text = sys::ReadAll(file, kPasswdLimitBytes);
  if (!text.ok()) return otherwise;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    uint32_t number = 0;
    if (fields.size() >= 6 && absl::SimpleAtoi(fields[2], &number) && number == uid &&
        !fields[5].empty()) {
      return std::string(fields[5]);
    }
  }
  return otherwise;
}

// 0, or the errno that executing `path` would fail with.
int CheckExecutable(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return errno;
  if (S_ISDIR(info.st_mode)) return EISDIR;
  return ::faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : EACCES;
}

// `name` has a slash: no search. The words of the errors are those that callers look for.
absl::Status CheckNamedProgram(const std::string& name, const std::string& quoted) {
  const int error = CheckExecutable(name);
  switch (error) {
    case 0:
      return absl::OkStatus();
    case ENOENT:
      return absl::NotFoundError(
          absl::StrCat(quoted, "stat ", EscapeForTerminal(name), ": no such file or directory"));
    case EISDIR:
      // The second half is what Docker's client before version 23 looks for.
      return absl::PermissionDeniedError(absl::StrCat(quoted, "is a directory: permission denied"));
    case EACCES:
      return absl::PermissionDeniedError(absl::StrCat(quoted, "permission denied"));
    default:
      return ErrnoError(error, absl::StrCat(quoted, "stat ", EscapeForTerminal(name)));
  }
}

}  // namespace

void ProcessSetup::MakeEnvironment() {
  environment_ = plan_.process->env;
  environment_.insert(environment_.end(), plan_.extra_environment.begin(),
                      plan_.extra_environment.end());
  if (!HasEnvironment(environment_, "HOME")) {
    environment_.push_back(absl::StrCat("HOME=", HomeOf(plan_.process->user.uid)));
  }
}

absl::Status ProcessSetup::FindProgram() {
  MakeEnvironment();
  const std::string& name = plan_.process->args[0];
  const std::string quoted = absl::StrCat("exec: \"", EscapeForTerminal(name), "\": ");
  if (absl::StrContains(name, '/')) {
    program_ = name;
    return CheckNamedProgram(name, quoted);
  }
  std::string path = EnvironmentValue(environment_, "PATH");
  if (path.empty() && !HasEnvironment(environment_, "PATH")) path = kDefaultPath;
  bool denied = false;
  for (absl::string_view directory : absl::StrSplit(path, ':')) {
    const std::string candidate = absl::StrCat(directory.empty() ? "." : directory, "/", name);
    const int error = name.empty() ? ENOENT : CheckExecutable(candidate);
    if (error == 0) {
      program_ = candidate;
      return absl::OkStatus();
    }
    denied = denied || error == EACCES;
  }
  if (denied) return absl::PermissionDeniedError(absl::StrCat(quoted, "permission denied"));
  return absl::NotFoundError(absl::StrCat(quoted, "executable file not found in $PATH"));
}

}  // namespace gantry::runtime
