// What a container's network costs: connect and release, with the pool and without, with and
// without a published port. In a private network namespace that plays the host; needs root.
//
//   build/release/bench/network_bench
#include <linux/netlink.h>
#include <sched.h>
#include <sys/mount.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "lib/netlink/route.h"
#include "lib/netlink/socket.h"
#include "lib/sys/temp_dir.h"
#include "services/engine/network/host_network.h"

namespace gantry::network {
namespace {

std::unique_ptr<HostNetwork> Start(const std::string& run_dir, int pool_size) {
  HostNetworkOptions options;
  options.run_dir = run_dir;
  options.pool_size = pool_size;
  absl::StatusOr<std::unique_ptr<HostNetwork>> network = HostNetwork::Create(options);
  if (!network.ok() || !(*network)->Adopt({}).ok()) std::abort();
  return *std::move(network);
}

std::string run_dir;

// Measures `work` by hand and adds the median: single waits for a busy kernel spoil the mean.
class Stopwatch {
 public:
  explicit Stopwatch(benchmark::State& state) : state_(state) {}
  ~Stopwatch() {
    std::sort(seconds_.begin(), seconds_.end());
    if (!seconds_.empty()) state_.counters["p50_us"] = seconds_[seconds_.size() / 2] * 1e6;
  }
  template <typename Work>
  void Run(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    seconds_.push_back(took.count());
    state_.SetIterationTime(took.count());
  }

 private:
  benchmark::State& state_;
  std::vector<double> seconds_;
};

// Settles (fills the pool, finishes removals) outside the measurement.
void Connect(benchmark::State& state, Mode mode, int pool_size, bool publish) {
  std::unique_ptr<HostNetwork> network = Start(run_dir, pool_size);
  EndpointRequest request{.container_id = "web"};
  request.mode = mode;
  if (publish) request.ports = {{Protocol::kTcp, 80, "", 8080}};
  Stopwatch watch(state);
  for (auto _ : state) {
    network->Settle();
    absl::StatusOr<Endpoint> endpoint;
    watch.Run([&] { endpoint = network->Connect(request); });
    if (!endpoint.ok()) state.SkipWithError(endpoint.status().ToString().c_str());
    network->Release("web").IgnoreError();
  }
}

// What Release makes its caller wait for; the removal itself happens behind it.
void Release(benchmark::State& state, bool publish) {
  std::unique_ptr<HostNetwork> network = Start(run_dir, 4);
  EndpointRequest request{.container_id = "web"};
  if (publish) request.ports = {{Protocol::kTcp, 80, "", 8080}};
  Stopwatch watch(state);
  for (auto _ : state) {
    network->Settle();
    network->Connect(request).IgnoreError();
    watch.Run([&] { network->Release("web").IgnoreError(); });
  }
}

// Fifty containers at once, from nothing to all gone, the kernel's part included.
void Burst(benchmark::State& state) {
  std::unique_ptr<HostNetwork> network = Start(run_dir, 4);
  for (auto _ : state) {
    for (int i = 0; i < 50; ++i) {
      network->Connect({.container_id = absl::StrCat("c", i)}).IgnoreError();
    }
    for (int i = 0; i < 50; ++i) network->Release(absl::StrCat("c", i)).IgnoreError();
    network->Settle();
  }
}

// A fixed number: what happens between the measured microseconds takes a thousand times as long.
void Quick(benchmark::internal::Benchmark* bench) {
  bench->Unit(benchmark::kMicrosecond)->Iterations(40)->UseManualTime();
}

BENCHMARK_CAPTURE(Connect, bridge_pool, Mode::kBridge, 4, false)->Apply(Quick);
BENCHMARK_CAPTURE(Connect, bridge_pool_port, Mode::kBridge, 4, true)->Apply(Quick);
BENCHMARK_CAPTURE(Connect, bridge_no_pool, Mode::kBridge, 0, false)->Apply(Quick);
BENCHMARK_CAPTURE(Connect, none_pool, Mode::kNone, 4, false)->Apply(Quick);
BENCHMARK_CAPTURE(Connect, none_no_pool, Mode::kNone, 0, false)->Apply(Quick);
BENCHMARK_CAPTURE(Release, plain, false)->Apply(Quick);
BENCHMARK_CAPTURE(Release, port, true)->Apply(Quick);
BENCHMARK(Burst)->Unit(benchmark::kMillisecond)->Iterations(3)->UseRealTime();

// A host of our own, with a default route and nothing else.
bool EnterPrivateHost(const std::string& directory) {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  if (::mount("tmpfs", directory.c_str(), "tmpfs", 0, nullptr) != 0) return false;
  absl::StatusOr<netlink::Socket> socket = netlink::Socket::Open(NETLINK_ROUTE);
  if (!socket.ok()) return false;
  netlink::Batch batch;
  netlink::SetUp(batch, 1);
  return socket->Execute(batch).ok();
}

}  // namespace
}  // namespace gantry::network

int main(int argc, char** argv) {
  absl::StatusOr<gantry::sys::TempDir> directory = gantry::sys::TempDir::Create();
  if (!directory.ok() || !gantry::network::EnterPrivateHost(directory->path())) {
    std::fprintf(stderr, "network_bench: needs root\n");
    return 1;
  }
  gantry::network::run_dir = absl::StrCat(directory->path(), "/run");
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  ::umount2(directory->path().c_str(), MNT_DETACH);
  return 0;
}
