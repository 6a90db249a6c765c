// SPDX-License-Identifier: GPL-2.0-only
// Attaching and detaching, each case in a network namespace of its own with pins of its own. What
// is attached is read from the kernel and shown by packets that the programs count.
#include "dataplane/attach.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/pkt_cls.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../unit/packets.hpp"
#include "dataplane/dataplane.hpp"
#include "program_run.hpp"
#include "util/netns.hpp"

namespace l7mark {
namespace {

using test::Bytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kTcxIngress = 46;  // include/uapi/linux/bpf.h of Linux 6.6
constexpr int kTcxEgress = 47;
constexpr std::uint32_t kBefore = 1U << 3;               // BPF_F_BEFORE of the same
constexpr const char* kDispatchers = "/sys/fs/bpf/xdp";  // libxdp's pins

// With its path, for shells that have an `ip` of their own.
std::string text_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(("/usr/sbin/" + command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return text;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr)
    text += part.data();
  pclose(pipe);
  return text;
}

// Runs a command that must succeed, and say nothing.
void run(const std::string& command) {
  ASSERT_EQ(text_of(command), "") << command;
}

// r0 = VALUE; return.
Fd load_foreign(bpf_prog_type type, int value, const char* name) {
  std::array<bpf_insn, 2> code{};
  code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  code[0].imm = value;
  code[1].code = BPF_JMP | BPF_EXIT;
  return Fd(bpf_prog_load(type, name, "GPL", code.data(), code.size(), nullptr));
}

std::string name_of(std::uint32_t program_id) {
  const Fd program(bpf_prog_get_fd_by_id(program_id));
  bpf_prog_info info{};
  __u32 length = sizeof(info);
  if (bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) return "?";
  return info.name;
}

std::vector<std::uint32_t> tcx_ids(const std::string& device, int hook) {
  std::array<__u32, 16> ids{};
  __u32 count = ids.size();
  if (bpf_prog_query(static_cast<int>(if_nametoindex(device.c_str())),
                     static_cast<bpf_attach_type>(hook), 0, nullptr, ids.data(), &count) != 0)
    return {};
  return {ids.begin(), ids.begin() + count};
}

std::vector<std::string> tcx(const std::string& device, int hook) {
  std::vector<std::string> names;
  for (const auto id : tcx_ids(device, hook)) names.push_back(name_of(id));
  return names;
}

// A link at the end of the chain; with kBefore at its head. Empty on failure.
Fd attach_tcx(const std::string& device, int hook, const Fd& program, std::uint32_t flags) {
  bpf_link_create_opts options{};
  options.sz = sizeof(options);
  options.flags = flags;
  return Fd(bpf_link_create(program.get(), static_cast<int>(if_nametoindex(device.c_str())),
                            static_cast<bpf_attach_type>(hook), &options));
}

void attach_filter(const std::string& device, bpf_tc_attach_point point, const Fd& program,
                   std::uint32_t preference, std::uint32_t handle) {
  bpf_tc_hook hook{};
  hook.sz = sizeof(hook);
  hook.ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  hook.attach_point = point;
  bpf_tc_opts filter{};
  filter.sz = sizeof(filter);
  filter.handle = handle;
  filter.priority = preference;
  filter.prog_fd = program.get();
  ASSERT_EQ(bpf_tc_attach(&hook, &filter), 0);
}

std::string filters(const std::string& device, const std::string& direction) {
  return text_of("tc filter show dev " + device + " " + direction);
}
bool has_clsact(const std::string& device) {
  return text_of("tc qdisc show dev " + device).find("clsact") != std::string::npos;
}

bpf_xdp_query_opts xdp_of(const std::string& device) {
  bpf_xdp_query_opts out{};
  out.sz = sizeof(out);
  bpf_xdp_query(static_cast<int>(if_nametoindex(device.c_str())), 0, &out);
  return out;
}

struct Case {
  const char* name;
  const char* without;  // features taken away; null: none
  AttachMode mode;
};

class Attach : public testing::Test {
 protected:
  static std::optional<Dataplane> open_plane(const char* without = "") {
    Features features = *features_;
    if (!features.disable(without).ok()) ADD_FAILURE() << without;
    DataplaneOptions options;
    options.flows = options.candidates = options.services = options.hints = 1024;
    options.ring_bytes = 65536;
    auto plane = Dataplane::open_private(options, features);
    if (!plane) ADD_FAILURE() << plane.error().message();
    if (!plane) return std::nullopt;
    l7m_settings settings{};
    settings.packets = 8;
    settings.snaplen = 128;
    settings.rings = 1;
    EXPECT_TRUE(plane->write_settings(settings).ok());
    return std::move(*plane);
  }

  static void SetUpTestSuite() {
    features_ = test::usable_features(why_);
    if (features_) plane_ = open_plane();
  }
  static void TearDownTestSuite() { plane_.reset(); }

  void SetUp() override {
    if (!features_) GTEST_SKIP() << why_;
    ASSERT_TRUE(plane_);
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs network namespaces";
    ASSERT_TRUE(mount_bpffs().ok());
    const std::string own = "l7mark-test-" + std::to_string(getpid());
    paths_ = {"/sys/fs/bpf/" + own + "/links", "/tmp/" + own + ".attach.json",
              network_namespace_id()};
    begin_namespace();
    dispatchers_ = list_directory(kDispatchers);
  }

  static void begin_namespace() {
    std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << 1;  // it would be heard of
    make_pair();
  }

  static void make_pair() {
    run("ip link add l7a-v0 type veth peer name l7a-v1");
    run("ip link set l7a-v0 up");
    run("ip link set l7a-v1 up");
  }

