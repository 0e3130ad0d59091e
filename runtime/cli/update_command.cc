#include <fcntl.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {
namespace {

template <typename Number>
absl::Status TakeNumber(const Arguments& arguments, absl::string_view name,
                        std::optional<Number>* out) {
  if (!arguments.Has(name)) return absl::OkStatus();
  int64_t number = 0;
  if (!absl::SimpleAtoi(arguments.Value(name), &number) ||
      (number < 0 && !std::is_signed_v<Number>)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--", name, ": '", EscapeForTerminal(arguments.Value(name)), "' is not a number"));
  }
  *out = static_cast<Number>(number);
  return absl::OkStatus();
}

absl::StatusOr<oci::Resources> FromOptions(const Arguments& arguments) {
  oci::Resources resources;
  oci::MemoryResources memory;
  RETURN_IF_ERROR(TakeNumber(arguments, "memory", &memory.limit));
  RETURN_IF_ERROR(TakeNumber(arguments, "memory-reservation", &memory.reservation));
  RETURN_IF_ERROR(TakeNumber(arguments, "memory-swap", &memory.swap));
  resources.memory = memory;
  oci::CpuResources cpu;
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-period", &cpu.period));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-quota", &cpu.quota));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-burst", &cpu.burst));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-share", &cpu.shares));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-shares", &cpu.shares));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-rt-period", &cpu.realtime_period));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-rt-runtime", &cpu.realtime_runtime));
  RETURN_IF_ERROR(TakeNumber(arguments, "cpu-idle", &cpu.idle));
  cpu.cpus = arguments.Value("cpuset-cpus");
  cpu.mems = arguments.Value("cpuset-mems");
  resources.cpu = cpu;
  RETURN_IF_ERROR(TakeNumber(arguments, "pids-limit", &resources.pids_limit));
  if (arguments.Has("blkio-weight")) {
    std::optional<uint32_t> weight;
    RETURN_IF_ERROR(TakeNumber(arguments, "blkio-weight", &weight));
    resources.block_io.emplace().weight = static_cast<uint16_t>(*weight);
  }
  return resources;
}

}  // namespace

absl::StatusOr<int> RunUpdate(const Global& global, const Arguments& arguments) {
  oci::Resources resources;
  if (arguments.Has("resources")) {
    const std::string path = arguments.Value("resources");
    absl::StatusOr<std::string> bytes =
        path == "-" ? sys::ReadAll(sys::UniqueFd(::fcntl(0, F_DUPFD_CLOEXEC, 3)))
                    : sys::ReadFile(path);
    RETURN_IF_ERROR(bytes.status());
    ASSIGN_OR_RETURN(resources, oci::ParseResources(*bytes));
  } else {
    ASSIGN_OR_RETURN(resources, FromOptions(arguments));
  }
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  if (arguments.Has("l3-cache-schema") || arguments.Has("mem-bw-schema")) {
    RETURN_IF_ERROR(container.UpdateCacheAndBandwidth(arguments.Value("l3-cache-schema"),
                                                      arguments.Value("mem-bw-schema")));
  }
  RETURN_IF_ERROR(container.Update(resources));
  return 0;
}

}  // namespace gantry::runtime
