#include "lib/sys/process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"

namespace gantry::sys {
namespace {

SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", script};
  options.environment = {"PATH=/usr/bin:/bin"};
  return options;
}

TEST(SpawnTest, ReportsTheExitCode) {
  absl::StatusOr<Child> child = Spawn(Shell("exit 7"));
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(child->Wait()->code, 7);
}

TEST(SpawnTest, ReportsTheSignal) {
  absl::StatusOr<Child> child = Spawn(Shell("kill -9 $$"));
  absl::StatusOr<ExitStatus> status = child->Wait();
  EXPECT_EQ(status->signal, SIGKILL);
  EXPECT_EQ(status->code, 137);
}

TEST(SpawnTest, MissingProgramIsNotFound) {
  SpawnOptions options;
  options.argv = {"/no/such/program"};
  EXPECT_EQ(Spawn(options).status().code(), absl::StatusCode::kNotFound);
}

TEST(SpawnTest, DescriptorsArriveWhereAskedAndNothingElseDoes) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);  // Without close-on-exec on purpose: Spawn must mark it.
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  SpawnOptions options = Shell("echo $(ls /proc/self/fd | tr '\\n' ' ') >&5");
  options.descriptors = {{write_end.get(), 5}};

  absl::StatusOr<Child> child = Spawn(options);
  write_end.Reset();

  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Wait()->code, 0);
  // 3 is the directory ls reads; ls itself runs with the pipe of $(...) as its output.
  EXPECT_EQ(*ReadAll(read_end), "0 1 2 3 5\n");
}

TEST(SpawnTest, WaitTimesOutAndDestructionKills) {
  absl::StatusOr<Child> child = Spawn(Shell("exec sleep 100"));
  const pid_t pid = child->pid();

  EXPECT_EQ(child->Wait(absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  *child = Child();

  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(ProcessTest, StartTimeIsStable) {
  EXPECT_EQ(*ProcessStartTime(::getpid()), *ProcessStartTime(::getpid()));
  EXPECT_EQ(ProcessStartTime(0x7ffffff0).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gantry::sys
