#include "ctl/flag_values.h"

#include <stdlib.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

// Ports one flag may publish; the kernel has no more.
constexpr uint32_t kMaxPort = 65535;

absl::Status Invalid(absl::string_view what, absl::string_view text, absl::string_view remedy) {
  return absl::InvalidArgumentError(
      absl::StrCat("invalid ", what, " '", EscapeForTerminal(text), "': ", remedy));
}

struct PortRange {
  uint32_t first = 0;
  uint32_t last = 0;
};

std::optional<PortRange> ParsePortRange(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(text, absl::MaxSplits('-', 1));
  PortRange range;
  if (!absl::SimpleAtoi(ends.first, &range.first) || range.first < 1) return std::nullopt;
  range.last = range.first;
  if (absl::StrContains(text, '-') && !absl::SimpleAtoi(ends.second, &range.last)) {
    return std::nullopt;
  }
  if (range.last < range.first || range.last > kMaxPort) return std::nullopt;
  return range;
}

bool IsPropagation(absl::string_view word) {
  return word == "private" || word == "rprivate" || word == "shared" || word == "rshared" ||
         word == "slave" || word == "rslave";
}

absl::Status CheckTarget(absl::string_view text, absl::string_view target) {
  if (!absl::StartsWith(target, "/")) {
    return Invalid("mount", text, "the path in the container must be absolute");
  }
  if (target == "/") return Invalid("mount", text, "the container's root cannot be mounted over");
  return absl::OkStatus();
}

// Relative host paths are the caller's: the engine's working directory is another one.
absl::StatusOr<std::string> AbsolutePath(absl::string_view path) {
  if (absl::StartsWith(path, "/")) return std::string(path);
  char* directory = ::get_current_dir_name();
  if (directory == nullptr) {
    return absl::FailedPreconditionError("the working directory is gone; use an absolute path");
  }
  std::string absolute = absl::StrCat(directory, "/", path);
  ::free(directory);
  return absolute;
}

absl::Status AddVolumeOption(absl::string_view text, absl::string_view option,
                             engine::v1::Mount* mount) {
  if (option == "ro" || option == "readonly") {
    mount->set_read_only(true);
  } else if (option == "nocopy") {
    mount->set_no_copy(true);
  } else if (IsPropagation(option)) {
    mount->set_propagation(std::string(option));
  } else if (option != "rw" && option != "z" && option != "Z" && option != "rbind" &&
             option != "bind" && option != "cached" && option != "delegated" &&
             option != "consistent") {
    return Invalid("volume", text,
                   absl::StrCat("unknown option '", EscapeForTerminal(option),
                                "'; use ro, rw, nocopy, z or a propagation"));
  }
  return absl::OkStatus();
}

