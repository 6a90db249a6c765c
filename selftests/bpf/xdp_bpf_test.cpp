// SPDX-License-Identifier: GPL-2.0-only
// What XDP adds to the common path: drops, the answer handed to TC in front of the packet, and its
// own ways to copy a sample. Each case runs with the kernel's helper for the copy and without it,
// as kernels before 5.18 are.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <string>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
const Endpoints kOuter4{"203.0.113.1", "203.0.113.2", 0, 0};
constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kFin = 0x11;
constexpr std::uint32_t kPass = XDP_PASS, kDrop = XDP_DROP;
constexpr std::uint32_t kAction = 4;
constexpr std::uint32_t kNoAction = 0xffffffff;  // struct l7m_meta: leave the packet alone
constexpr std::array<const char*, 2> kPrograms{"l7mark_xdp", "l7mark_xdp_only"};

Bytes ack(const Endpoints& ends) {
  return tcp(ends, kAck, 1, 1, Bytes(20, 0x41));
}

// Bytes that tell their place.
Bytes numbered(std::size_t size) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 7 + (i >> 8));
  return out;
}

class Xdp : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<Plane>& plane_for(const std::string& without) {
    static std::unique_ptr<Plane> all, some;
    return without.empty() ? all : some;
  }
  static void TearDownTestSuite() {
    plane_for("").reset();
    plane_for("xdp_load_bytes").reset();
  }

  void SetUp() override {
    auto& plane = plane_for(GetParam());
    if (!plane) {
      DataplaneOptions options;
      options.flows = options.candidates = options.services = options.hints = 1024;
      options.parse = L7M_PARSE_IPIP;
      std::string why;
      plane = Plane::make(options, why, GetParam());
      if (!plane) GTEST_SKIP() << why;
    }
    plane_ = plane.get();
    plane_->reset();
    plane_->act(0, l7m_action{});
    plane_->act(kAction, l7m_action{});
  }

  RunResult run(const char* program, const Bytes& packet) {
    RunResult out = run_xdp(plane_->xdp(program), packet);
    EXPECT_EQ(out.code, 0);
    return out;
  }

  void hint(const Endpoints& ends) {
    plane_->set([](l7m_settings& settings) { settings.flags = L7M_SET_HINTS; });
    l7m_hint_key key{};
    const Address server = *Address::parse(ends.destination);
    std::memcpy(key.server, server.bytes.data(), sizeof(key.server));
    l7m_promise promise{};
    promise.expires = ~std::uint64_t{0};
    promise.action = kAction;
    ASSERT_TRUE(plane_->maps.put_hint(key, promise).ok());
  }

  Plane* plane_ = nullptr;
};

TEST_P(Xdp, DropsWhatAClassDrops) {
  l7m_action drop{};
  drop.flags = L7M_ACT_DROP;
  plane_->act(kAction, drop);
  plane_->decide(flow_key(k4, L7M_PROTO_TCP), kAction);
  const std::vector<Bytes> packets = {
      ethernet(ack(k4)),
      tagged({{0x8100, 7}}, ack(k4.reversed())),
      ethernet(with_options(ack(k4), 2)),
      ethernet(tcp(k4, kFin, 1, 1)),
      ethernet(tunnelled(kOuter4, ack(k4))),
  };
  std::uint64_t dropped = 0;
  for (const char* program : kPrograms) {
    for (const Bytes& packet : packets) {
      const RunResult result = run(program, packet);
      EXPECT_EQ(result.answer, kDrop);
      EXPECT_EQ(result.packet, packet);
      EXPECT_EQ(plane_->count(L7M_COUNT_DROPPED), ++dropped);
    }
    // What only looks alike is another flow.
    EXPECT_EQ(run(program, ethernet(ack(k6))).answer, kPass);
  }
  const auto verdict = plane_->maps.verdict(flow_key(k4, L7M_PROTO_TCP));
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->count.packets[sender_of(k4)], 8U);
  EXPECT_EQ(verdict->count.packets[1 - sender_of(k4)], 2U);
}

