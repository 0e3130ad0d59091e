// What tests of whole lives share: a shim, and a container in it whose output is logged.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/attach/client.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "shim/testing/shim_harness.h"

namespace gantry::shim::testing {

// With the library in the shim, and with a foreign runtime that the shim executes.
class ShimTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { REQUIRE_ROOT(); }

  void Begin(const std::string& id, const std::vector<std::string>& args,
             const ShimHarness::Streams& streams = {},
             const std::function<void(oci::Spec&)>& edit = nullptr) {
    ASSERT_OK(shim_.MakeBundle(id, args, [&](oci::Spec& spec) {
      spec.process->terminal = streams.terminal;
      if (edit) edit(spec);
    }));
    ASSERT_OK(shim_.StartShim(id));
    ASSERT_OK(shim_.Create(id, streams));
  }
  std::string LogPath() const { return absl::StrCat(shim_.root(), "/c.log"); }
  std::string LogUri(absl::string_view parameters = "") const {
    return absl::StrCat("gantry-log://", LogPath(), "?", parameters);
  }
  std::string Log() const { return sys::ReadFile(LogPath()).value_or(""); }
  // What a client receives until the end; "out|err|exit code".
  static std::string Everything(attach::Client& client) {
    std::string out, err;
    for (;;) {
      attach::Event event;
      const absl::Status status = client.WaitNext(&event, absl::Seconds(20));
      if (!status.ok()) return absl::StrCat(out, "|", err, "|", status.ToString());
      switch (event.kind) {
        case attach::Event::Kind::kStdout:
          out += std::string(event.bytes);
          break;
        case attach::Event::Kind::kStderr:
          err += std::string(event.bytes);
          break;
        case attach::Event::Kind::kLost:
          absl::StrAppend(&out, "<lost ", event.lost_bytes, ">");
          break;
        case attach::Event::Kind::kExit:
          return absl::StrCat(out, "|", err, "|", event.exit.code);
        case attach::Event::Kind::kClosed:
          return absl::StrCat(out, "|", err, "|closed");
      }
    }
  }

  ShimHarness shim_{BuiltBinary("containerd-shim-gantry-v2"), GetParam()};
};

}  // namespace gantry::shim::testing
