// SPDX-License-Identifier: GPL-2.0-only
// `packet`: nanoseconds a packet by BPF_PROG_TEST_RUN, whose clock runs in the kernel around the
// repetitions.
#include "packet_bench.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <l7mark/parse.h>
#include <l7mark_bench.skel.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "../unit/packets.hpp"
#include "dataplane/dataplane.hpp"
#include "measure.hpp"
#include "util/log.hpp"

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

int ignore_record(void*, void*, std::size_t) {
  return 0;
}

// Mean nanoseconds over `repeat` runs; negative on failure.
double run(int program, const Bytes& packet, unsigned repeat) {
  // No output is taken: a repeated XDP run puts its metadata in front again and again.
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
              .data_size_in = static_cast<__u32>(packet.size()),
              .repeat = static_cast<int>(repeat));
  if (bpf_prog_test_run_opts(program, &options) != 0) return -1;
  return options.duration;
}

Bytes ethernet(unsigned type) {
  Bytes out(12, 2);
  test::put16(out, type);
  return out;
}

Bytes tcp_packet(const std::string& from, const std::string& to, std::uint16_t sport,
                 std::size_t payload, bool vlan = false, std::uint8_t flags = 0x10) {
  Bytes transport;
  test::put16(transport, sport);
  test::put16(transport, 443);
  test::put32(transport, 1);
  test::put32(transport, 1);
  transport.push_back(0x50);
  transport.push_back(flags);
  test::put16(transport, 65535);
  test::put32(transport, 0);
  transport.resize(transport.size() + payload, 0x5a);
  test::Endpoints ends;
  ends.source = from;
  ends.destination = to;
  const bool v6 = from.find(':') != std::string::npos;
  Bytes frame = ethernet(vlan ? 0x8100 : v6 ? 0x86dd : 0x0800);
  if (vlan) {
    test::put16(frame, 7);
    test::put16(frame, v6 ? 0x86dd : 0x0800);
  }
  test::put(frame, test::ip(ends, 6, transport));
  return frame;
}

FlowKey key_of(const Bytes& frame) {
  l7m_packet packet{};
  l7m_cursor cursor{frame.data(), frame.data() + frame.size(), 0, nullptr};
  FlowKey key;
  if (l7m_parse(&cursor, &packet, 0, static_cast<std::uint32_t>(frame.size()), 0) == 0) {
    l7m_map_ipv4(&packet);
    l7m_make_key(&packet, &key.raw);
  }
  return key;
}

class PacketBench {
 public:
  explicit PacketBench(const PacketBenchOptions& options) : options_(options) {}