  void TearDown() override {
    if (paths_.links.empty()) return;
    for (const Attachment& left : list_attachments(paths_)) {
      const Status gone = detach(left.name, paths_);
      EXPECT_TRUE(gone.ok()) << gone.error().message();
    }
    std::error_code ignored;
    std::filesystem::remove_all(std::filesystem::path(paths_.links).parent_path(), ignored);
    std::filesystem::remove(paths_.state, ignored);
  }

  [[nodiscard]] ProgramSet programs() const {
    return {plane_->program_fd("l7mark_ingress"), plane_->program_fd("l7mark_egress"),
            plane_->program_fd("l7mark_ingress_l3"), plane_->program_fd("l7mark_egress_l3"),
            plane_->program_fd("l7mark_after_xdp")};
  }

  Result<Attachment> put(const std::string& device, AttachMode mode, const Features& features,
                         const ProgramSet& set) {
    const auto facts = describe_interface(device);
    if (!facts) return facts.error();
    InterfaceConfig config;
    config.name = device;
    config.mode = mode;
    return attach(
        config, *facts, set, [] { return plane_->open_xdp(); }, features, paths_);
  }
  Result<Attachment> put(const std::string& device, AttachMode mode,
                         const char* without = nullptr) {
    Features features = *features_;
    if (without != nullptr && !features.disable(without).ok()) ADD_FAILURE() << without;
    return put(device, mode, features, programs());
  }

  // One packet of a new flow, as if `device` sent it; returns how many new flows were counted.
  std::uint64_t flows_seen_of(const std::string& device) {
    const auto before = plane_->counters()[L7M_COUNT_NEW_FLOW];
    test::Endpoints ends;
    ends.sport = next_port_++;
    Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
    test::put(frame, test::udp(ends, Bytes(32, 'x')));
    const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
    EXPECT_EQ(::sendto(socket.get(), frame.data(), frame.size(), 0,
                       reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
              static_cast<ssize_t>(frame.size()));
    // Reception is by softirq, on this CPU or another.
    for (int i = 0; i < 200 && plane_->counters()[L7M_COUNT_NEW_FLOW] == before; ++i) usleep(1000);
    usleep(20000);  // a second count would be a mistake
    return plane_->counters()[L7M_COUNT_NEW_FLOW] - before;
  }

  void expect_nothing_left(const std::string& device) {
    EXPECT_THAT(tcx(device, kTcxIngress), IsEmpty());
    EXPECT_THAT(tcx(device, kTcxEgress), IsEmpty());
    EXPECT_EQ(filters(device, "ingress"), "");
    EXPECT_EQ(filters(device, "egress"), "");
    EXPECT_FALSE(has_clsact(device));
    EXPECT_EQ(xdp_of(device).prog_id, 0U);
    expect_forgotten();
  }
  void expect_forgotten() {
    EXPECT_THAT(list_directory(paths_.links), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(paths_.state));
    EXPECT_THAT(list_attachments(paths_), IsEmpty());
    EXPECT_EQ(list_directory(kDispatchers), dispatchers_);
  }

  static inline std::optional<Features> features_;
  static inline std::string why_;  // there are no features
  AttachPaths paths_;
  std::vector<std::string> dispatchers_;  // of others
  static inline std::optional<Dataplane> plane_;
  static inline std::uint16_t next_port_ = 40000;
};

class AttachWays : public Attach, public testing::WithParamInterface<Case> {};

TEST_P(AttachWays, CountsBothDirectionsOnceIsReplacedInPlaceAndLeavesNothing) {
  const Case& way = GetParam();
  if (way.without == nullptr && !features_->has(FeatureId::tcx)) GTEST_SKIP() << "no TCX here";
  const auto first = put("l7a-v0", way.mode, way.without);
  ASSERT_TRUE(first.ok()) << first.error().message();
  EXPECT_EQ(first->mode, way.mode);
  EXPECT_EQ(first->tc, way.without == nullptr ? "tcx" : "clsact");
  EXPECT_EQ(first->xdp.empty(), way.mode == AttachMode::tc);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);  // our ingress
  EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);  // our egress

  const auto again = put("l7a-v0", way.mode, way.without);
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(again->made_clsact, first->made_clsact);
  const auto listed = list_attachments(paths_);
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].name, "l7a-v0");
  EXPECT_EQ(listed[0].ifindex, if_nametoindex("l7a-v0"));
  EXPECT_EQ(listed[0].requested, way.mode);
  EXPECT_EQ(listed[0].mode, way.mode);
  EXPECT_EQ(listed[0].tc, first->tc);
  EXPECT_EQ(listed[0].xdp, first->xdp);
  EXPECT_TRUE(listed[0].link_layer);
  EXPECT_TRUE(listed[0].present);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);

  const Status gone = detach("l7a-v0", paths_);
  ASSERT_TRUE(gone.ok()) << gone.error().message();
  expect_nothing_left("l7a-v0");
  EXPECT_EQ(flows_seen_of("l7a-v1"), 0U);
  EXPECT_TRUE(detach("l7a-v0", paths_).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Every, AttachWays,
    testing::Values(Case{"Tcx", nullptr, AttachMode::tc}, Case{"Clsact", "tcx", AttachMode::tc},
                    Case{"NativeTcx", nullptr, AttachMode::native},
                    Case{"NativeClsact", "tcx,freplace", AttachMode::native},
                    Case{"GenericTcx", nullptr, AttachMode::generic},
                    Case{"GenericClsact", "tcx,freplace", AttachMode::generic}),
    [](const auto& given) { return std::string(given.param.name); });