absl::Status AddTmpfsOption(absl::string_view text, absl::string_view option,
                            engine::v1::Mount* mount) {
  if (option.empty() || option == "rw") return absl::OkStatus();
  absl::string_view value = option;
  if (option == "ro") {
    mount->set_read_only(true);
  } else if (absl::ConsumePrefix(&value, "size=")) {
    ASSIGN_OR_RETURN(int64_t bytes, ParseBytes(value));
    mount->set_tmpfs_size_bytes(static_cast<uint64_t>(bytes));
  } else if (absl::ConsumePrefix(&value, "mode=")) {
    uint32_t mode = 0;
    for (const char digit : value) {
      if (digit < '0' || digit > '7' || mode > 07777) {
        return Invalid("tmpfs", text, "the mode must be octal, such as 1777");
      }
      mode = mode * 8 + static_cast<uint32_t>(digit - '0');
    }
    mount->set_tmpfs_mode(mode);
  } else {
    mount->add_options(std::string(option));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(text);
  absl::string_view rest = lower;
  if (!absl::ConsumeSuffix(&rest, "ib")) absl::ConsumeSuffix(&rest, "b");
  double unit = 1;
  if (!rest.empty() && absl::ascii_isalpha(rest.back())) {
    const absl::string_view units = "kmgtp";
    const size_t power = units.find(rest.back());
    if (power == absl::string_view::npos) unit = 0;
    unit = std::pow(1024.0, static_cast<double>(power + 1)) * (unit != 0 ? 1 : 0);
    rest.remove_suffix(1);
  }
  double number = 0;
  // Digits only: SimpleAtod would take "inf" and "0x10".
  const bool plain = !rest.empty() && rest.find_first_not_of("0123456789.") == rest.npos;
  if (unit == 0 || !plain || !absl::SimpleAtod(rest, &number) || number * unit > 9e18) {
    return Invalid("size", text, "use a number with b, k, m or g, such as 512m");
  }
  return static_cast<int64_t>(number * unit);
}

absl::StatusOr<int64_t> ParseNanoCpus(absl::string_view text) {
  double number = 0;
  if (text.find_first_not_of("0123456789.") != text.npos || !absl::SimpleAtod(text, &number) ||
      number > 1e6) {
    return Invalid("number of processors", text, "use a number such as 1.5");
  }
  return static_cast<int64_t>(std::llround(number * 1e9));
}

absl::StatusOr<std::vector<engine::v1::PortBinding>> ParsePublish(absl::string_view text) {
  const absl::Status wrong =
      Invalid("port", text, "use [ip:][host:]container[/tcp|udp], such as 8080:80");
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  const std::string protocol =
      absl::StrContains(text, '/') ? absl::AsciiStrToLower(halves.second) : "tcp";
  if (protocol != "tcp" && protocol != "udp") return wrong;

  absl::string_view rest = halves.first;
  std::string address;
  if (absl::ConsumePrefix(&rest, "[")) {  // An IPv6 address has colons of its own.
    const size_t end = rest.find("]:");
    if (end == rest.npos) return wrong;
    address = std::string(rest.substr(0, end));
    rest.remove_prefix(end + 2);
  }
  std::vector<absl::string_view> parts = absl::StrSplit(rest, ':');
  if (parts.size() == 3 && address.empty()) {
    address = std::string(parts[0]);
    parts.erase(parts.begin());
  }
  if (parts.size() > 2) return wrong;
  const std::optional<PortRange> container = ParsePortRange(parts.back());
  if (!container) return wrong;
  PortRange host;  // 0: the engine chooses.
  if (parts.size() == 2 && !parts[0].empty()) {
    const std::optional<PortRange> given = ParsePortRange(parts[0]);
    if (!given) return wrong;
    host = *given;
  }
  const uint32_t count = container->last - container->first;
  if (host.first != 0 && host.last - host.first != count) {
    return Invalid("port", text, "the two ranges must have the same length");
  }
  std::vector<engine::v1::PortBinding> bindings;
  for (uint32_t i = 0; i <= count; ++i) {
    engine::v1::PortBinding& binding = bindings.emplace_back();
    binding.set_host_ip(address);
    binding.set_host_port(host.first != 0 ? host.first + i : 0);
    binding.set_container_port(container->first + i);
    binding.set_protocol(protocol);
  }
  return bindings;
}

absl::StatusOr<engine::v1::Mount> ParseVolume(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  engine::v1::Mount mount;
  if (parts.size() > 3 || text.empty()) {
    return Invalid("volume", text, "use source:target[:options]");
  }
  if (parts.size() == 1) {
    mount.set_type("volume");
    mount.set_target(std::string(parts[0]));
  } else {
    const absl::string_view source = parts[0];
    if (source.empty()) return Invalid("volume", text, "the source is missing");
    mount.set_target(std::string(parts[1]));
    if (absl::StrContains(source, '/') || source == "." || source == "..") {
      mount.set_type("bind");
      ASSIGN_OR_RETURN(*mount.mutable_source(), AbsolutePath(source));
      mount.set_create_source(true);
    } else {
      mount.set_type("volume");
      mount.set_source(std::string(source));
    }
  }
  if (parts.size() == 3) {
    for (absl::string_view option : absl::StrSplit(parts[2], ',', absl::SkipEmpty())) {
      RETURN_IF_ERROR(AddVolumeOption(text, option, &mount));
    }
  }
  RETURN_IF_ERROR(CheckTarget(text, mount.target()));
  return mount;
}

absl::StatusOr<engine::v1::Mount> ParseMount(absl::string_view text) {
  engine::v1::Mount mount;
  mount.set_type("volume");
  std::string tmpfs_options;
  for (absl::string_view field : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(field, absl::MaxSplits('=', 1));
    const std::string key = absl::AsciiStrToLower(pair.first);
    const absl::string_view value = pair.second;
    const bool truth = !absl::StrContains(field, '=') || value == "true" || value == "1";
    if (key == "type") {
      if (value != "bind" && value != "volume" && value != "tmpfs") {
        return Invalid("mount", text, "the type must be bind, volume or tmpfs");
      }
      mount.set_type(std::string(value));
    } else if (key == "source" || key == "src") {
      mount.set_source(std::string(value));
    } else if (key == "target" || key == "dst" || key == "destination") {
      mount.set_target(std::string(value));
    } else if (key == "readonly" || key == "ro") {
      mount.set_read_only(truth);
    } else if (key == "bind-propagation") {
      if (!IsPropagation(value)) return Invalid("mount", text, "unknown propagation");
      mount.set_propagation(std::string(value));
    } else if (key == "volume-nocopy") {
      mount.set_no_copy(truth);
    } else if (key == "bind-create-src") {
      mount.set_create_source(truth);
    } else if (key == "tmpfs-size") {
      RETURN_IF_ERROR(AddTmpfsOption(text, absl::StrCat("size=", value), &mount));
    } else if (key == "tmpfs-mode") {
      RETURN_IF_ERROR(AddTmpfsOption(text, absl::StrCat("mode=", value), &mount));
    } else {
      return Invalid("mount", text, absl::StrCat("unknown key '", EscapeForTerminal(key), "'"));
    }
  }
  if (mount.type() == "bind") {
    if (mount.source().empty()) return Invalid("mount", text, "a bind mount needs a source");
    ASSIGN_OR_RETURN(*mount.mutable_source(), AbsolutePath(mount.source()));
  } else if (mount.type() == "tmpfs" && !mount.source().empty()) {
    return Invalid("mount", text, "a tmpfs has no source");
  }
  RETURN_IF_ERROR(CheckTarget(text, mount.target()));
  return mount;
}

absl::StatusOr<engine::v1::Mount> ParseTmpfs(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  engine::v1::Mount mount;
  mount.set_type("tmpfs");
  mount.set_target(std::string(parts.first));
  for (absl::string_view option : absl::StrSplit(parts.second, ',')) {
    RETURN_IF_ERROR(AddTmpfsOption(text, option, &mount));
  }
  RETURN_IF_ERROR(CheckTarget(text, mount.target()));
  return mount;
}

absl::StatusOr<engine::v1::Ulimit> ParseUlimit(absl::string_view text) {
  const absl::Status wrong = Invalid("ulimit", text, "use name=soft[:hard], such as nofile=1024");
  const std::vector<absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.size() != 2 || parts[0].empty()) return wrong;
  const std::vector<absl::string_view> limits = absl::StrSplit(parts[1], ':');
  if (limits.size() > 2) return wrong;
  const auto parse = [](absl::string_view limit) -> std::optional<int64_t> {
    int64_t number;
    if (limit == "unlimited") return -1;
    if (!absl::SimpleAtoi(limit, &number) || number < -1) return std::nullopt;
    return number;
  };
  const std::optional<int64_t> soft = parse(limits[0]);
  const std::optional<int64_t> hard = parse(limits.back());
  if (!soft || !hard) return wrong;
  // -1 has no limit, so it is above every number.
  if (*hard != -1 && (*soft == -1 || *soft > *hard)) {
    return Invalid("ulimit", text, "the soft limit is above the hard one");
  }
  engine::v1::Ulimit ulimit;
  ulimit.set_name(std::string(parts[0]));
  ulimit.set_soft(*soft);
  ulimit.set_hard(*hard);
  return ulimit;
}

