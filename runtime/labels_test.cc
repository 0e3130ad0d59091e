// On trees that look like /sys of kernels with and without the security modules.
#include "runtime/labels.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

using ::testing::HasSubstr;

class LabelsTest : public ::testing::Test {
 protected:
  void Put(const std::string& directory, const std::string& file, const std::string& text) {
    ASSERT_OK(sys::MakeDirectories(absl::StrCat(tree_.path(), "/", directory)));
    ASSERT_OK(
        sys::WriteFileAtomically(absl::StrCat(tree_.path(), "/", directory, "/", file), text));
  }
  absl::Status Check(const std::string& mount_label = "") {
    return CheckLabels(process_, mount_label, tree_.path());
  }

  sys::TempDir tree_ = *sys::TempDir::Create();
  oci::Process process_;
};

TEST_F(LabelsTest, NothingAskedForNeedsNothing) {
  EXPECT_OK(Check());
  process_.apparmor_profile = "unconfined";
  EXPECT_OK(Check());
}

TEST_F(LabelsTest, AProfileNeedsAppArmor) {
  process_.apparmor_profile = "docker-default";
  EXPECT_EQ(Check().code(), absl::StatusCode::kFailedPrecondition) << "no such module";
  Put("module/apparmor/parameters", "enabled", "N\n");
  EXPECT_THAT(Check().message(), HasSubstr("process.apparmorProfile")) << "switched off";
  Put("module/apparmor/parameters", "enabled", "Y\n");
  EXPECT_OK(Check());
}

TEST_F(LabelsTest, LabelsNeedSelinux) {
  process_.selinux_label = "system_u:system_r:container_t:s0";
  EXPECT_THAT(Check().message(), HasSubstr("process.selinuxLabel"));
  process_.selinux_label = "";
  EXPECT_THAT(Check("system_u:object_r:container_file_t:s0").message(),
              HasSubstr("linux.mountLabel"));
  process_.selinux_label = "system_u:system_r:container_t:s0";
  Put("fs/selinux", "enforce", "1");
  EXPECT_OK(Check("system_u:object_r:container_file_t:s0"));
}

}  // namespace
}  // namespace gantry::runtime
