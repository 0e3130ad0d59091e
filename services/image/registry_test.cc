#include "services/image/registry.h"

#include <atomic>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/image/testing/fake_registry.h"

namespace gantry::image {
namespace {

using testing::Fails;
using testing::HasCode;
using ::testing::HasSubstr;
using ::testing::Not;

class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest() {
    options_.first_pause = absl::Milliseconds(1);
    digest_ = fake_.AddImage("a", "v1", {{archive::TarBuilder().File("x", "1").Take()}});
  }

  Registry::Session Session(Credentials credentials = {}) {
    return {*oci::ImageReference::Parse(fake_.host() + "/a:v1"), std::move(credentials), nullptr};
  }

  absl::StatusOr<Registry::Document> Fetch(Credentials credentials = {}) {
    Registry registry(http_, options_);
    return registry.FetchDocument(Session(std::move(credentials)), "v1");
  }

  static bool HasHeader(const FakeRequest& request, const std::string& name,
                        const std::string& value) {
    auto found = request.headers.find(name);
    return found != request.headers.end() && found->second == value;
  }

  FakeRegistry fake_;
  FakeRegistry other_;
  HttpClient http_;
  RegistryOptions options_;
  std::string digest_;
};

TEST_F(RegistryTest, AnonymousPullsNeedNoAuthorization) {
  absl::StatusOr<Registry::Document> document = Fetch();

  ASSERT_OK(document);
  EXPECT_EQ(document->digest.str(), digest_);
  EXPECT_EQ(document->media_type, oci::kMediaTypeManifest);
}

TEST_F(RegistryTest, BasicCredentialsAreSentWhenAskedFor) {
  const std::string expected = "Basic " + absl::Base64Escape("me:secret");
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (HasHeader(request, "authorization", expected)) return false;
    answer->status = 401;
    answer->headers = {"WWW-Authenticate: Basic realm=\"here\""};
    return request.path != "/v2/";
  });

  EXPECT_OK(Fetch({"me", "secret"}));
  EXPECT_THAT(Fetch({"me", "wrong"}), HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Fetch(), HasCode(absl::StatusCode::kUnauthenticated));
}

TEST_F(RegistryTest, CredentialsComeFromDockersFileToo) {
  sys::TempDir temp = *sys::TempDir::Create();
  options_.auth_file = temp.path() + "/config.json";
  ASSERT_OK(sys::WriteFileAtomically(options_.auth_file,
                                     absl::StrCat(R"({"auths":{")", fake_.host(), R"(":{"auth":")",
                                                  absl::Base64Escape("me:secret"), R"("}}})")));
  const std::string expected = "Basic " + absl::Base64Escape("me:secret");
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (HasHeader(request, "authorization", expected)) return false;
    answer->status = 401;
    answer->headers = {"WWW-Authenticate: Basic realm=\"here\""};
    return request.path != "/v2/";
  });

  EXPECT_OK(Fetch());
}

// A registry that wants the token "good" from the token server `realm`.
void DemandToken(FakeRegistry& registry, const std::string& realm) {
  registry.Intercept([realm](const FakeRequest& request, FakeAnswer* answer) {
    if (absl::StartsWith(request.path, "/token")) {
      answer->body = R"({"token":"good","expires_in":300})";
      return true;
    }
    auto found = request.headers.find("authorization");
    if (request.path == "/v2/" ||
        (found != request.headers.end() && found->second == "Bearer good")) {
      return false;
    }
    answer->status = 401;
    answer->headers = {absl::StrCat("WWW-Authenticate: Bearer realm=\"", realm,
                                    "\",service=\"s\",scope=\"repository:a:pull\"")};
    return true;
  });
}

TEST_F(RegistryTest, TokensAreFetchedForTheRepositoryAndUsedAgain) {
  DemandToken(fake_, absl::StrCat("http://", fake_.host(), "/token"));
  Registry registry(http_, options_);

  ASSERT_OK(registry.FetchDocument(Session(), "v1"));
  ASSERT_OK(registry.FetchDocument(Session(), digest_));

  EXPECT_EQ(fake_.CountRequests("/token"), 1u);
  EXPECT_EQ(fake_.CountRequests("scope=repository%3Aa%3Apull"), 1u);
}

