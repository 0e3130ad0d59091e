// Bridge, host, none; published ports; names. In a network namespace of the test's own.

#include "absl/strings/str_cat.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class NetworkTest : public testing::SuiteTest {};

TEST_F(NetworkTest, BridgeGivesAnAddressAndARoute) {
  const CommandResult result = Run({}, {"sh", "-c", "ip -4 addr show eth0; ip route"});
  EXPECT_THAT(result.out, AllOf(HasSubstr("inet "), HasSubstr("default via"))) << result;
}

TEST_F(NetworkTest, ContainersReachEachOtherAndTheHostReachesThem) {
  RunDetached({"--name", "srv"}, {"httpd", "-f", "-p", "80", "-h", "/etc"});
  const std::string address = Inspect("srv", "{{.NetworkSettings.IPAddress}}");
  EXPECT_TRUE(Eventually("curl -fs -o /dev/null http://" + address + "/passwd"));
  EXPECT_THAT(Run({}, {"wget", "-qO-", "http://" + address + "/passwd"}).out,
              HasSubstr("root:x:0:0"));
}

TEST_F(NetworkTest, PublishedPortsAnswerEverywhere) {
  RunDetached({"--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80"},
              {"httpd", "-f", "-p", "80", "-h", "/etc"});
  EXPECT_TRUE(Eventually("curl -fs -o /dev/null http://127.0.0.1:8080/passwd"));
  EXPECT_TRUE(Eventually("curl -fs -o /dev/null http://127.0.0.1:8081/passwd"));
  const std::string gateway = Inspect("web", "{{.NetworkSettings.Gateway}}");
  EXPECT_EQ(
      testing::RunCommand({"curl", "-fs", "-o", "/dev/null", "http://" + gateway + ":8080/passwd"})
          .code,
      0);
  EXPECT_NE(testing::RunCommand(
                {"curl", "-fs", "-m", "3", "-o", "/dev/null", "http://" + gateway + ":8081/passwd"})
                .code,
            0);
  // Hairpin: a container reaches itself and others through the published port.
  // (Not with wget's -T: it crashes the static busybox of Debian 12.)
  EXPECT_THAT(Run({}, {"timeout", "5", "wget", "-qO-", "http://" + gateway + ":8080/passwd"}).out,
              HasSubstr("root"));
  EXPECT_THAT(
      Ctl({"exec", "web", "timeout", "5", "wget", "-qO-", "http://" + gateway + ":8080/passwd"})
          .out,
      HasSubstr("root"));
  EXPECT_THAT(Ctl({"ps"}).out, HasSubstr("0.0.0.0:8080->80/tcp"));
  EXPECT_THAT(Ctl({"port", "web"}).out, HasSubstr("80/tcp -> 0.0.0.0:8080"));
  const CommandResult taken = Ctl({"run", "-d", "-p", "8080:80", Image(), "sleep", "600"});
  EXPECT_EQ(taken.code, 125) << taken;
  EXPECT_THAT(taken.err, HasSubstr("8080"));
  EXPECT_EQ(Ctl({"rm", "-f", "web"}).code, 0);
  EXPECT_NE(testing::RunCommand({"curl", "-fs", "-m", "2", "http://127.0.0.1:8080/passwd"}).code,
            0);
}

