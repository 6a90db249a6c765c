// SPDX-License-Identifier: GPL-2.0-only
// A private data plane and BPF_PROG_TEST_RUN over it: packet in, answer and map state out. Nothing
// is attached, no interface is touched.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <l7mark/sampling.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../unit/packets.hpp"
#include "dataplane/dataplane.hpp"

namespace l7mark::test {

// Index of the interface that a test run meets its packet at: the loopback's.
constexpr std::uint32_t kRunIndex = 1;

// What a test run of TC takes and gives beside the packet; 5.10 knows these fields.
struct Skb {
  std::uint32_t mark = 0;
  std::uint32_t priority = 0;
  std::uint32_t segments = 0;     // gso_segs; 0: no GRO packet
  std::uint32_t wire_length = 0;  // 0: as long as the packet
};

// BPF_F_TEST_SKB_CHECKSUM_COMPLETE, which Debian's headers lack: the packet comes with the sum of
// its bytes, as from a network card, and the run fails with EBADMSG if the sum is wrong after it
// (6.16).
constexpr std::uint32_t kWithSum = 4;

struct RunResult {
  int code = 0;  // 0, or the errno of a run that the kernel refused
  std::uint32_t answer = 0;
  Skb skb;
  Bytes packet;  // after the run; XDP: with the metadata in front, where the kernel shows it
};

inline RunResult run_tc(int program, const Bytes& packet, const Skb& in = {},
                        std::uint32_t flags = 0) {
  RunResult out;
  out.packet.resize(packet.size() + 64);
  __sk_buff context{};
  context.mark = in.mark;
  context.priority = in.priority;
  context.gso_segs = in.segments;
  context.wire_len = in.wire_length;
  __sk_buff after{};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(), .data_out = out.packet.data(),
              .data_size_in = static_cast<__u32>(packet.size()),
              .data_size_out = static_cast<__u32>(out.packet.size()), .ctx_in = &context,
              .ctx_out = &after, .ctx_size_in = sizeof(context), .ctx_size_out = sizeof(after),
              .repeat = 1, .flags = flags);
  if (bpf_prog_test_run_opts(program, &options) != 0) {
    out.code = errno;
    return out;
  }
  out.answer = options.retval;
  out.skb.mark = after.mark;
  out.skb.priority = after.priority;
  out.packet.resize(options.data_size_out);
  return out;
}

// `metadata`: so many bytes at the start of `packet` are what an earlier program put in front of it
// (5.14; EINVAL before).
inline RunResult run_xdp(int program, const Bytes& packet, std::uint32_t metadata = 0) {
  RunResult out;
  out.packet.resize(packet.size() + 64);
  xdp_md context{};
  context.data = metadata;
  context.data_end = static_cast<std::uint32_t>(packet.size());
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(), .data_out = out.packet.data(),
              .data_size_in = static_cast<__u32>(packet.size()),
              .data_size_out = static_cast<__u32>(out.packet.size()), .repeat = 1);
  if (metadata != 0) {
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
  }
  if (bpf_prog_test_run_opts(program, &options) != 0) {
    out.code = errno;
    return out;
  }
  out.answer = options.retval;
  out.packet.resize(options.data_size_out);
  return out;
}

// One record of a ring buffer.
struct Record {
  Bytes data;
  l7m_sample head{};  // last: it ends in an array without a size
};

// Fatal: a fixture whose SetUp() comes here does not run its test without what it needs.
inline void fail(const std::string& why) {
  FAIL() << why;
}

// What the kernel can do. Nothing without root and on a kernel that is too old for l7mark, which
// are reasons to skip: `why` says which. Whatever else is in the way is a failure of the test that
// runs.
inline std::optional<Features> usable_features(std::string& why) {
  if (geteuid() != 0) {
    why = "needs root";
    return std::nullopt;
  }
  auto features = probe_features();
  if (!features) {
    why = features.error().message();
    fail(why);
    return std::nullopt;
  }
  if (const Status status = features->check_required(); !status.ok()) {
    why = status.error().message();
    return std::nullopt;
  }
  return *features;
}

