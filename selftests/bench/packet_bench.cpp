// SPDX-License-Identifier: GPL-2.0-only
// `packet`: nanoseconds a packet by BPF_PROG_TEST_RUN, whose clock runs in the kernel around the
// repetitions. Every program is entered from one that writes the next flow's address into the
// packet, so that the floor and ours see the same flows in the same order; what that costs is taken
// off again, round by round.
#include "packet_bench.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <l7mark/parse.h>
#include <l7mark_bench.skel.h>
#include <sched.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "../unit/packets.hpp"
#include "dataplane/dataplane.hpp"
#include "measure.hpp"
#include "util/log.hpp"
#include "walk.hpp"

namespace l7mark::bench {

namespace {

using test::Bytes;

struct DestroyBench {
  void operator()(l7mark_bench* object) const { l7mark_bench::destroy(object); }
};
struct CloseObject {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
struct FreeRing {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

constexpr std::uint32_t kMark = 4, kDrop = 8;         // indices of actions
constexpr std::uint32_t kFirstAddress = 0x0a000000U;  // BENCH_FIRST_ADDRESS
// Flows that are sampled side by side: as many packets as the ring holds, because a run of XDP
// begins with cold caches.
constexpr std::size_t kSampledFlows = 32;
constexpr unsigned kSampledEach = 250;
constexpr unsigned kNewFlows = 8192;  // a round; their records fit the ring

int ignore_record(void*, void*, std::size_t) {
  return 0;
}

struct Packet {
  Bytes frame;
  std::uint32_t offset;  // of the source address's last four bytes
};

Packet tcp_packet(bool v6, bool vlan, std::uint16_t sport, std::size_t payload,
                  std::uint8_t flags = 0x10) {
  test::Endpoints ends{v6 ? "2001:db8::a00:0" : "10.0.0.0", v6 ? "2001:db8:1::20" : "198.51.100.20",
                       sport, 443};
  Packet out;
  out.frame = test::ethernet(test::tcp(ends, flags, 1, 1, Bytes(payload, 0x5a)));
  if (vlan) {
    const Bytes tag{0x81, 0x00, 0x00, 0x07};
    out.frame.insert(out.frame.begin() + 12, tag.begin(), tag.end());
  }
  out.offset = v6 ? 34 : vlan ? 30 : 26;
  return out;
}

// As the daemon loads the programs without a word about it in the policy.
constexpr std::uint32_t kParse = L7M_PARSE_VLAN_KEY;

FlowKey key_of(const Packet& packet, std::uint32_t flow) {
  Bytes frame = packet.frame;
  const std::uint32_t address = __builtin_bswap32(kFirstAddress + flow);
  std::memcpy(&frame[packet.offset], &address, sizeof(address));
  l7m_packet parsed{};
  l7m_cursor cursor{frame.data(), frame.data() + frame.size(), 0, nullptr, 0};
  FlowKey key;
  if (l7m_parse(&cursor, &parsed, 0, static_cast<std::uint32_t>(frame.size()), kParse) == 0) {
    l7m_map_ipv4(&parsed);
    l7m_make_key(&parsed, &key.raw);
  }
  return key;
}

class PacketBench {
 public:
  explicit PacketBench(const PacketBenchOptions& options) : options_(options) {
    for (std::size_t& flows : options_.flows) flows = std::bit_ceil(flows);
  }

