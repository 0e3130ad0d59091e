// Counters, gauges and histograms of one process, as Prometheus text. Names follow
// `gantry_<process>_<thing>_<unit>`; labels come from small fixed sets, never a container id.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace gantry::metrics {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Add(double amount = 1) = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double amount) = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
  void Observe(absl::Duration duration) { Observe(absl::ToDoubleSeconds(duration)); }
};

// 50 µs … 60 s, for latencies.
const std::vector<double>& LatencyBuckets();

// Thread-safe. Asking twice for the same name and labels answers the same object, which lives as
// long as the registry. The first call of a name fixes its help text and buckets.
class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  Counter& GetCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& GetGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram& GetHistogram(const std::string& name, const std::string& help,
                          const Labels& labels = {},
                          const std::vector<double>& buckets = LatencyBuckets());

  // Prometheus' text format, version 0.0.4.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gantry::metrics
