// Our shim beside containerd's runc shim: the same client, the same bundles, taking turns.
//
//   shim_bench [--rounds=20] [--memory=100] [--shim=PATH]
//
// Prints medians of create+start (both calls), exec (Exec+Start+Wait of `true`), `start` (the
// command until the shim answers), and what N idle shims cost. Needs root, Debian's containerd and
// runc, busybox.
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/sys/file.h"
#include "shim/testing/shim_harness.h"

namespace gantry::shim {
namespace {

using testing::BuiltBinary;
using testing::ShimHarness;

constexpr char kTheirs[] = "/usr/bin/containerd-shim-runc-v2";

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

void Check(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  exit(1);
}

template <typename T>
T Check(absl::StatusOr<T> value, const char* what) {
  Check(value.status(), what);
  return *std::move(value);
}

double Millis(const std::function<void()>& work) {
  const absl::Time began = absl::Now();
  work();
  return absl::ToDoubleMilliseconds(absl::Now() - began);
}

// Medians of each step that our shim reports, in the order they happen.
class Steps {
 public:
  void Add(const std::vector<std::pair<std::string, int64_t>>& timings) {
    for (const auto& [step, microseconds] : timings) {
      if (values_.count(step) == 0) order_.push_back(step);
      values_[step].push_back(static_cast<double>(microseconds) / 1000);
    }
  }
  void Print(const char* title) {
    printf("  %s:", title);
    for (const std::string& step : order_) printf(" %s %.2f", step.c_str(), Median(values_[step]));
    printf("\n");
  }

 private:
  std::vector<std::string> order_;
  std::map<std::string, std::vector<double>> values_;
};

struct Times {
  Steps create_steps, start_steps, exec_steps;
  std::vector<double> bootstrap, direct, create, start, exec, remove;
};

void OneRound(ShimHarness& shim, const std::string& id, Times* times) {
  Check(shim.MakeBundle(id, {"sleep", "1000"}), "bundle");
  times->bootstrap.push_back(Millis([&] { Check(shim.StartShim(id).status(), "start shim"); }));
  times->create.push_back(Millis([&] { Check(shim.Create(id).status(), "create"); }));
  times->create_steps.Add(shim.timings());
  times->start.push_back(Millis([&] { Check(shim.Start(id).status(), "start"); }));
  times->start_steps.Add(shim.timings());
  for (int i = 0; i < 3; ++i) {
    const std::string exec_id = absl::StrCat("e", i);
    times->exec.push_back(Millis([&] {
      Check(shim.Exec(id, exec_id, {"true"}), "exec");
      Check(shim.Start(id, exec_id).status(), "start exec");
      times->exec_steps.Add(shim.timings());
      Check(shim.Wait(id, exec_id).status(), "wait exec");
    }));
    Check(shim.Delete(id, exec_id).status(), "delete exec");
  }
  Check(shim.Kill(id, SIGKILL), "kill");
  Check(shim.Wait(id).status(), "wait");
  times->remove.push_back(Millis([&] { Check(shim.Delete(id).status(), "delete"); }));
  (void)shim.Shutdown(id);
}

// Without `start`, as our supervisor does: from spawn to the first answer.
void DirectRound(ShimHarness& shim, const std::string& id, Times* times) {
  Check(shim.MakeBundle(id, {"true"}), "bundle");
  times->direct.push_back(Millis([&] {
    Check(shim.StartServer(id), "serve");
    Check(shim.ShimPid(id).status(), "connect");
  }));
  (void)shim.Shutdown(id);
}

void Row(const char* name, const std::vector<double>& ours, const std::vector<double>& theirs) {
  printf("%-16s %10.2f %10.2f %9.1fx\n", name, Median(ours), Median(theirs),
         Median(theirs) / Median(ours));
}

std::vector<double> Sum(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> sum;
  for (size_t i = 0; i < a.size(); ++i) sum.push_back(a[i] + b[i]);
  return sum;
}

uint64_t KilobytesOf(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, key)) continue;
    uint64_t value = 0;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() > 1 && absl::SimpleAtoi(words[1], &value)) return value;
  }
  return 0;
}