  Status prepare() {
    const auto features = probe_features();
    if (!features) return features.error();
    std::size_t table = L7M_DEFAULT_FLOWS;
    for (const std::size_t flows : options_.flows) table = std::max(table, flows * 2);
    DataplaneOptions dataplane_options;
    dataplane_options.flows = static_cast<std::uint32_t>(table);
    dataplane_options.ring_bytes = 16U << 20;
    dataplane_options.parse = kParse;
    auto dataplane = Dataplane::open_private(dataplane_options, *features);
    if (!dataplane) return dataplane.error();
    dataplane_ = std::make_unique<Dataplane>(std::move(*dataplane));
    bench_.reset(l7mark_bench::open());
    if (!bench_) return error_from_errno("open", "the bench's programs");
    bpf_map__set_max_entries(bench_->maps.floor_flows, static_cast<__u32>(table));
    bpf_map__set_max_entries(bench_->maps.floor_flows6, static_cast<__u32>(table));
    // A program is called from another only if both take several buffers or neither does.
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, bench_->obj) {
      if (bpf_program__type(program) == BPF_PROG_TYPE_XDP && features->has(FeatureId::xdp_frags))
        bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);
    }
    if (l7mark_bench::load(bench_.get()) != 0)
      return error_from_errno("load", "the bench's programs");
    auto xdp = dataplane_->open_xdp();
    if (!xdp) return xdp.error();
    xdp_.reset(*xdp);
    if (bpf_object__load(xdp_.get()) != 0) return error_from_errno("load", "the XDP programs");
    L7MARK_TRY(configure(0));
    // As many as without a policy. The clients with IPv6 are in none.
    std::vector<std::pair<Address, unsigned>> inside;
    for (const char* prefix : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
                               "fc00::/7", "fe80::/10"})
      inside.emplace_back(Prefix::parse(prefix)->address, Prefix::parse(prefix)->length128());
    L7MARK_TRY(dataplane_->set_inside(inside));
    l7m_action mark{};
    mark.flags = L7M_ACT_MARK;
    mark.mark = 0x85;
    mark.mark_mask = 0xff;
    L7MARK_TRY(dataplane_->write_action(kMark, mark));
    l7m_action drop{};
    drop.flags = L7M_ACT_DROP;
    L7MARK_TRY(dataplane_->write_action(kDrop, drop));
    ring_.reset(ring_buffer__new(dataplane_->ring_fd(0), ignore_record, nullptr, nullptr));
    if (!ring_) return error_from_errno("map", "the ring buffer");
    return success();
  }

  Status configure(std::uint32_t flags) {
    l7m_settings settings{};
    settings.packets = settings.whole = settings.whole_plain = 255;
    settings.snaplen = settings.whole_snaplen = 1600;
    settings.rings = 1;
    settings.flags = flags;
    // Kept, and never used up: all of it is in one second for each source.
    settings.source_budget = settings.outside_budget = 0xffffffff;
    settings.hz = 250;
    return dataplane_->write_settings(settings);
  }

  Status hook(bool xdp, Table& table) {
    xdp_hook_ = xdp;
    ours_ = xdp ? bpf_program__fd(bpf_object__find_program_by_name(xdp_.get(), "l7mark_xdp"))
                : dataplane_->program_fd("l7mark_ingress");
    const auto& progs = bench_->progs;
    empty_ = bpf_program__fd(xdp ? progs.bench_xdp_empty : progs.bench_tc_empty);
    floor_ = bpf_program__fd(xdp ? progs.bench_xdp_floor : progs.bench_tc_floor);
    floor6_ = bpf_program__fd(xdp ? progs.bench_xdp_floor6 : progs.bench_tc_floor6);
    floor_new_ = bpf_program__fd(xdp ? progs.bench_xdp_floor_new : progs.bench_tc_floor_new);
    walk_ = bpf_program__fd(xdp ? progs.bench_xdp_walk : progs.bench_tc_walk);
    for (const std::size_t flows : options_.flows) L7MARK_TRY(established(flows, table));
    L7MARK_TRY(sampled(table));
    return new_flows(table);
  }

 private:
  struct Row {
    std::string name;
    const Packet* packet;
    int program;
    bool hands_over = false;  // puts metadata in front of the packet, at XDP
  };

