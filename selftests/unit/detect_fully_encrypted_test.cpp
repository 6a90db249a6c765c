// SPDX-License-Identifier: GPL-2.0-only
// Each rule for fully encrypted traffic at its border.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "detector_packets.hpp"
#include "detectors/fully_encrypted.hpp"

namespace l7mark::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Bytes of four bits each, none printable.
Bytes balanced(std::size_t length) {
  Bytes out;
  for (std::size_t i = 0; i < length; ++i)
    out.push_back(std::array<std::uint8_t, 4>{0xf0, 0x0f, 0xc3, 0x99}[i % 4]);
  return out;
}

bool hit(const Bytes& payload) {
  return is_fully_encrypted(payload, payload.size());
}

void write(Bytes& payload, std::size_t at, std::string_view text) {
  std::copy(text.begin(), text.end(), payload.begin() + static_cast<std::ptrdiff_t>(at));
}

TEST(DetectFullyEncrypted, RandomBytesAre) {
  EXPECT_TRUE(hit(balanced(64)));
  EXPECT_TRUE(hit(balanced(1400)));
  EXPECT_FALSE(hit(balanced(63)));
  EXPECT_FALSE(hit({}));
}

TEST(DetectFullyEncrypted, ShareOfBits) {
  // 0x80 has one bit, 0xff eight: so many of a hundred move the mean to the border.
  Bytes few = balanced(100);
  std::fill_n(few.begin() + 20, 20, std::uint8_t{0x80});  // 3.4
  EXPECT_FALSE(hit(few));
  few[20] = 0x81;
  EXPECT_TRUE(hit(few));
  Bytes many = balanced(100);
  std::fill_n(many.begin() + 20, 15, std::uint8_t{0xff});  // 4.6
  EXPECT_FALSE(hit(many));
  many[20] = 0xfe;
  EXPECT_TRUE(hit(many));
}

TEST(DetectFullyEncrypted, PrintableBeginning) {
  Bytes payload = balanced(100);
  write(payload, 0, "SSH-2.");
  EXPECT_FALSE(hit(payload));
  payload[5] = 0x7f;
  EXPECT_TRUE(hit(payload));
}

TEST(DetectFullyEncrypted, PrintableShare) {
  Bytes payload = balanced(100);
  for (std::size_t i = 0; i < 100; i += 2) payload[i + 1] = '3';
  EXPECT_TRUE(hit(payload));  // a half, not more
  payload[10] = '3';
  EXPECT_FALSE(hit(payload));
}

TEST(DetectFullyEncrypted, PrintableRun) {
  Bytes payload = balanced(200);
  std::fill_n(payload.begin() + 100, 20, std::uint8_t{'3'});
  EXPECT_TRUE(hit(payload));
  payload[120] = '3';
  EXPECT_FALSE(hit(payload));
}

TEST(DetectFullyEncrypted, TlsAndHttp) {
  for (const std::string_view start :
       {"\x16\x03\x01", "\x17\x03\x03", "GET ", "POST ", "PUT ", "HEAD "}) {
    Bytes payload = balanced(100);
    write(payload, 0, start);
    EXPECT_FALSE(hit(payload)) << start;
  }
  Bytes payload = balanced(100);
  write(payload, 0, "\x16\x03\x0a");
  EXPECT_TRUE(hit(payload));
}

TEST(DetectFullyEncrypted, FramesAreNot) {
  Bytes zeros = balanced(100);
  zeros[3] = zeros[7] = zeros[11] = 0;
  EXPECT_TRUE(hit(zeros));
  zeros[15] = 0;
  EXPECT_FALSE(hit(zeros));
  zeros[15] = 0xf0;
  zeros[16] = 0;
  EXPECT_TRUE(hit(zeros));

  // A messenger's first packet: byte 2 is its length.
  EXPECT_FALSE(is_fully_encrypted(
      bytes_of("2500451404118ab5816e165f0a59146afe52dde4cf469f73e6d1ded88eb3c9badf741a60ecee31c4e0e"
               "097a64cea38db41be745472122fa1f51d8bd9b5cb5920c1b1baa37c"),
      69));
  for (const std::size_t counted : {300U, 298U}) {
    Bytes length = balanced(300);
    length[0] = static_cast<std::uint8_t>(counted >> 8);
    length[1] = static_cast<std::uint8_t>(counted);
    EXPECT_FALSE(hit(length));
    std::swap(length[0], length[1]);
    EXPECT_FALSE(hit(length));
    // The length on the wire counts, not that of the copy.
    EXPECT_TRUE(is_fully_encrypted(length, 400));
  }
}

TEST(DetectFullyEncrypted, OnlyTheClientsFirstPayloadCounts) {
  const Bytes random = balanced(100);
  const Bytes text(100, 'a');
  const auto show = [](DetectorState& state, bool client, bool tcp, const Bytes& payload) {
    EXPECT_FALSE(look(state, {client, tcp, payload, payload.size(), 1}));
  };
  DetectorState first;
  show(first, false, true, text);
  show(first, true, true, random);
  EXPECT_TRUE(first.fully_encrypted);
  show(first, true, true, text);
  EXPECT_TRUE(first.fully_encrypted);
  DetectorState later;
  show(later, true, true, text);
  show(later, true, true, random);
  EXPECT_FALSE(later.fully_encrypted);
  DetectorState server;
  show(server, false, true, random);
  EXPECT_FALSE(server.fully_encrypted);
  DetectorState udp;
  show(udp, true, false, random);
  EXPECT_FALSE(udp.fully_encrypted);
}

}  // namespace
}  // namespace l7mark::test
