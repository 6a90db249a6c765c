// SPDX-License-Identifier: GPL-2.0-only
// The hot path, the whole parser in the kernel and the one in userspace, over real stacks of
// headers and what is left of them after changes: keys_run.hpp. L7MARK_KEYS_INPUTS gives another
// number of inputs for each program, L7MARK_KEYS_SEED other changes.
#include "keys_run.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>

#include "program_run.hpp"
#include "stacks.hpp"

namespace l7mark::test {
namespace {

constexpr std::size_t kMostBytes = 2600;  // beyond what the parser reads of headers

std::uint64_t number(const char* variable, std::uint64_t usual) {
  const char* text = std::getenv(variable);
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> out;
  for (const auto& cases : {link_cases(), network_cases(), transport_cases(), opened_cases(),
                            closed_cases(), no_tunnel_cases()})
    for (const Case& c : cases) out.push_back(c.frame);
  for (const Bytes& packet : {tcp4(), udp4(), tcp6(), udp6()}) {
    out.push_back(tagged({{0x8100, 7}}, packet));
    out.push_back(tagged({{0x88a8, 7}, {0x8100, 8}}, packet));
  }
  return out;
}

// What the parser compares with.
constexpr std::array<std::uint8_t, 30> kBytes{
    0,  1,  4,  5,   6,   7,   8,   17,  33,   41,   43,   44,   47,   50,   51,
    58, 59, 60, 132, 135, 136, 139, 140, 0x45, 0x46, 0x60, 0x81, 0x86, 0xdd, 0xff};
constexpr std::array<std::uint16_t, 14> kWords{0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100,
                                               0x8847, 0x8864, 0x6558, 2152,   4789,
                                               0x2000, 0x1fff, 0x0021, 0x0057};

class Changes {
 public:
  Changes(std::uint64_t seed, std::vector<Bytes> seeds) : random_(seed), seeds_(std::move(seeds)) {}

  const Bytes& next() {
    frame_ = pick(seeds_);
    // Most of what is changed much is nothing any more.
    for (std::size_t left = below(6); left > 0; --left) change();
    if (frame_.size() > kMostBytes) frame_.resize(kMostBytes);
    if (frame_.size() < 14) frame_.resize(14);
    return frame_;
  }

 private:
  std::size_t below(std::size_t bound) { return random_() % bound; }
  template <typename Range>
  const typename Range::value_type& pick(const Range& range) {
    return range[below(range.size())];
  }
  // A place in the headers: changes of payload tell nothing.
  std::size_t place() { return below(std::min<std::size_t>(frame_.size(), 140)); }
  [[nodiscard]] auto at(std::size_t where) const {
    return frame_.begin() + static_cast<std::ptrdiff_t>(where);
  }

  void change() {
    if (frame_.size() < 14) return;
    const std::size_t where = place();
    switch (below(9)) {
      case 0:
        frame_[where] ^= static_cast<std::uint8_t>(1U << below(8));
        break;
      case 1:
        frame_[where] = pick(kBytes);
        break;
      case 2:
        frame_[where] = static_cast<std::uint8_t>(below(256));
        break;
      case 3: {
        const std::uint16_t word = pick(kWords);
        if (where + 1 >= frame_.size()) break;
        frame_[where] = static_cast<std::uint8_t>(word >> 8);
        frame_[where + 1] = static_cast<std::uint8_t>(word);
        break;
      }
      case 4:  // another tag, label or header in front
        frame_.insert(
            at(12), {static_cast<std::uint8_t>(below(2) != 0 ? 0x81 : 0x88),
                     static_cast<std::uint8_t>(below(2) != 0 ? 0x00 : 0xa8),
                     static_cast<std::uint8_t>(below(256)), static_cast<std::uint8_t>(below(256))});
        break;
      case 5:  // less
        frame_.resize(14 + below(frame_.size() - 13));
        break;
      case 6:  // more
        frame_.insert(frame_.end(), below(below(8) == 0 ? 2000 : 40), pick(kBytes));
        break;
      case 7: {  // bytes again
        const std::size_t length = std::min(frame_.size() - where, 4 + 4 * below(16));
        const Bytes part(at(where), at(where + length));
        frame_.insert(at(place()), part.begin(), part.end());
        break;
      }
      default: {  // the rest of another
        const Bytes& other = pick(seeds_);
        const std::size_t from = below(other.size());
        frame_.resize(where);
        frame_.insert(frame_.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        break;
      }
    }
  }

  std::mt19937_64 random_;
  std::vector<Bytes> seeds_;
  Bytes frame_;
};

template <typename Skeleton>
void compare(std::uint32_t options) {
  std::string why;
  auto run = KeysRun<Skeleton>::make(options, why);
  ASSERT_NE(run, nullptr) << why;
  const auto check = [&](const Bytes& frame) {
    const std::string different = run->difference(frame);
    if (different.empty()) return true;
    std::string hex;
    for (const std::uint8_t byte : frame) hex += fmt::format("{:02x}", byte);
    ADD_FAILURE() << different << ": " << hex;
    return false;
  };
  const std::vector<Bytes> whole = seeds();
  for (const Bytes& frame : whole) ASSERT_TRUE(check(frame));
  Changes changes(number("L7MARK_KEYS_SEED", 1), whole);
  const std::uint64_t inputs = number("L7MARK_KEYS_INPUTS", 50'000);
  for (std::uint64_t i = 0; i < inputs; ++i) ASSERT_TRUE(check(changes.next()));
  std::printf("KEYS options %#x: %llu runs, %llu with a key, %llu on the hot path\n", options,
              static_cast<unsigned long long>(run->runs()),
              static_cast<unsigned long long>(run->flows()),
              static_cast<unsigned long long>(run->fast()));
  // The changes are of use: enough is left of most packets.
  EXPECT_GT(run->runs(), inputs / 2);
  EXPECT_GT(run->flows(), inputs / 8);
  EXPECT_GT(run->fast(), inputs / 64);
}

constexpr std::uint32_t kOptions[] = {L7M_PARSE_VLAN_KEY, kAllTunnels | L7M_PARSE_VLAN_KEY, 0};

TEST(Keys, AreTheSameAtTc) {
  std::string why;
  if (!usable_features(why)) GTEST_SKIP() << why;
  for (const std::uint32_t options : kOptions) compare<keys_tc>(options);
}

TEST(Keys, AreTheSameAtXdp) {
  std::string why;
  if (!usable_features(why)) GTEST_SKIP() << why;
  libbpf_set_print(nullptr);
  for (const std::uint32_t options : kOptions) compare<keys_xdp>(options);
}

}  // namespace
}  // namespace l7mark::test
