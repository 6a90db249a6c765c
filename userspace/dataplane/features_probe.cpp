// SPDX-License-Identifier: GPL-2.0-only
// The attempts behind probe_features(). Each returns 0, or the errno that says "missing".
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "dataplane/features.hpp"
#include "util/fd.hpp"

namespace l7mark {
namespace {

// Newer than the kernel headers of Debian 12; from include/uapi/linux/bpf.h of Linux 6.6.
constexpr std::uint32_t kAttachTcxIngress = 46;

// Instructions, as include/linux/filter.h names them.
constexpr bpf_insn make_insn(std::uint8_t code, std::uint8_t dst, std::uint8_t src,
                             std::int16_t offset, std::int32_t imm) {
  bpf_insn insn{};
  insn.code = code;
  insn.dst_reg = dst & 0xfU;
  insn.src_reg = src & 0xfU;
  insn.off = offset;
  insn.imm = imm;
  return insn;
}
constexpr bpf_insn move_imm(std::uint8_t dst, std::int32_t imm) {
  return make_insn(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm);
}
constexpr bpf_insn move_reg(std::uint8_t dst, std::uint8_t src) {
  return make_insn(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}
constexpr bpf_insn add_imm(std::uint8_t dst, std::int32_t imm) {
  return make_insn(BPF_ALU64 | BPF_ADD, dst, 0, 0, imm);
}
constexpr bpf_insn store_zero(std::uint8_t base, std::int16_t offset) {
  return make_insn(BPF_ST | BPF_MEM | BPF_DW, base, 0, offset, 0);
}
constexpr bpf_insn call_helper(std::int32_t helper) {
  return make_insn(BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}
constexpr bpf_insn call_function(std::int32_t offset) {
  return make_insn(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, offset);
}
constexpr bpf_insn jump_if_less(std::uint8_t dst, std::int32_t imm, std::int16_t offset) {
  return make_insn(BPF_JMP | BPF_JLT | BPF_K, dst, 0, offset, imm);
}
constexpr bpf_insn leave() {
  return make_insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

constexpr std::array kPass = {move_imm(BPF_REG_0, XDP_PASS), leave()};
constexpr std::array kAdjustMeta = {move_imm(BPF_REG_2, -8), call_helper(BPF_FUNC_xdp_adjust_meta),
                                    move_imm(BPF_REG_0, XDP_PASS), leave()};

// An empty Fd says "missing"; errno says why.
Fd load(bpf_prog_type type, std::span<const bpf_insn> code, std::uint32_t flags = 0) {
  bpf_prog_load_opts options{};
  options.sz = sizeof(options);
  options.prog_flags = flags;
  return Fd(bpf_prog_load(type, "l7mark_probe", "GPL", code.data(), code.size(), &options));
}

Fd create(bpf_map_type type, std::uint32_t key, std::uint32_t value, std::uint32_t entries,
          std::uint32_t flags = 0, int inner = -1) {
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.map_flags = flags;
  if (inner >= 0) options.inner_map_fd = static_cast<std::uint32_t>(inner);
  return Fd(bpf_map_create(type, "l7mark_probe", key, value, entries, &options));
}

int missing(const Fd& fd) {
  return fd ? 0 : errno;
}

std::uint32_t page_size() {
  return static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE));
}

int try_xdp_program() {
  return missing(load(BPF_PROG_TYPE_XDP, kPass));
}

int try_tc_program() {
  return missing(load(BPF_PROG_TYPE_SCHED_CLS, kPass));
}

int try_bounded_loops() {
  constexpr std::array code = {move_imm(BPF_REG_0, 0), add_imm(BPF_REG_0, 1),
                               jump_if_less(BPF_REG_0, 100, -2), move_imm(BPF_REG_0, XDP_PASS),
                               leave()};
  return missing(load(BPF_PROG_TYPE_XDP, code));
}

int try_jiffies64() {
  constexpr std::array code = {call_helper(BPF_FUNC_jiffies64), move_imm(BPF_REG_0, XDP_PASS),
                               leave()};
  return missing(load(BPF_PROG_TYPE_XDP, code));
}

int try_lru_hash() {
  return missing(create(BPF_MAP_TYPE_LRU_HASH, 4, 8, 64));
}

int try_lpm_trie() {
  return missing(create(BPF_MAP_TYPE_LPM_TRIE, 8, 8, 4, BPF_F_NO_PREALLOC));
}

int try_read_only_globals() {
  const Fd map = create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_RDONLY_PROG | BPF_F_MMAPABLE);
  if (!map) return errno;
  return bpf_map_freeze(map.get()) == 0 ? 0 : errno;
}

int try_ring_buffer() {
  return missing(create(BPF_MAP_TYPE_RINGBUF, 0, 0, page_size()));
}

int try_ring_array() {
  const Fd ring = create(BPF_MAP_TYPE_RINGBUF, 0, 0, page_size());
  if (!ring) return errno;
  return missing(create(BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 2, 0, ring.get()));
}

int try_test_run() {
  for (const bpf_prog_type type : {BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_SCHED_CLS}) {
    const Fd program = load(type, kPass);
    if (!program) return errno;
    std::array<std::uint8_t, 64> frame{};
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = frame.size();
    options.repeat = 1;
    if (bpf_prog_test_run_opts(program.get(), &options) != 0) return errno;
    if (options.retval != XDP_PASS) return EINVAL;
  }
  return 0;
}

// Mounted already, or known to the kernel and so to be mounted by us.
int try_bpffs() {
  struct statfs info {};
  if (::statfs("/sys/fs/bpf", &info) == 0 && info.f_type == BPF_FS_MAGIC) return 0;
  std::ifstream kinds("/proc/filesystems");
  for (std::string word; kinds >> word;) {
    if (word == "bpf") return 0;
  }
  return ENODEV;
}

int try_xdp_load_bytes() {
  constexpr std::array code = {
      store_zero(BPF_REG_10, -8),      move_imm(BPF_REG_2, 0),
      move_reg(BPF_REG_3, BPF_REG_10), add_imm(BPF_REG_3, -8),
      move_imm(BPF_REG_4, 8),          call_helper(BPF_FUNC_xdp_load_bytes),
      move_imm(BPF_REG_0, XDP_PASS),   leave()};
  return missing(load(BPF_PROG_TYPE_XDP, code));
}

int try_xdp_frags() {
  return missing(load(BPF_PROG_TYPE_XDP, kPass, BPF_F_XDP_HAS_FRAGS));
}

int try_xdp_metadata() {
  return missing(load(BPF_PROG_TYPE_XDP, kAdjustMeta));
}

// On an interface that cannot be: where TCX is known, the interface is what is missing. By the raw
// call, as libbpf 1.1 has no function for it.
int try_tcx() {
  const Fd program = load(BPF_PROG_TYPE_SCHED_CLS, kPass);
  if (!program) return errno;
  bpf_attr attr{};
  attr.link_create.prog_fd = static_cast<std::uint32_t>(program.get());
  attr.link_create.target_ifindex = std::numeric_limits<std::int32_t>::max();
  attr.link_create.attach_type = kAttachTcxIngress;
  const Fd link(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr))));
  if (link || errno == ENODEV) return 0;
  return errno;
}

