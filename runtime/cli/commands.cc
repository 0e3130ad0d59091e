#include "runtime/cli/commands.h"

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "lib/base/version.h"
#include "lib/sys/file.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {
namespace {

OptionSpec Flag(const char* name, char letter = 0) { return {name, letter, OptionSpec::kFlag}; }
OptionSpec Value(const char* name, char letter = 0) { return {name, letter, OptionSpec::kValue}; }
// Accepted for callers that give it, without an effect.
OptionSpec Ignored(OptionSpec option) {
  option.ignored = true;
  return option;
}

std::vector<OptionSpec> CreateOptionSpecs() {
  return {Value("bundle", 'b'),
          Value("config", 'f'),
          Value("console-socket"),
          Value("pid-file"),
          Value("pidfd-socket"),
          Value("preserve-fds"),
          Flag("no-pivot"),
          Flag("no-new-keyring"),
          Ignored(Flag("no-subreaper")),
          Flag("detach", 'd'),
          Flag("keep")};
}

std::vector<OptionSpec> ExecOptionSpecs() {
  return {Value("process", 'p'),
          Flag("detach", 'd'),
          Flag("tty", 't'),
          Value("user", 'u'),
          Value("additional-gids", 'g'),
          Value("env", 'e'),
          Value("cwd"),
          Value("cap", 'c'),
          Flag("no-new-privs"),
          Value("apparmor"),
          Value("process-label"),
          Value("pid-file"),
          Value("console-socket"),
          Value("pidfd-socket"),
          Value("preserve-fds"),
          Value("cgroup"),
          Flag("ignore-paused"),
          Ignored(Flag("no-subreaper"))};
}

std::vector<OptionSpec> UpdateOptionSpecs() {
  return {Value("resources", 'r'),
          Value("memory"),
          Value("memory-reservation"),
          Value("memory-swap"),
          Value("cpu-period"),
          Value("cpu-quota"),
          Value("cpu-burst"),
          Value("cpu-share"),
          Value("cpu-shares"),
          Value("cpu-rt-period"),
          Value("cpu-rt-runtime"),
          Value("cpu-idle"),
          Value("cpuset-cpus"),
          Value("cpuset-mems"),
          Value("blkio-weight"),
          Value("pids-limit"),
          Value("l3-cache-schema"),
          Value("mem-bw-schema"),
          Ignored(Value("kernel-memory")),
          Ignored(Value("kernel-memory-tcp"))};
}

std::vector<OptionSpec> CheckpointOptionSpecs() {
  return {Value("image-path"),   Value("work-path"),
          Value("parent-path"),  Flag("leave-running"),
          Flag("pre-dump"),      Flag("tcp-established"),
          Flag("ext-unix-sk"),   Flag("shell-job"),
          Flag("file-locks"),    Value("manage-cgroups-mode"),
          Value("empty-ns"),     Flag("lazy-pages"),
          Value("status-fd"),    Value("page-server"),
          Value("bundle", 'b'),  Value("pid-file"),
          Flag("detach", 'd'),   Flag("no-pivot"),
          Flag("no-subreaper"),  Value("console-socket"),
          Value("preserve-fds"), Flag("no-new-keyring")};
}

}  // namespace

absl::Status Print(absl::string_view text) {
  return sys::WriteAll(sys::UniqueFd(::fcntl(1, F_DUPFD_CLOEXEC, 3)), text);
}

std::string VersionText() {
  return absl::StrCat("gantry-runtime version ", Version(), "\ncommit: ", Commit(),
                      "\nspec: ", oci::kSpecVersion, "\nlibseccomp: ", LibseccompVersion(),
                      "\n+CAP +SECCOMP +EBPF\n");
}

const std::vector<Command>& Commands() {
  static const auto* commands = new std::vector<Command>{
      {"create", "[options] ID", "make a container whose program waits for start", &RunCreate,
       CreateOptionSpecs(), 1, 1, false, true},
      {"start", "ID", "start the program of a created container", &RunStart},
      {"run", "[options] ID", "create, start, and unless detached wait and delete", &RunRun,
       CreateOptionSpecs(), 1, 1, false, true},
      {"state", "ID", "print the state as JSON", &RunState},
      {"kill",
       "[options] ID [SIGNAL]",
       "send a signal (TERM) to the program",
       &RunKill,
       {Flag("all", 'a'), Flag("regex", 'r')},
       1,
       2},
      {"delete",
       "[options] ID",
       "remove a stopped container",
       &RunDelete,
       {Flag("force", 'f'), Flag("regex", 'r')}},
      {"exec", "[options] ID PROGRAM [ARGUMENT…]", "run one more program in a running container",
       &RunExecCommand, ExecOptionSpecs(), 1, 1, true, true, 255},
      {"pause", "ID", "freeze all processes", &RunPause},
      {"resume", "ID", "thaw all processes", &RunResume},
      {"ps",
       "[options] ID [PS-OPTION…]",
       "list the processes",
       &RunPs,
       {Value("format", 'f')},
       1,
       1,
       true},
      {"list",
       "[options]",
       "list containers",
       &RunList,
       {Value("format", 'f'), Flag("quiet", 'q')},
       0,
       0},
      {"update", "[options] ID", "change resource limits", &RunUpdate, UpdateOptionSpecs()},
      {"events",
       "[options] ID",
       "print resource use and lack of memory as they happen",
       &RunEvents,
       {Flag("stats"), Value("interval")}},
      {"mounts",
       "add|remove ID FILE",
       "change the mounts of a running container",
       &RunMounts,
       {},
       3,
       3,
       false,
       true,
       1,
       false},
      {"spec",
       "[options]",
       "write an example config.json",
       &RunSpec,
       {Value("bundle", 'b'), Flag("rootless"), Value("config", 'f')},
       0,
       0},
      {"features", "", "print what this runtime knows, as JSON", &RunFeatures, {}, 0, 0},
      {"checkpoint", "[options] ID", "not supported", &RunCheckpoint, CheckpointOptionSpecs()},
      {"restore", "[options] ID", "not supported", &RunRestore, CheckpointOptionSpecs()},
  };
  return *commands;
}

}  // namespace gantry::runtime