  // A round of one program over `flows` flows.
  double walk(int program, const Packet& packet, std::size_t flows, unsigned repeat) {
    auto& state = bench_->bss->bench_walk;
    state.mask = static_cast<std::uint32_t>(flows - 1);
    state.shift = static_cast<std::uint32_t>(std::bit_width(flows - 1) + 1) / 2;
    state.offset = packet.offset;
    const int map = bpf_map__fd(xdp_hook_ ? bench_->maps.xdp_target : bench_->maps.tc_target);
    const __u32 zero = 0;
    if (bpf_map_update_elem(map, &zero, &program, BPF_ANY) != 0) return -1;
    return run_ns(walk_, packet.frame, repeat);
  }

  // What is in all that is measured and no part of it, first in `contenders`.
  void add_overheads(std::vector<Contender>& contenders, const Packet& packet, std::size_t flows) {
    contenders.push_back({"empty", [&] { return run_ns(empty_, packet.frame, options_.repeat); }});
    contenders.push_back(
        {"walk", [&, flows] { return walk(empty_, packet, flows, options_.repeat); }});
    if (!xdp_hook_) return;
    const int one = bpf_program__fd(bench_->progs.bench_xdp_meta);
    const int two = bpf_program__fd(bench_->progs.bench_xdp_meta_twice);
    contenders.push_back({"meta", [&, one] { return walk(one, packet, 1, options_.repeat); }});
    contenders.push_back(
        {"meta twice", [&, two] { return walk(two, packet, 1, options_.repeat); }});
  }
  [[nodiscard]] std::size_t overheads() const { return xdp_hook_ ? 4 : 2; }