struct BtfDeleter {
  void operator()(btf* object) const { btf__free(object); }
};
using BtfPtr = std::unique_ptr<btf, BtfDeleter>;

// Types of `int probe_main(struct xdp_md *ctx)` and of `probe_slot`, its sibling.
struct ProbeTypes {
  BtfPtr object;
  std::array<std::uint32_t, 2> functions{};
};

// An empty object says "missing"; errno says why.
ProbeTypes load_types() {
  ProbeTypes types{.object = BtfPtr(btf__new_empty())};
  btf* object = types.object.get();
  if (object == nullptr) return {};
  const int number = btf__add_int(object, "int", 4, BTF_INT_SIGNED);
  const int context = btf__add_struct(object, "xdp_md", 4);
  if (number < 0 || context < 0 || btf__add_field(object, "data", number, 0, 0) != 0) return {};
  const int pointer = btf__add_ptr(object, context);
  const int prototype = btf__add_func_proto(object, number);
  if (pointer < 0 || prototype < 0 || btf__add_func_param(object, "ctx", pointer) != 0) return {};
  const int main = btf__add_func(object, "probe_main", BTF_FUNC_GLOBAL, prototype);
  const int slot = btf__add_func(object, "probe_slot", BTF_FUNC_GLOBAL, prototype);
  if (main < 0 || slot < 0 || btf__load_into_kernel(object) != 0) return {};
  types.functions = {static_cast<std::uint32_t>(main), static_cast<std::uint32_t>(slot)};
  return types;
}