TEST_F(Attach, ModeIsChangedInPlace) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    for (const auto mode : {AttachMode::tc, AttachMode::native, AttachMode::generic,
                            AttachMode::native, AttachMode::tc}) {
      const auto put_there = put("l7a-v0", mode, without);
      ASSERT_TRUE(put_there.ok()) << put_there.error().message();
      EXPECT_EQ(put_there->mode, mode);
      const auto listed = list_attachments(paths_);
      ASSERT_EQ(listed.size(), 1U);
      EXPECT_EQ(listed[0].mode, mode);
      EXPECT_TRUE(listed[0].present);
      EXPECT_EQ(flows_seen_of("l7a-v1"), 1U) << attach_mode_name(mode);
    }
    EXPECT_EQ(xdp_of("l7a-v0").prog_id, 0U);
  }
  // Back from clsact to TCX: what was made for the filters goes with them.
  EXPECT_TRUE(has_clsact("l7a-v0"));
  if (features_->has(FeatureId::tcx)) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::tc).ok());
    EXPECT_FALSE(has_clsact("l7a-v0"));
    EXPECT_THAT(tcx("l7a-v0", kTcxIngress), ElementsAre("l7mark_ingress"));
  }
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  expect_nothing_left("l7a-v0");
}

TEST_F(Attach, AutoTakesTcOnVeth) {
  const auto done = put("l7a-v0", AttachMode::automatic);
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->requested, AttachMode::automatic);
  EXPECT_EQ(done->mode, AttachMode::tc);
  EXPECT_EQ(xdp_of("l7a-v0").prog_id, 0U);
}

// Veth stands for a card here: it has native XDP as long as its peer's frames fit what the program
// takes.
TEST_F(Attach, AutoTakesNativeOnHardwareAndTcWhereTheDriverRefuses) {
  auto plane = open_plane("xdp_frags");
  ASSERT_TRUE(plane);
  std::swap(plane, plane_);
  auto facts = describe_interface("l7a-v0");
  ASSERT_TRUE(facts.ok());
  facts->hardware = true;
  InterfaceConfig config;
  config.name = facts->name;
  const auto make_xdp = [] { return plane_->open_xdp(); };
  const auto native = attach(config, *facts, programs(), make_xdp, *features_, paths_);
  ASSERT_TRUE(native.ok()) << native.error().message();
  EXPECT_EQ(native->mode, AttachMode::native);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());

  run("ip link set l7a-v1 mtu 9000");
  const auto fallback = attach(config, *facts, programs(), make_xdp, *features_, paths_);
  ASSERT_TRUE(fallback.ok()) << fallback.error().message();
  EXPECT_EQ(fallback->requested, AttachMode::automatic);
  EXPECT_EQ(fallback->mode, AttachMode::tc);
  EXPECT_EQ(fallback->xdp, "");
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  std::swap(plane, plane_);
}

// A driver takes a program for frames of one buffer only where they fit one.
TEST_F(Attach, NativeXdpTakesALargeMtuWhereTheKernelHasMultiBuffer) {
  auto plane = open_plane("xdp_frags");
  ASSERT_TRUE(plane);
  std::swap(plane, plane_);
  const auto small = put("l7a-v0", AttachMode::native);
  ASSERT_TRUE(small.ok()) << small.error().message();
  EXPECT_FALSE(small->frags);
  EXPECT_FALSE(list_attachments(paths_).at(0).frags);
  EXPECT_NE(text_of("ip link set l7a-v1 mtu 9000"), "") << "the driver refuses it by itself";
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());

  run("ip link set l7a-v1 mtu 9000");
  run("ip link set l7a-v0 mtu 9000");
  const auto refused = put("l7a-v0", AttachMode::native);
  std::swap(plane, plane_);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message(), HasSubstr("l7a-v0"));
  EXPECT_THAT(refused.error().message(), HasSubstr("MTU of 9000 needs multi-buffer XDP"));
  EXPECT_THAT(refused.error().message(), HasSubstr("mode generic or tc"));
  expect_nothing_left("l7a-v0");

  const auto large = put("l7a-v0", AttachMode::native);
  EXPECT_EQ(large.ok(), features_->has(FeatureId::xdp_frags));
  if (!large.ok()) return;
  EXPECT_TRUE(large->frags);
  EXPECT_TRUE(list_attachments(paths_).at(0).frags);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  ASSERT_TRUE(put("l7a-v0", AttachMode::native).ok()) << "is replaced in place";
  EXPECT_TRUE(list_attachments(paths_).at(0).frags);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
}

TEST_F(Attach, XdpIsInTheModeThatWasAskedFor) {
  ASSERT_TRUE(put("l7a-v0", AttachMode::native).ok());
  EXPECT_EQ(xdp_of("l7a-v0").attach_mode, XDP_ATTACHED_DRV);
  ASSERT_TRUE(put("l7a-v1", AttachMode::generic).ok());
  EXPECT_EQ(xdp_of("l7a-v1").attach_mode, XDP_ATTACHED_SKB);
  EXPECT_EQ(list_attachments(paths_).size(), 2U);
}

TEST_F(Attach, TunIsTakenWithoutLinkLayer) {
  const Fd tun(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun) GTEST_SKIP() << "no /dev/net/tun";
  ifreq request{};
  std::strcpy(request.ifr_name, "l7a-tun");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  ASSERT_EQ(ioctl(tun.get(), TUNSETIFF, &request), 0);
  run("ip link set l7a-tun up");

  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    const auto done = put("l7a-tun", AttachMode::automatic, without);
    ASSERT_TRUE(done.ok()) << done.error().message();
    EXPECT_FALSE(done->link_layer);
    EXPECT_EQ(done->mode, AttachMode::tc);
    EXPECT_FALSE(list_attachments(paths_).at(0).link_layer);
    const auto before = plane_->counters()[L7M_COUNT_NEW_FLOW];
    test::Endpoints ends;
    ends.sport = next_port_++;
    const Bytes packet = test::udp(ends, Bytes(32, 'x'));
    ASSERT_EQ(write(tun.get(), packet.data(), packet.size()), static_cast<ssize_t>(packet.size()));
    EXPECT_EQ(plane_->counters()[L7M_COUNT_NEW_FLOW] - before, 1U);
  }
  for (const auto mode : {AttachMode::native, AttachMode::generic}) {
    const auto refused = put("l7a-tun", mode);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message(), HasSubstr("no link-layer header"));
    EXPECT_THAT(refused.error().message(), HasSubstr("use mode tc"));
  }
  ASSERT_TRUE(detach("l7a-tun", paths_).ok());
  expect_nothing_left("l7a-tun");
}

