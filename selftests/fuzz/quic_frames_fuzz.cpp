// SPDX-License-Identifier: GPL-2.0-only
// Frames of QUIC's Initials, sealed with the right keys so that they are read at all. The input is
// a row of packets: a byte that chooses connection id, version and whether the packet goes into the
// next one's datagram; two bytes of length; the frames.
#include <array>
#include <vector>

#include "handshake/byte_reader.hpp"
#include "handshake/quic_server_hello.hpp"
#include "quic_check.hpp"

using namespace l7mark;

namespace {

constexpr std::size_t kLimit = 2048;
constexpr std::array<std::uint8_t, 8> kFirstId{1, 2, 3, 4, 5, 6, 7, 8};
constexpr std::array<std::uint8_t, 5> kLaterId{9, 8, 7, 6, 5};

// Bits of the choice.
constexpr unsigned kWithLaterId = 1;   // the packet has the later id
constexpr unsigned kLaterIdsKeys = 2;  // and is sealed with the keys that come from it
constexpr unsigned kVersionTwo = 4;
constexpr unsigned kFromServer = 8;
constexpr unsigned kCoalesced = 16;

QuicKeys keys_of(unsigned choice) {
  const auto make = [](unsigned bits) {
    const std::span<const std::uint8_t> id = (bits & kLaterIdsKeys) != 0
                                                 ? std::span<const std::uint8_t>(kLaterId)
                                                 : std::span<const std::uint8_t>(kFirstId);
    return quic_initial_keys(
        (bits & kVersionTwo) != 0 ? QuicProtection::version2 : QuicProtection::version1, id,
        (bits & kFromServer) != 0 ? QuicSide::server : QuicSide::client);
  };
  static const std::array<QuicKeys, 16> keys = [&] {
    std::array<QuicKeys, 16> all;
    for (unsigned bits = 0; bits < all.size(); ++bits) all[bits] = make(bits);
    return all;
  }();
  return keys[choice & 15U];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteReader input({data, size});
  QuicHello hello(kLimit);
  QuicServerHello answer;
  std::vector<std::uint8_t> datagram;
  for (std::uint32_t number = 0; input.remaining() > 0; ++number) {
    const unsigned choice = input.u8();
    const std::size_t length = input.u16();
    const auto frames = input.take(std::min(length, input.remaining()));
    QuicInitial header;
    header.version = (choice & kVersionTwo) != 0 ? kQuicVersion2 : kQuicVersion1;
    header.dcid = kFirstId;
    if ((choice & kWithLaterId) != 0) header.dcid = kLaterId;
    header.number = number;
    header.number_length = 1 + number % 4;
    const auto packet = quic_seal(keys_of(choice), header, frames);
    datagram.insert(datagram.end(), packet.begin(), packet.end());
    if ((choice & kCoalesced) != 0 && input.remaining() > 0) continue;
    hello.add(datagram);
    fuzz::require(answer.add(datagram, hello.dcid()) == !answer.message().empty());
    datagram.clear();
  }
  fuzz::check(hello, kLimit);
  return 0;
}
