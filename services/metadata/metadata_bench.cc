// What a container's create and delete, a journaled event and a read cost here, with real syncs on
// the file system of $TMPDIR. The snapshotter is a fake that keeps a small unsynced file a layer.
#include <benchmark/benchmark.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/sys/temp_dir.h"
#include "services/metadata/objects.h"
#include "services/metadata/testing/metadata_house.h"

namespace gantry::metadata {
namespace {

// One house for all threads of a benchmark.
struct Shared {
  sys::TempDir directory = *sys::TempDir::Create();
  std::unique_ptr<MetadataHouse> house = *MetadataHouse::Open(directory.path());
  std::atomic<uint64_t> next{0};
};
std::unique_ptr<Shared> shared;

void SetUpHouse(const benchmark::State&) {
  shared = std::make_unique<Shared>();
  shared->house->Start();
}
void TearDownHouse(const benchmark::State&) { shared.reset(); }

const Caller& TheCaller() {
  static const Caller* const caller = new Caller{"bench", ""};
  return *caller;
}

v1::CreateContainerRequest MakeCreate(const std::string& id) {
  v1::CreateContainerRequest create;
  create.mutable_container()->set_id(id);
  create.mutable_container()->mutable_runtime()->set_name("io.containerd.gantry.v2");
  create.mutable_container()->mutable_spec()->set_value(std::string(6000, 's'));
  create.mutable_container()->set_snapshotter(kSnapshotter);
  create.mutable_container()->set_snapshot_key(id);
  v1::RecordWrite& record = *create.add_records();
  record.set_bucket("engine.container");
  record.set_key(id);
  record.set_value(std::string(1500, 'r'));
  return create;
}

void CountCommits(benchmark::State& state) {
  if (state.thread_index() != 0) return;
  const DatabaseStatistics statistics = shared->house->database->statistics();
  state.counters["commits"] = static_cast<double>(statistics.commits);
  state.counters["group"] =
      static_cast<double>(statistics.mutations) / static_cast<double>(statistics.commits);
  state.counters["db_MB"] = static_cast<double>(statistics.size_bytes) / 1e6;
}

void BM_CreateAndDeleteContainer(benchmark::State& state) {
  for (auto _ : state) {
    const std::string id = absl::StrCat("c", shared->next++);
    if (!shared->house->bundles.CreateContainer(TheCaller(), MakeCreate(id)).ok())
      state.SkipWithError("create");
    v1::DeleteContainerRequest remove;
    remove.set_id(id);
    remove.set_remove_snapshot(true);
    v1::RecordWrite& record = *remove.add_records();
    record.set_bucket("engine.container");
    record.set_key(id);
    record.set_remove(true);
    if (!shared->house->bundles.DeleteContainer(TheCaller(), remove).ok())
      state.SkipWithError("delete");
  }
  CountCommits(state);
}
BENCHMARK(BM_CreateAndDeleteContainer)
    ->Setup(SetUpHouse)
    ->Teardown(TearDownHouse)
    ->UseRealTime()
    ->ThreadRange(1, 32);

void BM_JournalEvent(benchmark::State& state) {
  containerd::types::Envelope envelope;
  envelope.set_namespace_("bench");
  envelope.set_topic("/tasks/exit");
  *envelope.mutable_timestamp() = ToProto(absl::Now());
  envelope.mutable_event()->set_type_url("containerd.events.TaskExit");
  envelope.mutable_event()->set_value(std::string(100, 'e'));
  for (auto _ : state) {
    if (!shared->house->journal.Append(envelope).ok()) state.SkipWithError("append");
  }
  CountCommits(state);
}
BENCHMARK(BM_JournalEvent)
    ->Setup(SetUpHouse)
    ->Teardown(TearDownHouse)
    ->UseRealTime()
    ->ThreadRange(1, 64);

void BM_GetContainer(benchmark::State& state) {
  if (state.thread_index() == 0) {
    (void)shared->house->bundles.CreateContainer(TheCaller(), MakeCreate("web"));
  }
  for (auto _ : state) benchmark::DoNotOptimize(shared->house->containers.Get(TheCaller(), "web"));
}
BENCHMARK(BM_GetContainer)
    ->Setup(SetUpHouse)
    ->Teardown(TearDownHouse)
    ->UseRealTime()
    ->ThreadRange(1, 4);

// A collection over many objects that finds nothing: what follows every deletion.
void BM_Collect(benchmark::State& state) {
  for (int i = 0; i < state.range(0); ++i) {
    (void)shared->house->bundles.CreateContainer(TheCaller(), MakeCreate(absl::StrCat("c", i)));
  }
  for (auto _ : state) {
    if (!shared->house->collector.Collect(absl::InfiniteFuture()).ok())
      state.SkipWithError("collect");
  }
}
BENCHMARK(BM_Collect)
    ->Setup(SetUpHouse)
    ->Teardown(TearDownHouse)
    ->UseRealTime()
    ->Arg(100)
    ->Arg(1000);

}  // namespace
}  // namespace gantry::metadata

BENCHMARK_MAIN();
