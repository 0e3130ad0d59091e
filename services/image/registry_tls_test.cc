// Registries with TLS: authorities, client certificates, and how both are configured.
#include <stdlib.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/image/registry.h"
#include "services/image/testing/fake_registry.h"

namespace gantry::image {
namespace {

using testing::Fails;

// An authority, a server's certificate for 127.0.0.1 and a client's, made once for all tests.
class Keys {
 public:
  Keys() {
    Make("ca", "-subj /CN=authority");
    Make("server", "-subj /CN=server -addext subjectAltName=IP:127.0.0.1 " + SignedBy("ca"));
    Make("client", "-subj /CN=client " + SignedBy("ca"));
    Make("stranger", "-subj /CN=stranger");
  }

  std::string Path(const std::string& file) const { return temp_.path() + "/" + file; }

 private:
  std::string SignedBy(const std::string& name) const {
    return absl::StrCat("-CA ", Path(name + ".pem"), " -CAkey ", Path(name + ".key"));
  }
  void Make(const std::string& name, const std::string& options) const {
    const std::string command = absl::StrCat(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-keyout ",
        Path(name + ".key"), " -out ", Path(name + ".pem"), " ", options, " 2> ", Path("log"));
    EXPECT_EQ(::system(command.c_str()), 0) << *sys::ReadFile(Path("log"));
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
};

class RegistryTlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { keys_ = new Keys; }
  static void TearDownTestSuite() {
    delete keys_;
    keys_ = nullptr;
  }

  RegistryTlsTest() {
    options_.first_pause = absl::Milliseconds(1);
    options_.attempts = 2;
    options_.host_directory = hosts_.path();
  }

  static FakeTls Tls(bool ask_client = false) {
    return {keys_->Path("server.pem"), keys_->Path("server.key"),
            ask_client ? keys_->Path("ca.pem") : ""};
  }

  void Configure(const FakeRegistry& fake, const std::string& text) {
    const std::string folder = absl::StrCat(hosts_.path(), "/", fake.host());
    ASSERT_OK(sys::MakeDirectories(folder));
    ASSERT_OK(sys::WriteFileAtomically(folder + "/hosts.toml", text));
  }

  absl::Status Fetch(FakeRegistry& fake) {
    fake.AddImage("a", "v1", {{archive::TarBuilder().File("x", "1").Take()}});
    Registry registry(http_, options_);
    Registry::Session session;
    session.reference = *oci::ImageReference::Parse(fake.host() + "/a:v1");
    return registry.FetchDocument(session, "v1").status();
  }

  static std::string Ca() { return absl::StrCat("ca = \"", keys_->Path("ca.pem"), "\"\n"); }

  static Keys* keys_;
  sys::TempDir hosts_ = *sys::TempDir::Create();
  HttpClient http_;
  RegistryOptions options_;
};

Keys* RegistryTlsTest::keys_ = nullptr;

TEST_F(RegistryTlsTest, AnUnknownAuthorityIsRefusedWithAHint) {
  FakeRegistry fake(Tls());

  EXPECT_THAT(Fetch(fake), Fails(absl::StatusCode::kFailedPrecondition, "hosts.toml"));
  EXPECT_TRUE(fake.requests().empty());
}

TEST_F(RegistryTlsTest, AConfiguredAuthorityIsTrusted) {
  FakeRegistry fake(Tls());
  Configure(fake, Ca());

  EXPECT_OK(Fetch(fake));
}

TEST_F(RegistryTlsTest, TheWrongAuthorityIsNotEnough) {
  FakeRegistry fake(Tls());
  Configure(fake, absl::StrCat("ca = \"", keys_->Path("stranger.pem"), "\"\n"));

  EXPECT_THAT(Fetch(fake), Fails(absl::StatusCode::kFailedPrecondition, "certificate"));
}

TEST_F(RegistryTlsTest, WithoutVerificationAnyCertificateWillDo) {
  FakeRegistry fake(Tls());
  Configure(fake, "skip_verify = true\n");

  EXPECT_OK(Fetch(fake));
}

TEST_F(RegistryTlsTest, TheSettingsOfOneHostAreNotThoseOfAnother) {
  FakeRegistry fake(Tls());
  FakeRegistry other(Tls());
  Configure(other, "skip_verify = true\n");

  EXPECT_OK(Fetch(other));
  // The same client, and libcurl's connections, must not carry trust over.
  EXPECT_THAT(Fetch(fake), Fails(absl::StatusCode::kFailedPrecondition, "certificate"));
}

TEST_F(RegistryTlsTest, AClientCertificateIsShownWhereConfigured) {
  FakeRegistry fake(Tls(/*ask_client=*/true));
  Configure(fake, Ca());
  EXPECT_THAT(Fetch(fake), Fails(absl::StatusCode::kFailedPrecondition, "`client`"));

  Configure(fake, absl::StrCat(Ca(), "client = [\"", keys_->Path("client.pem"), "\", \"",
                               keys_->Path("client.key"), "\"]\n"));
  EXPECT_OK(Fetch(fake));
}

TEST_F(RegistryTlsTest, HeadersOfTheConfigurationAreSent) {
  FakeRegistry fake(Tls());
  Configure(fake, Ca() + "[header]\nX-Team = \"blue\"\n");

  ASSERT_OK(Fetch(fake));

  EXPECT_EQ(fake.requests().back().headers["x-team"], "blue");
}

TEST_F(RegistryTlsTest, AServerElsewhereIsAskedInstead) {
  FakeRegistry named(Tls());
  FakeRegistry real(Tls());
  real.AddImage("a", "v1", {{archive::TarBuilder().File("x", "1").Take()}});
  Configure(named, absl::StrCat("server = \"https://", real.host(), "\"\n", Ca()));

  EXPECT_OK(Fetch(named));
  EXPECT_TRUE(named.requests().empty());
}

TEST_F(RegistryTlsTest, ARedirectFromTlsIntoTheOpenIsRefusedElsewhere) {
  FakeRegistry fake(Tls());
  Configure(fake, Ca());
  fake.Intercept([](const FakeRequest& request, FakeAnswer* answer) {
    answer->status = 307;
    answer->headers = {"Location: http://192.0.2.7/blob"};
    return request.path != "/v2/";
  });

  EXPECT_THAT(Fetch(fake), Fails(absl::StatusCode::kPermissionDenied, "without TLS"));
}

}  // namespace
}  // namespace gantry::image
