// Raw mode, detach keys, progress and output: what touches a terminal, on a pseudo terminal.

#include "ctl/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <string>

#include "ctl/console.h"
#include "ctl/detach_keys.h"
#include "ctl/progress.h"
#include "lib/sys/unique_fd.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;
using ::testing::HasSubstr;
using ::testing::Not;

class TerminalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    controller_ = sys::UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(controller_.ok());
    ASSERT_EQ(::grantpt(controller_.get()), 0);
    ASSERT_EQ(::unlockpt(controller_.get()), 0);
    terminal_ = sys::UniqueFd(::open(::ptsname(controller_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(terminal_.ok());
  }
  bool IsRaw() const {
    termios settings = {};
    EXPECT_EQ(::tcgetattr(terminal_.get(), &settings), 0);
    return (settings.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  }

  sys::UniqueFd controller_;
  sys::UniqueFd terminal_;
};

TEST_F(TerminalTest, RawModeEndsWithItsOwner) {
  EXPECT_FALSE(IsRaw());
  {
    absl::StatusOr<RawMode> raw = RawMode::Enter(terminal_.get());
    ASSERT_OK(raw);
    EXPECT_TRUE(IsRaw());
    RawMode moved = *std::move(raw);
    EXPECT_TRUE(IsRaw());
  }
  EXPECT_FALSE(IsRaw());
}

TEST_F(TerminalTest, RawModeEndsWithTheProgramHoweverItDies) {
  for (const int signal : {SIGTERM, SIGSEGV, SIGABRT, SIGHUP}) {
    const pid_t child = ::fork();
    if (child == 0) {
      absl::StatusOr<RawMode> raw = RawMode::Enter(terminal_.get());
      if (!raw.ok() || !IsRaw()) ::_exit(1);
      ::signal(SIGALRM, SIG_DFL);
      ::raise(signal);
      ::_exit(2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << signal;
    EXPECT_EQ(WTERMSIG(status), signal) << "it still dies of the signal";
    EXPECT_FALSE(IsRaw()) << signal;
  }
}

TEST_F(TerminalTest, OnlyTerminalsCanBeRaw) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  const sys::UniqueFd reader(pipe_fds[0]);
  const sys::UniqueFd writer(pipe_fds[1]);
  EXPECT_THAT(RawMode::Enter(reader.get()),
              Fails(absl::StatusCode::kFailedPrecondition, "the input device is not a TTY"));
  EXPECT_FALSE(GetWindowSize(reader.get()).has_value());
}

TEST_F(TerminalTest, TellsTheWindow) {
  const winsize size = {33, 111, 0, 0};
  ASSERT_EQ(::ioctl(controller_.get(), TIOCSWINSZ, &size), 0);
  const auto window = GetWindowSize(terminal_.get());
  ASSERT_TRUE(window.has_value());
  EXPECT_EQ(window->rows, 33);
  EXPECT_EQ(window->columns, 111);
}

TEST(OutputTest, ABrokenPipeEndsTheProgramSilently) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGPIPE, SIG_IGN);
    int fds[2];
    if (::pipe(fds) != 0) ::_exit(1);
    ::close(fds[0]);
    Output output(fds[1]);
    output.Write("nobody reads this");
    output.Flush();
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 141);
}

TEST(DetachKeysTest, ParsesKeys) {
  EXPECT_EQ(*ParseDetachKeys("ctrl-p,ctrl-q"), "\x10\x11");
  EXPECT_EQ(*ParseDetachKeys("a,ctrl-A,ctrl-["), std::string("a\x01\x1b"));
  EXPECT_EQ(*ParseDetachKeys("ctrl-@"), std::string(1, '\0'));
  EXPECT_EQ(*ParseDetachKeys(""), "");
  for (const char* bad : {"ctrl-", "ctrl-1", "ab", ",", "ctrl-p,,a"}) {
    EXPECT_THAT(ParseDetachKeys(bad), Fails(absl::StatusCode::kInvalidArgument, "detach key"))
        << bad;
  }
}

TEST(DetachWatchTest, SeesTheSequenceAcrossReads) {
  DetachWatch watch("\x10\x11");
  std::string forward;
  EXPECT_FALSE(watch.Feed("ls\x10", &forward));
  EXPECT_EQ(forward, "ls") << "the beginning is held back";
  EXPECT_TRUE(watch.Feed("\x11more", &forward));
  EXPECT_EQ(forward, "ls");
}

