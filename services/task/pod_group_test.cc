#include "services/task/pod_group.h"

#include "gtest/gtest.h"

namespace gantry::task {
namespace {

TEST(PodGroupTest, IsNamedByAnAnnotation) {
  EXPECT_EQ(PodGroupOf(R"({"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}})"), "pod");
  EXPECT_EQ(PodGroupOf(R"({"annotations":{"io.kubernetes.cri.sandbox-id":"pod",)"
                       R"("io.containerd.runc.v2.group":"group"}})"),
            "group");
}

TEST(PodGroupTest, IsEmptyForWhoIsAlone) {
  EXPECT_EQ(PodGroupOf("{}"), "");
  EXPECT_EQ(PodGroupOf(R"({"annotations":{"io.kubernetes.cri.sandbox-id":""}})"), "");
  // The same words elsewhere mean nothing.
  EXPECT_EQ(PodGroupOf(R"({"process":{"args":["io.kubernetes.cri.sandbox-id"]}})"), "");
  EXPECT_EQ(PodGroupOf(R"({"annotations":{"io.kubernetes.cri.sandbox-id":)"), "");
}

}  // namespace
}  // namespace gantry::task
