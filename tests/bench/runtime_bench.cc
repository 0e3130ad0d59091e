// gantry-runtime beside runc and crun, on one bundle, turn by turn in one run: Docker's seccomp
// profile, all namespaces but user, cgroup limits. Prints medians and ratios; see
// docs/performance.md.
//
//   runtime_bench [ROUNDS]        needs root; GANTRY_BIN names the directory of gantry-runtime
//
// crun refuses a hybrid cgroup layout: it runs in a mount namespace in which the v2 tree is hidden.
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/oci/spec.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/sys/unique_fd.h"

namespace gantry {
namespace {

struct Runtime {
  std::string name, program;
  int mount_namespace = -1;
  std::string root;
};

double Milliseconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

struct Outcome {
  double milliseconds = 0;
  long peak_kilobytes = 0;  // At least this process's own size.
  int code = 0;
};

Outcome Execute(const Runtime& runtime, const std::vector<std::string>& words) {
  std::vector<std::string> all = {runtime.program, "--root", runtime.root};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const double begin = Milliseconds();
  const pid_t pid = ::vfork();
  if (pid == 0) {
    if (runtime.mount_namespace >= 0 && ::setns(runtime.mount_namespace, CLONE_NEWNS) != 0)
      ::_exit(99);
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 0);
    ::dup2(null, 1);
    if (::getenv("BENCH_VERBOSE") == nullptr) ::dup2(null, 2);
    ::execv(argv[0], argv.data());
    ::_exit(98);
  }
  int status = 0;
  rusage usage = {};
  ::wait4(pid, &status, 0, &usage);
  Outcome outcome{Milliseconds() - begin, usage.ru_maxrss,
                  WIFEXITED(status) ? WEXITSTATUS(status) : 255};
  return outcome;
}

// A mount namespace without /sys/fs/cgroup/unified, kept alive by its descriptor.
int NamespaceWithoutUnified() {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  const pid_t pid = ::fork();
  if (pid == 0) {
    const bool done = ::unshare(CLONE_NEWNS) == 0 &&
                      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                      ::umount2("/sys/fs/cgroup/unified", MNT_DETACH) == 0;
    (void)!::write(ends[1], done ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char answer = 'n';
  (void)!::read(ends[0], &answer, 1);
  const int fd = ::open(absl::StrCat("/proc/", pid, "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  ::close(ends[0]);
  ::close(ends[1]);
  return answer == 'y' ? fd : -1;
}

bool MakeBundle(const std::string& bundle, const std::vector<std::string>& args,
                const std::string& cgroup) {
  const std::string rootfs = bundle + "/rootfs";
  for (const char* directory : {"/bin", "/proc", "/sys", "/dev", "/etc", "/tmp"}) {
    if (!sys::MakeDirectories(rootfs + directory, 0755).ok()) return false;
  }
  // Not through our memory: a child's peak counts what this process had when it was made.
  if (::system(absl::StrCat("cp $(command -v busybox) ", rootfs, "/bin/busybox").c_str()) != 0)
    return false;
  for (const char* name : {"true", "sleep"})
    (void)!::symlink("busybox", (rootfs + "/bin/" + name).c_str());
  oci::Spec spec = oci::DefaultSpec();
  spec.oci_version = "1.0.2";
  spec.process->args = args;
  spec.linux_.resources->memory = oci::MemoryResources{.limit = 256 << 20};
  spec.linux_.resources->cpu = oci::CpuResources{.shares = 512, .quota = 100000, .period = 100000};
  spec.linux_.resources->pids_limit = 100;
  spec.linux_.cgroups_path = cgroup;
  return sys::WriteFileAtomically(bundle + "/config.json", oci::WriteSpec(spec), 0644).ok();
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(std::vector<Runtime> runtimes, std::string run_bundle, std::string sleep_bundle)
      : runtimes_(std::move(runtimes)),
        run_(std::move(run_bundle)),
        sleep_(std::move(sleep_bundle)) {}

  void Round(int round) {
    for (size_t i = 0; i < runtimes_.size(); ++i) {
      const Runtime& runtime = runtimes_[(i + static_cast<size_t>(round)) % runtimes_.size()];
      const std::string id = absl::StrCat("bench-", runtime.name, "-", round);
      Note(runtime, "run", Execute(runtime, {"run", "--bundle", run_, id}));
      Note(runtime, "create", Execute(runtime, {"create", "--bundle", sleep_, id}));
      Note(runtime, "start", Execute(runtime, {"start", id}));
      Note(runtime, "state", Execute(runtime, {"state", id}));
      Note(runtime, "exec", Execute(runtime, {"exec", id, "/bin/true"}));
      Note(runtime, "kill", Execute(runtime, {"kill", id, "KILL"}));
      // Wait until it has died, so that delete is measured and not the wait for it.
      for (int i = 0; i < 1000; ++i) {
        if (Execute(runtime, {"delete", id}).code == 0) break;
      }
    }
  }

  void Print() const {
    for (const char* work : {"run", "create", "start", "state", "exec", "kill"}) {
      const double ours = Median(times_.at({"gantry", work}));
      printf("%-7s", work);
      for (const Runtime& runtime : runtimes_) {
        auto found = times_.find({runtime.name, work});
        if (found == times_.end() || found->second.empty()) continue;
        const double median = Median(found->second);
        printf("  %s %.2f ms", runtime.name.c_str(), median);
        if (runtime.name != "gantry") printf(" (ours is 1/%.1f)", median / ours);
      }
      printf("\n");
    }
    printf("peak memory of run, kB (this bench itself has %ld):", Own());
    for (const auto& [name, peak] : peak_) printf("  %s %ld", name.c_str(), peak);
    printf("\n");
    for (const auto& [name, count] : failures_)
      printf("FAILED: %s %d times\n", name.c_str(), count);
  }

 private:
  static long Own() {
    rusage usage = {};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  }
  void Note(const Runtime& runtime, const char* work, const Outcome& outcome) {
    if (outcome.code != 0) {
      ++failures_[absl::StrCat(runtime.name, " ", work)];
      return;
    }
    times_[{runtime.name, work}].push_back(outcome.milliseconds);
    if (strcmp(work, "run") == 0)
      peak_[runtime.name] = std::max(peak_[runtime.name], outcome.peak_kilobytes);
  }

  std::vector<Runtime> runtimes_;
  std::string run_, sleep_;
  std::map<std::pair<std::string, std::string>, std::vector<double>> times_;
  std::map<std::string, long> peak_;
  std::map<std::string, int> failures_;
};

int Main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 20;
  auto scratch = sys::TempDir::Create();
  if (!scratch.ok() || ::geteuid() != 0) {
    fprintf(stderr, "needs root and a temporary directory\n");
    return 1;
  }
  const std::string base = scratch->path();
  if (!MakeBundle(base + "/run", {"/bin/true"}, "/gantry-bench/run") ||
      !MakeBundle(base + "/sleep", {"/bin/sleep", "1000"}, "/gantry-bench/sleep")) {
    fprintf(stderr, "cannot make the bundles; is busybox-static installed?\n");
    return 1;
  }
  const char* bin = ::getenv("GANTRY_BIN");
  std::vector<Runtime> runtimes = {
      {"gantry", absl::StrCat(bin == nullptr ? "build/release/bin" : bin, "/gantry-runtime"), -1,
       "/run/gb-gantry"}};
  if (sys::Exists("/usr/sbin/runc"))
    runtimes.push_back({"runc", "/usr/sbin/runc", -1, "/run/gb-runc"});
  if (sys::Exists("/usr/bin/crun")) {
    runtimes.push_back({"crun", "/usr/bin/crun", NamespaceWithoutUnified(), "/run/gb-crun"});
  }
  Bench bench(runtimes, base + "/run", base + "/sleep");
  for (int round = 0; round < rounds; ++round) bench.Round(round);
  bench.Print();
  for (const Runtime& runtime : runtimes) (void)sys::RemoveTree(runtime.root);
  // The parent of the containers' cgroups, which no runtime takes for its own.
  ::rmdir("/sys/fs/cgroup/gantry-bench");
  for (const std::string& name :
       sys::ListDirectory("/sys/fs/cgroup").value_or(std::vector<std::string>())) {
    ::rmdir(absl::StrCat("/sys/fs/cgroup/", name, "/gantry-bench").c_str());
  }
  return 0;
}

}  // namespace
}  // namespace gantry

int main(int argc, char** argv) { return gantry::Main(argc, argv); }
