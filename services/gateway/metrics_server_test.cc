#include "services/gateway/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"

namespace gantry::gateway {
namespace {

using ::gantry::testing::Fails;
using ::testing::HasSubstr;

std::string Get(int port, const std::string& path) {
  sys::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_OK(sys::WriteAll(fd, "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  return *sys::ReadAll(fd);
}

TEST(MetricsServerTest, AnswersThePage) {
  absl::StatusOr<std::unique_ptr<MetricsServer>> server =
      MetricsServer::Start("127.0.0.1:0", [] { return std::string("a 1\n"); });
  ASSERT_OK(server);

  const std::string answer = Get((*server)->port(), "/metrics");

  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\na 1\n"));
  EXPECT_THAT(Get((*server)->port(), "/etc/passwd"), HasSubstr("404"));
}

TEST(MetricsServerTest, ABadAddressAndATakenPortAreSaid) {
  EXPECT_THAT(MetricsServer::Start("nowhere", [] { return std::string(); }),
              Fails(absl::StatusCode::kInvalidArgument, "'nowhere'"));
  auto first = MetricsServer::Start("127.0.0.1:0", [] { return std::string(); });
  ASSERT_OK(first);
  EXPECT_THAT(MetricsServer::Start("127.0.0.1:" + std::to_string((*first)->port()),
                                   [] { return std::string(); }),
              Fails(absl::StatusCode::kUnavailable, "is the port taken"));
}

}  // namespace
}  // namespace gantry::gateway