int try_map_btf() {
  const ProbeTypes types = load_types();
  if (!types.object) return errno;
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.btf_fd = static_cast<std::uint32_t>(btf__fd(types.object.get()));
  options.btf_key_type_id = 1;  // "int", the first type
  options.btf_value_type_id = 1;
  const Fd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, "l7mark_probe", 4, 4, 1, &options));
  return missing(map);
}

// Replaces a function of a program that is attached nowhere, as libxdp's dispatcher does. Loading
// is not enough: some kernels take the program and refuse the replacement.
int replace_function(std::span<const bpf_insn> code) {
  const ProbeTypes types = load_types();
  if (!types.object) return errno;
  constexpr std::array target_code = {call_function(1), leave(), move_imm(BPF_REG_0, XDP_PASS),
                                      leave()};
  const std::array<bpf_func_info, 2> target_functions = {
      {{.insn_off = 0, .type_id = types.functions[0]},
       {.insn_off = 2, .type_id = types.functions[1]}}};
  bpf_prog_load_opts options{};
  options.sz = sizeof(options);
  options.prog_btf_fd = static_cast<std::uint32_t>(btf__fd(types.object.get()));
  options.func_info = target_functions.data();
  options.func_info_cnt = target_functions.size();
  options.func_info_rec_size = sizeof(bpf_func_info);
  const Fd target(bpf_prog_load(BPF_PROG_TYPE_XDP, "probe_main", "GPL", target_code.data(),
                                target_code.size(), &options));
  if (!target) return errno;

  const bpf_func_info function = {.insn_off = 0, .type_id = types.functions[1]};
  options.func_info = &function;
  options.func_info_cnt = 1;
  options.attach_prog_fd = static_cast<std::uint32_t>(target.get());
  options.attach_btf_id = types.functions[1];
  const Fd replacement(
      bpf_prog_load(BPF_PROG_TYPE_EXT, "probe_slot", "GPL", code.data(), code.size(), &options));
  if (!replacement) return errno;

  bpf_link_create_opts link_options{};
  link_options.sz = sizeof(link_options);
  link_options.target_btf_id = types.functions[1];
  const Fd link(bpf_link_create(replacement.get(), target.get(), bpf_attach_type{}, &link_options));
  return missing(link);
}

int try_freplace() {
  return replace_function(kPass);
}

// 6.14 and stable kernels after it refuse a replacement that moves the packet's data unless the
// original does too, which the dispatcher of libxdp 1.3 does not.
int try_shared_metadata() {
  return replace_function(kAdjustMeta);
}

int try_map_batch() {
  const Fd map = create(BPF_MAP_TYPE_LRU_HASH, 4, 8, 64);
  if (!map) return errno;
  std::uint32_t key = 1;
  std::uint64_t value = 2;
  std::uint32_t count = 1;
  if (bpf_map_update_batch(map.get(), &key, &value, &count, nullptr) != 0) return errno;
  std::uint32_t cursor = 0;
  count = 1;
  // ENOENT only says that the end was reached.
  if (bpf_map_lookup_batch(map.get(), nullptr, &cursor, &key, &value, &count, nullptr) != 0 &&
      errno != ENOENT && errno != ENOSPC) {
    return errno;
  }
  count = 1;
  key = 1;
  return bpf_map_delete_batch(map.get(), &key, &count, nullptr) == 0 ? 0 : errno;
}

