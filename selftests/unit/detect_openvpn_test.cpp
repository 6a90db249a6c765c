// SPDX-License-Identifier: GPL-2.0-only
// The detector of OpenVPN with recordings of real tunnels, and with what only resembles them.
#include <gtest/gtest.h>

#include <utility>

#include "detector_packets.hpp"

namespace l7mark::test {
namespace {

struct Form {
  const char* name;
  const Recording* recording;
  bool tcp;
  bool encrypted;  // acknowledgements are
};

const Form kForms[] = {
    {"udp plain", &kOpenvpnUdpPlain, false, false},
    {"udp tls-auth", &kOpenvpnUdpTlsAuth, false, false},
    {"udp tls-crypt", &kOpenvpnUdpTlsCrypt, false, true},
    {"udp tls-crypt-v2", &kOpenvpnUdpTlsCryptV2, false, true},
    {"tcp plain", &kOpenvpnTcpPlain, true, false},
    {"tcp tls-auth", &kOpenvpnTcpTlsAuth, true, false},
    {"tcp tls-crypt", &kOpenvpnTcpTlsCrypt, true, true},
    {"tcp tls-crypt-v2", &kOpenvpnTcpTlsCryptV2, true, true},
};

std::size_t spoken(const Form& form, const std::vector<Shown>& packets) {
  return spoken_at(packets, form.tcp, Detector::openvpn);
}

std::size_t opcode_at(const Form& form) {
  return form.tcp ? 2 : 0;
}

TEST(DetectOpenvpn, IsNamedAtTheServersReset) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    EXPECT_EQ(spoken(form, packets_of(*form.recording)), 2U);
  }
}

TEST(DetectOpenvpn, NeedsBothSides) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    std::vector<Shown> packets = packets_of(*form.recording);
    for (Shown& packet : packets) packet.from_client = true;
    EXPECT_EQ(spoken(form, packets), 0U);
    std::vector<Shown> alone = packets_of(*form.recording);
    std::erase_if(alone, [](const Shown& packet) { return !packet.from_client; });
    EXPECT_EQ(spoken(form, alone), 0U);
  }
}

TEST(DetectOpenvpn, WithoutTheServersResetALaterPacketTells) {
  for (const Form& form : kForms) {
    if (form.tcp) continue;  // TCP sends it again
    SCOPED_TRACE(form.name);
    std::vector<Shown> packets = packets_of(*form.recording);
    packets.erase(packets.begin() + 1);
    const std::size_t at = spoken(form, packets);
    EXPECT_GE(at, 2U);
    EXPECT_LE(at, 4U);
  }
}

TEST(DetectOpenvpn, ResetsMayComeInTheOtherOrder) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    std::vector<Shown> packets = packets_of(*form.recording);
    std::swap(packets[0], packets[1]);
    const std::size_t at = spoken(form, packets);
    EXPECT_GE(at, 2U);
    EXPECT_LE(at, 3U);
  }
}

TEST(DetectOpenvpn, ARepeatedResetChangesNothing) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    std::vector<Shown> packets = packets_of(*form.recording);
    Shown again = packets[0];
    if (form.encrypted && !form.tcp) ++again.payload[12];  // under the next packet id
    packets.insert(packets.begin() + 1, again);
    EXPECT_EQ(spoken(form, packets), 3U);
  }
}

TEST(DetectOpenvpn, AnotherSessionIdIsNoEcho) {
  for (const Form& form : kForms) {
    if (form.encrypted) continue;
    SCOPED_TRACE(form.name);
    for (std::size_t i = 0; i < 8; ++i) {
      std::vector<Shown> packets = packets_of(*form.recording);
      packets.resize(2);
      packets[0].payload[opcode_at(form) + 1 + i] ^= 0x10;
      EXPECT_EQ(spoken(form, packets), 0U) << i;
    }
  }
}

