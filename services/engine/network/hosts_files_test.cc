#include "services/engine/network/hosts_files.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::network {
namespace {

using ::gantry::testing::Fails;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(HostsTest, NamesLocalhostFirstAndTheContainerLast) {
  absl::StatusOr<std::string> hosts = RenderHosts({.ip = "172.30.0.2",
                                                   .hostname = "web",
                                                   .domainname = "example.org",
                                                   .aliases = {"www"},
                                                   .extra_hosts = {"db:10.0.0.5"}});
  ASSERT_OK(hosts);
  EXPECT_THAT(*hosts, StartsWith("127.0.0.1\tlocalhost\n"));
  EXPECT_THAT(*hosts, EndsWith("10.0.0.5\tdb\n172.30.0.2\tweb.example.org web www\n"));
}

TEST(HostsTest, WithoutAnAddressThereIsNoLineForTheContainer) {
  EXPECT_THAT(*RenderHosts({.hostname = "web"}), Not(HasSubstr("web")));
}

TEST(HostsTest, HostGatewayAndIpv6AreUnderstood) {
  absl::StatusOr<std::string> hosts =
      RenderHosts({.extra_hosts = {"host.docker.internal:host-gateway", "six:[fd00::1]", "s:::1"},
                   .gateway = "172.30.0.1"});
  ASSERT_OK(hosts);
  EXPECT_THAT(*hosts, HasSubstr("172.30.0.1\thost.docker.internal\n"));
  EXPECT_THAT(*hosts, HasSubstr("fd00::1\tsix\n"));
  EXPECT_THAT(*hosts, HasSubstr("::1\ts\n"));
}

TEST(HostsTest, NothingCanSmuggleInALine) {
  EXPECT_THAT(RenderHosts({.extra_hosts = {"a\n1.2.3.4 bank:10.0.0.1"}}), Fails(kInvalid, "\\x0a"));
  EXPECT_THAT(RenderHosts({.extra_hosts = {"a:10.0.0.1\n"}}), Fails(kInvalid, "name:address"));
  EXPECT_THAT(RenderHosts({.extra_hosts = {"a"}}), Fails(kInvalid, "name:address"));
  EXPECT_THAT(RenderHosts({.ip = "10.0.0.2", .hostname = "a b"}), Fails(kInvalid, "host name"));
  EXPECT_THAT(RenderHosts({.extra_hosts = {"a:host-gateway"}}), Fails(kInvalid, "bridge"));
}

TEST(ResolvConfTest, TakesTheHostsServersWithoutLoopbackOnes) {
  absl::StatusOr<std::string> text = RenderResolvConf(
      {.host_file = "# made by hand\nnameserver 127.0.0.1\nnameserver 10.0.0.53 ; office\n"
                    "domain old.example\nsearch a.example b.example\noptions ndots:2\n"
                    "options edns0\nnameserver ::1\n"});
  ASSERT_OK(text);
  EXPECT_EQ(*text, "nameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:2 edns0\n");
}

TEST(ResolvConfTest, FallsBackToPublicServersWhenNoneIsLeft) {
  EXPECT_EQ(*RenderResolvConf({.host_file = "nameserver 127.0.0.1\n"}),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
  EXPECT_EQ(*RenderResolvConf({.host_file = "nameserver 127.0.0.1\n", .host_network = true}),
            "nameserver 127.0.0.1\n");
}

TEST(ResolvConfTest, WhatIsGivenReplacesWhatTheHostSays) {
  EXPECT_EQ(*RenderResolvConf({.host_file = "nameserver 10.0.0.53\nsearch a.example\noptions x\n",
                               .servers = {"127.0.0.5", "fd00::53"},
                               .search = {"."},
                               .options = {"ndots:1"}}),
            "nameserver 127.0.0.5\nnameserver fd00::53\noptions ndots:1\n");
}

TEST(ResolvConfTest, NothingCanSmuggleInALine) {
  EXPECT_THAT(RenderResolvConf({.servers = {"resolver"}}), Fails(kInvalid, "not an address"));
  EXPECT_THAT(RenderResolvConf({.search = {"a\nnameserver 6.6.6.6"}}), Fails(kInvalid, "\\x0a"));
  EXPECT_THAT(RenderResolvConf({.options = {"a b"}}), Fails(kInvalid, "visible"));
}

TEST(ResolvConfTest, LooksBehindTheStubOfSystemdResolved) {
  absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create();
  ASSERT_OK(directory);
  const std::string etc = directory->path() + "/etc";
  const std::string resolved = directory->path() + "/resolved";
  ASSERT_OK(sys::WriteFileAtomically(resolved, "nameserver 10.0.0.53\n"));

  ASSERT_OK(sys::WriteFileAtomically(etc, "nameserver 127.0.0.53\noptions edns0\n"));
  EXPECT_EQ(HostResolvConf(etc, resolved), "nameserver 10.0.0.53\n");
  ASSERT_OK(sys::WriteFileAtomically(etc, "nameserver 10.1.1.1\n"));
  EXPECT_EQ(HostResolvConf(etc, resolved), "nameserver 10.1.1.1\n");
  EXPECT_EQ(HostResolvConf(directory->path() + "/none", resolved), "");
}

TEST(HostnameTest, FollowsTheRulesOfHostNames) {
  for (const char* name : {"a", "web-1", "web_1", "0.b.example"}) EXPECT_OK(CheckHostname(name));
  for (const std::string& name :
       {std::string(), std::string("-a"), std::string("a-"), std::string("a..b"),
        std::string("a b"), std::string("a\n"), std::string(65, 'a')}) {
    EXPECT_THAT(CheckHostname(name), Fails(kInvalid, "host name")) << name;
  }
  EXPECT_EQ(RenderHostname("web"), "web\n");
}

}  // namespace
}  // namespace gantry::network