TEST_F(RegistryTest, CredentialsDoNotGoToAForeignTokenServerUnlessConfigured) {
  other_.Intercept([](const FakeRequest&, FakeAnswer* answer) {
    answer->body = R"({"token":"good"})";
    return true;
  });
  DemandToken(fake_, absl::StrCat("http://", other_.host(), "/token"));

  EXPECT_THAT(Fetch({"me", "secret"}), Fails(absl::StatusCode::kPermissionDenied, "token_servers"));
  EXPECT_TRUE(other_.requests().empty());
  EXPECT_OK(Fetch());  // Without credentials there is nothing to lose.
  EXPECT_EQ(other_.requests().at(0).headers.count("authorization"), 0u);

  options_.token_servers.push_back(absl::StrCat(fake_.host(), "=", other_.host()));
  EXPECT_OK(Fetch({"me", "secret"}));
  EXPECT_TRUE(HasHeader(other_.requests().back(), "authorization",
                        "Basic " + absl::Base64Escape("me:secret")));
}

TEST_F(RegistryTest, ErrorsNeverHoldSecrets) {
  DemandToken(fake_, "http://198.51.100.1/token");

  const absl::Status status = Fetch({"me", "hunter2"}).status();

  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hunter2")));
}

TEST_F(RegistryTest, RedirectsAreFollowedWithoutCredentials) {
  const std::string blob = "some bytes";
  const Digest digest = archive::Sha256Of(blob);
  other_.AddBlob(blob);
  const std::string secret = "Basic " + absl::Base64Escape("me:secret");
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (request.path == "/v2/") return false;
    if (!HasHeader(request, "authorization", secret)) {
      answer->status = 401;
      answer->headers = {"WWW-Authenticate: Basic realm=\"here\""};
    } else {
      answer->status = 307;
      answer->headers = {absl::StrCat("Location: http://u:p@", other_.host(), request.path)};
    }
    return true;
  });
  Registry registry(http_, options_);
  std::string got;

  ASSERT_OK(registry.FetchBlob(Session({"me", "secret"}), digest, 0, blob.size(),
                               [&got](absl::string_view bytes) {
                                 got.append(bytes.data(), bytes.size());
                                 return absl::OkStatus();
                               }));

  EXPECT_EQ(got, blob);
  EXPECT_EQ(other_.requests().at(0).headers.count("authorization"), 0u);
}

TEST_F(RegistryTest, RedirectLoopsAndOddTargetsEnd) {
  std::string location;
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    answer->status = 302;
    answer->headers = {"Location: " + (location.empty() ? request.path : location)};
    return request.path != "/v2/";
  });

  EXPECT_THAT(Fetch(), Fails(absl::StatusCode::kFailedPrecondition, "redirects"));
  location = "file:///etc/passwd";
  EXPECT_THAT(Fetch(), HasCode(absl::StatusCode::kInvalidArgument));
  location = "http://192.0.2.1/x";
  EXPECT_THAT(Fetch(), Fails(absl::StatusCode::kPermissionDenied, "without TLS"));
  options_.insecure = {"169.254.0.0/16"};
  location = "http://169.254.169.254/latest/meta-data";
  EXPECT_THAT(Fetch(), Fails(absl::StatusCode::kPermissionDenied, "link-local"));
}

TEST_F(RegistryTest, ServerErrorsAreTriedAgain) {
  std::atomic<int> failures{3};
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    answer->status = 503;
    return request.path != "/v2/" && failures-- > 0;
  });

  EXPECT_OK(Fetch());
  failures = 1000;
  EXPECT_THAT(Fetch(), Fails(absl::StatusCode::kUnavailable, "503"));
}

TEST_F(RegistryTest, DocumentsOverTheLimitAreRefused) {
  options_.limits.max_document_bytes = 100;

  EXPECT_THAT(Fetch(), HasCode(absl::StatusCode::kResourceExhausted));
}

TEST_F(RegistryTest, ABlobLongerThanItsDescriptorIsDataLoss) {
  const std::string blob(1000, 'x');
  fake_.AddBlob(blob);
  Registry registry(http_, options_);

  EXPECT_THAT(registry.FetchBlob(Session(), archive::Sha256Of(blob), 0, 500,
                                 [](absl::string_view) { return absl::OkStatus(); }),
              HasCode(absl::StatusCode::kDataLoss));
}

TEST_F(RegistryTest, ABusyRegistryIsLeftAloneAsLongAsItAsks) {
  std::atomic<int> refusals{1};
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    answer->status = 429;
    answer->headers = {"Retry-After: 1"};
    return request.path != "/v2/" && refusals-- > 0;
  });
  const absl::Time start = absl::Now();

  EXPECT_OK(Fetch());

  EXPECT_GE(absl::Now() - start, absl::Seconds(1));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST_F(RegistryTest, ARegistryThatAsksForTooLongIsNotWaitedFor) {
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    answer->status = 503;
    answer->headers = {"Retry-After: Fri, 31 Dec 2100 23:59:59 GMT"};
    return request.path != "/v2/";
  });

  EXPECT_THAT(Fetch(), Fails(absl::StatusCode::kUnavailable, "left alone for 24"));
  EXPECT_EQ(fake_.CountRequests("/manifests/"), 1u);
}