absl::StatusOr<engine::v1::Device> ParseDevice(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  const absl::Status wrong = Invalid("device", text, "use /dev/host[:/dev/container[:rwm]]");
  if (parts.size() > 3 || !absl::StartsWith(parts[0], "/")) return wrong;
  engine::v1::Device device;
  device.set_host_path(std::string(parts[0]));
  device.set_container_path(std::string(parts[0]));
  device.set_permissions("rwm");
  const auto is_permissions = [](absl::string_view word) {
    return !word.empty() && word.find_first_not_of("rwm") == word.npos;
  };
  if (parts.size() == 2 && is_permissions(parts[1])) {
    device.set_permissions(std::string(parts[1]));
  } else if (parts.size() >= 2) {
    if (!absl::StartsWith(parts[1], "/")) return wrong;
    device.set_container_path(std::string(parts[1]));
  }
  if (parts.size() == 3) {
    if (!is_permissions(parts[2])) return wrong;
    device.set_permissions(std::string(parts[2]));
  }
  return device;
}

absl::StatusOr<engine::v1::RestartPolicy> ParseRestart(absl::string_view text) {
  engine::v1::RestartPolicy policy;
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  const bool counted = absl::StrContains(text, ':');
  uint32_t retries = 0;
  if (parts.first != "no" && parts.first != "always" && parts.first != "unless-stopped" &&
      parts.first != "on-failure") {
    return Invalid("restart policy", text, "use no, always, unless-stopped or on-failure[:n]");
  }
  if (counted && (parts.first != "on-failure" || !absl::SimpleAtoi(parts.second, &retries))) {
    return Invalid("restart policy", text, "only on-failure takes a number of retries");
  }
  policy.set_name(std::string(parts.first));
  policy.set_maximum_retries(retries);
  return policy;
}