TEST(DetectOpenvpn, OnlyOneToEightAcknowledgements) {
  const auto with = [](std::size_t count) {
    std::vector<Shown> packets = packets_of(kOpenvpnUdpPlain);
    packets.resize(2);
    std::vector<std::uint8_t>& server = packets[1].payload;
    server.resize(9);
    server.push_back(static_cast<std::uint8_t>(count));
    server.insert(server.end(), 4 * count, 0);
    server.insert(server.end(), packets[0].payload.begin() + 1, packets[0].payload.begin() + 9);
    server.insert(server.end(), 4, 0);
    packets[1].wire_length = server.size();
    return spoken_at(packets, false, Detector::openvpn);
  };
  EXPECT_EQ(with(0), 0U);
  EXPECT_EQ(with(1), 2U);
  EXPECT_EQ(with(8), 2U);
  EXPECT_EQ(with(9), 0U);
}

TEST(DetectOpenvpn, ASessionIdThatIsNotRandomIsNoEcho) {
  Form form = kForms[0];
  std::vector<Shown> packets = packets_of(*form.recording);
  packets.resize(2);
  std::fill_n(packets[0].payload.begin() + 1, 8, std::uint8_t{0x20});
  std::fill_n(packets[1].payload.begin() + 14, 8, std::uint8_t{0x20});
  EXPECT_EQ(spoken(form, packets), 0U);
}

TEST(DetectOpenvpn, TlsCryptNeedsItsFieldsAndLengths) {
  for (const Form& form : kForms) {
    if (!form.encrypted) continue;
    SCOPED_TRACE(form.name);
    const std::size_t at = opcode_at(form);
    const auto changed = [&](std::size_t packet, std::size_t byte, std::uint8_t value) {
      std::vector<Shown> packets = packets_of(*form.recording);
      packets.resize(2);
      packets[packet].payload[at + byte] = value;
      return spoken(form, packets);
    };
    EXPECT_EQ(changed(1, 0, 0x20), 0U) << "not a reset";
    EXPECT_EQ(changed(1, 0, 0x41), 0U) << "a key that the first handshake has not";
    EXPECT_EQ(changed(1, 10, 0x01), 0U) << "a packet id that is not a first one";
    EXPECT_EQ(changed(1, 13, 0x10), 0U) << "a clock of 1978";
    EXPECT_EQ(changed(1, 13, 0x69), 0U) << "a clock a year away";
    EXPECT_EQ(changed(0, 13, 0x10), 0U);
    std::vector<Shown> longer = packets_of(*form.recording);
    longer.resize(2);
    for (std::size_t i = 0; i < 100; ++i) longer[1].payload.push_back(0);
    longer[1].wire_length += 100;
    if (form.tcp) longer[1].payload[1] = static_cast<std::uint8_t>(longer[1].wire_length - 2);
    EXPECT_EQ(spoken(form, longer), 0U) << "a reset longer than a server sends";
  }
}

TEST(DetectOpenvpn, TlsCryptFirstPacketIds) {
  for (const std::string_view id : {"00000001", "000000ff", "0f000001", "0a010001"}) {
    std::vector<Shown> packets = packets_of(kOpenvpnUdpTlsCryptV2);
    const std::vector<std::uint8_t> bytes = bytes_of(id);
    std::copy(bytes.begin(), bytes.end(), packets[0].payload.begin() + 9);
    EXPECT_EQ(spoken_at(packets, false, Detector::openvpn), 2U) << id;
  }
  for (const std::string_view id : {"00000000", "00000100", "0f010001", "0e000001"}) {
    std::vector<Shown> packets = packets_of(kOpenvpnUdpTlsCryptV2);
    packets.resize(2);
    const std::vector<std::uint8_t> bytes = bytes_of(id);
    std::copy(bytes.begin(), bytes.end(), packets[0].payload.begin() + 9);
    EXPECT_EQ(spoken_at(packets, false, Detector::openvpn), 0U) << id;
  }
}

