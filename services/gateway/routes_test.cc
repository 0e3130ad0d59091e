#include "services/gateway/routes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry::gateway {
namespace {

using ::testing::ElementsAre;

TEST(RoutesTest, ServiceIsTheMiddleOfAMethodPath) {
  EXPECT_EQ(ServiceOf("/a.b.C/Method"), "a.b.C");
  EXPECT_EQ(ServiceOf("a.b.C/Method"), "");
  EXPECT_EQ(ServiceOf("/Method"), "");
  EXPECT_EQ(ServiceOf(""), "");
}

TEST(RoutesTest, EveryServiceHasOneOwner) {
  EXPECT_EQ(ProcessFor("containerd.services.images.v1.Images"), "metadata");
  EXPECT_EQ(ProcessFor("containerd.services.content.v1.Content"), "image");
  EXPECT_EQ(ProcessFor("containerd.services.sandbox.v1.Store"), "metadata");
  EXPECT_EQ(ProcessFor("gantry.engine.v1.Containers"), "engine");
}

TEST(RoutesTest, StrangersAreNotRouted) {
  EXPECT_EQ(ProcessFor("containerd.services.images.v1.ImagesX"), "");
  EXPECT_EQ(ProcessFor("gantry.debug.v1.Debug"), "") << "each process keeps that to itself";
  EXPECT_EQ(ProcessFor(""), "");
}

TEST(RoutesTest, WhatContainerdHasAndWeDoNotSaysWhy) {
  for (const char* service :
       {"containerd.services.sandbox.v1.Controller", "containerd.services.mounts.v1.Mounts"}) {
    EXPECT_EQ(ProcessFor(service), "");
    EXPECT_NE(WhyUnserved(service), "");
  }
  EXPECT_EQ(WhyUnserved("unheard.of.Service"), "");
}

TEST(RoutesTest, ProcessesAreListedOnce) {
  EXPECT_THAT(RoutedProcesses(), ElementsAre("engine", "image", "metadata", "task"));
}

}  // namespace
}  // namespace gantry::gateway
