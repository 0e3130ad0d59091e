#include "services/engine/container_config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;

v1::ContainerConfig Config() {
  v1::ContainerConfig config;
  config.set_image("busybox");
  return config;
}

image::v1::ImageConfig Image() {
  image::v1::ImageConfig image;
  image.add_entrypoint("/entry");
  image.add_cmd("default");
  image.add_env("PATH=/bin");
  image.add_env("A=image");
  image.add_env("not an assignment");
  image.set_working_dir("/work");
  image.set_user("www");
  image.set_stop_signal("SIGQUIT");
  image.add_exposed_ports("80/tcp");
  image.add_volumes("/data");
  (*image.mutable_labels())["maintainer"] = "x";
  (*image.mutable_labels())["gantry.engine/name"] = "evil";
  return image;
}

TEST(CompleteConfigTest, TakesFromTheImageWhatIsNotGiven) {
  const v1::ContainerConfig completed = CompleteConfig(Config(), Image());

  EXPECT_THAT(*CommandLine(completed), ElementsAre("/entry", "default"));
  EXPECT_THAT(completed.env(), ElementsAre("PATH=/bin", "A=image"));
  EXPECT_EQ(completed.working_dir(), "/work");
  EXPECT_EQ(completed.user(), "www");
  EXPECT_EQ(completed.stop_signal(), "SIGQUIT");
  EXPECT_THAT(completed.expose(), ElementsAre("80/tcp"));
  ASSERT_EQ(completed.mounts_size(), 1);
  EXPECT_EQ(completed.mounts(0).target(), "/data");
  EXPECT_EQ(completed.labels().at("maintainer"), "x");
  EXPECT_EQ(completed.labels().count("gantry.engine/name"), 0u);
  EXPECT_EQ(completed.network(), "bridge");
}

TEST(CompleteConfigTest, AGivenCommandReplacesTheImagesButNotItsEntrypoint) {
  v1::ContainerConfig config = Config();
  config.add_command("mine");
  EXPECT_THAT(*CommandLine(CompleteConfig(config, Image())), ElementsAre("/entry", "mine"));
}

TEST(CompleteConfigTest, AGivenEntrypointHidesTheImagesCommand) {
  v1::ContainerConfig config = Config();
  config.set_entrypoint_set(true);
  config.add_entrypoint("/mine");
  EXPECT_THAT(*CommandLine(CompleteConfig(config, Image())), ElementsAre("/mine"));
}

TEST(CompleteConfigTest, AClearedEntrypointAndNoCommandIsNoProgram) {
  v1::ContainerConfig config = Config();
  config.set_entrypoint_set(true);
  EXPECT_THAT(CommandLine(CompleteConfig(config, Image())),
              Fails(absl::StatusCode::kInvalidArgument, "no command specified"));
}

TEST(CompleteConfigTest, VariablesOverrideAndABareNameTakesAway) {
  v1::ContainerConfig config = Config();
  config.add_env("A=mine");
  config.add_env("PATH");
  EXPECT_THAT(CompleteConfig(config, Image()).env(), ElementsAre("A=mine"));
}

TEST(CompleteConfigTest, AMountAtTheImagesVolumeTakesItsPlace) {
  v1::ContainerConfig config = Config();
  v1::Mount* mount = config.add_mounts();
  mount->set_type("bind");
  mount->set_source("/src");
  mount->set_target("/data/");
  EXPECT_EQ(CompleteConfig(config, Image()).mounts_size(), 1);
}

TEST(CheckConfigTest, PlainIsFine) { EXPECT_OK(CheckConfig(Config())); }

TEST(CheckConfigTest, RefusalsNameFieldAndRule) {
  struct Case {
    const char* part;
    void (*spoil)(v1::ContainerConfig*);
  };
  const Case cases[] = {
      {"no image", [](auto* c) { c->clear_image(); }},
      {"container name", [](auto* c) { c->set_name("../x"); }},
      {"hostname", [](auto* c) { c->set_hostname("a b"); }},
      {"environment", [](auto* c) { c->add_env("=x"); }},
      {"working directory", [](auto* c) { c->set_working_dir("here"); }},
      {"--restart and --rm",
       [](auto* c) {
         c->set_auto_remove(true);
         c->mutable_restart()->set_name("always");
       }},
      {"restart policy", [](auto* c) { c->mutable_restart()->set_name("sometimes"); }},
      {"network", [](auto* c) { c->set_network("moon"); }},
      {"published port", [](auto* c) { c->add_ports()->set_container_port(0); }},
      {"extra host", [](auto* c) { c->add_extra_hosts("nothing"); }},
      {"mount target",
       [](auto* c) {
         c->add_mounts()->set_type("tmpfs");
         c->mutable_mounts(0)->set_target("relative");
       }},
      {"root directory",
       [](auto* c) {
         c->add_mounts()->set_type("tmpfs");
         c->mutable_mounts(0)->set_target("/");
       }},
      {"'..'",
       [](auto* c) {
         c->add_mounts()->set_type("tmpfs");
         c->mutable_mounts(0)->set_target("/a/../b");
       }},
      {"volume name",
       [](auto* c) {
         c->add_mounts()->set_type("volume");
         c->mutable_mounts(0)->set_target("/v");
         c->mutable_mounts(0)->set_source("a/b");
       }},
      {"minimum memory limit", [](auto* c) { c->mutable_resources()->set_memory_bytes(100); }},
      {"memoryswap",
       [](auto* c) {
         c->mutable_resources()->set_memory_bytes(64 << 20);
         c->mutable_resources()->set_memory_swap_bytes(1 << 20);
       }},
      {"pid mode", [](auto* c) { c->set_pid_mode("shared"); }},
      {"user namespace mode", [](auto* c) { c->set_userns_mode("auto"); }},
      {"log driver", [](auto* c) { c->mutable_log()->set_driver("syslog"); }},
      {"log option", [](auto* c) { (*c->mutable_log()->mutable_options())["tag"] = "x"; }},
  };
  for (const Case& one : cases) {
    v1::ContainerConfig config = Config();
    one.spoil(&config);
    EXPECT_THAT(CheckConfig(config), Fails(absl::StatusCode::kInvalidArgument, one.part));
  }
}

TEST(CheckConfigTest, AnErrorAboutAVariableDoesNotShowItsValue) {
  v1::ContainerConfig config = Config();
  config.add_env(std::string("SECRET=hunter2\0x", 16));
  const absl::Status status = CheckConfig(config);
  EXPECT_THAT(status, HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr("hunter2")));
}

TEST(ParseExposedTest, RangesAndProtocols) {
  EXPECT_THAT(*ParseExposed("80"), ElementsAre(std::make_pair(80u, std::string("tcp"))));
  EXPECT_EQ(ParseExposed("8000-8002/udp")->size(), 3u);
  EXPECT_THAT(ParseExposed("0"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseExposed("9-1"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseExposed("80/sctp"), HasCode(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace gantry::engine
