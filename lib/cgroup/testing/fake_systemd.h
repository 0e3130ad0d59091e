// A systemd that knows units by name, as far as the cgroup driver can see; it makes no cgroups.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/dbus/testing/fake_bus.h"

namespace gantry::cgroup {

// Thread-safe.
class FakeSystemd {
 public:
  // Listens at `path` from now on.
  void Serve(const std::string& path);

  // What units' ControlGroup begins with: "/system.slice" at first.
  void set_slice(std::string slice);
  // How jobs of StartTransientUnit end: "done" at first.
  void set_result(std::string result);
  // A failed unit of the name is in the way until it is reset.
  void set_occupied(bool occupied);
  // StopUnit knows no unit.
  void set_gone(bool gone);

  // Methods called, in order, and what the last one that sets properties set: "a(sv)".
  std::vector<std::string> calls() const;
  dbus::Value properties() const;
  std::vector<std::string> property_names() const;
  std::string asked_path() const;  // Object of the last property that was read.

 private:
  using Answers = std::vector<dbus::FakeBus::Answer>;
  Answers Answer(const dbus::Message& call);
  Answers Start(const dbus::Message& call, const std::vector<dbus::Value>& body)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Answers End(const dbus::Message& call, const std::vector<dbus::Value>& body)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Answers Get(const dbus::Message& call, const std::vector<dbus::Value>& body)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::vector<std::string> calls_ ABSL_GUARDED_BY(mutex_);
  dbus::Value properties_ ABSL_GUARDED_BY(mutex_);
  std::string asked_path_ ABSL_GUARDED_BY(mutex_);
  std::string unit_ ABSL_GUARDED_BY(mutex_) = "web-1.scope";
  std::string slice_ ABSL_GUARDED_BY(mutex_) = "/system.slice";
  std::string result_ ABSL_GUARDED_BY(mutex_) = "done";
  bool occupied_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<dbus::FakeBus> bus_;  // Last: it calls the rest.
};

}  // namespace gantry::cgroup
