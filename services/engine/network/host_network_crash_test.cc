// The engine dies at each of the network's failpoints; the next start keeps what lives and frees
// the rest.
#include <linux/netlink.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/nftables.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/network/host_network.h"
#include "services/engine/network/testing/network_world.h"

namespace gantry::network {
namespace {

constexpr uint16_t kInner = 80;

// Failpoints of the network linked into this program, so a new one is covered without being listed.
std::vector<std::string> Failpoints() {
  std::vector<std::string> names;
  for (std::string& name : failpoint::List()) {
    if (absl::StartsWith(name, "network.") || absl::StartsWith(name, "netlink.")) {
      names.push_back(std::move(name));
    }
  }
  return names;
}

std::string TestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (c == '.') c = '_';
  }
  return name;
}

class HostNetworkCrashTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    world_ = NetworkWorld::Get();
    ASSERT_NE(world_, nullptr);
    options_.run_dir = absl::StrCat(world_->directory(), "/", RandomHex(4));
    options_.pool_size = 1;
  }

  std::unique_ptr<HostNetwork> Make() { return *HostNetwork::Create(options_); }

  static EndpointRequest Request(const std::string& id, uint16_t port) {
    EndpointRequest request{.container_id = id};
    request.ports = {{Protocol::kTcp, kInner, "", port}};
    return request;
  }

  // Runs `life` in a process of its own and returns how that ended.
  template <typename Life>
  int InAnotherLife(Life life) {
    const pid_t child = ::fork();  // This program has one thread here.
    if (child == 0) {
      life();
      ::_exit(0);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }

  void ExpectClean(HostNetwork& network) {
    absl::StatusOr<rpc::AuditReport> audit = network.Audit();
    ASSERT_OK(audit);
    for (const rpc::Finding& finding : audit->findings) {
      ADD_FAILURE() << finding.kind << " " << finding.object << " " << finding.problem;
    }
  }

  void ExpectNothingLeft() {
    absl::StatusOr<SandboxStore::Inventory> left =
        SandboxStore(absl::StrCat(options_.run_dir, "/netns")).List();
    ASSERT_OK(left);
    EXPECT_THAT(left->files, ::testing::IsEmpty());
    EXPECT_TRUE(left->links.empty());
    EXPECT_TRUE(left->bridges.empty());
    netlink::Socket netfilter = *netlink::Socket::Open(NETLINK_NETFILTER);
    EXPECT_EQ(netlink::ReadTable(netfilter, "gantry")->chains, 0);
  }

  NetworkWorld* world_ = nullptr;
  HostNetworkOptions options_;
};

// The part of an endpoint that the engine's record holds, through a file as it would be.
void Save(const Endpoint& endpoint, const std::string& path) {
  ASSERT_OK(sys::WriteFileAtomically(
      path, absl::StrJoin({endpoint.endpoint_id, endpoint.network_id, endpoint.netns_path,
                           endpoint.ip, absl::StrCat(endpoint.prefix_length), endpoint.gateway,
                           endpoint.mac, endpoint.bridge},
                          "\n")));
}

Endpoint Load(const std::string& path, const EndpointRequest& request) {
  const std::vector<std::string> lines = absl::StrSplit(*sys::ReadFile(path), '\n');
  Endpoint endpoint;
  endpoint.container_id = request.container_id;
  endpoint.endpoint_id = lines[0];
  endpoint.network_id = lines[1];
  endpoint.netns_path = endpoint.sandbox_key = lines[2];
  endpoint.ip = lines[3];
  endpoint.prefix_length = std::stoi(lines[4]);
  endpoint.gateway = lines[5];
  endpoint.mac = lines[6];
  endpoint.bridge = lines[7];
  endpoint.ports = {{Protocol::kTcp, kInner, "0.0.0.0", request.ports[0].host_port}};
  return endpoint;
}

