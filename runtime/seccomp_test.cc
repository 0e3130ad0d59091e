// Filters are loaded for real, each in a child that tries system calls.
#include "runtime/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

class SeccompTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(std::move(*made));
  }
  std::string cache() const { return directory_->path() + "/cache"; }

  // What `attempt` returns in a child under the filter (0 to 255).
  int Under(const SeccompFilter& filter, const std::function<int()>& attempt) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !LoadSeccomp(filter).ok()) ::_exit(250);
      ::_exit(attempt());
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
  }
  static int ErrnoOf(long result) { return result < 0 ? errno : 0; }

  std::unique_ptr<sys::TempDir> directory_;
};

TEST_F(SeccompTest, TheDefaultProfileAllowsAndDenies) {
  auto filter = CompileSeccomp(oci::DefaultSeccomp({}), cache());
  ASSERT_OK(filter);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getpid)); }), 0);
  for (long denied : {long{SYS_keyctl}, long{SYS_bpf}, long{SYS_mount}, long{SYS_open_by_handle_at},
                      long{SYS_userfaultfd}, long{SYS_io_uring_setup}, long{SYS_kexec_load}}) {
    EXPECT_EQ(Under(*filter, [=] { return ErrnoOf(::syscall(denied, -1, -1, -1, -1, -1)); }), EPERM)
        << denied;
  }
}

TEST_F(SeccompTest, CallsThatNobodyKnewAnswerEnosys) {
  auto filter = CompileSeccomp(oci::DefaultSeccomp({}), cache());
  ASSERT_OK(filter);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(600)); }), ENOSYS);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_clone3, nullptr, 0)); }), ENOSYS)
      << "so that the C library falls back to clone";
}

TEST_F(SeccompTest, ArgumentsAreCompared) {
  auto filter = CompileSeccomp(oci::DefaultSeccomp({}), cache());
  ASSERT_OK(filter);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_personality, 0xffffffff)); }), 0);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_personality, 0x1234)); }), EPERM);
  // clone with a namespace flag.
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_unshare, 0x10000000)); }), EPERM);
}

TEST_F(SeccompTest, EveryActionDoesWhatItSays) {
  oci::Seccomp profile{.default_action = "SCMP_ACT_ALLOW"};
  profile.syscalls = {{.names = {"getppid"}, .action = "SCMP_ACT_ERRNO", .errno_ret = 77},
                      {.names = {"getpgrp"}, .action = "SCMP_ACT_KILL_PROCESS"},
                      {.names = {"getuid"}, .action = "SCMP_ACT_TRAP"},
                      {.names = {"geteuid"}, .action = "SCMP_ACT_LOG"},
                      {.names = {"no_such_system_call"}, .action = "SCMP_ACT_ERRNO"}};
  auto filter = CompileSeccomp(profile, cache());
  ASSERT_OK(filter);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getppid)); }), 77);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getpgrp)); }), 200 + SIGSYS);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getuid)); }), 200 + SIGSYS);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_geteuid)); }), 0);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(600)); }), ENOSYS)
      << "the kernel's own answer";
}

TEST_F(SeccompTest, WithoutFlagsSpeculationIsAllowedAsRuncDoes) {
  oci::Seccomp profile{.default_action = "SCMP_ACT_ALLOW"};
  EXPECT_EQ(CompileSeccomp(profile, cache())->flags, unsigned{SECCOMP_FILTER_FLAG_SPEC_ALLOW});
  profile.flags.emplace();
  EXPECT_EQ(CompileSeccomp(profile, cache())->flags, 0u);
  profile.flags = {"SECCOMP_FILTER_FLAG_LOG"};
  auto filter = CompileSeccomp(profile, cache());
  EXPECT_EQ(filter->flags, unsigned{SECCOMP_FILTER_FLAG_LOG});
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getuid)); }), 0)
      << "the kernel takes it";
}

TEST_F(SeccompTest, OtherEntryPointsAreCovered) {
  auto filter = CompileSeccomp(oci::DefaultSeccomp({}), cache());
  ASSERT_OK(filter);
#if defined(__x86_64__)
  // x32's keyctl: a kernel without x32 answers ENOSYS by itself, never success.
  EXPECT_THAT(Under(*filter, [] { return ErrnoOf(::syscall(0x40000000 + 250, -1)); }),
              ::testing::AnyOf(EPERM, ENOSYS));
  // int 0x80, keyctl of i386 (288).
  EXPECT_EQ(Under(*filter,
                  [] {
                    long result;
                    asm volatile("int $0x80"
                                 : "=a"(result)
                                 : "a"(288L), "b"(-1L)
                                 : "memory", "r8", "r9", "r10", "r11");
                    return static_cast<int>(-static_cast<int>(result));
                  }),
            EPERM);
#endif
}

TEST_F(SeccompTest, TheCacheAnswersTheSecondTime) {
  const oci::Seccomp profile = oci::DefaultSeccomp({});
  auto first = CompileSeccomp(profile, cache());
  ASSERT_OK(first);
  auto files = sys::ListDirectory(cache());
  ASSERT_OK(files);
  ASSERT_EQ(files->size(), 1u);
  auto second = CompileSeccomp(profile, cache());
  ASSERT_OK(second);
  ASSERT_EQ(first->program.size(), second->program.size());

  // Another profile under the same name (a hash may collide, a file be damaged) is not believed.
  const std::string file = cache() + "/" + (*files)[0];
  ASSERT_OK(sys::WriteFileAtomically(file, "not a program"));
  auto third = CompileSeccomp(profile, cache());
  ASSERT_OK(third);
  EXPECT_EQ(third->program.size(), first->program.size());
}

TEST_F(SeccompTest, TheCacheMayBeUnwritable) {
  EXPECT_OK(CompileSeccomp(oci::DefaultSeccomp({}), "/proc/no/such/place"));
}

TEST_F(SeccompTest, AnArgumentGivenTwiceMeansEither) {
  oci::Seccomp profile{.default_action = "SCMP_ACT_ALLOW"};
  profile.syscalls = {{.names = {"getpriority"},
                       .action = "SCMP_ACT_ERRNO",
                       .errno_ret = 7,
                       .args = {{.index = 0, .value = 1, .op = "SCMP_CMP_EQ"},
                                {.index = 0, .value = 2, .op = "SCMP_CMP_EQ"}}}};
  auto filter = CompileSeccomp(profile, cache());
  ASSERT_OK(filter);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getpriority, 1, 0)); }), 7);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getpriority, 2, 0)); }), 7);
  EXPECT_EQ(Under(*filter, [] { return ErrnoOf(::syscall(SYS_getpriority, 0, 0)); }), 0);
}

}  // namespace
}  // namespace gantry::runtime
