// `gantry-init`: the first process of a container made with --init. Starts the program, hands on
// signals, reaps orphans, and ends as the program ends. Runs inside containers, so it is static and
// uses the kernel and nothing else.
//
// usage: gantry-init -- PROGRAM [ARG...]

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <initializer_list>

namespace {

constexpr int kUsage = 125;
constexpr int kNotExecutable = 126;
constexpr int kNotFound = 127;

// In a process group of its own and in front of the terminal, so that job control works.
void BecomeProgram(char** argv, const sigset_t* original) {
  ::setpgid(0, 0);
  ::signal(SIGTTOU, SIG_IGN);
  (void)::tcsetpgrp(STDIN_FILENO, ::getpid());  // Without a terminal there is nothing to take.
  ::signal(SIGTTOU, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, original, nullptr);
  ::execvp(argv[0], argv);
  const int error = errno;
  ::fprintf(stderr, "gantry-init: exec: \"%s\": %s\n", argv[0],
            error == ENOENT ? "executable file not found in $PATH" : ::strerror(error));
  ::_exit(error == ENOENT ? kNotFound : kNotExecutable);
}

// Reaps everything that has ended; the program's exit code, or -1 while it runs.
int Reap(pid_t program) {
  int code = -1;
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == program) code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  const int first = argc > 1 && ::strcmp(argv[1], "--") == 0 ? 2 : 1;
  if (first >= argc) {
    ::fprintf(stderr, "usage: gantry-init -- PROGRAM [ARG...]\n");
    return kUsage;
  }
  // Everything is taken from the queue; the faults of our own code are not signals to hand on.
  sigset_t all, original;
  ::sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    ::sigdelset(&all, fault);
  }
  ::sigprocmask(SIG_SETMASK, &all, &original);
  const pid_t program = ::fork();
  if (program < 0) {
    ::perror("gantry-init: fork");
    return kUsage;
  }
  if (program == 0) BecomeProgram(argv + first, &original);
  while (true) {
    siginfo_t info = {};
    if (::sigwaitinfo(&all, &info) < 0) continue;
    if (info.si_signo == SIGCHLD) {
      const int code = Reap(program);
      if (code >= 0) return code;
    } else if (info.si_signo != SIGTTOU && info.si_signo != SIGTTIN) {
      ::kill(program, info.si_signo);
    }
  }
}