// A promise to drop drops the first packet, and the worker still gets its copy.
TEST_P(Xdp, DropsTheFirstPacketByAPromise) {
  l7m_action drop{};
  drop.flags = L7M_ACT_DROP;
  plane_->act(kAction, drop);
  hint(k6);
  const Bytes packet = ethernet(tcp(k6, kSyn, 1, 0));
  EXPECT_EQ(run("l7mark_xdp", packet).answer, kDrop);
  const auto records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].data, packet);
}

TEST_P(Xdp, HandsTheAnswerToTc) {
  plane_->decide(flow_key(k4, L7M_PROTO_TCP), kAction);
  hint(k6);
  Bytes wrong = ethernet(ack(k4));
  wrong[14] = 0x44;
  const struct {
    const char* name;
    Bytes packet;
    std::uint32_t action;
  } cases[] = {
      {"hot path", ethernet(ack(k4)), kAction},
      {"hot path, one tag", tagged({{0x8100, 7}}, ack(k4)), kAction},
      {"slow path", ethernet(with_options(ack(k4), 1)), kAction},
      {"two tags", tagged({{0x88a8, 7}, {0x8100, 8}}, ack(k4)), kAction},
      {"PPPoE", pppoe(ack(k4)), kAction},
      {"inside a tunnel", ethernet(tunnelled(kOuter4, ack(k4))), kAction},
      {"end of a flow", ethernet(tcp(k4, kFin, 1, 1)), kAction},
      {"promise", ethernet(tcp(k6, kSyn, 1, 0)), kAction},
      {"candidate", tagged({{0x8100, 7}}, ack(k6.reversed())), kAction},
      {"no class", ethernet(udp(k4, Bytes(20, 1))), 0},
      {"not IP", frame(0x0806, Bytes(28, 0)), kNoAction},
      {"malformed", wrong, kNoAction},
      {"fragment of an unknown datagram", ethernet(fragment4(ack(k4), 9, 64, false)), kNoAction},
  };
  bool shown = false;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const RunResult result = run("l7mark_xdp", c.packet);
    EXPECT_EQ(result.answer, kPass);
    EXPECT_EQ(plane_->count(L7M_COUNT_META_FAILED), 0U);
    if (result.packet.size() == c.packet.size()) continue;
    shown = true;
    ASSERT_EQ(result.packet.size(), sizeof(l7m_meta) + c.packet.size());
    l7m_meta meta{};
    std::memcpy(&meta, result.packet.data(), sizeof(meta));
    EXPECT_EQ(meta.magic, static_cast<std::uint32_t>(L7M_META_MAGIC));
    EXPECT_EQ(meta.action, c.action);
    EXPECT_EQ(Bytes(result.packet.begin() + sizeof(meta), result.packet.end()), c.packet);
  }
  if (!shown) GTEST_SKIP() << "a run shows no metadata before 5.14";
}

// The program for libxdp's dispatcher where metadata cannot be: same counts, packet untouched.
TEST_P(Xdp, OnlyCountsWhereNothingIsHandedOver) {
  plane_->decide(flow_key(k4, L7M_PROTO_TCP), kAction);
  for (const Bytes& packet : {ethernet(ack(k4)), ethernet(with_options(ack(k4), 1)),
                              ethernet(ack(k6)), frame(0x0806, Bytes(28, 0))}) {
    const RunResult result = run("l7mark_xdp_only", packet);
    EXPECT_EQ(result.answer, kPass);
    EXPECT_EQ(result.packet, packet);
  }
  EXPECT_EQ(plane_->maps.verdict(flow_key(k4, L7M_PROTO_TCP))->count.packets[sender_of(k4)], 2U);
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 1U);
  EXPECT_EQ(plane_->count(L7M_COUNT_NOT_IP), 1U);
}