class Plane {
 public:
  // Null where this cannot be asked of the machine: `why` says so, and the test is a skip. Null
  // after a failure, too, which then is one of the test that runs. `without`: names of features to
  // do without, as in L7MARK_WITHOUT.
  static std::unique_ptr<Plane> make(const DataplaneOptions& options, std::string& why,
                                     std::string_view without = {}) {
    auto features = usable_features(why);
    if (!features) return nullptr;
    auto plane = load(options, *features, without);
    if (!plane) {
      why = plane.error().message();
      fail(why);
      return nullptr;
    }
    return std::move(*plane);
  }

  [[nodiscard]] int tc(const char* name) const { return maps.program_fd(name); }
  [[nodiscard]] int xdp(const char* name) const {
    return bpf_program__fd(bpf_object__find_program_by_name(xdp_.get(), name));
  }

  // What came since the last call.
  std::vector<Record> records(std::size_t ring = 0) {
    ring_buffer__consume(rings_[ring]->reader.get());
    return std::exchange(rings_[ring]->records, {});
  }

  void clear(const char* map) {
    const int fd = maps.map_fd(map);
    std::array<std::uint8_t, 64> key{};
    while (bpf_map_get_next_key(fd, nullptr, key.data()) == 0)
      ASSERT_EQ(bpf_map_delete_elem(fd, key.data()), 0);
  }

  // As at the begin of a second.
  void clear_budgets() {
    constexpr l7m_budget_set kNothing{};
    for (std::uint32_t i = 0; i <= L7M_BUDGET_SETS; ++i)
      ASSERT_EQ(bpf_map_update_elem(maps.map_fd("budgets"), &i, &kNothing, BPF_ANY), 0);
  }

  void clear_candidates() {
    std::vector<l7m_settlement> steps;
    ASSERT_TRUE(maps.for_each_candidate([&](const FlowKey& key, const l7m_candidate& candidate) {
                      l7m_settlement& step = steps.emplace_back();
                      step.key = key.raw;
                      step.flow_id = candidate.flow_id;
                      step.step = L7M_SETTLE_TAKE;
                    })
                    .ok());
    ASSERT_TRUE(maps.settle(steps).ok());
    for (const l7m_settlement& step : steps) ASSERT_EQ(step.result, L7M_SETTLE_TOOK);
  }

  // As after the start: settings of the recommended kind, no flow, no promise, no fragment.
  void reset() {
    l7m_settings settings{};
    settings.packets = 8;
    settings.whole = 4;
    settings.whole_plain = 4;
    settings.snaplen = 128;
    settings.whole_snaplen = 1600;
    settings.rings = maps.rings();
    EXPECT_TRUE(maps.write_headers({}, {}).ok());
    EXPECT_TRUE(maps.write_settings(settings).ok());
    for (const char* name :
         {"flows4", "flows6", "services", "hints", "fragments", "inside", "marks"})
      clear(name);
    clear_candidates();
    for (std::size_t i = 0; i < rings_.size(); ++i) records(i);
    base_ = maps.counters();
  }

  void set(const std::function<void(l7m_settings&)>& change) {
    auto settings = maps.read_settings();
    ASSERT_TRUE(settings.ok());
    change(*settings);
    ASSERT_TRUE(maps.write_settings(*settings).ok());
  }

  void act(std::uint32_t index, const l7m_action& action) {
    ASSERT_TRUE(maps.write_action(index, action).ok());
  }

  // As if both endpoints had sent a packet of packets.hpp to the ingress.
  void decide(const FlowKey& key, std::uint32_t action, std::uint16_t flags = 0) {
    VerdictEntry entry;
    entry.key = key;
    entry.verdict.action = action;
    entry.verdict.state = L7M_STATE_FINAL;
    entry.verdict.flags = flags;
    entry.verdict.flow_id = 1;
    entry.verdict.hop_limit[0] = entry.verdict.hop_limit[1] = 64;
    entry.verdict.sides = static_cast<std::uint8_t>(l7m_side_of(kRunIndex, 0) * 0x11);
    decide(entry);
  }
  void decide(const VerdictEntry& entry) {
    const auto full = maps.put_verdicts({&entry, 1});
    ASSERT_TRUE(full.ok()) << full.error().message();
    ASSERT_TRUE(full->empty());
  }

