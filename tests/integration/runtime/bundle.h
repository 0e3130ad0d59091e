// A bundle, a state root and a cgroup of the test's own, and gantry-runtime to run on them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/json/json.h"
#include "lib/oci/spec.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "tests/support/command.h"

namespace gantry::testing {

class RuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override;
  // Deletes what is left, and fails the test if that was not everything.
  void TearDown() override;

  // `gantry-runtime --root … WORDS…`, to its end. Not for `create`, whose container keeps our pipe.
  CommandResult Runtime(std::vector<std::string> words, const CommandOptions& options = {});
  // Writes config.json and runs `sh -c SCRIPT` in a container.
  CommandResult RunScript(const std::string& script);
  // Writes config.json and creates; the container's output goes to Output().
  CommandResult Create(const std::string& id, const std::string& more = "");
  std::string Output() const;
  void WriteConfig();
  // Creates and starts `sh -c SCRIPT`.
  void StartScript(const std::string& id, const std::string& script);

  // A member of `state`'s answer.
  std::string StateOf(const std::string& id, const std::string& member);
  int PidOf(const std::string& id);
  // Waits until the condition holds, at most ten seconds.
  bool Eventually(const std::function<bool()>& condition);

  std::string path(const std::string& name) const { return scratch_->path() + "/" + name; }
  std::string rootfs(const std::string& name = "") const { return path("bundle/rootfs") + name; }
  // Directories of our cgroup in every hierarchy that exist.
  std::vector<std::string> CgroupDirectories() const;

  oci::Spec spec_;
  std::string program_;
  std::string cgroup_;  // "/gantry-rt-…", parent of the containers' cgroups.
  std::unique_ptr<sys::TempDir> scratch_;
};

}  // namespace gantry::testing