TEST_P(Xdp, MetadataOfOthersStaysBehindOurs) {
  plane_->decide(flow_key(k4, L7M_PROTO_TCP), kAction);
  const Bytes packet = ethernet(ack(k4));
  Bytes in(8, 0x77);
  put(in, packet);
  const RunResult result = run_xdp(plane_->xdp("l7mark_xdp"), in, 8);
  if (result.code == EINVAL) GTEST_SKIP() << "a run takes no metadata before 5.14";
  ASSERT_EQ(result.code, 0);
  EXPECT_EQ(result.answer, kPass);
  ASSERT_EQ(result.packet.size(), sizeof(l7m_meta) + in.size());
  l7m_meta meta{};
  std::memcpy(&meta, result.packet.data(), sizeof(meta));
  EXPECT_EQ(meta.magic, static_cast<std::uint32_t>(L7M_META_MAGIC));
  EXPECT_EQ(meta.action, kAction);
  EXPECT_EQ(Bytes(result.packet.begin() + sizeof(meta), result.packet.end()), in);
}

// Others have taken all the room: counted, passed, and TC looks the flow up itself.
TEST_P(Xdp, NoRoomForMetadataIsCounted) {
  plane_->decide(flow_key(k4, L7M_PROTO_TCP), kAction);
  RunResult result;
  Bytes in;
  // The most that this kernel lets a run begin with: its bound, or what the headroom holds.
  for (std::uint32_t most = 252; most >= 32; most -= 4) {
    in.assign(most, 0x77);
    put(in, ethernet(ack(k4)));
    result = run_xdp(plane_->xdp("l7mark_xdp"), in, most);
    if (result.code != EINVAL) break;
  }
  if (result.code == EINVAL) GTEST_SKIP() << "a run takes no metadata before 5.14";
  ASSERT_EQ(result.code, 0);
  EXPECT_EQ(result.answer, kPass);
  EXPECT_EQ(result.packet, in);
  EXPECT_EQ(plane_->count(L7M_COUNT_META_FAILED), 1U);
  EXPECT_EQ(plane_->maps.verdict(flow_key(k4, L7M_PROTO_TCP))->count.packets[sender_of(k4)], 1U);
}

// At every size of reservation, its least and its most, and where the frame is shorter than what is
// wanted of it.
TEST_P(Xdp, SamplesAreThoseOfTc) {
  std::vector<std::pair<std::size_t, std::uint32_t>> cases;  // payload, snaplen
  for (const std::uint32_t snaplen : {1U, 127U, 128U, 129U, 512U, 513U, 1600U, 1601U, 4096U})
    cases.emplace_back(3300, snaplen);
  for (const std::size_t payload : {0U, 1U, 85U, 86U, 87U, 470U, 471U, 1558U, 1559U})
    cases.emplace_back(payload, L7M_MAX_SNAPLEN);
  for (const auto& [payload, snaplen] : cases) {
    const Bytes packet = ethernet(udp(k4, numbered(payload)));
    std::vector<Record> seen[2];
    for (const unsigned at_xdp : {0U, 1U}) {
      plane_->reset();
      plane_->set([most = snaplen](l7m_settings& settings) { settings.whole_snaplen = most; });
      const RunResult result =
          at_xdp ? run("l7mark_xdp_only", packet) : run_tc(plane_->tc("l7mark_ingress"), packet);
      ASSERT_EQ(result.code, 0);
      seen[at_xdp] = plane_->records();
      ASSERT_EQ(seen[at_xdp].size(), 1U) << payload << " bytes, at most " << snaplen;
      Record& record = seen[at_xdp][0];
      const std::size_t length = std::min<std::size_t>(packet.size(), snaplen);
      EXPECT_EQ(record.data, Bytes(packet.begin(), packet.begin() + static_cast<long>(length)));
      EXPECT_EQ(record.head.wire_length, packet.size());
      EXPECT_NE(record.head.time_ns, 0U);
      record.head.time_ns = 0;
      record.head.flow_id = 0;
    }
    EXPECT_EQ(std::memcmp(&seen[0][0].head, &seen[1][0].head, sizeof(l7m_sample)), 0);
    EXPECT_EQ(plane_->count(L7M_COUNT_COPY_FAILED), 0U);
  }
}