TEST_F(Attach, NamesWithDotsArePinned) {
  run("ip link add l7a-v0.7 type veth peer name l7a-v1.7");
  const auto done = put("l7a-v0.7", AttachMode::tc);
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(list_attachments(paths_).at(0).name, "l7a-v0.7");
  ASSERT_TRUE(detach("l7a-v0.7", paths_).ok());
  expect_nothing_left("l7a-v0.7");
}

TEST_F(Attach, FiltersOfOthersStay) {
  const Fd foreign = load_foreign(BPF_PROG_TYPE_SCHED_CLS, -1, "foreign");
  ASSERT_TRUE(foreign);
  run("tc qdisc add dev l7a-v0 clsact");
  attach_filter("l7a-v0", BPF_TC_INGRESS, foreign, 1, 0x4c37);  // the very place that we would take
  const std::string before = filters("l7a-v0", "ingress");
  ASSERT_THAT(before, HasSubstr("foreign"));

  const auto done = put("l7a-v0", AttachMode::tc, "tcx");
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_FALSE(done->made_clsact);
  EXPECT_THAT(filters("l7a-v0", "ingress"), HasSubstr("foreign"));
  EXPECT_THAT(filters("l7a-v0", "ingress"), HasSubstr("l7mark_ingress"));
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  EXPECT_EQ(filters("l7a-v0", "ingress"), before);
  EXPECT_EQ(filters("l7a-v0", "egress"), "");
  EXPECT_TRUE(has_clsact("l7a-v0"));
  expect_forgotten();
}

// A program that ends the chain with TC_ACT_OK, as most do, hides packets from those behind it.
TEST_F(Attach, ComesBeforeProgramsThatAreThere) {
  if (!features_->has(FeatureId::tcx)) GTEST_SKIP() << "no TCX here";
  const Fd foreign = load_foreign(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_OK, "foreign");
  const Fd ingress = attach_tcx("l7a-v0", kTcxIngress, foreign, 0);
  const Fd egress = attach_tcx("l7a-v0", kTcxEgress, foreign, 0);
  ASSERT_TRUE(ingress && egress);
  const auto done = put("l7a-v0", AttachMode::tc);
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_THAT(done->ahead, IsEmpty());
  EXPECT_THAT(tcx("l7a-v0", kTcxIngress), ElementsAre("l7mark_ingress", "foreign"));
  EXPECT_THAT(tcx("l7a-v0", kTcxEgress), ElementsAre("l7mark_egress", "foreign"));
  EXPECT_THAT(list_attachments(paths_).at(0).ahead, IsEmpty());
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);
}

TEST_F(Attach, NamesWhoCameBeforeItAndComesFirstAgain) {
  if (!features_->has(FeatureId::tcx)) GTEST_SKIP() << "no TCX here";
  const Fd foreign = load_foreign(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_OK, "foreign");
  ASSERT_TRUE(put("l7a-v0", AttachMode::tc).ok());
  {
    const Fd link = attach_tcx("l7a-v0", kTcxIngress, foreign, kBefore);
    ASSERT_TRUE(link);
    EXPECT_EQ(flows_seen_of("l7a-v1"), 0U);
    const auto id = tcx_ids("l7a-v0", kTcxIngress).at(0);
    const std::vector<ProgramAhead> expected = {{TcDirection::ingress, "foreign", id, 0}};
    EXPECT_EQ(list_attachments(paths_).at(0).ahead, expected);
    EXPECT_EQ(programs_ahead("l7a-v0", if_nametoindex("l7a-v0"), paths_), expected);
    EXPECT_EQ(describe(expected[0]), "program foreign (id " + std::to_string(id) + ")");

    // The same program has no second place; it is told of.
    testing::internal::CaptureStderr();
    const auto same = put("l7a-v0", AttachMode::tc);
    const std::string log = testing::internal::GetCapturedStderr();
    ASSERT_TRUE(same.ok()) << same.error().message();
    EXPECT_EQ(same->ahead, expected);
    EXPECT_THAT(log, HasSubstr("warning: l7a-v0: " + describe(expected[0]) +
                               " is before l7mark at TC ingress"));

    auto plane = open_plane();
    ASSERT_TRUE(plane);
    std::swap(plane, plane_);
    const auto again = put("l7a-v0", AttachMode::tc);
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_THAT(again->ahead, IsEmpty());
    EXPECT_THAT(tcx("l7a-v0", kTcxIngress), ElementsAre("l7mark_ingress", "foreign"));
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);

    // A failure leaves what was there, where it was.
    const auto before = tcx_ids("l7a-v0", kTcxIngress);
    const Fd other = attach_tcx("l7a-v0", kTcxIngress,
                                load_foreign(BPF_PROG_TYPE_SCHED_CLS, -1, "other"), kBefore);
    ASSERT_TRUE(other);
    std::swap(plane, plane_);
    ProgramSet broken = programs();
    broken.egress = plane_->map_fd("settings");
    EXPECT_FALSE(put("l7a-v0", AttachMode::tc, *features_, broken).ok());
    std::swap(plane, plane_);
    EXPECT_EQ(tcx("l7a-v0", kTcxIngress).at(0), "other");
    auto left = tcx_ids("l7a-v0", kTcxIngress);
    left.erase(left.begin());
    EXPECT_EQ(left, before);
    EXPECT_TRUE(list_attachments(paths_).at(0).present);
    std::swap(plane, plane_);
  }
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  for (int i = 0; i < 200 && !tcx("l7a-v0", kTcxIngress).empty(); ++i) usleep(10000);
  expect_nothing_left("l7a-v0");
}

