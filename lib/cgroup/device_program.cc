// Device rules as an eBPF program on BPF_CGROUP_DEVICE: cgroup v2 has no devices controller.
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/cgroup/limits.h"
#include "lib/sys/errno.h"
#include "lib/sys/unique_fd.h"

namespace gantry::cgroup {
namespace {

constexpr size_t kMaxPrograms = 64;

bpf_insn Instruction(uint8_t code, uint8_t dst, uint8_t src, int16_t offset, int32_t immediate) {
  bpf_insn insn = {};
  insn.code = code;
  insn.dst_reg = dst;
  insn.src_reg = src;
  insn.off = offset;
  insn.imm = immediate;
  return insn;
}

bpf_insn LoadWord(uint8_t dst, int16_t offset) {
  return Instruction(BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_1, offset, 0);
}
bpf_insn MoveNumber(uint8_t dst, int32_t number) {
  return Instruction(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, number);
}
bpf_insn Exit() { return Instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

// Registers: 2 type (block 1, character 2), 3 wanted access (mknod 1, read 2, write 4), 4 major,
// 5 minor.
std::vector<bpf_insn> Compile(const std::vector<oci::DeviceRule>& rules) {
  std::vector<bpf_insn> program = {
      LoadWord(BPF_REG_2, offsetof(bpf_cgroup_dev_ctx, access_type)),
      Instruction(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0),
      Instruction(BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff),
      Instruction(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16),
      LoadWord(BPF_REG_4, offsetof(bpf_cgroup_dev_ctx, major)),
      LoadWord(BPF_REG_5, offsetof(bpf_cgroup_dev_ctx, minor)),
  };
  // The last rule that matches wins, so they are asked from the last to the first.
  for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
    std::vector<bpf_insn> tests;  // Each jumps over the verdict when it does not match.
    if (rule->type == "b" || rule->type == "c") {
      const int32_t type = rule->type == "b" ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR;
      tests.push_back(Instruction(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 0, type));
    }
    int32_t access = 0;
    if (absl::StrContains(rule->access, 'm')) access |= BPF_DEVCG_ACC_MKNOD;
    if (absl::StrContains(rule->access, 'r')) access |= BPF_DEVCG_ACC_READ;
    if (absl::StrContains(rule->access, 'w')) access |= BPF_DEVCG_ACC_WRITE;
    const int32_t all = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
    if (access != 0 && access != all) {
      // An allow must cover all that is wanted; a deny strikes when it covers any of it.
      tests.push_back(Instruction(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_3, 0, 0));
      tests.push_back(Instruction(BPF_ALU | BPF_AND | BPF_K, BPF_REG_1, 0, 0, access));
      tests.push_back(rule->allow
                          ? Instruction(BPF_JMP | BPF_JNE | BPF_X, BPF_REG_1, BPF_REG_3, 0, 0)
                          : Instruction(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_1, 0, 0, 0));
    }
    if (rule->major.value_or(-1) >= 0) {
      tests.push_back(Instruction(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_4, 0, 0,
                                  static_cast<int32_t>(*rule->major)));
    }
    if (rule->minor.value_or(-1) >= 0) {
      tests.push_back(Instruction(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 0,
                                  static_cast<int32_t>(*rule->minor)));
    }
    for (size_t i = 0; i < tests.size(); ++i) {
      if (BPF_CLASS(tests[i].code) == BPF_JMP) {
        tests[i].off = static_cast<int16_t>(tests.size() - i - 1 + 2);  // The verdict has two.
      }
    }
    program.insert(program.end(), tests.begin(), tests.end());
    program.push_back(MoveNumber(BPF_REG_0, rule->allow ? 1 : 0));
    program.push_back(Exit());
    if (tests.empty()) return program;  // Matches everything: no rule before it matters.
  }
  program.push_back(MoveNumber(BPF_REG_0, 0));
  program.push_back(Exit());
  return program;
}

long Bpf(int command, bpf_attr& attributes) {
  return ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

absl::StatusOr<sys::UniqueFd> Load(const std::vector<bpf_insn>& program) {
  static constexpr char kLicense[] = "Apache-2.0";
  bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = reinterpret_cast<uint64_t>(program.data());
  attributes.insn_cnt = static_cast<uint32_t>(program.size());
  attributes.license = reinterpret_cast<uint64_t>(kLicense);
  sys::UniqueFd fd(static_cast<int>(Bpf(BPF_PROG_LOAD, attributes)));
  if (!fd.ok()) return sys::ErrnoError(errno, "load the program that filters devices");
  return fd;
}

std::vector<uint32_t> AttachedPrograms(int directory) {
  std::vector<uint32_t> ids(kMaxPrograms);
  bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.query.target_fd = static_cast<uint32_t>(directory);
  attributes.query.attach_type = BPF_CGROUP_DEVICE;
  attributes.query.prog_ids = reinterpret_cast<uint64_t>(ids.data());
  attributes.query.prog_cnt = kMaxPrograms;
  ids.resize(Bpf(BPF_PROG_QUERY, attributes) == 0 ? attributes.query.prog_cnt : 0);
  return ids;
}

}  // namespace

absl::Status AttachDeviceProgram(const std::string& directory,
                                 const std::vector<oci::DeviceRule>& rules) {
  sys::UniqueFd cgroup(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.ok()) return sys::ErrnoError(errno, absl::StrCat("open '", directory, "'"));
  const std::vector<uint32_t> old = AttachedPrograms(cgroup.get());
  ASSIGN_OR_RETURN(sys::UniqueFd program, Load(Compile(rules)));
  bpf_attr attach;
  memset(&attach, 0, sizeof attach);
  attach.target_fd = static_cast<uint32_t>(cgroup.get());
  attach.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attach.attach_type = BPF_CGROUP_DEVICE;
  attach.attach_flags = BPF_F_ALLOW_MULTI;
  if (Bpf(BPF_PROG_ATTACH, attach) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("attach the device program to '", directory, "'"));
  }
  // With several attached all must agree; the new one is in force before the old ones go.
  for (uint32_t id : old) {
    bpf_attr by_id;
    memset(&by_id, 0, sizeof by_id);
    by_id.prog_id = id;
    sys::UniqueFd fd(static_cast<int>(Bpf(BPF_PROG_GET_FD_BY_ID, by_id)));
    if (!fd.ok()) continue;  // Gone by itself.
    bpf_attr detach;
    memset(&detach, 0, sizeof detach);
    detach.target_fd = static_cast<uint32_t>(cgroup.get());
    detach.attach_bpf_fd = static_cast<uint32_t>(fd.get());
    detach.attach_type = BPF_CGROUP_DEVICE;
    if (Bpf(BPF_PROG_DETACH, detach) != 0) {
      return sys::ErrnoError(errno,
                             absl::StrCat("detach the old device program of '", directory, "'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::cgroup
