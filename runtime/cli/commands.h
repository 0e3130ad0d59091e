// The commands of gantry-runtime, one function each. They return the exit code, or an error that
// main reports.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/cli/options.h"
#include "runtime/cli/report.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

struct Global {
  std::string root;
  CgroupManager cgroup_manager = CgroupManager::kCgroupfs;
  std::optional<bool> rootless;
  Report* report = nullptr;
  char** argv = nullptr;
  std::string criu;  // Of --criu; empty: where packages put it.
};

struct Command {
  const char* name;
  const char* usage;  // "[options] ID"
  const char* help;
  absl::StatusOr<int> (*run)(const Global&, const Arguments&);
  std::vector<OptionSpec> options = {};
  size_t min_operands = 1, max_operands = 1;
  bool rest_is_program = false;   // Words after max_operands belong to the program.
  bool enters_container = false;  // Runs from the protected copy of the binary.
  int failure_code = 1;           // Exit code of a failure.
  bool id_first = true;           // The first operand is a container's id.
};

const std::vector<Command>& Commands();

std::string VersionText();

// Writes to stdout; a broken pipe is an error.
absl::Status Print(absl::string_view text);

// lifecycle_commands.cc
absl::StatusOr<int> RunCreate(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunRun(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunStart(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunKill(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunDelete(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunPause(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunResume(const Global& global, const Arguments& arguments);
// list_commands.cc
absl::StatusOr<int> RunState(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunList(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunPs(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunSpec(const Global& global, const Arguments& arguments);
// Each in a file of its own.
absl::StatusOr<int> RunFeatures(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunEvents(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunUpdate(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunMounts(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunCheckpoint(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunRestore(const Global& global, const Arguments& arguments);
absl::StatusOr<int> RunExecCommand(const Global& global, const Arguments& arguments);

}  // namespace gantry::runtime
