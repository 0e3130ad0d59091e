#include "lib/rpc/channel.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gantry/debug/v1/debug.grpc.pb.h"
#include "gtest/gtest.h"
#include "lib/rpc/request.h"
#include "lib/sys/temp_dir.h"
#include "lib/sys/unique_fd.h"
#include "lib/testing/status_matchers.h"

namespace gantry::rpc {
namespace {

sys::UniqueFd Listen(const std::string& path) {
  sys::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(listener.get(), 8), 0);
  return listener;
}

TEST(ChannelTest, ABusyPeerMayTakeAMomentToGreet) {
  sys::TempDir temp = *sys::TempDir::Create();
  const std::string path = temp.path() + "/s";
  sys::UniqueFd listener = Listen(path);
  debug::v1::Debug::Service service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const std::shared_ptr<grpc::Channel> channel = Dial(path);
  grpc::Status status;
  absl::Notification answered;
  std::thread call([&] {
    grpc::ClientContext context;
    PrepareCall(context, absl::Seconds(20));
    context.set_wait_for_ready(false);  // One failed attempt is the end of this call.
    debug::v1::MetricsResponse response;
    status = debug::v1::Debug::NewStub(channel)->Metrics(&context, {}, &response);
    answered.Notify();
  });
  pollfd incoming = {listener.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&incoming, 1, 10'000), 1);  // The connection is there, and nobody takes it.

  const bool gave_up = answered.WaitForNotificationWithTimeout(absl::Milliseconds(500));
  grpc::AddInsecureChannelFromFd(server.get(),
                                 ::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK));
  call.join();

  EXPECT_FALSE(gave_up) << status.error_message();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
  server->Shutdown();
}

}  // namespace
}  // namespace gantry::rpc
