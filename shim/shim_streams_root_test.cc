// Standard streams of containers: fifos, files, loggers, logs, terminals, attached clients.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/attach/client.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "shim/testing/shim_test_fixture.h"

namespace gantry::shim {
namespace {

using ::gantry::testing::Fails;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::ShimTest;

class ShimStreamsTest : public ShimTest {};

TEST_P(ShimStreamsTest, AttachSeesAllOutputAndTheExit) {
  Begin("web", {"sh", "-c", "cat; echo done >&2; exit 5"}, {"", LogUri("attach=wait&stdin=1"), ""});
  const auto client =
      attach::Client::Connect(shim_.address(), {"web", "", true, true, true, true, true}).value();
  EXPECT_TRUE(client->accepted().stdin_open);
  ASSERT_OK(shim_.Start("web"));

  client->SendStdin("line one\n");
  client->CloseStdin();

  EXPECT_EQ(Everything(*client), "line one\n|done\n|5");
  EXPECT_THAT(Log(), HasSubstr("line one\\n"));
}

TEST_P(ShimStreamsTest, OutputBeforeTheFirstClientIsKept) {
  Begin("web", {"sh", "-c", "echo early; exit 4"}, {"", LogUri("attach=wait"), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Wait("web"));
  const auto client = attach::Client::Connect(shim_.address(), {"web"}).value();
  EXPECT_EQ(Everything(*client), "early\n||4");
}

TEST_P(ShimStreamsTest, AFlowControlledClientGetsEveryByte) {
  // Ten megabytes, read slowly at first: the program waits, nothing is lost.
  Begin("web", {"sh", "-c", "yes 0123456789abcde | head -c 10000000"},
        {"", LogUri("attach=wait&format=none"), ""});
  const auto client =
      attach::Client::Connect(shim_.address(), {"web", "", false, true, true, true}).value();
  ASSERT_OK(shim_.Start("web"));
  // The pipe, the shim and the socket are full: the program stands still.
  int before = -1;
  ASSERT_TRUE(Eventually([&] {
    int waiting = 0;
    ::ioctl(client->fd(), FIONREAD, &waiting);
    return std::exchange(before, waiting) == waiting && waiting > 100'000;
  }));
  const std::string everything = Everything(*client);
  EXPECT_EQ(everything.size(), 10'000'000u + 3);
  EXPECT_EQ(everything.substr(everything.size() - 3), "||0");
}

TEST_P(ShimStreamsTest, ASlowClientNeverStopsTheProgram) {
  Begin("web", {"sh", "-c", "yes 0123456789abcde | head -c 10000000"},
        {"", LogUri("format=none"), ""});
  const auto slow = attach::Client::Connect(shim_.address(), {"web"}).value();
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  EXPECT_THAT(Everything(*slow), HasSubstr("<lost "));
}

TEST_P(ShimStreamsTest, ATerminalAnswersToResizeAndInput) {
  Begin("web", {"sh", "-c", "read x; stty size; echo got $x"},
        {"", LogUri("stdin=1"), "", /*terminal=*/true});
  const auto client =
      attach::Client::Connect(shim_.address(), {"web", "", true, true, true, true, false, 90, 30})
          .value();
  EXPECT_TRUE(client->accepted().terminal);
  ASSERT_OK(shim_.Start("web"));
  client->Resize(101, 43);
  client->SendStdin("word\n");
  const std::string everything = Everything(*client);
  EXPECT_THAT(everything, HasSubstr("43 101"));
  EXPECT_THAT(everything, HasSubstr("got word"));
}

TEST_P(ShimStreamsTest, SeveralClientsSeeTheSameAndMayLeave) {
  Begin("web", {"sh", "-c", "read x; echo got $x; read y; echo then $y"},
        {"", LogUri("stdin=1"), ""});
  const attach::Hello hello = {"web", "", true, true, true, true};
  const auto first = attach::Client::Connect(shim_.address(), hello).value();
  const auto second = attach::Client::Connect(shim_.address(), hello).value();
  const auto leaver = attach::Client::Connect(shim_.address(), hello).value();
  ASSERT_OK(shim_.Start("web"));
  first->SendStdin("one\n");
  attach::Event event;
  ASSERT_OK(leaver->WaitNext(&event, absl::Seconds(10)));
  EXPECT_EQ(event.bytes, "got one\n");
  leaver->Detach();
  second->SendStdin("two\n");

  EXPECT_EQ(Everything(*first), "got one\nthen two\n||0");
  EXPECT_EQ(Everything(*second), "got one\nthen two\n||0");
}

TEST_P(ShimStreamsTest, AClientThatLeavesClosesStdinWhenItAskedTo) {
  Begin("web", {"cat"}, {"", LogUri("stdin=1"), ""});
  auto client =
      attach::Client::Connect(shim_.address(), {"web", "", true, true, true, false, true}).value();
  ASSERT_OK(shim_.Start("web"));
  client->SendStdin("bye\n");
  client.reset();
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  EXPECT_THAT(Log(), HasSubstr("bye\\n"));
}

TEST_P(ShimStreamsTest, AnExecWithATerminalIsAttachedTo) {
  Begin("web", {"sleep", "100"});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Exec("web", "sh", {"sh", "-c", "stty size; read x; exit $x"},
                       {"", LogUri("format=none&stdin=1"), "", /*terminal=*/true}));
  const auto client =
      attach::Client::Connect(shim_.address(), {"web", "sh", true, true, true, true}).value();
  ASSERT_OK(shim_.Start("web", "sh"));
  client->SendStdin("6\n");
  EXPECT_TRUE(absl::EndsWith(Everything(*client), "||6"));
  EXPECT_FALSE(sys::Exists(LogPath()));
  EXPECT_THAT(attach::Client::Connect(shim_.address(), {"web", "nobody"}),
              Fails(absl::StatusCode::kNotFound, "nobody"));
  EXPECT_THAT(attach::Client::Connect(shim_.address(), {"web"}),
              Fails(absl::StatusCode::kFailedPrecondition, "without attach"));
}

TEST_P(ShimStreamsTest, LogsRotateWhileTheProgramWrites) {
  Begin("web", {"sh", "-c", "i=0; while test $i -lt 500; do echo line $i; i=$((i+1)); done"},
        {"", LogUri("max-size=4096&max-file=3"), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_THAT(Log(), HasSubstr("line 499"));
  EXPECT_LE(Log().size(), 4096u);
  EXPECT_TRUE(sys::Exists(LogPath() + ".2"));
  EXPECT_FALSE(sys::Exists(LogPath() + ".3"));
}

TEST_P(ShimStreamsTest, LogsAreReopenedOnRequest) {
  Begin("web", {"sh", "-c", "echo before; read x; echo after"}, {"", LogUri("stdin=1"), ""});
  const auto client =
      attach::Client::Connect(shim_.address(), {"web", "", true, true, true}).value();
  ASSERT_OK(shim_.Start("web"));
  attach::Event event;
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(10)));
  ASSERT_EQ(::rename(LogPath().c_str(), (LogPath() + ".moved").c_str()), 0);
  std::string payload;
  pb::Writer(&payload).String(1, "web");
  ASSERT_OK(shim_.client().Call("gantry.shim.v1.Logs", "Reopen", payload, {}, absl::Seconds(10)));
  client->SendStdin("go\n");
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_THAT(Log(), HasSubstr("after"));
  EXPECT_THAT(sys::ReadFile(LogPath() + ".moved").value(), HasSubstr("before"));
}

TEST_P(ShimStreamsTest, FifosCarryTheStreams) {
  const std::string in = absl::StrCat(shim_.root(), "/in");
  const std::string out = absl::StrCat(shim_.root(), "/out");
  for (const std::string& path : {in, out}) ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const sys::UniqueFd reader = sys::Open(out, O_RDONLY | O_NONBLOCK).value();
  Begin("web", {"cat"}, {in, out, ""});
  ASSERT_OK(shim_.Start("web"));
  {
    const sys::UniqueFd writer = sys::Open(in, O_WRONLY).value();
    ASSERT_OK(sys::WriteAll(writer, "through the pipes\n"));
  }
  std::string close;
  pb::Writer payload(&close);
  payload.String(1, "web");
  payload.Bool(3, true);
  ASSERT_OK(shim_.Call("CloseIO", close));
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  ASSERT_EQ(::fcntl(reader.get(), F_SETFL, 0), 0);
  EXPECT_EQ(sys::ReadAll(reader).value(), "through the pipes\n");
}

TEST_P(ShimStreamsTest, AFileCanBeTheInput) {
  const std::string in = absl::StrCat(shim_.root(), "/in");
  ASSERT_OK(sys::WriteFileAtomically(in, std::string(300'000, 'x')));
  Begin("web", {"wc", "-c"}, {in, LogUri(), ""});
  ASSERT_OK(shim_.Start("web"));
  EXPECT_EQ(shim_.Wait("web").value().code, 0);
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_THAT(Log(), HasSubstr("300000"));
}

TEST_P(ShimStreamsTest, AFileTakesTheOutput) {
  const std::string path = absl::StrCat(shim_.root(), "/sub/out.txt");
  Begin("web", {"echo", "kept"}, {"", absl::StrCat("file://", path), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_EQ(sys::ReadFile(path).value(), "kept\n");
}

TEST_P(ShimStreamsTest, ALoggerTakesTheOutput) {
  const std::string logger = absl::StrCat(shim_.root(), "/logger");
  const std::string path = absl::StrCat(shim_.root(), "/logged");
  ASSERT_OK(sys::WriteFileAtomically(
      logger,
      absl::StrCat(
          "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\"; cat <&3; } > ",
          path, ".part\nmv ", path, ".part ", path, "\n"),
      0755));
  Begin("web", {"echo", "to the logger"},
        {"", absl::StrCat("binary://", logger, "?key=value"), ""});
  ASSERT_OK(shim_.Start("web"));
  ASSERT_OK(shim_.Wait("web"));
  ASSERT_OK(shim_.Delete("web"));
  EXPECT_TRUE(Eventually([&] { return sys::Exists(path); }));
  EXPECT_EQ(sys::ReadFile(path).value_or("nothing"), "web test key value\nto the logger\n");
}

INSTANTIATE_TEST_SUITE_P(Library, ShimStreamsTest, ::testing::Values(""));
INSTANTIATE_TEST_SUITE_P(Runc, ShimStreamsTest, ::testing::Values("runc"));

}  // namespace
}  // namespace gantry::shim
