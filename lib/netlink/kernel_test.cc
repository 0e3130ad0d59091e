// Netlink and network namespaces against the kernel, in namespaces of the test's own.
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/nftables.h"
#include "lib/netlink/route.h"
#include "lib/netlink/socket.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::netlink {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;

// A fresh network namespace for each test, entered on a thread that ends with the work.
class NetlinkKernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    static const bool private_mounts =
        ::unshare(CLONE_NEWNS) == 0 &&
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    ASSERT_TRUE(private_mounts);
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(*std::move(made));
    absl::StatusOr<sys::UniqueFd> host = MakeNamespace(Path("host"), Nothing);
    ASSERT_OK(host);
    host_ = *std::move(host);
  }

  void TearDown() override {
    if (directory_ == nullptr) return;
    EXPECT_OK(RemoveNamespace(Path("host")));
  }

  static absl::Status Nothing(const sys::UniqueFd&) { return absl::OkStatus(); }
  std::string Path(const std::string& name) { return absl::StrCat(directory_->path(), "/", name); }

  std::unique_ptr<sys::TempDir> directory_;
  sys::UniqueFd host_;
};

TEST_F(NetlinkKernelTest, APinnedNamespaceIsAnotherOneAndEndsCleanly) {
  absl::StatusOr<sys::UniqueFd> opened = OpenNamespace(Path("host"));
  ASSERT_OK(opened);
  struct stat pinned, own;
  ASSERT_EQ(::fstat(opened->get(), &pinned), 0);
  ASSERT_EQ(::stat("/proc/thread-self/ns/net", &own), 0);
  EXPECT_NE(pinned.st_ino, own.st_ino) << "and this thread stayed where it was";

  EXPECT_THAT(MakeNamespace(Path("host"), Nothing), HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_OK(OpenNamespace(Path("host"))) << "the failed attempt must not remove it";
  ASSERT_OK(RemoveNamespace(Path("host")));
  EXPECT_OK(RemoveNamespace(Path("host")));
  EXPECT_THAT(OpenNamespace(Path("host")), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(NetlinkKernelTest, AFailedNamespaceLeavesNoFile) {
  EXPECT_THAT(
      MakeNamespace(Path("bad"),
                    [](const sys::UniqueFd&) -> absl::Status { return absl::AbortedError("no"); }),
      HasCode(absl::StatusCode::kAborted));
  EXPECT_FALSE(sys::Exists(Path("bad")));
}

TEST_F(NetlinkKernelTest, APlainFileIsNotTakenForANamespace) {
  ASSERT_OK(sys::WriteFileAtomically(Path("plain"), ""));
  EXPECT_THAT(OpenNamespace(Path("plain")), Fails(absl::StatusCode::kFailedPrecondition, "plain"));
  EXPECT_OK(RemoveNamespace(Path("plain")));
  EXPECT_FALSE(sys::Exists(Path("plain")));
}

TEST_F(NetlinkKernelTest, InterfacesAreMadeJoinedFoundAndDeleted) {
  absl::StatusOr<sys::UniqueFd> other = MakeNamespace(Path("other"), Nothing);
  ASSERT_OK(other);
  EXPECT_OK(RunInNamespace(host_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(Socket socket, Socket::Open(NETLINK_ROUTE));
    Batch bridge;
    AddBridge(bridge, {"br0", 0x80000001u, {2, 0, 0, 0, 0, 1}});
    RETURN_IF_ERROR(socket.Execute(bridge));
    ASSIGN_OR_RETURN(Link br0, FindLink(socket, "br0"));
    EXPECT_EQ(br0.kind, "bridge");
    EXPECT_EQ(br0.group, 0x80000001u);
    EXPECT_FALSE(br0.up);

    Batch batch;
    netlink::SetUp(batch, br0.index);
    AddAddress(batch, br0.index, {*ParseIpv4("10.9.0.1"), 24});
    AddAddress(batch, br0.index, {*ParseIpv4("10.9.0.1"), 24});  // Fine twice.
    for (const char* name : {"v1", "v2", "v3"}) {
      VethSpec spec;
      spec.name = name;
      spec.group = 7;
      spec.bridge_index = br0.index;
      spec.mtu = 1400;
      spec.peer_name = absl::StrCat("peer-", name);
      spec.peer_mac = {2, 0, 0, 0, 0, 3};
      spec.peer_namespace = &*other;
      AddVeth(batch, spec);
    }
    RETURN_IF_ERROR(socket.Execute(batch));
    ASSIGN_OR_RETURN(Link v1, FindLink(socket, "v1"));
    EXPECT_TRUE(v1.up);
    EXPECT_EQ(v1.master, br0.index);
    EXPECT_EQ(v1.mtu, 1400u);
    ASSIGN_OR_RETURN(std::vector<InterfaceAddress> addresses, ListAddresses(socket));
    EXPECT_EQ(addresses.size(), 1u);
    ASSIGN_OR_RETURN(std::vector<Route> routes, ListRoutes(socket));
    EXPECT_EQ(routes.size(), 1u);
    EXPECT_EQ(routes[0].destination.ToString(), "10.9.0.0/24");

    Batch rename;
    Rename(rename, v1.index, "renamed");
    RETURN_IF_ERROR(socket.Execute(rename));
    EXPECT_OK(FindLink(socket, "renamed"));
    EXPECT_THAT(FindLink(socket, "v1"), HasCode(absl::StatusCode::kNotFound));

    Batch removal;
    DeleteLink(removal, "renamed");
    DeleteLink(removal, "never-was");
    DeleteGroup(removal, 7);
    DeleteGroup(removal, 8);
    RETURN_IF_ERROR(socket.Execute(removal));
    ASSIGN_OR_RETURN(std::vector<Link> links, ListLinks(socket));
    for (const Link& link : links) EXPECT_NE(link.kind, "veth") << link.name;
    return absl::OkStatus();
  }));
  EXPECT_OK(RemoveNamespace(Path("other")));
}

TEST_F(NetlinkKernelTest, OneFailureOfABatchIsNamedAndTheRestIsDone) {
  EXPECT_OK(RunInNamespace(host_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(Socket socket, Socket::Open(NETLINK_ROUTE));
    Batch batch;
    AddBridge(batch, {"br0", 1, {2, 0, 0, 0, 0, 1}});
    AddAddress(batch, 9999, {*ParseIpv4("10.9.0.1"), 24});
    AddBridge(batch, {"br1", 1, {2, 0, 0, 0, 0, 2}});
    EXPECT_THAT(socket.Execute(batch), Fails(absl::StatusCode::kNotFound, "10.9.0.1/24"));
    EXPECT_OK(FindLink(socket, "br1"));
    return absl::OkStatus();
  }));
}

TEST_F(NetlinkKernelTest, MapElementsComeAndGoAndATransactionIsAllOrNothing) {
  EXPECT_OK(RunInNamespace(host_, [&]() -> absl::Status {
    RETURN_IF_ERROR(ApplyRuleset("table ip t { map m { type inet_service : ipv4_addr; }\n}"));
    ASSIGN_OR_RETURN(Socket socket, Socket::Open(NETLINK_NETFILTER));
    const MapElements map("t", "m");
    const MapElements missing("t", "no-such-map");
    const std::string http("\0\x50", 2);
    const std::string https("\x01\xbb", 2);
    const std::string address("\x0a\x09\0\x02", 4);

    Batch good;
    OpenTransaction(good);
    map.Add(good, http, address);
    CloseTransaction(good);
    RETURN_IF_ERROR(socket.Execute(good));
    Batch bad;
    OpenTransaction(bad);
    map.Add(bad, https, address);
    missing.Add(bad, https, address);
    CloseTransaction(bad);
    EXPECT_THAT(socket.Execute(bad), Fails(absl::StatusCode::kNotFound, "no-such-map"));

    ASSIGN_OR_RETURN(std::vector<std::string> keys, ListMapKeys(socket, "t", "m"));
    EXPECT_EQ(keys.size(), 1u);
    Batch removal;
    OpenTransaction(removal);
    map.Remove(removal, http);
    CloseTransaction(removal);
    RETURN_IF_ERROR(socket.Execute(removal));
    ASSIGN_OR_RETURN(keys, ListMapKeys(socket, "t", "m"));
    EXPECT_TRUE(keys.empty());
    return absl::OkStatus();
  }));
}

TEST_F(NetlinkKernelTest, WrongRulesAreExplained) {
  EXPECT_OK(RunInNamespace(host_, [&]() -> absl::Status {
    EXPECT_THAT(ApplyRuleset("table ip t { chain c { nonsense }\n}"),
                Fails(absl::StatusCode::kInvalidArgument, "nonsense"));
    EXPECT_THAT(ApplyRuleset("delete table ip nowhere"),
                Fails(absl::StatusCode::kFailedPrecondition, "No such file"));
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace gantry::netlink