TEST(DetachWatchTest, ForwardsWhatIsNotTheSequence) {
  DetachWatch watch("\x10\x11");
  std::string forward;
  EXPECT_FALSE(watch.Feed("\x10", &forward));
  EXPECT_FALSE(watch.Feed("x\x10\x10", &forward));
  EXPECT_EQ(forward, "\x10x\x10");
  EXPECT_TRUE(watch.Feed("\x11", &forward)) << "the last one began the sequence";
}

TEST(DetachWatchTest, FindsSequencesThatOverlapThemselves) {
  DetachWatch watch("aab");
  std::string forward;
  EXPECT_TRUE(watch.Feed("aaab", &forward));
  EXPECT_EQ(forward, "a");
  DetachWatch none("");
  EXPECT_FALSE(none.Feed("aab", &forward));
  EXPECT_EQ(forward, "aaab");
}

using image::v1::LayerProgress;

image::v1::PullProgress Progress(const char* digest, LayerProgress::State state, uint64_t done = 0,
                                 uint64_t total = 0) {
  image::v1::PullProgress progress;
  LayerProgress* layer = progress.add_layers();
  layer->set_digest(digest);
  layer->set_state(state);
  layer->set_done_bytes(done);
  layer->set_total_bytes(total);
  return progress;
}

TEST(PullRendererTest, PrintsOnlyChangesWithoutATerminal) {
  Output output;
  PullRenderer renderer(output, false, 0);
  image::v1::PullProgress start;
  start.set_status("latest: Pulling from library/busybox");
  renderer.Update(start);
  renderer.Update(Progress("sha256:0123456789abcdef", LayerProgress::DOWNLOADING, 1, 10));
  renderer.Update(Progress("sha256:0123456789abcdef", LayerProgress::DOWNLOADING, 5, 10));
  renderer.Update(Progress("sha256:fedcba9876543210", LayerProgress::EXISTS));
  renderer.Update(Progress("sha256:0123456789abcdef", LayerProgress::COMPLETE, 10, 10));
  EXPECT_EQ(output.text(),
            "latest: Pulling from library/busybox\n"
            "0123456789ab: Downloading\n"
            "fedcba987654: Already exists\n"
            "0123456789ab: Pull complete\n");
}

TEST(PullRendererTest, RedrawsLinesInPlaceOnATerminal) {
  Output output;
  PullRenderer renderer(output, true, 120);
  renderer.Update(Progress("sha256:aaaaaaaaaaaaaaaa", LayerProgress::WAITING));
  renderer.Update(Progress("sha256:bbbbbbbbbbbbbbbb", LayerProgress::WAITING));
  const size_t before = output.text().size();
  renderer.Update(Progress("sha256:aaaaaaaaaaaaaaaa", LayerProgress::DOWNLOADING, 500, 1000));
  EXPECT_EQ(output.text().substr(before),
            "\x1b[2A\r\x1b[2Kaaaaaaaaaaaa: Downloading "
            "[=========================>                        ] 500B/1kB\r\x1b[2B");
  const size_t after = output.text().size();
  renderer.Update(Progress("sha256:aaaaaaaaaaaaaaaa", LayerProgress::DOWNLOADING, 500, 1000));
  EXPECT_EQ(output.text().size(), after) << "nothing new, nothing drawn";
}

TEST(PullRendererTest, NarrowTerminalsGetNoBar) {
  Output output;
  PullRenderer renderer(output, true, 40);
  renderer.Update(Progress("sha256:aaaaaaaaaaaaaaaa", LayerProgress::DOWNLOADING, 5, 10));
  EXPECT_THAT(output.text(), HasSubstr("Downloading 5B/10B"));
  EXPECT_THAT(output.text(), Not(HasSubstr("==")));
}

TEST(PullRendererTest, Summary) {
  image::v1::PullDone done;
  done.set_name("docker.io/library/busybox:latest");
  done.set_digest("sha256:00");
  EXPECT_EQ(PullRenderer::Summary(done),
            "Digest: sha256:00\nStatus: Downloaded newer image for "
            "busybox:latest\ndocker.io/library/busybox:latest\n");
  done.set_up_to_date(true);
  EXPECT_THAT(PullRenderer::Summary(done), HasSubstr("Status: Image is up to date for"));
}

TEST(ProgressBarTest, NeverOverflows) {
  EXPECT_EQ(ProgressBar(0, 10, 4), "[>   ]");
  EXPECT_EQ(ProgressBar(5, 10, 4), "[==> ]");
  EXPECT_EQ(ProgressBar(10, 10, 4), "[====]");
  EXPECT_EQ(ProgressBar(99, 10, 4), "[====]");
  EXPECT_EQ(ProgressBar(1, 0, 4), "[>   ]");
}

}  // namespace
}  // namespace gantry::ctl
