#include "ctl/names.h"

#include <string>
#include <vector>

#include "ctl/details.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using engine::v1::ContainerState;

TEST(NamesTest, FamiliarNames) {
  EXPECT_EQ(FamiliarName("docker.io/library/busybox:latest"), "busybox:latest");
  EXPECT_EQ(FamiliarName("docker.io/user/app:1"), "user/app:1");
  EXPECT_EQ(FamiliarName("127.0.0.1:5000/a/b:1"), "127.0.0.1:5000/a/b:1");
}

TEST(NamesTest, SplitsRepositoryTagAndDigest) {
  const NameParts plain = SplitName("127.0.0.1:5000/a:1");
  EXPECT_EQ(plain.repository, "127.0.0.1:5000/a");
  EXPECT_EQ(plain.tag, "1");
  EXPECT_EQ(SplitName("127.0.0.1:5000/a").tag, "") << "the colon belongs to the port";
  const NameParts digest = SplitName("a@sha256:00");
  EXPECT_EQ(digest.repository, "a");
  EXPECT_EQ(digest.tag, "");
  EXPECT_EQ(digest.digest, "sha256:00");
}

TEST(NamesTest, StatusAsInPs) {
  const absl::Time now = absl::FromUnixSeconds(10000);
  ContainerState state;
  state.mutable_started_at()->set_seconds(10000 - 180);
  state.mutable_finished_at()->set_seconds(10000 - 5);
  state.set_exit_code(137);
  const auto text = [&](ContainerState::Status status) {
    state.set_status(status);
    return StatusText(state, now);
  };
  EXPECT_EQ(text(ContainerState::CREATED), "Created");
  EXPECT_EQ(text(ContainerState::RUNNING), "Up 3 minutes");
  EXPECT_EQ(text(ContainerState::PAUSED), "Up 3 minutes (Paused)");
  EXPECT_EQ(text(ContainerState::RESTARTING), "Restarting (137) 5 seconds ago");
  EXPECT_EQ(text(ContainerState::EXITED), "Exited (137) 5 seconds ago");
  EXPECT_EQ(text(ContainerState::REMOVING), "Removal In Progress");
  EXPECT_EQ(text(ContainerState::DEAD), "Dead");
}

TEST(NamesTest, PortsAsRanges) {
  engine::v1::ContainerSummary container;
  const auto add = [&](const char* ip, uint32_t host, uint32_t port, const char* protocol) {
    engine::v1::PortBinding* binding = container.add_ports();
    binding->set_host_ip(ip);
    binding->set_host_port(host);
    binding->set_container_port(port);
    binding->set_protocol(protocol);
  };
  add("", 8080, 80, "tcp");
  add("", 8081, 81, "tcp");
  add("127.0.0.1", 53, 53, "udp");
  add("::1", 9, 9, "tcp");
  container.add_exposed_ports("443/tcp");
  EXPECT_EQ(PortsText(container),
            "0.0.0.0:8080-8081->80-81/tcp, 127.0.0.1:53->53/udp, [::1]:9->9/tcp, 443/tcp");
}

TEST(DetailsTest, ContainersHaveDockersKeysInDockersOrder) {
  engine::v1::ContainerDetails details;
  details.set_id(std::string(64, 'a'));
  details.set_name("web");
  details.mutable_state()->set_status(ContainerState::PAUSED);
  details.mutable_config()->set_image("docker.io/library/busybox:latest");
  engine::v1::PortBinding* port = details.mutable_network()->add_ports();
  port->set_container_port(80);
  port->set_host_port(8080);
  port->set_protocol("tcp");
  const Value value = ContainerValue(details, false);
  std::vector<std::string> keys;
  for (const auto& [key, member] : value.members()) keys.push_back(key);
  EXPECT_THAT(
      keys, ::testing::ElementsAre("Id", "Created", "Path", "Args", "State", "Image",
                                   "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name",
                                   "RestartCount", "Driver", "Platform", "MountLabel",
                                   "ProcessLabel", "AppArmorProfile", "ExecIDs", "HostConfig",
                                   "GraphDriver", "Mounts", "Config", "NetworkSettings", "Gantry"));
  EXPECT_EQ(value.Find("Name")->text(), "/web");
  EXPECT_EQ(value.Find("Created")->text(), "0001-01-01T00:00:00Z") << "Docker's never";
  EXPECT_TRUE(value.Find("State")->Find("Paused")->IsTrue());
  EXPECT_TRUE(value.Find("State")->Find("Running")->IsTrue()) << "as Docker: paused is running";
  EXPECT_EQ(value.Find("Config")->Find("Image")->text(), "busybox:latest");
  EXPECT_EQ(value.Find("NetworkSettings")->Find("Ports")->ToJson(),
            "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8080\"}]}");
  EXPECT_EQ(ContainerValue(details, true).Find("SizeRw")->integer(), 0);
}

TEST(DetailsTest, ImagesTellTagsAndDigests) {
  image::v1::ImageDetails details;
  details.set_id("sha256:00");
  details.add_names("docker.io/library/busybox:latest");
  details.add_names("docker.io/library/busybox@sha256:11");
  details.mutable_config()->add_exposed_ports("80/tcp");
  const Value value = ImageValue(details);
  EXPECT_EQ(value.Find("RepoTags")->ToJson(), "[\"busybox:latest\"]");
  EXPECT_EQ(value.Find("Config")->Find("ExposedPorts")->ToJson(), "{\"80/tcp\":{}}");
}

}  // namespace
}  // namespace gantry::ctl
