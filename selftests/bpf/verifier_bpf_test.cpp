// SPDX-License-Identifier: GPL-2.0-only
// How much of the programs the kernel's verifier walks through before it takes them. It gives up
// after a million instructions, and a change of a few lines can take ten times as many as before:
// verified_insns.tsv has a limit for each program.
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <l7mark/parse.h>
#include <l7mark/types.h>
#include <linux/bpf.h>
#include <sys/utsname.h>
// The skeletons use types of the headers above.
#include <l7mark_control.skel.h>
#include <l7mark_tc.skel.h>
#include <l7mark_xdp.skel.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/features.hpp"
#include "program_run.hpp"

namespace l7mark {
namespace {

// The file as a string.
constexpr const char* kLimits =
#include "verified_insns.inc"
    ;

using Counts = std::map<std::string, std::uint32_t>;  // by program

// Verifiers from this kernel on walk through less: see verified_insns.tsv.
constexpr std::pair<unsigned, unsigned> kNewVerifier = {6, 12};

constexpr std::uint32_t kStatistics = 4;  // BPF_LOG_STATS of include/linux/bpf_verifier.h
constexpr std::uint32_t kEntries = 1024;  // of big maps: their memory is not what is tested
constexpr std::uint32_t kTunnels =
    L7M_PARSE_IPIP | L7M_PARSE_GRE | L7M_PARSE_GTPU | L7M_PARSE_VXLAN | L7M_PARSE_VLAN_KEY;

// Code behind a setting that is off is not verified, so each way to load the programs counts.
struct Way {
  const char* name;
  std::uint32_t parse;
  bool replay;
  bool old_xdp;  // as before 5.18
};
constexpr Way kWays[] = {
    {.name = "no tunnels", .parse = 0, .replay = false, .old_xdp = false},
    {.name = "all tunnels", .parse = kTunnels, .replay = false, .old_xdp = false},
    {.name = "all tunnels, as before 5.18", .parse = kTunnels, .replay = false, .old_xdp = true},
    {.name = "replay", .parse = kTunnels | L7M_PARSE_TWO_PORTS, .replay = true, .old_xdp = false},
};

bool has_new_verifier() {
  utsname name{};
  std::pair<unsigned, unsigned> release;
  EXPECT_EQ(uname(&name), 0);
  EXPECT_EQ(std::sscanf(name.release, "%u.%u", &release.first, &release.second), 2) << name.release;
  return release >= kNewVerifier;
}

// Those that hold for the running kernel.
Counts read_limits() {
  const bool new_verifier = has_new_verifier();
  Counts limits;
  std::istringstream lines(kLimits);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream fields(line);
    std::string program;
    std::uint32_t any = 0;
    std::uint32_t later = 0;
    EXPECT_TRUE(fields >> program >> any >> later) << line;
    EXPECT_LE(later, any) << line;
    EXPECT_TRUE(limits.emplace(program, new_verifier ? later : any).second) << line;
  }
  return limits;
}

// From the verifier's log, because bpf_prog_info has the number since 5.16 only.
std::uint32_t processed(const std::string& log) {
  unsigned number = 0;
  const auto at = log.rfind("processed ");
  if (at == std::string::npos || std::sscanf(log.c_str() + at, "processed %u insns", &number) != 1)
    ADD_FAILURE() << "no statistics in the verifier's log: " << log;
  return number;
}

// Raises `counts` to what loading the object's programs takes.
void load(bpf_object* object, const Way& way, Counts& counts) {
  std::vector<std::pair<std::string, std::vector<char>>> logs;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    const std::string name = bpf_map__name(map);
    if (name == "flows4" || name == "flows6" || name == "candidates") {
      ASSERT_EQ(bpf_map__set_max_entries(map, kEntries), 0);
    }
  }
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    auto& [name, log] = logs.emplace_back(bpf_program__name(program), 16384);
    bpf_program__set_log_buf(program, log.data(), log.size());
    bpf_program__set_log_level(program, kStatistics);
  }
  const int code = bpf_object__load(object);
  for (const auto& [name, log] : logs) {
    ASSERT_EQ(code, 0) << way.name << ": " << name << ": " << log.data();
    counts[name] = std::max(counts[name], processed(log.data()));
  }
}

template <typename Skeleton>
void set_up(Skeleton& skeleton, const Way& way, std::uint32_t flags) {
  skeleton.rodata->l7m_config.parse = way.parse;
  // More is verified for CPUs of a weak order of stores: the limits are theirs.
  skeleton.rodata->l7m_config.flags =
      flags | L7M_CFG_WEAK_ORDER | (way.replay ? L7M_CFG_REPLAY : 0U);
  skeleton.rodata->l7m_config.sets = kEntries;
}

// The object of TC, and that of the programs which only userspace runs.
template <typename Skeleton>
void load_plain(const Way& way, Counts& counts) {
  const std::unique_ptr<Skeleton, decltype(&Skeleton::destroy)> object(Skeleton::open(),
                                                                       &Skeleton::destroy);
  ASSERT_NE(object, nullptr);
  set_up(*object, way, 0);
  load(object->obj, way, counts);
}

void load_xdp(const Way& way, const Features& features, Counts& counts) {
  const std::unique_ptr<l7mark_xdp, decltype(&l7mark_xdp::destroy)> xdp(l7mark_xdp::open(),
                                                                        &l7mark_xdp::destroy);
  ASSERT_NE(xdp, nullptr);
  std::uint32_t flags = 0;
  if (features.has(FeatureId::xdp_load_bytes) && !way.old_xdp) flags |= L7M_CFG_XDP_LOAD_BYTES;
  if (features.has(FeatureId::xdp_frags) && !way.old_xdp) {
    flags |= L7M_CFG_XDP_FRAGS;
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, xdp->obj)
        bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);
  }
  set_up(*xdp, way, flags);
  load(xdp->obj, way, counts);
}

TEST(Verifier, WalksThroughNoMoreThanTheLimit) {
  std::string why;
  const auto features = test::usable_features(why);
  if (!features) GTEST_SKIP() << why;
  libbpf_set_print(nullptr);  // it tells of a section of libxdp's

  Counts counts;
  for (const Way& way : kWays) {
    load_plain<l7mark_tc>(way, counts);
    load_plain<l7mark_control>(way, counts);
    if (!way.replay) load_xdp(way, *features, counts);
  }
  const Counts limits = read_limits();
  for (const auto& [program, count] : counts) {
    const auto limit = limits.find(program);
    ASSERT_NE(limit, limits.end()) << program << " has no limit, and takes " << count;
    // For the table of docs/kernels.md.
    std::printf("VERIFIED %s %u\n", program.c_str(), count);
    EXPECT_LE(count, limit->second) << program << ": see verified_insns.tsv";
  }
  for (const auto& [program, limit] : limits)
    EXPECT_EQ(counts.count(program), 1U) << program << " is not there, and has a limit";
}

}  // namespace
}  // namespace l7mark