TEST(DetectOpenvpn, WithClocksApartTheNextPacketTells) {
  for (const Form& form : kForms) {
    if (!form.encrypted) continue;
    SCOPED_TRACE(form.name);
    std::vector<Shown> packets = packets_of(*form.recording);
    for (Shown& packet : packets)
      if (!packet.from_client) packet.payload[opcode_at(form) + 13] = 0x69;
    EXPECT_EQ(spoken(form, packets), 3U);
    // The time is that of the session's beginning: it stays.
    ++packets[2].payload[opcode_at(form) + 16];
    packets.resize(3);
    EXPECT_EQ(spoken(form, packets), 0U);
  }
}

TEST(DetectOpenvpn, TcpInSmallSegments) {
  for (const Form& form : kForms) {
    if (!form.tcp) continue;
    for (const std::size_t size : {1U, 2U, 3U, 7U, 40U}) {
      SCOPED_TRACE(std::string(form.name) + " by " + std::to_string(size));
      std::vector<Shown> pieces;
      std::vector<Shown> packets = packets_of(*form.recording);
      packets.resize(2);
      for (const Shown& packet : packets) {
        ASSERT_GE(packet.payload.size(), 1U);
        for (std::size_t at = 0; at < packet.wire_length; at += size) {
          const std::size_t length = std::min(size, packet.wire_length - at);
          Shown piece{
              packet.from_client, packet.sequence + static_cast<std::uint32_t>(at), length, {}};
          for (std::size_t i = at; i < at + length; ++i)
            piece.payload.push_back(i < packet.payload.size() ? packet.payload[i] : 0);
          pieces.push_back(piece);
          pieces.push_back(piece);  // and again
        }
      }
      const std::size_t at = spoken_at(pieces, true, Detector::openvpn);
      EXPECT_GT(at, 0U);
    }
  }
}

TEST(DetectOpenvpn, TcpWithSeveralPacketsInASegment) {
  std::vector<Shown> packets = packets_of(kOpenvpnTcpPlain);
  packets.resize(3);
  // The client's reset, lost to the capture, and then a segment with two packets of the server: one
  // that acknowledges nothing, and its reset.
  Shown server = packets[1];
  std::vector<std::uint8_t> joined = bytes_of("000e20f10ee3f3683eff410000000001");
  joined.insert(joined.end(), server.payload.begin(), server.payload.end());
  server.payload = joined;
  server.wire_length = joined.size();
  EXPECT_EQ(spoken_at({packets[0], server}, true, Detector::openvpn), 2U);
}

TEST(DetectOpenvpn, TcpGoesOnBehindAGapAndACut) {
  std::vector<Shown> packets = packets_of(kOpenvpnTcpPlain);
  // Only the beginning of the server's reset was copied, and the rest is missing.
  packets[1].payload.resize(10);
  packets.erase(packets.begin() + 2);
  EXPECT_EQ(spoken_at(packets, true, Detector::openvpn), 3U);
}

TEST(DetectOpenvpn, TcpThatBeginsOtherwiseIsLeftAlone) {
  std::vector<Shown> packets = packets_of(kOpenvpnTcpPlain);
  Shown hello = packets[0];
  hello.payload = bytes_of("1603010200010001fc0303");
  hello.wire_length = hello.payload.size();
  packets.insert(packets.begin(), hello);
  EXPECT_EQ(spoken_at(packets, true, Detector::openvpn), 0U);
}

TEST(DetectOpenvpn, CutPacketsAreNotReadBeyondTheirEnd) {
  for (const Form& form : kForms) {
    const std::vector<Shown> packets = packets_of(*form.recording);
    for (std::size_t left = 0; left < 90; ++left) {
      std::vector<Shown> cut = packets;
      for (Shown& packet : cut) packet.payload.resize(std::min(packet.payload.size(), left));
      const std::size_t at = spoken(form, cut);
      if (left < 10) {
        EXPECT_EQ(at, 0U) << form.name << left;
      }
    }
  }
}

}  // namespace
}  // namespace l7mark::test