TEST_F(NetworkTest, RandomPortsAndUdp) {
  RunDetached({"--name", "any", "-p", "80"}, {"httpd", "-f", "-p", "80", "-h", "/etc"});
  const std::string port =
      Inspect("any", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}");
  EXPECT_TRUE(Eventually("curl -fs -o /dev/null http://127.0.0.1:" + port + "/passwd"));
  RunDetached({"--name", "udp", "-p", "5353:53/udp"}, {"sleep", "600"});
  // Busybox has no UDP server. This one is in the container's pid namespace, and ends with it.
  EXPECT_EQ(testing::RunShell("nsenter -t " + Inspect("udp", "{{.State.Pid}}") +
                              " -n -p python3 -c 'import socket\n"
                              "echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                              "echo.bind((\"\", 53))\n"
                              "while True: echo.sendto(*echo.recvfrom(2048))' "
                              "< /dev/null > /dev/null 2>&1 &")
                .code,
            0);
  EXPECT_TRUE(
      Eventually("[ \"$(timeout 1 bash -c 'exec 3<>/dev/udp/127.0.0.1/5353; echo ping >&3; "
                 "head -n 1 <&3')\" = ping ]"));
}

TEST_F(NetworkTest, TheOutsideIsReachedThroughNat) {
  // A second network namespace is "outside": it knows no route to the containers. One process is
  // the namespace and its web server.
  const std::string pid_file = suite_->root() + "/outside.pid";
  const CommandResult outside = testing::RunShell(
      "ip link add up0 type veth peer name out0 && ip addr add 192.0.2.1/24 dev up0 && "
      "ip link set up0 up && "
      "(unshare -n sh -c 'echo $$ > " +
      pid_file +
      "; until ip link set out0 up; do sleep 0.02; done; ip addr add 192.0.2.2/24 dev out0; "
      "exec busybox httpd -f -p 80 -h /etc' < /dev/null > /dev/null 2>&1 &) && "
      "until [ -s " +
      pid_file + " ]; do sleep 0.02; done; ip link set out0 netns $(cat " + pid_file + ")");
  ASSERT_EQ(outside.code, 0) << outside;
  EXPECT_TRUE(Eventually("curl -fs -m 1 -o /dev/null http://192.0.2.2/passwd"));

  const CommandResult result = Run({}, {"timeout", "5", "wget", "-qO-", "http://192.0.2.2/passwd"});

  EXPECT_THAT(result.out, HasSubstr("root:x:0:0")) << result;
  EXPECT_EQ(testing::RunShell("kill $(cat " + pid_file + "); ip link del up0").code, 0);
}

TEST_F(NetworkTest, HostAndNone) {
  EXPECT_THAT(Run({"--network", "host"}, {"ip", "addr"}).out, Not(HasSubstr("eth0@")));
  const CommandResult none = Run({"--network", "none"}, {"ip", "-o", "link"});
  EXPECT_EQ(Lines(none.out).size(), 1u) << none;
  EXPECT_THAT(none.out, HasSubstr("lo"));
  const std::string id = RunDetached({}, {"sleep", "600"});
  EXPECT_EQ(Run({"--network", "container:" + id}, {"ip", "-4", "-o", "addr", "show", "eth0"}).out,
            Ctl({"exec", id, "ip", "-4", "-o", "addr", "show", "eth0"}).out);
}

TEST_F(NetworkTest, HostsResolvConfAndHostname) {
  const CommandResult result = Run(
      {"-h", "box", "--add-host", "db:10.1.2.3", "--dns", "9.9.9.9", "--dns-search", "example.org"},
      {"sh", "-c", "cat /etc/hosts /etc/resolv.conf /etc/hostname"});
  for (const char* part : {"10.1.2.3\tdb", "nameserver 9.9.9.9", "search example.org", "box",
                           "127.0.0.1\tlocalhost"}) {
    EXPECT_THAT(result.out, HasSubstr(part)) << result;
  }
}

TEST_F(NetworkTest, FiftyAtOnceHaveFiftyAddresses) {
  const CommandResult started =
      testing::RunShell("seq 50 | xargs -P 10 -I{} " + testing::BinDirectory() +
                            "/gantryctl run -d --name many{} " + Image() + " sleep 600 > /dev/null",
                        {"", {"GANTRY_HOST=" + suite_->host()}, "", absl::Seconds(120)});
  EXPECT_EQ(started.code, 0) << started;
  const CommandResult addresses = testing::RunShell(
      "for i in $(seq 50); do " + testing::BinDirectory() +
          "/gantryctl inspect -f '{{.NetworkSettings.IPAddress}}' many$i; done | sort -u | wc -l",
      {"", {"GANTRY_HOST=" + suite_->host()}});
  EXPECT_EQ(addresses.out, "50\n");
}

}  // namespace
}  // namespace gantry