  // Since reset().
  [[nodiscard]] std::uint64_t count(l7m_counter counter) const {
    return maps.counters()[counter] - base_[counter];
  }

  [[nodiscard]] std::size_t candidates() const {
    std::size_t count = 0;
    EXPECT_TRUE(
        maps.for_each_candidate([&](const FlowKey&, const l7m_candidate&) { ++count; }).ok());
    return count;
  }

  Dataplane maps;

 private:
  struct FreeRing {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
  };
  struct CloseObject {
    void operator()(bpf_object* object) const { bpf_object__close(object); }
  };
  struct Ring {
    std::vector<Record> records;
    std::unique_ptr<ring_buffer, FreeRing> reader;
  };

  explicit Plane(Dataplane&& plane) : maps(std::move(plane)) {}

  static Result<std::unique_ptr<Plane>> load(const DataplaneOptions& options, Features& features,
                                             std::string_view without) {
    L7MARK_TRY(features.disable(without));
    auto plane = Dataplane::open_private(options, features);
    if (!plane) return plane.error();
    std::unique_ptr<Plane> out(new Plane(std::move(*plane)));
    auto xdp = out->maps.open_xdp();
    if (!xdp) return xdp.error();
    out->xdp_.reset(*xdp);
    if (bpf_object__load(*xdp) != 0) return error_from_errno("load", "the XDP object");
    for (std::uint32_t i = 0; i < out->maps.rings(); ++i) {
      Ring& ring = *out->rings_.emplace_back(std::make_unique<Ring>());
      ring.reader.reset(ring_buffer__new(out->maps.ring_fd(i), take, &ring.records, nullptr));
      if (!ring.reader) return error_from_errno("map", "ring buffer " + std::to_string(i));
    }
    return out;
  }

  static int take(void* context, void* data, std::size_t size) {
    Record record;
    EXPECT_GE(size, sizeof(record.head));
    std::memcpy(&record.head, data, sizeof(record.head));
    const auto* bytes = static_cast<const std::uint8_t*>(data) + sizeof(record.head);
    EXPECT_LE(sizeof(record.head) + record.head.captured, size);
    record.data.assign(bytes, bytes + record.head.captured);
    static_cast<std::vector<Record>*>(context)->push_back(std::move(record));
    return 0;
  }

  std::unique_ptr<bpf_object, CloseObject> xdp_;
  std::vector<std::unique_ptr<Ring>> rings_;
  CounterValues base_{};
};

// The key of a flow, made by hand and not by the parser under test.
inline FlowKey flow_key(const Endpoints& ends, std::uint8_t protocol, unsigned vlan = 0,
                        unsigned inner_vlan = 0) {
  const Address from = *Address::parse(ends.source);
  const Address to = *Address::parse(ends.destination);
  const int order = std::memcmp(from.bytes.data(), to.bytes.data(), 16);
  const int source = order < 0 || (order == 0 && ends.sport <= ends.dport) ? 0 : 1;
  FlowKey key;
  std::memcpy(key.raw.addr[source], from.bytes.data(), 16);
  std::memcpy(key.raw.addr[1 - source], to.bytes.data(), 16);
  key.raw.port[source] = __builtin_bswap16(ends.sport);
  key.raw.port[1 - source] = __builtin_bswap16(ends.dport);
  key.raw.protocol = protocol;
  key.raw.vlan[0] = static_cast<std::uint8_t>(vlan >> 4);
  key.raw.vlan[1] = static_cast<std::uint8_t>(vlan << 4 | inner_vlan >> 8);
  key.raw.vlan[2] = static_cast<std::uint8_t>(inner_vlan);
  return key;
}

// Which endpoint of the key `ends.source` is.
inline unsigned sender_of(const Endpoints& ends) {
  const FlowKey key = flow_key(ends, 0);
  const Address from = *Address::parse(ends.source);
  return std::memcmp(key.raw.addr[0], from.bytes.data(), 16) == 0 &&
                 key.raw.port[0] == __builtin_bswap16(ends.sport)
             ? 0
             : 1;
}

}  // namespace l7mark::test