TEST_F(RegistryTest, ASilentRegistryIsGivenUp) {
  HttpOptions options;
  options.silence_timeout = absl::Seconds(1);
  HttpClient http(options);
  options_.attempts = 1;
  fake_.Intercept([](const FakeRequest& request, FakeAnswer* answer) {
    answer->body = "a document that does not come";
    answer->cut_after = 5;
    answer->stall = true;
    return request.path != "/v2/";
  });
  Registry registry(http, options_);

  EXPECT_THAT(registry.FetchDocument(Session(), "v1"), HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(RegistryTest, ACancelledFetchEndsWhileTheRegistryIsSilent) {
  fake_.Intercept([](const FakeRequest& request, FakeAnswer* answer) {
    answer->stall = true;
    return request.path != "/v2/";
  });
  Registry registry(http_, options_);
  Registry::Session session = Session();
  std::atomic<bool> cancelled{false};
  session.cancelled = [&] {
    if (fake_.CountRequests("/manifests/") > 0) cancelled = true;  // It has been asked.
    return cancelled.load();
  };

  EXPECT_THAT(registry.FetchDocument(session, "v1"), HasCode(absl::StatusCode::kCancelled));
}

TEST_F(RegistryTest, AnExpiredTokenIsReplacedInTheMiddleOfAPull) {
  std::atomic<int> sold{0};
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (absl::StartsWith(request.path, "/token")) {
      answer->body = absl::StrCat(R"({"token":"t)", ++sold, R"(","expires_in":300})");
      return true;
    }
    // Only the newest token is good, and it goes bad with the second document.
    if (request.path == "/v2/") return false;
    const bool second = absl::StrContains(request.path, "sha256");
    if (second && sold == 1) {
      answer->status = 401;
    } else if (HasHeader(request, "authorization", absl::StrCat("Bearer t", sold.load()))) {
      return false;
    } else {
      answer->status = 401;
    }
    answer->headers = {
        absl::StrCat("WWW-Authenticate: Bearer realm=\"http://", fake_.host(), "/token\"")};
    return true;
  });
  Registry registry(http_, options_);

  EXPECT_OK(registry.FetchDocument(Session(), "v1"));
  EXPECT_OK(registry.FetchDocument(Session(), digest_));
  EXPECT_EQ(sold, 2);
}

TEST_F(RegistryTest, AnIdentityTokenBuysTokensWithoutStandingInAUrl) {
  DemandToken(fake_, absl::StrCat("http://", fake_.host(), "/token"));
  Credentials credentials;
  credentials.identity_token = "s3cret/+";

  ASSERT_OK(Fetch(credentials));

  for (const FakeRequest& request : fake_.requests()) {
    if (request.path != "/token") continue;
    EXPECT_EQ(request.method, "POST");
    EXPECT_THAT(request.body, HasSubstr("grant_type=refresh_token"));
    EXPECT_THAT(request.body, HasSubstr("refresh_token=s3cret%2F%2B"));
    EXPECT_THAT(request.body, HasSubstr("scope=repository%3Aa%3Apull"));
  }
  EXPECT_EQ(fake_.CountRequests("/token"), 1u);
  EXPECT_EQ(fake_.CountRequests("s3cret"), 0u);
}

TEST_F(RegistryTest, WhatOneCallersAnswerBoughtIsNobodyElses) {
  const std::string expected = "Basic " + absl::Base64Escape("me:secret");
  fake_.Intercept([&](const FakeRequest& request, FakeAnswer* answer) {
    if (request.path == "/v2/" || HasHeader(request, "authorization", expected)) return false;
    answer->status = 401;
    answer->headers = {"WWW-Authenticate: Basic realm=\"here\""};
    return true;
  });
  Registry registry(http_, options_);
  Registry::Session asking = Session();
  asking.ask_id = "1";
  asking.ask = [&](const std::string& host, const std::vector<std::string>& challenges) {
    EXPECT_EQ(host, fake_.host());
    EXPECT_THAT(challenges, ::testing::ElementsAre("Basic realm=\"here\""));
    Credentials credentials;
    credentials.username = "me";
    credentials.password = "secret";
    return credentials;
  };

  EXPECT_OK(registry.FetchDocument(asking, "v1"));
  EXPECT_THAT(registry.FetchDocument(Session(), "v1"), HasCode(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace gantry::image