  Status prepare() {
    const auto features = probe_features();
    if (!features) return features.error();
    DataplaneOptions dataplane_options;
    dataplane_options.flows = 1024 * 1024;
    auto dataplane = Dataplane::open_private(dataplane_options, *features);
    if (!dataplane) return dataplane.error();
    dataplane_ = std::make_unique<Dataplane>(std::move(*dataplane));
    bench_.reset(l7mark_bench::open_and_load());
    if (!bench_) return error_from_errno("load", "the bench's programs");
    auto xdp = dataplane_->open_xdp();
    if (!xdp) return xdp.error();
    xdp_.reset(*xdp);
    if (bpf_program* other = bpf_object__find_program_by_name(xdp_.get(), "l7mark_xdp_only"))
      bpf_program__set_autoload(other, false);
    if (bpf_object__load(xdp_.get()) != 0) return error_from_errno("load", "the XDP program");
    l7m_settings settings{};
    settings.packets = 255;
    settings.whole = 255;
    settings.snaplen = settings.whole_snaplen = 1600;
    settings.rings = 1;
    L7MARK_TRY(dataplane_->write_settings(settings));
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

  Status hook(const char* name, bool xdp, Table& table) {
    const int ours =
        xdp ? bpf_program__fd(bpf_object__find_program_by_name(xdp_.get(), "l7mark_xdp"))
            : dataplane_->program_fd("l7mark_ingress");
    const int empty =
        bpf_program__fd(xdp ? bench_->progs.bench_xdp_empty : bench_->progs.bench_tc_empty);
    const int floor =
        bpf_program__fd(xdp ? bench_->progs.bench_xdp_floor : bench_->progs.bench_tc_floor);
    const Bytes v4 = tcp_packet("192.0.2.10", "198.51.100.20", 40000, 512);
    const Bytes v6 = tcp_packet("2001:db8::10", "2001:db8:1::20", 40000, 512);
    const Bytes vlan = tcp_packet("192.0.2.12", "198.51.100.20", 40000, 512, true);
    const Bytes dropped = tcp_packet("192.0.2.13", "198.51.100.20", 40000, 512);
    const Bytes plain = tcp_packet("192.0.2.14", "198.51.100.20", 40000, 512);
    L7MARK_TRY(decide(v4, kMark));
    L7MARK_TRY(decide(v6, kMark));
    L7MARK_TRY(decide(vlan, kMark));
    L7MARK_TRY(decide(dropped, kDrop));
    L7MARK_TRY(decide(plain, 0));
    L7MARK_TRY(floor_flow(v4));

    std::vector<Contender> contenders;
    const unsigned repeat = options_.repeat;
    const auto add = [&](std::string what, int program, const Bytes& packet) {
      contenders.push_back(
          {std::move(what), [program, &packet, repeat] { return run(program, packet, repeat); }});
    };
    add("empty program", empty, v4);
    add("floor: parse, one look-up, count", floor, v4);
    add("established, IPv4, mark", ours, v4);
    add("established, IPv4, no class", ours, plain);
    add("established, IPv6, mark", ours, v6);
    add("established, VLAN, mark", ours, vlan);
    add("established, drop", ours, dropped);
    const Bytes candidate = tcp_packet("192.0.2.15", "198.51.100.20", 40000, 512);
    contenders.push_back({"candidate, not sampled", [&, repeat] {
                            if (!restart(candidate, 255).ok()) return -1.0;
                            return run(ours, candidate, repeat);
                          }});
    std::vector<Bytes> sampled;
    for (const std::size_t size : {128U, 512U, 1514U})
      sampled.push_back(tcp_packet("192.0.2.16", "198.51.100.20", 40000, size - 54));
    for (const Bytes& packet : sampled) {
      contenders.push_back({fmt::format("sampled, {} bytes", packet.size()), [&, this] {
                              std::vector<double> values;
                              // So few at a time that the flow's budget and the ring last.
                              for (int i = 0; i < 40; ++i) {
                                if (!restart(packet, 0).ok()) return -1.0;
                                ring_buffer__consume(ring_.get());
                                values.push_back(run(ours, packet, 200));
                              }
                              return median(std::move(values));
                            }});
    }
    if (!run_rounds(contenders, options_.rounds))
      return error_from_errno("run", std::string(name) + " programs");
    report(name, contenders, table);
    return many(name, empty, floor, ours, table);
  }

 private:
  static constexpr std::uint32_t kMark = 4;
  static constexpr std::uint32_t kDrop = 8;

  Status decide(const Bytes& packet, std::uint32_t action) {
    VerdictEntry entry;
    entry.key = key_of(packet);
    entry.verdict.action = action;
    entry.verdict.state = L7M_STATE_FINAL;
    const auto done = dataplane_->put_verdicts({&entry, 1});
    if (!done) return done.error();
    return success();
  }

  Status floor_flow(const Bytes& packet) {
    l7m_key4 key;
    const FlowKey full = key_of(packet);
    l7m_key_to_v4(&full.raw, &key);
    const l7m_counters zero{};
    if (bpf_map_update_elem(bpf_map__fd(bench_->maps.floor_flows), &key, &zero, BPF_ANY) != 0)
      return error_from_errno("write", "map floor_flows");
    return success();
  }

  Status restart(const Bytes& packet, std::uint8_t sampled) {
    l7m_candidate candidate{};
    candidate.first_sent = 1;
    candidate.packets = 255;
    candidate.whole = 255;
    candidate.sampled = sampled;
    candidate.last_seen = 0;
    const auto clock = dataplane_->clock();
    if (clock) candidate.last_seen = static_cast<std::uint32_t>(clock->jiffies);
    return dataplane_->put_candidate(key_of(packet), candidate);
  }

  void report(const char* name, const std::vector<Contender>& contenders, Table& table) const {
    const Contender& empty = contenders[0];
    const Contender& floor = contenders[1];
    for (const Contender& c : contenders) {
      const auto [low, high] = std::minmax_element(c.values.begin(), c.values.end());
      table.rows.push_back({name, c.name, number(median(c.values)), number(*low), number(*high),
                            number(median(c.values) - median(empty.values)),
                            number(ratio(c, floor), 2)});
    }
  }

  // One packet a call, each of another flow, in a fixed shuffled order: what a full table costs.
  // The call's own cost is in all of them alike.
  Status many(const char* name, int empty, int floor, int ours, Table& table) {
    for (const std::size_t flows : options_.flows) {
      std::vector<Bytes> packets;
      std::vector<VerdictEntry> entries;
      std::uint32_t state = 1;
      for (std::size_t i = 0; i < flows; ++i) {
        state = state * 1664525 + 1013904223;
        packets.push_back(
            tcp_packet(fmt::format("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255),
                       "198.51.100.30", static_cast<std::uint16_t>(state >> 16), 512));
        L7MARK_TRY(floor_flow(packets.back()));
        VerdictEntry entry;
        entry.key = key_of(packets.back());
        entry.verdict.action = kMark;
        entries.push_back(entry);
      }
      const auto put = dataplane_->put_verdicts(entries);
      if (!put) return put.error();
      const auto pass = [&packets](int program) {
        double sum = 0;
        for (const Bytes& packet : packets) {
          const double value = run(program, packet, 1);
          if (value < 0) return -1.0;
          sum += value;
        }
        return sum / static_cast<double>(packets.size());
      };
      std::vector<Contender> contenders;
      const std::string count = fmt::format(", {} flows", flows);
      contenders.push_back({"empty program" + count, [&] { return pass(empty); }});
      contenders.push_back({"floor" + count, [&] { return pass(floor); }});
      contenders.push_back({"established, IPv4, mark" + count, [&] { return pass(ours); }});
      // A new flow's candidate is thrown away by the verdict's removal of its table's turn: other
      // ports make other flows in every round.
      std::uint16_t port = 1;
      contenders.push_back(
          {"new flow (SYN)" + count, [&] {
             double sum = 0;
             ++port;
             for (std::size_t i = 0; i < packets.size(); ++i) {
               const Bytes syn =
                   tcp_packet(fmt::format("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255),
                              "203.0.113.1", port, 0, false, 0x02);
               const double value = run(ours, syn, 1);
               if (value < 0) return -1.0;
               sum += value;
               if (i % 512 == 0) ring_buffer__consume(ring_.get());
             }
             return sum / static_cast<double>(packets.size());
           }});
      if (!run_rounds(contenders, std::max(3U, options_.rounds / 3)))
        return error_from_errno("run", std::string(name) + " programs");
      report(name, contenders, table);
    }
    return success();
  }

  PacketBenchOptions options_;
  std::unique_ptr<Dataplane> dataplane_;
  std::unique_ptr<l7mark_bench, DestroyBench> bench_;
  std::unique_ptr<bpf_object, CloseObject> xdp_;
  std::unique_ptr<ring_buffer, FreeRing> ring_;
};

}  // namespace

Result<Table> run_packet_bench(const PacketBenchOptions& options) {
  PacketBench bench(options);
  L7MARK_TRY(bench.prepare());
  Table table;
  table.columns = {"hook", "packet", "ns", "lowest", "highest", "less empty", "by floor"};
  L7MARK_TRY(bench.hook("TC", false, table));
  L7MARK_TRY(bench.hook("XDP", true, table));
  return table;
}

}  // namespace l7mark::bench