int try_kernel_btf() {
  return ::access("/sys/kernel/btf/vmlinux", R_OK) == 0 ? 0 : errno;
}

int try_jit() {
  const Fd program = load(BPF_PROG_TYPE_XDP, kPass);
  if (!program) return errno;
  bpf_prog_info info{};
  std::uint32_t length = sizeof(info);
  if (bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) return errno;
  return info.jited_prog_len > 0 ? 0 : EOPNOTSUPP;
}

// Where the limit still counts, a map under a limit of nothing is refused. By the raw call, as
// libbpf would raise the limit first.
int try_memcg_accounting() {
  rlimit before{};
  if (::getrlimit(RLIMIT_MEMLOCK, &before) != 0) return errno;
  const rlimit nothing = {.rlim_cur = 0, .rlim_max = before.rlim_max};
  if (::setrlimit(RLIMIT_MEMLOCK, &nothing) != 0) return errno;
  bpf_attr attr{};
  attr.map_type = BPF_MAP_TYPE_ARRAY;
  attr.key_size = 4;
  attr.value_size = 8;
  attr.max_entries = 1;
  const Fd map(static_cast<int>(::syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr))));
  const int code = missing(map);
  if (::setrlimit(RLIMIT_MEMLOCK, &before) != 0) return errno;
  return code;
}

struct Attempt {
  FeatureId id;
  int (*run)();
};

constexpr std::array<Attempt, kFeatureCount> kAttempts = {{
    {FeatureId::xdp_program, try_xdp_program},
    {FeatureId::tc_program, try_tc_program},
    {FeatureId::bounded_loops, try_bounded_loops},
    {FeatureId::jiffies64, try_jiffies64},
    {FeatureId::lru_hash, try_lru_hash},
    {FeatureId::lpm_trie, try_lpm_trie},
    {FeatureId::read_only_globals, try_read_only_globals},
    {FeatureId::ring_buffer, try_ring_buffer},
    {FeatureId::ring_array, try_ring_array},
    {FeatureId::test_run, try_test_run},
    {FeatureId::bpffs, try_bpffs},
    {FeatureId::xdp_load_bytes, try_xdp_load_bytes},
    {FeatureId::xdp_frags, try_xdp_frags},
    {FeatureId::xdp_metadata, try_xdp_metadata},
    {FeatureId::tcx, try_tcx},
    {FeatureId::freplace, try_freplace},
    {FeatureId::shared_metadata, try_shared_metadata},
    {FeatureId::map_batch, try_map_batch},
    {FeatureId::map_btf, try_map_btf},
    {FeatureId::kernel_btf, try_kernel_btf},
    {FeatureId::jit, try_jit},
    {FeatureId::memcg_accounting, try_memcg_accounting},
}};

// Whether anything can be tried at all: a map of the oldest type.
Status check_access() {
  const Fd map = create(BPF_MAP_TYPE_ARRAY, 4, 4, 1);
  int code = missing(map);
  if (code == 0 && try_tc_program() == EPERM) code = EPERM;
  if (code == 0) return success();
  return Error{"probe", "the kernel", code,
               code == ENOSYS ? "it is built without CONFIG_BPF_SYSCALL"
                              : "needs root, or CAP_BPF and CAP_NET_ADMIN"};
}

// Failed attempts are answers here: libbpf's own words about them would only alarm.
class QuietLibbpf {
 public:
  QuietLibbpf() : before_(libbpf_set_print(nullptr)) {}
  QuietLibbpf(const QuietLibbpf&) = delete;
  QuietLibbpf& operator=(const QuietLibbpf&) = delete;
  ~QuietLibbpf() { libbpf_set_print(before_); }

 private:
  libbpf_print_fn_t before_;
};

}  // namespace

Result<Features> probe_features() {
  const QuietLibbpf quiet;
  L7MARK_TRY(check_access());
  Features features;
  for (const Attempt& attempt : kAttempts) features.set(attempt.id, attempt.run());
  if (const char* without = std::getenv("L7MARK_WITHOUT"); without != nullptr) {
    L7MARK_TRY(features.disable(without));
  }
  return features;
}

}  // namespace l7mark
