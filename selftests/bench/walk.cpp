// SPDX-License-Identifier: GPL-2.0-only
#include "walk.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <l7mark/parse.h>
#include <l7mark_bench.skel.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "../unit/packets.hpp"
#include "util/clock.hpp"

namespace l7mark::bench {

namespace {

constexpr std::size_t kSource = 26;                   // offset of the source address
constexpr std::uint32_t kFirstAddress = 0x0a000000U;  // BENCH_FIRST_ADDRESS

const test::Bytes& frame() {
  static const test::Bytes bytes = test::ethernet(
      test::tcp({"10.0.0.0", "198.51.100.20", 40000, 443}, 0x10, 1, 1, test::Bytes(512, 0x5a)));
  return bytes;
}

}  // namespace

void Walk::Destroy::operator()(l7mark_bench* object) const {
  l7mark_bench::destroy(object);
}

Walk::Walk(l7mark_bench* object) : bench_(object) {}

Result<Walk> Walk::load(std::size_t flows) {
  Walk out(l7mark_bench::open());
  if (!out.bench_) return error_from_errno("open", "the bench's programs");
  bpf_map__set_max_entries(out.bench_->maps.floor_flows, static_cast<__u32>(flows * 2));
  if (l7mark_bench::load(out.bench_.get()) != 0)
    return error_from_errno("load", "the bench's programs");
  return out;
}

FlowKey Walk::key(std::uint32_t flow) {
  test::Bytes bytes = frame();
  const std::uint32_t address = __builtin_bswap32(kFirstAddress + flow);
  std::memcpy(&bytes[kSource], &address, sizeof(address));
  l7m_packet parsed{};
  l7m_cursor cursor{bytes.data(), bytes.data() + bytes.size(), 0, nullptr, 0};
  FlowKey out;
  if (l7m_parse(&cursor, &parsed, 0, static_cast<std::uint32_t>(bytes.size()), 0) == 0) {
    l7m_map_ipv4(&parsed);
    l7m_make_key(&parsed, &out.raw);
  }
  return out;
}

Status Walk::fill_floor(std::size_t flows) {
  for (std::size_t i = 0; i < flows; ++i) {
    l7m_key4 short_key;
    const FlowKey full = key(static_cast<std::uint32_t>(i));
    l7m_key_to_v4(&full.raw, &short_key);
    const l7m_counters zero{};
    if (bpf_map_update_elem(bpf_map__fd(bench_->maps.floor_flows), &short_key, &zero, BPF_ANY) != 0)
      return error_from_errno("write", "map floor_flows");
  }
  return success();
}

int Walk::empty() const {
  return bpf_program__fd(bench_->progs.bench_tc_empty);
}
int Walk::floor() const {
  return bpf_program__fd(bench_->progs.bench_tc_floor);
}

double Walk::run(int program, std::size_t flows, unsigned repeat) {
  auto& state = bench_->bss->bench_walk;
  state.at = 0;
  state.mask = static_cast<std::uint32_t>(flows - 1);
  state.shift = static_cast<std::uint32_t>(std::bit_width(flows - 1) + 1) / 2;
  state.offset = kSource;
  const __u32 zero = 0;
  if (bpf_map_update_elem(bpf_map__fd(bench_->maps.tc_target), &zero, &program, BPF_ANY) != 0)
    return -1;
  return run_ns(bpf_program__fd(bench_->progs.bench_tc_walk), frame(), repeat);
}

double run_ns(int program, std::span<const std::uint8_t> packet, unsigned repeat) {
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
              .data_size_in = static_cast<__u32>(packet.size()),
              .repeat = static_cast<int>(repeat));
  const std::uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  if (bpf_prog_test_run_opts(program, &options) != 0) return -1;
  if (repeat < 100'000) return options.duration;
  return static_cast<double>(clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / repeat;
}

}  // namespace l7mark::bench