  // Takes them off, round by round.
  void settle(std::vector<Contender>& contenders, const std::vector<Row>& rows) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      auto& values = contenders[overheads() + i].values;
      for (std::size_t round = 0; round < values.size(); ++round) {
        values[round] += contenders[0].values[round] - contenders[1].values[round];
        // The walk moves the packet's start back, one more call.
        if (xdp_hook_ && rows[i].hands_over)
          values[round] -= contenders[3].values[round] - contenders[2].values[round];
      }
    }
  }

  Status established(std::size_t flows, Table& table) {
    const Packet v4 = tcp_packet(false, false, 40000, 512);
    const Packet plain = tcp_packet(false, false, 40001, 512);
    const Packet vlan = tcp_packet(false, true, 40002, 512);
    const Packet dropped = tcp_packet(false, false, 40003, 512);
    const Packet v6 = tcp_packet(true, false, 40000, 512);
    L7MARK_TRY(floor_flows(v4, flows));
    L7MARK_TRY(floor_flows(v6, flows));
    std::vector<Row> rows = {{"floor: parse, look up once, count", &v4, floor_},
                             {"IPv4, mark", &v4, ours_, true}};
    L7MARK_TRY(decide(v4, flows, kMark));
    L7MARK_TRY(decide(v6, flows, kMark));
    rows.push_back({"floor, with a key of IPv6", &v6, floor6_});
    rows.push_back({"IPv6, mark", &v6, ours_, true});
    if (flows == 1) {
      L7MARK_TRY(decide(plain, flows, 0));
      L7MARK_TRY(decide(vlan, flows, kMark));
      L7MARK_TRY(decide(dropped, flows, kDrop));
      rows.push_back({"IPv4, no class", &plain, ours_, true});
      rows.push_back({"VLAN, IPv4, mark", &vlan, ours_, true});
      rows.push_back({"IPv4, drop", &dropped, ours_});
    }
    std::vector<Contender> contenders;
    add_overheads(contenders, v4, flows);
    for (const Row& row : rows)
      contenders.push_back(
          {row.name, [&] { return walk(row.program, *row.packet, flows, options_.repeat); }});
    if (!run_rounds(contenders, options_.rounds)) return failed();
    settle(contenders, rows);
    report(fmt::format("established, {}", flows), contenders, table);
    for (const Packet* packet : {&v4, &plain, &vlan, &dropped, &v6})
      for (std::size_t i = 0; i < flows; ++i)
        dataplane_->remove_verdict(key_of(*packet, static_cast<std::uint32_t>(i)));
    return success();
  }

  Status sampled(Table& table) {
    const Packet floor = tcp_packet(false, false, 40000, 512);
    std::vector<Packet> packets = {tcp_packet(false, false, 40010, 512)};
    std::vector<Row> rows = {{"floor: parse, look up once, count", &floor, floor_},
                             {"candidate, not sampled", nullptr, ours_, true}};
    for (const std::size_t size : {128U, 512U, 1514U}) {
      packets.push_back(tcp_packet(false, false, 40010, size - 54));
      rows.push_back({fmt::format("sampled, {} bytes", size), nullptr, ours_, true});
    }
    for (std::size_t i = 0; i < packets.size(); ++i) rows[i + 1].packet = &packets[i];
    std::vector<Contender> contenders;
    add_overheads(contenders, floor, kSampledFlows);
    contenders.push_back(
        {rows[0].name, [&] { return walk(floor_, floor, kSampledFlows, options_.repeat); }});
    contenders.push_back({rows[1].name, [&] {
                            if (!restart(packets[0], 255).ok()) return -1.0;
                            return walk(ours_, packets[0], kSampledFlows, options_.repeat);
                          }});
    for (std::size_t i = 1; i < packets.size(); ++i)
      contenders.push_back({rows[i + 1].name, [&, i] {
                              std::vector<double> values;
                              for (int part = 0; part < 10; ++part) {
                                if (!restart(packets[i], 0).ok()) return -1.0;
                                ring_buffer__consume(ring_.get());
                                values.push_back(walk(ours_, packets[i], kSampledFlows,
                                                      kSampledFlows * kSampledEach));
                              }
                              return median(std::move(values));
                            }});
    if (!run_rounds(contenders, options_.rounds)) return failed();
    ring_buffer__consume(ring_.get());
    settle(contenders, rows);
    report(fmt::format("sampled, {}", kSampledFlows), contenders, table);
    return success();
  }

  // By flows that were not there before: ever other ports, of 8192 clients.
  Status new_flows(Table& table) {
    const Packet syn = tcp_packet(false, false, 40020, 0, 0x02);
    std::vector<Packet> packets = {syn, syn, tcp_packet(true, false, 40020, 0, 0x02), syn};
    // The last as where there are classes: earlier flows and DNS answers may tell the first
    // packet's.
    const std::vector<Row> rows = {
        {"floor: parse, miss, insert in an LRU", &packets[0], floor_new_},
        {"new flow, IPv4, SYN", &packets[1], ours_, true},
        {"new flow, IPv6, SYN", &packets[2], ours_, true},
        {"new flow, IPv4, SYN, asked for promises", &packets[3], ours_, true}};
    const Packet other = tcp_packet(false, false, 40000, 0);
    std::vector<Contender> contenders;
    add_overheads(contenders, other, kNewFlows);
    for (std::size_t i = 0; i < rows.size(); ++i)
      contenders.push_back({rows[i].name, [&, i] {
                              Packet& packet = packets[i];
                              const std::uint32_t promises = L7M_SET_SERVICES | L7M_SET_HINTS;
                              if (!configure(i == 3 ? promises : 0).ok()) return -1.0;
                              std::uint8_t* port = &packet.frame[packet.offset == 26 ? 34 : 54];
                              std::vector<double> values;
                              for (int part = 0; part < 10; ++part) {
                                if (++port[1] == 0) ++port[0];
                                ring_buffer__consume(ring_.get());
                                values.push_back(
                                    walk(rows[i].program, packet, kNewFlows, kNewFlows));
                              }
                              return median(std::move(values));
                            }});
    if (!run_rounds(contenders, options_.rounds)) return failed();
    ring_buffer__consume(ring_.get());
    settle(contenders, rows);
    report("new", contenders, table);
    return success();
  }

  Status decide(const Packet& packet, std::size_t flows, std::uint32_t action) {
    std::vector<VerdictEntry> entries(flows);
    for (std::size_t i = 0; i < flows; ++i) {
      entries[i].key = key_of(packet, static_cast<std::uint32_t>(i));
      entries[i].verdict.action = action;
      entries[i].verdict.state = L7M_STATE_FINAL;
    }
    const auto full = dataplane_->put_verdicts(entries);
    if (!full) return full.error();
    if (!full->empty()) return Error{"fill", "the table of flows", 0, "it is too small"};
    return success();
  }

  Status floor_flows(const Packet& packet, std::size_t flows) {
    for (std::size_t i = 0; i < flows; ++i) {
      const FlowKey full = key_of(packet, static_cast<std::uint32_t>(i));
      const bool v4 = l7m_key_is_v4(&full.raw) != 0;
      l7m_key4 key4{};
      if (v4) l7m_key_to_v4(&full.raw, &key4);
      const l7m_counters zero{};
      const int map = bpf_map__fd(v4 ? bench_->maps.floor_flows : bench_->maps.floor_flows6);
      const void* key = v4 ? static_cast<const void*>(&key4) : &full.raw;
      if (bpf_map_update_elem(map, key, &zero, BPF_ANY) != 0)
        return error_from_errno("write", "a floor's table");
    }
    return success();
  }

  // Candidates as after so many samples.
  Status restart(const Packet& packet, std::uint8_t sampled) {
    l7m_candidate candidate{};
    candidate.first_sent = 1;
    candidate.packets = candidate.whole = 255;
    candidate.sampled = sampled;
    const auto clock = dataplane_->clock();
    if (!clock) return clock.error();
    candidate.last_seen = static_cast<std::uint32_t>(clock->jiffies);
    for (std::uint32_t i = 0; i < kSampledFlows; ++i)
      L7MARK_TRY(dataplane_->put_candidate(key_of(packet, i), candidate));
    return success();
  }

  [[nodiscard]] Error failed() const {
    return error_from_errno("run", xdp_hook_ ? "the XDP programs" : "the TC programs");
  }

  void report(const std::string& flows, const std::vector<Contender>& contenders,
              Table& table) const {
    const double empty = median(contenders[0].values);
    const Contender& base = contenders[overheads()];
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (i > 0 && i < overheads()) continue;
      const Contender& c = contenders[i];
      const auto [low, high] = std::minmax_element(c.values.begin(), c.values.end());
      table.rows.push_back({xdp_hook_ ? "XDP" : "TC", flows, c.name, number(median(c.values)),
                            number(*low), number(*high), number(median(c.values) - empty),
                            number(ratio(c, base), 2)});
    }
  }

  PacketBenchOptions options_;
  std::unique_ptr<Dataplane> dataplane_;
  std::unique_ptr<l7mark_bench, DestroyBench> bench_;
  std::unique_ptr<bpf_object, CloseObject> xdp_;
  std::unique_ptr<ring_buffer, FreeRing> ring_;
  bool xdp_hook_ = false;
  int ours_ = -1, empty_ = -1, floor_ = -1, floor6_ = -1, floor_new_ = -1, walk_ = -1;
};

}  // namespace

Result<Table> run_packet_bench(const PacketBenchOptions& options) {
  // Before a run of XDP the kernel waits for its CPUs: on another one, caches would be cold.
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(static_cast<unsigned>(sched_getcpu()), &here);
  sched_setaffinity(0, sizeof(here), &here);
  PacketBench bench(options);
  L7MARK_TRY(bench.prepare());
  Table table;
  table.columns = {"hook", "flows", "packet", "ns", "lowest", "highest", "less empty", "by floor"};
  L7MARK_TRY(bench.hook(false, table));
  L7MARK_TRY(bench.hook(true, table));
  return table;
}

}  // namespace l7mark::bench
