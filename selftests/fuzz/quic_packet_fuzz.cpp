// SPDX-License-Identifier: GPL-2.0-only
// Headers and packets of QUIC: the input is a row of datagrams, each behind its length in two
// bytes.
#include "handshake/byte_reader.hpp"
#include "handshake/quic_server_hello.hpp"
#include "quic_check.hpp"

using namespace l7mark;

namespace {

constexpr std::size_t kLimit = 2048;

bool inside(std::span<const std::uint8_t> part, std::span<const std::uint8_t> whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void check_packets(std::span<const std::uint8_t> datagram) {
  QuicPacketReader packets(datagram);
  std::size_t total = 0;
  while (const auto packet = packets.next()) {
    fuzz::require(!packet->bytes.empty() && inside(packet->bytes, datagram));
    for (const auto part : {packet->dcid, packet->scid, packet->token})
      fuzz::require(inside(part, packet->bytes));
    fuzz::require(packet->number_offset < packet->bytes.size());
    total += packet->bytes.size();
  }
  fuzz::require(total <= datagram.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteReader input({data, size});
  QuicHello hello(kLimit);
  QuicServerHello answer;
  while (input.remaining() > 0) {
    const std::size_t length = input.u16();
    const auto datagram = input.take(std::min(length, input.remaining()));
    check_packets(datagram);
    hello.add(datagram);
    const bool whole = answer.add(datagram, hello.dcid());
    fuzz::require(whole == !answer.message().empty());
  }
  fuzz::check(hello, kLimit);
  return 0;
}