TEST_F(Attach, FiltersComeFirstOrNameWhoIsBeforeThem) {
  const Fd foreign = load_foreign(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_OK, "foreign");
  ASSERT_TRUE(foreign);
  run("tc qdisc add dev l7a-v0 clsact");
  attach_filter("l7a-v0", BPF_TC_INGRESS, foreign, 1, 5);
  const auto first = put("l7a-v0", AttachMode::tc, "tcx");
  ASSERT_TRUE(first.ok()) << first.error().message();
  EXPECT_THAT(first->ahead, IsEmpty());
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  run("tc filter del dev l7a-v0 ingress");

  // A preference has filters of one kind and protocol only.
  const std::string classic = " bpf bytecode '1,6 0 0 0' classid 1:1";
  run("tc filter add dev l7a-v0 ingress protocol ip pref 1 handle 1" + classic);
  run("tc filter add dev l7a-v0 ingress protocol ip pref 1 handle 2" + classic);
  run("tc filter add dev l7a-v0 egress protocol ip pref 2" + classic);
  const auto second = put("l7a-v0", AttachMode::tc, "tcx");
  ASSERT_TRUE(second.ok()) << second.error().message();
  const ProgramAhead pair{TcDirection::ingress, "bpf", 0, 1};
  EXPECT_EQ(second->ahead, std::vector{pair});
  EXPECT_EQ(describe(pair), "filter bpf (preference 1)");
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);

  // Filters of one preference: the last one comes first.
  attach_filter("l7a-v0", BPF_TC_EGRESS, foreign, 1, 6);
  EXPECT_EQ(flows_seen_of("l7a-v0"), 0U);
  const auto ahead = list_attachments(paths_).at(0).ahead;
  ASSERT_EQ(ahead.size(), 2U);
  EXPECT_EQ(ahead[0], pair);
  EXPECT_EQ(ahead[1].direction, TcDirection::egress);
  EXPECT_EQ(describe(ahead[1]),
            "filter foreign (id " + std::to_string(ahead[1].id) + ", preference 1)");
  EXPECT_EQ(name_of(ahead[1].id), "foreign");
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  EXPECT_EQ(filters("l7a-v0", "egress").find("l7mark"), std::string::npos);
}

// Two instances hand on to each other, so that neither is told of.
TEST_F(Attach, OtherInstancesAreNotTheOnesBefore) {
  auto plane = open_plane();  // TCX takes a program only once
  ASSERT_TRUE(plane);
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::tc, without).ok());
    const AttachPaths own = paths_;
    paths_.links += "-2";
    paths_.state += "-2";
    const AttachPaths other = paths_;
    std::swap(plane, plane_);
    const auto second = put("l7a-v0", AttachMode::tc, without);
    std::swap(plane, plane_);
    paths_ = own;
    ASSERT_TRUE(second.ok()) << second.error().message();
    EXPECT_THAT(list_attachments(own).at(0).ahead, IsEmpty());
    EXPECT_THAT(list_attachments(other).at(0).ahead, IsEmpty());
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    ASSERT_TRUE(detach("l7a-v0", other).ok());
    ASSERT_TRUE(detach("l7a-v0", own).ok());
    expect_nothing_left("l7a-v0");
  }
}

TEST_F(Attach, ClsactOfOursStaysWhileOthersUseIt) {
  ASSERT_TRUE(put("l7a-v0", AttachMode::tc, "tcx").ok());
  AttachPaths second = paths_;
  second.links += "-2";
  second.state += "-2";
  std::swap(paths_, second);
  const auto other = put("l7a-v0", AttachMode::tc, "tcx");
  ASSERT_TRUE(other.ok()) << other.error().message();
  EXPECT_FALSE(other->made_clsact);
  std::swap(paths_, second);
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  EXPECT_THAT(filters("l7a-v0", "ingress"), HasSubstr("l7mark_ingress"));
  EXPECT_TRUE(list_attachments(second).at(0).present);
  ASSERT_TRUE(detach("l7a-v0", second).ok());
  EXPECT_EQ(filters("l7a-v0", "ingress"), "");
}

// Programs of two instances share the dispatcher; without one, the second is refused.
TEST_F(Attach, TwoInstancesShareADispatcher) {
  auto plane = open_plane();  // TCX takes a program only once
  ASSERT_TRUE(plane);
  for (const auto mode : {AttachMode::native, AttachMode::generic}) {
    const auto first = put("l7a-v0", mode);
    ASSERT_TRUE(first.ok()) << first.error().message();
    EXPECT_EQ(first->xdp, features_->has(FeatureId::freplace) ? "dispatcher" : "single");
    const AttachPaths own = paths_;
    paths_.links += "-2";
    paths_.state += "-2";
    const AttachPaths other = paths_;
    std::swap(plane, plane_);
    const auto second = put("l7a-v0", mode);
    std::swap(plane, plane_);
    EXPECT_EQ(second.ok(), features_->has(FeatureId::freplace));
    paths_ = own;
    if (second.ok()) {
      EXPECT_TRUE(put("l7a-v0", mode).ok());  // replaces its own and not the other's
      EXPECT_FALSE(put("l7a-v0", mode, "freplace").ok());
      EXPECT_TRUE(list_attachments(own).at(0).present);
      EXPECT_TRUE(list_attachments(other).at(0).present);
    }
    ASSERT_TRUE(detach("l7a-v0", other).ok());
    EXPECT_TRUE(list_attachments(own).at(0).present);
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    ASSERT_TRUE(detach("l7a-v0", own).ok());
    expect_nothing_left("l7a-v0");
  }
}

TEST_F(Attach, OutlivesItsProcess) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(put("l7a-v0", AttachMode::native, without).ok() ? 0 : 1);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    EXPECT_TRUE(list_attachments(paths_).at(0).present);
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    expect_nothing_left("l7a-v0");
  }
}

