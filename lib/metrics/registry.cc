#include "lib/metrics/registry.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <utility>

#include "absl/synchronization/mutex.h"

namespace gantry::metrics {
namespace {

class CounterAdapter : public Counter {
 public:
  explicit CounterAdapter(prometheus::Counter& counter) : counter_(counter) {}
  void Add(double amount) override { counter_.Increment(amount); }

 private:
  prometheus::Counter& counter_;
};

class GaugeAdapter : public Gauge {
 public:
  explicit GaugeAdapter(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_.Set(value); }
  void Add(double amount) override { gauge_.Increment(amount); }

 private:
  prometheus::Gauge& gauge_;
};

class HistogramAdapter : public Histogram {
 public:
  explicit HistogramAdapter(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void Observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

using Key = std::pair<std::string, Labels>;

}  // namespace

const std::vector<double>& LatencyBuckets() {
  static const std::vector<double>* buckets =
      new std::vector<double>{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                              0.05,    0.1,    0.25,    0.5,    1,     2.5,    5,     10,   60};
  return *buckets;
}

struct Registry::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  absl::Mutex mutex;
  std::map<Key, std::unique_ptr<CounterAdapter>> counters ABSL_GUARDED_BY(mutex);
  std::map<Key, std::unique_ptr<GaugeAdapter>> gauges ABSL_GUARDED_BY(mutex);
  std::map<Key, std::unique_ptr<HistogramAdapter>> histograms ABSL_GUARDED_BY(mutex);
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::GetCounter(const std::string& name, const std::string& help,
                              const Labels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  std::unique_ptr<CounterAdapter>& slot = impl_->counters[{name, labels}];
  if (slot == nullptr) {
    slot = std::make_unique<CounterAdapter>(
        prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry).Add(labels));
  }
  return *slot;
}

Gauge& Registry::GetGauge(const std::string& name, const std::string& help, const Labels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  std::unique_ptr<GaugeAdapter>& slot = impl_->gauges[{name, labels}];
  if (slot == nullptr) {
    slot = std::make_unique<GaugeAdapter>(
        prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry).Add(labels));
  }
  return *slot;
}

Histogram& Registry::GetHistogram(const std::string& name, const std::string& help,
                                  const Labels& labels, const std::vector<double>& buckets) {
  absl::MutexLock lock(&impl_->mutex);
  std::unique_ptr<HistogramAdapter>& slot = impl_->histograms[{name, labels}];
  if (slot == nullptr) {
    slot = std::make_unique<HistogramAdapter>(prometheus::BuildHistogram()
                                                  .Name(name)
                                                  .Help(help)
                                                  .Register(impl_->registry)
                                                  .Add(labels, buckets));
  }
  return *slot;
}

std::string Registry::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace gantry::metrics
