#include "runtime/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

namespace gantry::runtime {
namespace {

constexpr char kCacheMagic[] = "gantry-seccomp-2";
constexpr size_t kCacheLimitBytes = 4 << 20;
constexpr uint32_t kX32Bit = 0x40000000;

struct NamedValue {
  absl::string_view name;
  uint32_t value;
};
constexpr NamedValue kArchitectures[] = {{"SCMP_ARCH_X86", SCMP_ARCH_X86},
                                         {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
                                         {"SCMP_ARCH_X32", SCMP_ARCH_X32},
                                         {"SCMP_ARCH_ARM", SCMP_ARCH_ARM},
                                         {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
                                         {"SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
                                         {"SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64},
                                         {"SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
                                         {"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL},
                                         {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
                                         {"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32},
                                         {"SCMP_ARCH_PPC", SCMP_ARCH_PPC},
                                         {"SCMP_ARCH_PPC64", SCMP_ARCH_PPC64},
                                         {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
                                         {"SCMP_ARCH_S390", SCMP_ARCH_S390},
                                         {"SCMP_ARCH_S390X", SCMP_ARCH_S390X},
                                         {"SCMP_ARCH_PARISC", SCMP_ARCH_PARISC},
                                         {"SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64},
                                         {"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64}};
constexpr NamedValue kOperators[] = {{"SCMP_CMP_NE", SCMP_CMP_NE},
                                     {"SCMP_CMP_LT", SCMP_CMP_LT},
                                     {"SCMP_CMP_LE", SCMP_CMP_LE},
                                     {"SCMP_CMP_EQ", SCMP_CMP_EQ},
                                     {"SCMP_CMP_GE", SCMP_CMP_GE},
                                     {"SCMP_CMP_GT", SCMP_CMP_GT},
                                     {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};

template <size_t N>
const NamedValue* FindName(const NamedValue (&table)[N], absl::string_view name) {
  const auto* found =
      std::find_if(table, table + N, [&](const auto& row) { return row.name == name; });
  return found == table + N ? nullptr : found;
}

uint32_t ActionValue(absl::string_view name, std::optional<uint32_t> data) {
  const uint32_t number = data.value_or(EPERM) & 0xffff;
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(number);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(number);
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  if (name == "SCMP_ACT_NOTIFY") return SCMP_ACT_NOTIFY;
  return SCMP_ACT_ALLOW;
}

absl::Status LibseccompError(int result, absl::string_view attempt) {
  return absl::InvalidArgumentError(
      absl::StrCat("linux.seccomp: ", attempt, ": ", strerror(-result)));
}

// All that the program depends on, as bytes: compared in full with what the cache holds, so that a
// weak hash is enough for its name.
std::string ProfileKey(const oci::Seccomp& profile) {
  std::string key = absl::StrCat(kCacheMagic, "\n", LibseccompVersion(), "\n");
  const auto add = [&](absl::string_view text) {
    key.append(text.data(), text.size());
    key.push_back('\0');
  };
  const auto add_number = [&](uint64_t number) {
    key.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  add(profile.default_action);
  add_number(profile.default_errno_ret.value_or(UINT32_MAX));
  add_number(profile.architectures.size());
  for (const std::string& name : profile.architectures) add(name);
  add_number(profile.syscalls.size());
  for (const oci::SeccompRule& rule : profile.syscalls) {
    add(rule.action);
    add_number(rule.errno_ret.value_or(UINT32_MAX));
    add_number(rule.names.size());
    for (const std::string& name : rule.names) add(name);
    add_number(rule.args.size());
    for (const oci::SeccompArg& arg : rule.args) {
      add_number(arg.index);
      add_number(arg.value);
      add_number(arg.value_two);
      add(arg.op);
    }
  }
  return key;
}

uint64_t HashBytes(absl::string_view bytes) {
  uint64_t hash = 0x9e3779b97f4a7c15u ^ bytes.size();
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    memcpy(&word, bytes.data() + i, 8);
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  }
  for (; i < bytes.size(); ++i) {
    hash = (hash ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3u;
  }
  return hash ^ (hash >> 29);
}

// The file: the key, then the program.
bool ReadCached(const std::string& path, const std::string& key,
                std::vector<sock_filter>* program) {
  absl::StatusOr<std::string> bytes = sys::ReadFile(path, kCacheLimitBytes);
  if (!bytes.ok() || bytes->size() <= key.size() || bytes->compare(0, key.size(), key) != 0) {
    return false;
  }
  const size_t size = bytes->size() - key.size();
  if (size % sizeof(sock_filter) != 0) return false;
  program->resize(size / sizeof(sock_filter));
  memcpy(program->data(), bytes->data() + key.size(), size);
  return true;
}

void StoreCached(const std::string& directory, const std::string& path, const std::string& key,
                 const std::vector<sock_filter>& program) {
  if (!FAILPOINT("runtime.seccomp.before_store").ok()) return;
  if (!sys::MakeDirectories(directory, 0700).ok()) return;
  std::string bytes = key;
  bytes.append(reinterpret_cast<const char*>(program.data()), program.size() * sizeof(sock_filter));
  (void)sys::WriteFileAtomically(path, bytes);
}

absl::Status AddRule(scmp_filter_ctx context, const oci::SeccompRule& rule,
                     uint32_t default_action) {
  const uint32_t action = ActionValue(rule.action, rule.errno_ret);
  if (action == default_action)
    return absl::OkStatus();  // libseccomp refuses what changes nothing.
  std::vector<scmp_arg_cmp> arguments;
  bool repeated = false;
  for (const oci::SeccompArg& arg : rule.args) {
    scmp_arg_cmp compare = {};
    compare.arg = arg.index;
    compare.op = static_cast<scmp_compare>(FindName(kOperators, arg.op)->value);
    compare.datum_a = arg.value;
    compare.datum_b = arg.value_two;
    for (const scmp_arg_cmp& other : arguments) repeated = repeated || other.arg == compare.arg;
    arguments.push_back(compare);
  }
  for (const std::string& name : rule.names) {
    const int number = seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) continue;
    // libseccomp takes each argument once a rule; the same one twice means "either", as runc reads
    // it.
    const size_t rounds = repeated ? arguments.size() : 1;
    for (size_t i = 0; i < rounds; ++i) {
      const int result =
          repeated
              ? seccomp_rule_add_array(context, action, number, 1, &arguments[i])
              : seccomp_rule_add_array(context, action, number,
                                       static_cast<unsigned>(arguments.size()), arguments.data());
      if (result < 0 && result != -EEXIST) {
        return LibseccompError(result,
                               absl::StrCat("add a rule for '", EscapeForTerminal(name), "'"));
      }
    }
  }
  return absl::OkStatus();
}

// Highest system call number that the profile names, per architecture token of the kernel.
struct Newest {
  uint32_t audit_arch;
  uint32_t plain = 0;  // 0: names none.
  uint32_t x32 = 0;
};

std::vector<Newest> FindNewest(const oci::Seccomp& profile, const std::vector<uint32_t>& archs) {
  std::vector<Newest> all;
  for (uint32_t arch : archs) {
    const uint32_t audit = arch == SCMP_ARCH_X32 ? SCMP_ARCH_X86_64 : arch;
    auto found = std::find_if(all.begin(), all.end(),
                              [&](const Newest& n) { return n.audit_arch == audit; });
    if (found == all.end()) found = all.insert(all.end(), Newest{audit});
    for (const oci::SeccompRule& rule : profile.syscalls) {
      for (const std::string& name : rule.names) {
        const int number = seccomp_syscall_resolve_name_arch(arch, name.c_str());
        if (number < 0) continue;
        uint32_t& newest = arch == SCMP_ARCH_X32 ? found->x32 : found->plain;
        newest = std::max(newest, static_cast<uint32_t>(number));
      }
    }
  }
  return all;
}

sock_filter Statement(uint16_t code, uint32_t k) { return BPF_STMT(code, k); }
sock_filter Jump(uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
  return BPF_JUMP(code, k, yes, no);
}

// In front of libseccomp's program: numbers beyond the newest one named are calls that the
// profile's author did not know, and those answer ENOSYS.
std::vector<sock_filter> WithEnosys(const oci::Seccomp& profile, const std::vector<uint32_t>& archs,
                                    std::vector<sock_filter> program) {
  std::vector<sock_filter> front;
  const uint32_t enosys = SECCOMP_RET_ERRNO | ENOSYS;
  front.push_back(Statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
  for (const Newest& newest : FindNewest(profile, archs)) {
    std::vector<sock_filter> block;
    block.push_back(Statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    if (newest.audit_arch == SCMP_ARCH_X86_64) {
      if (newest.x32 != 0) {
        // With the x32 bit: compared with x32's newest, else with the plain one.
        block.push_back(Jump(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 2));
        block.push_back(Jump(BPF_JMP | BPF_JGT | BPF_K, newest.x32, 2, 0));
        block.push_back(Jump(BPF_JMP | BPF_JA, 2, 0, 0));
        block.push_back(Jump(BPF_JMP | BPF_JGT | BPF_K, newest.plain, 0, 1));
      } else {
        block.push_back(Jump(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 2, 0));
        block.push_back(Jump(BPF_JMP | BPF_JGT | BPF_K, newest.plain, 0, 1));
      }
    } else {
      block.push_back(Jump(BPF_JMP | BPF_JGT | BPF_K, newest.plain, 0, 1));
    }
    block.push_back(Statement(BPF_RET | BPF_K, enosys));
    if (newest.plain == 0) continue;
    front.push_back(Jump(BPF_JMP | BPF_JEQ | BPF_K, newest.audit_arch, 0,
                         static_cast<uint8_t>(block.size() + 1)));
    front.insert(front.end(), block.begin(), block.end());
    // Reload what the next comparison, or libseccomp's program, does not: it loads for itself, but
    // the comparisons of architectures here want the architecture back.
    front.push_back(Statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
  }
  front.insert(front.end(), program.begin(), program.end());
  return front;
}

absl::StatusOr<std::vector<sock_filter>> ExportProgram(scmp_filter_ctx context) {
  sys::UniqueFd memory(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!memory.ok()) return sys::ErrnoError(errno, "make a file in memory for the seccomp program");
  if (int result = seccomp_export_bpf(context, memory.get()); result < 0) {
    return LibseccompError(result, "compile the profile");
  }
  if (::lseek(memory.get(), 0, SEEK_SET) < 0) return sys::ErrnoError(errno, "rewind");
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadAll(memory));
  std::vector<sock_filter> program(bytes.size() / sizeof(sock_filter));
  memcpy(program.data(), bytes.data(), program.size() * sizeof(sock_filter));
  return program;
}

absl::StatusOr<std::vector<sock_filter>> Compile(const oci::Seccomp& profile) {
  const uint32_t default_action = ActionValue(profile.default_action, profile.default_errno_ret);
  scmp_filter_ctx context = seccomp_init(default_action);
  if (context == nullptr) {
    return absl::InvalidArgumentError("linux.seccomp.defaultAction: libseccomp does not take it");
  }
  absl::Cleanup release = [&] { seccomp_release(context); };
  (void)seccomp_attr_set(context, SCMP_FLTATR_CTL_NNP, 0);
  (void)seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);  // Binary tree over the numbers.
  std::vector<uint32_t> archs = {seccomp_arch_native()};
  for (const std::string& name : profile.architectures) {
    const NamedValue* arch = FindName(kArchitectures, name);
    if (arch == nullptr) continue;  // Newer than libseccomp: cannot run on this machine either.
    if (std::find(archs.begin(), archs.end(), arch->value) != archs.end()) continue;
    const int result = seccomp_arch_add(context, arch->value);
    if (result < 0 && result != -EEXIST) {
      return LibseccompError(result, absl::StrCat("add the architecture ", name));
    }
    archs.push_back(arch->value);
  }
  for (const oci::SeccompRule& rule : profile.syscalls) {
    RETURN_IF_ERROR(AddRule(context, rule, default_action));
  }
  ASSIGN_OR_RETURN(std::vector<sock_filter> program, ExportProgram(context));
  const bool denies = profile.default_action == "SCMP_ACT_ERRNO" &&
                      profile.default_errno_ret.value_or(EPERM) != ENOSYS;
  if (denies && !profile.syscalls.empty()) program = WithEnosys(profile, archs, std::move(program));
  return program;
}

unsigned FlagValue(absl::string_view name) {
  if (name == "SECCOMP_FILTER_FLAG_LOG") return SECCOMP_FILTER_FLAG_LOG;
  if (name == "SECCOMP_FILTER_FLAG_SPEC_ALLOW") return SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  if (name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
    return SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
  return 0;  // TSYNC: there is only one thread to synchronise.
}

}  // namespace

std::string LibseccompVersion() {
  const scmp_version* version = seccomp_version();
  return absl::StrCat(version->major, ".", version->minor, ".", version->micro);
}

std::vector<std::string> SupportedSeccompFlags() {
  const std::pair<const char*, unsigned> flags[] = {
      {"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
      {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
      {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
      {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
       SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | SECCOMP_FILTER_FLAG_NEW_LISTENER}};
  std::vector<std::string> supported;
  for (const auto& [name, value] : flags) {
    // A kernel that knows the flag gets as far as reading the program, which is not there.
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, value, nullptr) < 0 && errno == EFAULT) {
      supported.emplace_back(name);
    }
  }
  return supported;
}

absl::StatusOr<SeccompFilter> CompileSeccomp(const oci::Seccomp& profile,
                                             const std::string& cache_directory) {
  SeccompFilter filter;
  if (!profile.flags) filter.flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  for (const std::string& flag : profile.flags.value_or(std::vector<std::string>()))
    filter.flags |= FlagValue(flag);
  for (const oci::SeccompRule& rule : profile.syscalls) {
    filter.notifies = filter.notifies || rule.action == "SCMP_ACT_NOTIFY";
  }
  if (!filter.notifies) filter.flags &= ~unsigned{SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV};
  const std::string key = ProfileKey(profile);
  const std::string path =
      absl::StrCat(cache_directory, "/", absl::StrFormat("%016x", HashBytes(key)), ".bpf");
  if (ReadCached(path, key, &filter.program)) return filter;
  ASSIGN_OR_RETURN(filter.program, Compile(profile));
  StoreCached(cache_directory, path, key, filter.program);
  return filter;
}

absl::StatusOr<sys::UniqueFd> LoadSeccomp(const SeccompFilter& filter) {
  sock_fprog program = {static_cast<unsigned short>(filter.program.size()),
                        const_cast<sock_filter*>(filter.program.data())};
  const unsigned flags =
      filter.flags | (filter.notifies ? unsigned{SECCOMP_FILTER_FLAG_NEW_LISTENER} : 0u);
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (result < 0) return sys::ErrnoError(errno, "load the seccomp filter");
  return sys::UniqueFd(filter.notifies ? static_cast<int>(result) : -1);
}

absl::Status CheckSyscallNames(const oci::Seccomp& profile) {
  for (size_t i = 0; i < profile.syscalls.size(); ++i) {
    const std::vector<std::string>& names = profile.syscalls[i].names;
    for (size_t j = 0; j < names.size(); ++j) {
      if (seccomp_syscall_resolve_name(names[j].c_str()) != __NR_SCMP_ERROR) continue;
      return absl::InvalidArgumentError(absl::StrCat("linux.seccomp.syscalls[", i, "].names[", j,
                                                     "]: libseccomp ", LibseccompVersion(),
                                                     " knows no system call ", Quote(names[j])));
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
