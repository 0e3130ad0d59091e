// The program's first instruction: runs before the C library is set up.
//
// Entering a container has to be done from the protected copy of the binary (protect.cc), so
// create, run and exec execute themselves once more. The C library's own start costs most of a
// small program's time in a virtual machine (it asks the processor for its caches by CPUID, which
// traps, a hundred times); doing the re-execution here pays for it once instead of twice. Whatever
// does not work is left to ProtectSelf, which has error messages.
//
// Each program says when in a function of its own (entry_words.cc here, entry.cc of the shim).
//
// Nothing here may use the C library, thread-local storage or the stack protector.
#if defined(__x86_64__)

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <sys/syscall.h>

namespace {

constexpr long kReadOnlyFlag = 1;  // ST_RDONLY in statfs's f_flags.
constexpr int kRecursiveOff = 0;

struct Statfs {  // As the kernel writes it on this machine.
  long type, block_size, blocks, free, available, files, files_free;
  int id[2];
  long name_length, fragment, flags, spare[4];
};

inline long Call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace

// Whether the program that is called with these words enters containers. `words` ends with a null.
extern "C" bool GantryEntersContainer(char** words);

// `stack` is what the kernel left: argc, argv…, 0, envp…, 0.
extern "C" __attribute__((used, no_stack_protector)) void GantryProtectEarly(long* stack) {
  char** argv = reinterpret_cast<char**>(stack + 1);
  char** envp = argv + stack[0] + 1;
  if (stack[0] < 2 || !GantryEntersContainer(argv + 1)) return;
  static const char kSelf[] = "/proc/self/exe";
  static const char kEmpty[] = "";
  Statfs info;
  if (Call(SYS_statfs, reinterpret_cast<long>(kSelf), reinterpret_cast<long>(&info)) != 0 ||
      (info.flags & kReadOnlyFlag) != 0) {
    return;
  }
  const long tree = Call(SYS_open_tree, AT_FDCWD, reinterpret_cast<long>(kSelf),
                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree < 0) return;
  struct mount_attr attributes = {MOUNT_ATTR_RDONLY, 0, 0, 0};
  if (Call(SYS_mount_setattr, tree, reinterpret_cast<long>(kEmpty), AT_EMPTY_PATH | kRecursiveOff,
           reinterpret_cast<long>(&attributes), sizeof attributes) == 0) {
    Call(SYS_prctl, PR_SET_DUMPABLE, 0);
    Call(SYS_execveat, tree, reinterpret_cast<long>(kEmpty), reinterpret_cast<long>(argv),
         reinterpret_cast<long>(envp), AT_EMPTY_PATH);
  }
  Call(SYS_close, tree);
}

asm(R"(
    .globl gantry_entry
    .type gantry_entry, @function
gantry_entry:
    mov %rsp, %rdi
    mov %rsp, %rbx        # Kept over the call.
    mov %rdx, %r12        # What the kernel passes for atexit.
    and $-16, %rsp
    call GantryProtectEarly
    mov %rbx, %rsp
    mov %r12, %rdx
    xor %ebp, %ebp
    jmp _start
)");

#endif