// Frames of several buffers, as of an interface with a large MTU: all of them is counted and
// sampled, whatever of it the program sees directly.
TEST_P(Xdp, LongFramesAreSampledAndCountedWhole) {
  if (!GetParam().empty()) {
    // Loaded without the flag for several buffers, a program sees the first: passed and counted.
    // Before 5.18 a run takes no such frame.
    const Bytes packet = ethernet(udp(k4, numbered(8958)));
    const RunResult result = run_xdp(plane_->xdp("l7mark_xdp"), packet);
    if (result.code == 0) {
      EXPECT_EQ(result.answer, kPass);
      EXPECT_EQ(plane_->count(L7M_COUNT_MALFORMED), 1U);
    }
    return;
  }
  plane_->set([](l7m_settings& settings) { settings.whole_snaplen = L7M_MAX_SNAPLEN; });
  for (const char* program : kPrograms) {
    const Bytes packet = ethernet(udp(k4, numbered(8958)));
    const RunResult result = run_xdp(plane_->xdp(program), packet);
    if (result.code != 0) GTEST_SKIP() << "a run takes no frame of several buffers before 5.18";
    EXPECT_EQ(result.answer, kPass);
    const auto records = plane_->records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].data, Bytes(packet.begin(), packet.begin() + L7M_MAX_SNAPLEN));
    EXPECT_EQ(records[0].head.wire_length, packet.size());
    EXPECT_EQ(records[0].head.l4_payload, 8958U);
    EXPECT_EQ(plane_->count(L7M_COUNT_MALFORMED), 0U);

    // The hot path's look-up, and the slow way's.
    plane_->decide(flow_key(k6, L7M_PROTO_UDP), kAction);
    const Bytes fast = ethernet(udp(k6, numbered(8000)));
    const Bytes slow = tagged({{0x88a8, 7}, {0x8100, 8}}, udp(k6, numbered(8000)));
    EXPECT_EQ(run(program, fast).answer, kPass);
    EXPECT_EQ(run(program, slow).answer, kPass);
    const auto verdict = plane_->maps.verdict(flow_key(k6, L7M_PROTO_UDP));
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->count.packets[sender_of(k6)], 2U);
    EXPECT_EQ(verdict->count.bytes[sender_of(k6)], fast.size() + slow.size());
    l7m_action drop{};
    drop.flags = L7M_ACT_DROP;
    plane_->act(kAction, drop);
    EXPECT_EQ(run(program, fast).answer, kDrop);
    plane_->act(kAction, l7m_action{});
    plane_->reset();
    plane_->set([](l7m_settings& settings) { settings.whole_snaplen = L7M_MAX_SNAPLEN; });
  }
}

// As it is attached: one of the object's programs, the others left out, over the maps in use.
TEST_P(Xdp, EachProgramLoadsAlone) {
  for (const std::string chosen : kPrograms) {
    auto opened = plane_->maps.open_xdp();
    ASSERT_TRUE(opened.ok());
    const std::unique_ptr<bpf_object, decltype(&bpf_object__close)> object(*opened,
                                                                           bpf_object__close);
    bpf_program* program = nullptr;
    std::size_t others = 0;
    bpf_object__for_each_program(program, object.get()) {
      bpf_program__set_autoload(program, chosen == bpf_program__name(program));
      others += chosen == bpf_program__name(program) ? 0 : 1;
    }
    EXPECT_EQ(others, kPrograms.size() - 1);
    ASSERT_EQ(bpf_object__load(object.get()), 0) << chosen;
    program = bpf_object__find_program_by_name(object.get(), chosen.c_str());
    ASSERT_NE(program, nullptr);
    plane_->reset();
    const RunResult result = run_xdp(bpf_program__fd(program), ethernet(ack(k4)));
    ASSERT_EQ(result.code, 0);
    EXPECT_EQ(result.answer, kPass);
    EXPECT_TRUE(plane_->maps.candidate(flow_key(k4, L7M_PROTO_TCP)));
    EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 1U);
    EXPECT_EQ(plane_->records().size(), 1U);
  }
}

INSTANTIATE_TEST_SUITE_P(Copies, Xdp, testing::Values("", "xdp_load_bytes"),
                         [](const testing::TestParamInfo<std::string>& way) {
                           return way.param.empty() ? "by_helper" : "by_reading";
                         });

}  // namespace
}  // namespace l7mark::test