TEST_F(Attach, ForeignXdpProgramIsRefusedAndStays) {
  const Fd foreign = load_foreign(BPF_PROG_TYPE_XDP, XDP_PASS, "foreign");
  ASSERT_TRUE(foreign);
  const int ifindex = static_cast<int>(if_nametoindex("l7a-v0"));
  ASSERT_EQ(bpf_xdp_attach(ifindex, foreign.get(), XDP_FLAGS_DRV_MODE, nullptr), 0);
  const auto id = xdp_of("l7a-v0").prog_id;
  for (const auto mode : {AttachMode::native, AttachMode::generic}) {
    const auto refused = put("l7a-v0", mode);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message(), HasSubstr("foreign (id " + std::to_string(id) + ")"));
    EXPECT_THAT(refused.error().message(), HasSubstr("mode tc"));
    expect_forgotten();
    EXPECT_THAT(tcx("l7a-v0", kTcxIngress), IsEmpty());
  }
  ASSERT_TRUE(put("l7a-v0", AttachMode::tc).ok());
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  EXPECT_EQ(xdp_of("l7a-v0").prog_id, id);
}

// Someone else's program has taken the place of ours.
TEST_F(Attach, DetachLeavesAnXdpProgramThatReplacedOurs) {
  ASSERT_TRUE(put("l7a-v0", AttachMode::native, "freplace").ok());
  const Fd foreign = load_foreign(BPF_PROG_TYPE_XDP, XDP_PASS, "foreign");
  ASSERT_TRUE(foreign);
  const int ifindex = static_cast<int>(if_nametoindex("l7a-v0"));
  ASSERT_EQ(bpf_xdp_attach(ifindex, foreign.get(), XDP_FLAGS_DRV_MODE, nullptr), 0);
  EXPECT_FALSE(list_attachments(paths_).at(0).present);
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  EXPECT_EQ(name_of(xdp_of("l7a-v0").prog_id), "foreign");
  expect_forgotten();
}

TEST_F(Attach, FailureAtTheSecondHookTakesTheFirstBack) {
  ProgramSet broken = programs();
  broken.egress = plane_->map_fd("settings");
  Features clsact = *features_;
  ASSERT_TRUE(clsact.disable("tcx").ok());
  for (const Features& features : {*features_, clsact}) {
    for (const auto mode : {AttachMode::tc, AttachMode::native, AttachMode::generic}) {
      const auto failed = put("l7a-v0", mode, features, broken);
      ASSERT_FALSE(failed.ok());
      EXPECT_THAT(failed.error().message(), HasSubstr("l7a-v0 (TC egress)"));
      expect_nothing_left("l7a-v0");
    }
  }
}

TEST_F(Attach, FailedReplacementKeepsWhatWasThere) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    Features features = *features_;
    if (without != nullptr) {
      ASSERT_TRUE(features.disable(without).ok());
    }
    for (const auto mode : {AttachMode::tc, AttachMode::native, AttachMode::generic}) {
      ASSERT_TRUE(put("l7a-v0", AttachMode::native, without).ok());
      const auto xdp = xdp_of("l7a-v0");
      const auto before = tcx_ids("l7a-v0", kTcxIngress);
      const std::string filters_before = filters("l7a-v0", "ingress");
      ProgramSet broken = programs();
      broken.egress = plane_->map_fd("settings");
      ASSERT_FALSE(put("l7a-v0", mode, features, broken).ok());
      EXPECT_NE(xdp_of("l7a-v0").prog_id, 0U);
      EXPECT_EQ(xdp_of("l7a-v0").attach_mode, xdp.attach_mode);
      EXPECT_EQ(tcx_ids("l7a-v0", kTcxIngress), before);
      EXPECT_EQ(filters("l7a-v0", "ingress"), filters_before);
      const auto listed = list_attachments(paths_);
      ASSERT_EQ(listed.size(), 1U);
      EXPECT_TRUE(listed[0].present);
      EXPECT_EQ(listed[0].mode, AttachMode::native);
      EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    }
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    expect_nothing_left("l7a-v0");
  }
}

TEST_F(Attach, VanishedInterfaceIsForgotten) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    for (const auto mode : {AttachMode::tc, AttachMode::native}) {
      ASSERT_TRUE(put("l7a-v0", mode, without).ok());
      run("ip link del l7a-v0");
      EXPECT_FALSE(list_attachments(paths_).at(0).present);
      const Status gone = detach("l7a-v0", paths_);
      EXPECT_TRUE(gone.ok()) << gone.error().message();
      expect_forgotten();
      make_pair();
    }
  }
}

TEST_F(Attach, InterfaceMadeAnewIsAttachedAnew) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::native, without).ok());
    run("ip link del l7a-v0");
    make_pair();
    const auto again = put("l7a-v0", AttachMode::native, without);
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_TRUE(list_attachments(paths_).at(0).present);
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  }
  ASSERT_TRUE(detach("l7a-v0", paths_).ok());
  expect_nothing_left("l7a-v0");
}

TEST_F(Attach, RenamedInterfaceIsFoundByItsIndex) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::native, without).ok());
    run("ip link set l7a-v0 down");
    run("ip link set l7a-v0 name l7a-new");
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    expect_nothing_left("l7a-new");
    run("ip link set l7a-new name l7a-v0");
  }
}

