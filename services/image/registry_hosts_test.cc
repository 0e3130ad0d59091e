#include "services/image/registry_hosts.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::image {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;

class RegistryHostsTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    const std::string path = temp_.path() + "/" + name;
    ASSERT_OK(sys::MakeDirectories(path.substr(0, path.rfind('/'))));
    ASSERT_OK(sys::WriteFileAtomically(path, text));
  }
  absl::StatusOr<HostSettings> Load(const std::string& host) {
    return LoadHostSettings(temp_.path(), host);
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
};

TEST_F(RegistryHostsTest, EveryKeyIsRead) {
  Write("r.test:5000/hosts.toml",
        "server = \"https://other.test\"\nca = [\"a.pem\", \"b.pem\"]\n"
        "client = [[\"c.cert\", \"/keys/c.key\"]]\nskip_verify = true\n"
        "[header]\nX-One = \"1\"\n");
  Write("r.test:5000/a.pem", "AAA");
  Write("r.test:5000/b.pem", "BBB");

  absl::StatusOr<HostSettings> settings = Load("r.test:5000");

  ASSERT_OK(settings);
  EXPECT_EQ(settings->server, "https://other.test:443");
  EXPECT_EQ(settings->tls.ca_pem, "AAA\nBBB\n");
  EXPECT_EQ(settings->tls.client_certificate, temp_.path() + "/r.test:5000/c.cert");
  EXPECT_EQ(settings->tls.client_key, "/keys/c.key");
  EXPECT_TRUE(settings->tls.skip_verify);
  EXPECT_THAT(settings->headers, ElementsAre("X-One: 1"));
}

TEST_F(RegistryHostsTest, OtherSpellingsOfTheDirectoryAndTheDefaultCount) {
  Write("r.test_5000_/hosts.toml", "skip_verify = true\n");
  Write("_default/hosts.toml", "server = \"proxy.test:8080\"\n");

  EXPECT_TRUE(Load("r.test:5000")->tls.skip_verify);
  EXPECT_EQ(Load("unheard.test")->server, "https://proxy.test:8080");
}

TEST_F(RegistryHostsTest, DockersFormIsReadWithoutAFile) {
  Write("r.test/one.crt", "AAA");
  Write("r.test/me.cert", "C");
  Write("r.test/me.key", "K");

  absl::StatusOr<HostSettings> settings = Load("r.test");

  ASSERT_OK(settings);
  EXPECT_EQ(settings->tls.ca_pem, "AAA\n");
  EXPECT_EQ(settings->tls.client_key, temp_.path() + "/r.test/me.key");
  ASSERT_OK(sys::Unlink(temp_.path() + "/r.test/me.key"));
  EXPECT_THAT(Load("r.test"), Fails(absl::StatusCode::kNotFound, "me.key"));
}

TEST_F(RegistryHostsTest, TheServersOwnTableCountsAndMirrorsDoNot) {
  Write("r.test/hosts.toml",
        "server = \"https://r.test\"\n[host.\"https://r.test\"]\nskip_verify = true\n"
        "[host.\"https://mirror.test\"]\ncapabilities = [\"pull\"]\n[host.\"https://mirror.test\"."
        "header]\nX = \"1\"\n");

  absl::StatusOr<HostSettings> settings = Load("r.test");

  ASSERT_OK(settings);
  EXPECT_TRUE(settings->tls.skip_verify);
  EXPECT_TRUE(settings->headers.empty());
}

TEST_F(RegistryHostsTest, MistakesNameTheFileAndTheLine) {
  const auto code = absl::StatusCode::kInvalidArgument;
  Write("r.test/hosts.toml", "\nskip_verify = \"yes\"\n");
  EXPECT_THAT(Load("r.test"), Fails(code, "r.test/hosts.toml': line 2"));
  Write("r.test/hosts.toml", "skip_verfy = true\n");
  EXPECT_THAT(Load("r.test"), Fails(code, "unknown key 'skip_verfy'"));
  Write("r.test/hosts.toml", "server = \"https://r.test/v3\"\n");
  EXPECT_THAT(Load("r.test"), Fails(code, "path '/v3'"));
  Write("r.test/hosts.toml", "[header]\n\"X\" = \"a\\nb\"\n");
  EXPECT_THAT(Load("r.test"), Fails(code, "header"));
  Write("r.test/hosts.toml", "client = [[\"a\", \"b\"], [\"c\", \"d\"]]\n");
  EXPECT_THAT(Load("r.test"), Fails(code, "several pairs"));
  Write("r.test/hosts.toml", "ca = \"missing.pem\"\n");
  EXPECT_THAT(Load("r.test"), Fails(absl::StatusCode::kNotFound, "missing.pem"));
}

TEST_F(RegistryHostsTest, AHostDoesNotLeadOutOfTheDirectory) {
  Write("hosts.toml", "skip_verify = true\n");

  EXPECT_FALSE(LoadHostSettings(temp_.path() + "/certs", "..")->tls.skip_verify);
  EXPECT_FALSE(LoadHostSettings(temp_.path() + "/certs", "a/../..")->tls.skip_verify);
}

}  // namespace
}  // namespace gantry::image