void Memory(const std::string& binary, const char* name, int count) {
  ShimHarness shim(binary);
  std::vector<int> pids;
  for (int i = 0; i < count; ++i) {
    const std::string id = absl::StrCat("c", i);
    Check(shim.MakeBundle(id, {"sleep", "1000"}), "bundle");
    Check(shim.StartShim(id).status(), "start shim");
    Check(shim.Create(id).status(), "create");
    Check(shim.Start(id).status(), "start");
    pids.push_back(Check(shim.ShimPid(id), "connect"));
  }
  // Two seconds in which nothing happens: what an idle shim does, it does now.
  ::sleep(2);
  uint64_t ticks_before = 0, ticks_after = 0;
  const auto ticks = [&] {
    uint64_t sum = 0;
    for (const int pid : pids) {
      const std::string stat = sys::ReadFile(absl::StrCat("/proc/", pid, "/stat")).value_or("");
      const std::vector<std::string> fields = absl::StrSplit(stat.substr(stat.rfind(')') + 2), ' ');
      uint64_t user = 0, system = 0;
      (void)absl::SimpleAtoi(fields[11], &user);
      (void)absl::SimpleAtoi(fields[12], &system);
      sum += user + system;
    }
    return sum;
  };
  ticks_before = ticks();
  ::sleep(3);
  ticks_after = ticks();
  uint64_t rss = 0, pss = 0, privately = 0, descriptors = 0, threads = 0, switches = 0;
  for (const int pid : pids) {
    const std::string rollup =
        sys::ReadFile(absl::StrCat("/proc/", pid, "/smaps_rollup")).value_or("");
    rss += KilobytesOf(rollup, "Rss:");
    pss += KilobytesOf(rollup, "Pss:");
    privately += KilobytesOf(rollup, "Private_Dirty:") + KilobytesOf(rollup, "Private_Clean:");
    descriptors += sys::ListDirectory(absl::StrCat("/proc/", pid, "/fd")).value().size();
    threads += sys::ListDirectory(absl::StrCat("/proc/", pid, "/task")).value().size();
  }
  (void)switches;
  const uint64_t n = pids.size();
  printf(
      "%-8s %5d shims, each: RSS %5lu K  PSS %5lu K  private %5lu K  %2lu descriptors  %2lu "
      "threads  "
      "CPU idle %.2f ms/s\n",
      name, count, rss / n, pss / n, privately / n, descriptors / n, threads / n,
      static_cast<double>(ticks_after - ticks_before) * 10 / 3 / static_cast<double>(n));
  for (int i = 0; i < count; ++i) {
    const std::string id = absl::StrCat("c", i);
    Check(
        shim.Connect(Check(sys::ReadFile(absl::StrCat(shim.BundleOf(id), "/address")), "address")),
        "connect");
    Check(shim.Kill(id, SIGKILL), "kill");
    Check(shim.Wait(id).status(), "wait");
    Check(shim.Delete(id).status(), "delete");
    // Go's shim may be gone before its answer is read.
    (void)shim.Shutdown(id);
  }
}

int Main(int argc, char** argv) {
  int rounds = 20;
  int memory = 100;
  std::string ours = BuiltBinary("containerd-shim-gantry-v2");
  for (int i = 1; i < argc; ++i) {
    absl::string_view word = argv[i];
    if (absl::ConsumePrefix(&word, "--rounds=")) (void)absl::SimpleAtoi(word, &rounds);
    if (absl::ConsumePrefix(&word, "--memory=")) (void)absl::SimpleAtoi(word, &memory);
    if (absl::ConsumePrefix(&word, "--shim=")) ours = std::string(word);
  }
  if (::geteuid() != 0 || !sys::Exists(kTheirs)) {
    fprintf(stderr, "shim_bench: needs root and %s\n", kTheirs);
    return 1;
  }
  Times mine, theirs;
  {
    ShimHarness our_shims(ours);
    ShimHarness their_shims(kTheirs);
    // A daemon starts many containers: the first of each is not counted.
    Times warm_up;
    OneRound(our_shims, "first", &warm_up);
    OneRound(their_shims, "first", &warm_up);
    for (int i = 0; i < rounds; ++i) {
      OneRound(our_shims, absl::StrCat("c", i), &mine);
      DirectRound(our_shims, absl::StrCat("d", i), &mine);
      OneRound(their_shims, absl::StrCat("c", i), &theirs);
    }
  }
  if (rounds > 0) {
    printf("%-16s %10s %10s %10s   (ms, medians of %d rounds)\n", "", "gantry", "runc-v2", "ratio",
           rounds);
    Row("start (binary)", mine.bootstrap, theirs.bootstrap);
    printf("%-16s %10.2f\n", "serve, no start", Median(mine.direct));
    Row("Create", mine.create, theirs.create);
    Row("Start", mine.start, theirs.start);
    Row("Create+Start", Sum(mine.create, mine.start), Sum(theirs.create, theirs.start));
    Row("exec true", mine.exec, theirs.exec);
    Row("Delete", mine.remove, theirs.remove);
    mine.create_steps.Print("Create");
    mine.start_steps.Print("Start");
    mine.exec_steps.Print("exec");
  }
  if (memory > 0) {
    Memory(ours, "gantry", memory);
    // A tenth: a hundred Go shims would need 1.5 GB.
    Memory(kTheirs, "runc-v2", std::max(1, memory / 10));
  }
  return 0;
}

}  // namespace
}  // namespace gantry::shim

int main(int argc, char** argv) { return gantry::shim::Main(argc, argv); }
