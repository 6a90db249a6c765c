// SPDX-License-Identifier: GPL-2.0-only
// A frame through every parser that makes keys of flows, in the kernel and here; needs root. Input:
// the frame, from 14 bytes on. What libFuzzer sees is the parser here, which the others must equal.
#include <cstdio>
#include <cstdlib>

#include "../bpf/keys_run.hpp"

namespace {

constexpr std::uint32_t kOptions =
    L7M_PARSE_IPIP | L7M_PARSE_GRE | L7M_PARSE_GTPU | L7M_PARSE_VXLAN | L7M_PARSE_VLAN_KEY;

template <typename Skeleton>
l7mark::test::KeysRun<Skeleton>& run_of() {
  static const auto run = [] {
    std::string why;
    auto made = l7mark::test::KeysRun<Skeleton>::make(kOptions, why);
    if (!made) {
      std::fprintf(stderr, "keys_fuzz: %s\n", why.c_str());
      exit(1);
    }
    return made;
  }();
  return *run;
}

void check(const std::string& different) {
  if (different.empty()) return;
  std::fprintf(stderr, "%s\n", different.c_str());
  abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 14) return 0;
  check(run_of<keys_tc>().difference({data, size}));
  check(run_of<keys_xdp>().difference({data, size}));
  return 0;
}
