// What people write after the flags of `run` and `create`, as the engine's messages.
// All: Errors: InvalidArgument — the message names the value and says what would be right.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

// "512", "64k", "1.5g", "2GiB": powers of 1024.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "1.5" processors as 1500000000.
absl::StatusOr<int64_t> ParseNanoCpus(absl::string_view text);

// [ip:][host:]container[/proto], with ranges on both sides; "8080:80", "127.0.0.1::80/udp",
// "[::1]:8000-8002:80-82". One binding a port.
absl::StatusOr<std::vector<engine::v1::PortBinding>> ParsePublish(absl::string_view text);

// source:target[:options] or target alone (an anonymous volume). A source with a slash is a path.
absl::StatusOr<engine::v1::Mount> ParseVolume(absl::string_view text);

// type=bind,source=/a,target=/b,readonly …
absl::StatusOr<engine::v1::Mount> ParseMount(absl::string_view text);

// target[:options], options as in mount(8): size=64m,mode=1777,noexec.
absl::StatusOr<engine::v1::Mount> ParseTmpfs(absl::string_view text);

// name=soft[:hard]; -1 or "unlimited" is no limit.
absl::StatusOr<engine::v1::Ulimit> ParseUlimit(absl::string_view text);

// host[:container[:permissions]].
absl::StatusOr<engine::v1::Device> ParseDevice(absl::string_view text);

// no, always, unless-stopped, on-failure[:n].
absl::StatusOr<engine::v1::RestartPolicy> ParseRestart(absl::string_view text);

// "KEY=value" or "KEY" (empty value).
std::pair<std::string, std::string> SplitPair(absl::string_view text);

// Lines of an env or label file: comments (#) and empty lines left out.
absl::StatusOr<std::vector<std::string>> ReadPairsFile(const std::string& path);

// A moment as `logs --since` and `events` take it: RFC 3339 (with or without zone, or a date
// alone), seconds since 1970, or an age ("42m", "1h30m") before `now`.
absl::StatusOr<absl::Time> ParseMoment(absl::string_view text, absl::Time now);

// "10" seconds. Negative: no limit, as far as anybody will wait.
absl::StatusOr<absl::Duration> ParseSeconds(absl::string_view text);

}  // namespace gantry::ctl