TEST_P(HostNetworkCrashTest, NothingIsLeftOfALifeThatEndedThere) {
  const int status = InAnotherLife([&] {
    if (!failpoint::Arm(absl::StrCat(GetParam(), "=kill")).ok()) return;
    std::unique_ptr<HostNetwork> network = Make();
    if (!network->Adopt({}).ok()) return;
    if (!network->Connect(Request("web", 8080)).ok()) return;
    if (!network->Release("web").ok()) return;
    network->Settle();
  });
  ASSERT_TRUE(WIFSIGNALED(status)) << "this life never came to " << GetParam();

  {
    std::unique_ptr<HostNetwork> network = Make();
    absl::StatusOr<AdoptReport> report = network->Adopt({});
    ASSERT_OK(report);
    EXPECT_THAT(report->problems, ::testing::IsEmpty());
    ExpectClean(*network);
    EXPECT_OK(network->Connect(Request("web", 8080)));
    EXPECT_OK(network->Release("web"));
  }
  ExpectNothingLeft();
}

TEST_P(HostNetworkCrashTest, ARunningContainerNoticesNothing) {
  const EndpointRequest keep = Request("keep", 9090);
  const std::string record = absl::StrCat(world_->directory(), "/record-", RandomHex(4));
  ASSERT_EQ(InAnotherLife([&] {
              std::unique_ptr<HostNetwork> network = Make();
              if (!network->Adopt({}).ok()) ::_exit(1);
              absl::StatusOr<Endpoint> endpoint = network->Connect(keep);
              if (!endpoint.ok()) ::_exit(2);
              Save(*endpoint, record);
            }),
            0);
  const Endpoint endpoint = Load(record, keep);
  InAnotherLife([&] {
    if (!failpoint::Arm(absl::StrCat(GetParam(), "=kill")).ok()) return;
    std::unique_ptr<HostNetwork> network = Make();
    if (!network->Adopt({endpoint}).ok()) return;
    if (!network->Connect(Request("web", 8080)).ok()) return;
    network->Release("web").IgnoreError();
    network->Settle();
  });

  {
    std::unique_ptr<HostNetwork> network = Make();
    absl::StatusOr<AdoptReport> report = network->Adopt({endpoint});
    ASSERT_OK(report);
    EXPECT_TRUE(report->lost.empty());
    ExpectClean(*network);
    absl::StatusOr<sys::UniqueFd> inside = netlink::OpenNamespace(endpoint.netns_path);
    ASSERT_OK(inside);
    absl::StatusOr<sys::UniqueFd> server = Listen(&*inside, Protocol::kTcp, "0.0.0.0", kInner);
    ASSERT_OK(server);
    EXPECT_OK(Reach(&world_->outside(), Protocol::kTcp, NetworkWorld::kHostIp, 9090, *server));
    EXPECT_OK(network->Release("keep"));
  }
  ExpectNothingLeft();
}

TEST_P(HostNetworkCrashTest, AnErrorThereLeavesNothing) {
  {
    std::unique_ptr<HostNetwork> network = Make();
    ASSERT_OK(network->Adopt({}));
    network->Settle();
    const uint64_t used = network->Info().addresses_used;
    ASSERT_OK(failpoint::Arm(absl::StrCat(GetParam(), "=error")));
    absl::StatusOr<Endpoint> first = network->Connect(Request("web", 8080));
    absl::StatusOr<Endpoint> second = network->Connect(Request("more", 8081));
    EXPECT_EQ(network->Info().endpoints, (first.ok() ? 1u : 0u) + (second.ok() ? 1u : 0u));
    // Release may fail before it has done anything; then it has to work when tried again.
    network->Release("web").IgnoreError();
    network->Release("more").IgnoreError();
    failpoint::DisarmAll();
    EXPECT_OK(network->Release("web"));
    EXPECT_OK(network->Release("more"));
    EXPECT_OK(network->Connect(Request("again", 8080)));
    EXPECT_OK(network->Release("again"));
    network->Settle();
    EXPECT_LE(network->Info().addresses_used, used);  // Less while the pool recovers.
  }
  // What could not be removed while removing failed is swept by the next start at the latest.
  std::unique_ptr<HostNetwork> network = Make();
  ASSERT_OK(network->Adopt({}));
  ExpectClean(*network);
  network.reset();
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(At, HostNetworkCrashTest, ::testing::ValuesIn(Failpoints()), TestName);

}  // namespace
}  // namespace gantry::network