std::pair<std::string, std::string> SplitPair(absl::string_view text) {
  return absl::StrSplit(text, absl::MaxSplits('=', 1));
}

absl::StatusOr<std::vector<std::string>> ReadPairsFile(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(path, 1 << 20));
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(bytes, '\n')) {
    absl::ConsumeSuffix(&line, "\r");
    line = absl::StripLeadingAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const absl::string_view name = line.substr(0, line.find('='));
    if (name.empty() || name.find_first_of(" \t") != name.npos) {
      return absl::InvalidArgumentError(absl::StrCat("line '", EscapeForTerminal(line), "' of '",
                                                     path, "' does not begin with a name"));
    }
    lines.emplace_back(line);
  }
  return lines;
}

absl::StatusOr<absl::Time> ParseMoment(absl::string_view text, absl::Time now) {
  double seconds;
  if (!text.empty() && text.find_first_not_of("0123456789.") == text.npos &&
      absl::SimpleAtod(text, &seconds)) {
    return absl::UnixEpoch() + absl::Seconds(seconds);
  }
  absl::Duration age;
  if (absl::ParseDuration(text, &age)) return now - age;
  absl::Time time;
  if (absl::ParseTime(absl::RFC3339_full, text, &time, nullptr)) return time;
  for (const char* format : {"%Y-%m-%d%ET%H:%M:%E*S", "%Y-%m-%d%ET%H:%M", "%Y-%m-%d"}) {
    if (absl::ParseTime(format, text, absl::LocalTimeZone(), &time, nullptr)) return time;
  }
  return Invalid("time", text, "use RFC 3339, seconds since 1970, or an age such as 42m");
}

absl::StatusOr<absl::Duration> ParseSeconds(absl::string_view text) {
  int64_t seconds;
  if (!absl::SimpleAtoi(text, &seconds)) return Invalid("time", text, "use a number of seconds");
  // "-1: wait for ever" as a number the engine can hold.
  return seconds < 0 ? absl::Hours(24 * 365) : absl::Seconds(seconds);
}

}  // namespace gantry::ctl