TEST_F(Attach, ProgramsFollowANameToAnotherInterface) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::native, without).ok());
    run("ip link set l7a-v0 down");
    run("ip link set l7a-v0 name l7a-old");
    run("ip link set l7a-v1 down");
    run("ip link set l7a-v1 name l7a-old1");
    make_pair();
    const auto moved = put("l7a-v0", AttachMode::native, without);
    ASSERT_TRUE(moved.ok()) << moved.error().message();
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    EXPECT_EQ(xdp_of("l7a-old").prog_id, 0U);
    EXPECT_THAT(tcx("l7a-old", kTcxIngress), IsEmpty());
    EXPECT_FALSE(has_clsact("l7a-old"));
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    expect_nothing_left("l7a-v0");
    run("ip link del l7a-old");
    run("ip link del l7a-v0");
    make_pair();
  }
}

TEST_F(Attach, PinsAloneSayWhatIsOurs) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::generic, without).ok());
    std::filesystem::remove(paths_.state);
    const auto listed = list_attachments(paths_);
    ASSERT_EQ(listed.size(), 1U);
    EXPECT_EQ(listed[0].mode, AttachMode::generic);
    EXPECT_TRUE(listed[0].present);
    EXPECT_EQ(listed[0].ifindex, if_nametoindex("l7a-v0"));
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    EXPECT_EQ(filters("l7a-v0", "ingress"), "");
    EXPECT_THAT(tcx("l7a-v0", kTcxIngress), IsEmpty());
    EXPECT_EQ(xdp_of("l7a-v0").prog_id, 0U);
    expect_forgotten();
  }
}

// The first namespace, which is held open only.
class AttachElsewhere : public Attach {
 protected:
  void leave() {
    first_ = Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    begin_namespace();
    first_paths_ = paths_;
    paths_.netns = network_namespace_id();
    ASSERT_NE(paths_.netns, first_paths_.netns);
  }
  void go_back() {
    ASSERT_EQ(setns(first_.get(), CLONE_NEWNET), 0);
    second_paths_ = paths_;
    paths_ = first_paths_;
    ASSERT_EQ(paths_.netns, network_namespace_id());
  }
  // The kernel takes a namespace down some time after its last user has gone.
  bool others_vanish() {
    for (int i = 0; i < 500 && !other_namespaces(paths_).empty(); ++i) usleep(10000);
    return other_namespaces(paths_).empty();
  }

  Fd first_;
  AttachPaths first_paths_;
  AttachPaths second_paths_;
};

TEST_F(AttachElsewhere, TheSameIndexIsAnotherInterface) {
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    for (const auto mode : {AttachMode::tc, AttachMode::generic}) {
      const auto first = put("l7a-v0", mode, without);
      ASSERT_TRUE(first.ok()) << first.error().message();
      const auto before = tcx_ids("l7a-v0", kTcxIngress);
      const std::string filters_before = filters("l7a-v0", "ingress");
      const auto xdp_before = xdp_of("l7a-v0").prog_id;
      auto plane = open_plane();
      ASSERT_TRUE(plane);
      leave();
      std::swap(plane, plane_);
      ASSERT_EQ(if_nametoindex("l7a-v0"), first->ifindex);
      EXPECT_THAT(list_attachments(paths_), IsEmpty());
      EXPECT_THAT(other_namespaces(paths_), ElementsAre(first_paths_.netns));
      const auto second = put("l7a-v0", mode, without);
      ASSERT_TRUE(second.ok()) << second.error().message();
      EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
      EXPECT_EQ(flows_seen_of("l7a-v0"), 1U);
      EXPECT_TRUE(list_attachments(paths_).at(0).present);
      ASSERT_TRUE(put("l7a-v0", mode, without).ok());

      go_back();
      std::swap(plane, plane_);
      EXPECT_EQ(tcx_ids("l7a-v0", kTcxIngress), before);
      EXPECT_EQ(filters("l7a-v0", "ingress"), filters_before);
      EXPECT_EQ(xdp_of("l7a-v0").prog_id, xdp_before);
      EXPECT_TRUE(list_attachments(paths_).at(0).present);
      EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);

      // The second one ends with its last process. Links tell of it; filters do so if nothing is
      // hidden that could be in it.
      if (without != nullptr && in_network_namespace("0", [] {}) == NamespaceSearch::hidden) {
        EXPECT_TRUE(detach_elsewhere(second_paths_.netns, {}, paths_).ok());
      }
      ASSERT_TRUE(others_vanish());
      EXPECT_TRUE(list_attachments(paths_).at(0).present);
      EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
      ASSERT_TRUE(detach("l7a-v0", paths_).ok());
      expect_nothing_left("l7a-v0");
    }
  }
}

TEST_F(AttachElsewhere, ProgramsAreTakenOffThere) {
  run("ip link add l7a-w0 type veth peer name l7a-w1");
  for (const char* without : {static_cast<const char*>(nullptr), "tcx"}) {
    ASSERT_TRUE(put("l7a-v0", AttachMode::generic, without).ok());
    ASSERT_TRUE(put("l7a-w0", AttachMode::tc, without).ok());
    leave();
    ASSERT_TRUE(put("l7a-v0", AttachMode::tc, without).ok());
    const auto one = detach_elsewhere(first_paths_.netns, {"l7a-w0"}, paths_);
    ASSERT_TRUE(one.ok()) << one.error().message();
    EXPECT_THAT(other_namespaces(paths_), ElementsAre(first_paths_.netns));
    const auto rest = detach_elsewhere(first_paths_.netns, {}, paths_);
    ASSERT_TRUE(rest.ok()) << rest.error().message();
    EXPECT_THAT(other_namespaces(paths_), IsEmpty());
    EXPECT_TRUE(list_attachments(paths_).at(0).present);
    EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
    ASSERT_TRUE(detach("l7a-v0", paths_).ok());
    expect_nothing_left("l7a-v0");
    go_back();
    expect_nothing_left("l7a-v0");
    expect_nothing_left("l7a-w0");
  }
}

