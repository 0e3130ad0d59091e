#include "lib/sys/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"

namespace gantry::sys {
namespace {

class SocketTest : public ::testing::Test {
 protected:
  TempDir dir_ = *TempDir::Create();
  std::string path_ = absl::StrCat(dir_.path(), "/s");
};

TEST_F(SocketTest, ListensPrivatelyAndAnswers) {
  absl::StatusOr<UniqueFd> listener = ListenUnix(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat info = {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_TRUE(ConnectUnix(path_).ok());
}

TEST_F(SocketTest, AServedPathIsRefusedAndAStaleOneReplaced) {
  absl::StatusOr<UniqueFd> listener = ListenUnix(path_);
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kAlreadyExists);
  listener->Reset();
  EXPECT_EQ(ConnectUnix(path_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ListenUnix(path_).ok());
}

// As after a kill while a child was being started: the child has the socket until it executes.
TEST_F(SocketTest, APathWhoseServerIsGoneInAMomentIsTaken) {
  absl::StatusOr<UniqueFd> listener = ListenUnix(path_);
  ASSERT_TRUE(listener.ok());
  std::thread child([&] {
    // The connection of who looks whether somebody serves.
    pollfd ready = {listener->get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 10000), 1);
    listener->Reset();
  });

  absl::StatusOr<UniqueFd> taken = ListenUnix(path_);

  child.join();
  EXPECT_TRUE(taken.ok()) << taken.status();
}

TEST_F(SocketTest, OverlongPathsAreNamed) {
  EXPECT_EQ(ListenUnix(std::string(200, 'a')).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SocketTest, DescriptorsTravel) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd left(ends[0]);
  UniqueFd right(ends[1]);
  ASSERT_TRUE(WriteFileAtomically(path_, "hello").ok());
  absl::StatusOr<UniqueFd> file = Open(path_, O_RDONLY);

  ASSERT_TRUE(SendDescriptors(left, "x", {file->get()}).ok());
  absl::StatusOr<ReceivedMessage> received = ReceiveDescriptors(right, 8);

  ASSERT_TRUE(received.ok());
  EXPECT_EQ(received->bytes, "x");
  ASSERT_EQ(received->descriptors.size(), 1u);
  EXPECT_EQ(*ReadAll(received->descriptors[0]), "hello");
  EXPECT_EQ(::fcntl(received->descriptors[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST_F(SocketTest, PeerIsKnown) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd left(ends[0]);
  UniqueFd right(ends[1]);
  EXPECT_EQ(GetPeerCredentials(left.get())->pid, ::getpid());
}

}  // namespace
}  // namespace gantry::sys