// It takes its link with it; an interface of its name and index may come in its place.
TEST_F(AttachElsewhere, InterfaceThatWasMovedAwayIsNotThere) {
  if (!features_->has(FeatureId::tcx)) GTEST_SKIP() << "no TCX here";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNET) != 0) _exit(1);
    pause();
    _exit(0);
  }
  const std::string own = std::to_string(getpid());
  const auto inode = [](const std::string& process) {
    std::error_code error;
    return std::filesystem::read_symlink("/proc/" + process + "/ns/net", error);
  };
  for (int i = 0; i < 500 && inode(std::to_string(child)) == inode(own); ++i) usleep(10000);
  const auto first = put("l7a-v0", AttachMode::tc);
  ASSERT_TRUE(first.ok());
  run("ip link set l7a-v0 netns " + std::to_string(child));
  EXPECT_FALSE(list_attachments(paths_).at(0).present);
  run("ip link del l7a-v1");
  run("ip link add l7a-v0 index " + std::to_string(first->ifindex) + " type veth peer name l7a-v1");
  run("ip link set l7a-v0 up");
  run("ip link set l7a-v1 up");
  EXPECT_FALSE(list_attachments(paths_).at(0).present);
  ASSERT_TRUE(put("l7a-v0", AttachMode::tc).ok());
  EXPECT_TRUE(list_attachments(paths_).at(0).present);
  EXPECT_EQ(flows_seen_of("l7a-v1"), 1U);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  waitpid(child, nullptr, 0);
}

TEST_F(Attach, RefusedProgramIsNamedWithTheVerifiersReason) {
  const auto facts = describe_interface("l7a-v0");
  ASSERT_TRUE(facts.ok());
  InterfaceConfig config;
  config.name = facts->name;
  config.mode = AttachMode::native;
  // A socket filter may not do what an XDP program does.
  const auto make_wrong = [] {
    auto object = plane_->open_xdp();
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object.ok() ? *object : nullptr) {
      bpf_program__set_type(program, BPF_PROG_TYPE_SOCKET_FILTER);
      bpf_program__set_flags(program, 0);
    }
    return object;
  };
  Features features = *features_;
  ASSERT_TRUE(features.disable("freplace").ok());
  const auto refused = attach(config, *facts, programs(), make_wrong, features, paths_);
  ASSERT_FALSE(refused.ok());
  const std::string message = refused.error().message();
  EXPECT_THAT(message, HasSubstr("XDP program for l7a-v0"));
  EXPECT_THAT(message, HasSubstr("the kernel refuses l7mark_xdp: "));
  EXPECT_THAT(message, testing::ContainsRegex("l7mark_xdp: [^)]{10}"));
  EXPECT_LT(message.size(), 500U);
  EXPECT_EQ(message.find('\n'), std::string::npos);
  expect_nothing_left("l7a-v0");
}

TEST_F(Attach, MissingPrivilegesAreNamed) {
  ASSERT_TRUE(put("l7a-v1", AttachMode::tc).ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    const auto unprivileged = [](const auto& result) {
      return !result.ok() && result.error().message().find(
                                 "needs root or CAP_BPF, CAP_NET_ADMIN") != std::string::npos;
    };
    if (!unprivileged(put("l7a-v0", AttachMode::tc, "tcx"))) _exit(2);
    if (!unprivileged(put("l7a-v0", AttachMode::generic))) _exit(3);
    if (!unprivileged(detach("l7a-v1", paths_))) _exit(4);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(list_attachments(paths_).at(0).present);
}

TEST_F(Attach, InterfacesAreDescribed) {
  const auto veth = describe_interface("l7a-v0");
  ASSERT_TRUE(veth.ok());
  EXPECT_EQ(veth->ifindex, if_nametoindex("l7a-v0"));
  EXPECT_TRUE(veth->link_layer);
  EXPECT_FALSE(veth->hardware);
  EXPECT_EQ(veth->driver, "veth");
  EXPECT_EQ(veth->mtu, 1500U);
  const auto loopback = describe_interface("lo");
  ASSERT_TRUE(loopback.ok());
  EXPECT_TRUE(loopback->link_layer);
  EXPECT_FALSE(loopback->hardware);
  for (const auto& [kind, link_layer] : {std::pair{"bridge", true},
                                         {"dummy", true},
                                         {"ipip local 192.0.2.1 remote 192.0.2.2", false},
                                         {"gre local 192.0.2.1 remote 192.0.2.2", false},
                                         {"wireguard", false}}) {
    if (!text_of(std::string("ip link add l7a-x type ") + kind).empty()) continue;  // not built in
    const auto facts = describe_interface("l7a-x");
    ASSERT_TRUE(facts.ok()) << kind;
    EXPECT_EQ(facts->link_layer, link_layer) << kind;
    EXPECT_FALSE(facts->hardware) << kind;
    run("ip link del l7a-x");
  }
  EXPECT_TRUE(strips_vlan_tags(0));
  const auto unknown = describe_interface("l7a-v9");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error().message(), HasSubstr("cannot use interface l7a-v9"));
  EXPECT_THAT(unknown.error().message(), HasSubstr("did you mean l7a-v0"));
}

TEST_F(Attach, StrippingOfVlanTagsIsTold) {
  const unsigned ifindex = if_nametoindex("l7a-v0");
  run("ethtool -K l7a-v0 rx-vlan-hw-parse off rx-vlan-stag-hw-parse off");
  EXPECT_FALSE(strips_vlan_tags(ifindex));
  run("ethtool -K l7a-v0 rx-vlan-hw-parse on");
  EXPECT_TRUE(strips_vlan_tags(ifindex));
  run("ethtool -K l7a-v0 rx-vlan-hw-parse off");
  EXPECT_FALSE(strips_vlan_tags(ifindex));
  run("ethtool -K l7a-v0 rx-vlan-stag-hw-parse on");
  EXPECT_TRUE(strips_vlan_tags(ifindex));
  EXPECT_FALSE(strips_vlan_tags(if_nametoindex("lo")));
}

}  // namespace
}  // namespace l7mark
