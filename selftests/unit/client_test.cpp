// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/client.hpp"

#include <gtest/gtest.h>
#include <l7mark/types.h>

#include <cstring>
#include <string>
#include <vector>

namespace l7mark {
namespace {

constexpr const char* kInside = "192.168.1.5";
constexpr const char* kOutside = "198.51.100.7";

struct Case {
  const char* what;
  const char* sender;
  const char* receiver;
  std::uint16_t sender_port;
  std::uint16_t receiver_port;
  std::uint8_t protocol;
  std::uint8_t flags;
  bool sender_is_client;
};

const Case kCases[] = {
    {"SYN", kInside, kOutside, 40000, 443, 6, 0, true},
    {"SYN to a server inside, from a low port", kOutside, kInside, 20, 40000, 6, 0, true},
    {"SYN-ACK", kOutside, kInside, 40000, 443, 6, L7M_FLOW_ANSWER, false},
    {"under way, from the client", kInside, kOutside, 40000, 443, 6, L7M_FLOW_MIDSTREAM, true},
    {"under way, from the server", kOutside, kInside, 443, 40000, 6, L7M_FLOW_MIDSTREAM, false},
    {"under way, server inside", kInside, kOutside, 443, 40000, 6, L7M_FLOW_MIDSTREAM, false},
    {"under way, registered port", kOutside, kInside, 8443, 32768, 6, L7M_FLOW_MIDSTREAM, false},
    {"under way, NAT's port", kOutside, kInside, 443, 1024, 6, L7M_FLOW_MIDSTREAM, false},
    {"under way, ports alike, from outside", kOutside, kInside, 50000, 40000, 6, L7M_FLOW_MIDSTREAM,
     false},
    {"under way, ports alike, from inside", kInside, kOutside, 40000, 50000, 6, L7M_FLOW_MIDSTREAM,
     true},
    {"under way, ports alike, both outside", kOutside, "203.0.113.1", 50000, 40000, 6,
     L7M_FLOW_MIDSTREAM, true},
    {"datagram of a client", kInside, kOutside, 40000, 8801, 17, 0, true},
    {"answer", kOutside, kInside, 443, 32768, 17, 0, false},
    {"answer from a registered port", kOutside, kInside, 8801, 40000, 17, 0, false},
    {"a client inside chooses its port", kInside, kOutside, 443, 40000, 17, 0, true},
    {"between two inside", "192.168.1.6", kInside, 443, 40000, 17, 0, true},
    {"to a service inside", kOutside, kInside, 443, 1194, 17, 0, true},
    {"to a service inside, ports alike", kOutside, kInside, 40000, 51820, 17, 0, true},
    {"DNS between resolvers", kOutside, kInside, 53, 53, 17, 0, true},
    {"SCTP", kOutside, kInside, 443, 40000, 132, 0, true},
    {"ICMP", kOutside, kInside, 0, 0, 1, 0, true},
};

TEST(Client, IsWhoOpenedTheFlow) {
  const std::vector<Prefix> inside{*Prefix::parse("192.168.0.0/16")};
  for (const Case& c : kCases) {
    for (const int sender : {0, 1}) {
      SCOPED_TRACE(std::string(c.what) + ", endpoint " + std::to_string(sender));
      FlowKey key;
      const auto put = [&](int endpoint, const char* address, std::uint16_t port) {
        const Address parsed = *Address::parse(address);
        std::memcpy(key.raw.addr[endpoint], parsed.bytes.data(), sizeof(key.raw.addr[endpoint]));
        key.raw.port[endpoint] = __builtin_bswap16(port);
      };
      put(sender, c.sender, c.sender_port);
      put(1 - sender, c.receiver, c.receiver_port);
      key.raw.protocol = c.protocol;
      EXPECT_EQ(client_of(key, sender, c.flags, inside), c.sender_is_client ? sender : 1 - sender);
    }
  }
}

// Ports alone tell of TCP; of UDP nothing is told.
TEST(Client, WithoutPrefixes) {
  FlowKey key;
  key.raw.port[0] = __builtin_bswap16(443);
  key.raw.port[1] = __builtin_bswap16(40000);
  key.raw.protocol = 6;
  EXPECT_EQ(client_of(key, 0, L7M_FLOW_MIDSTREAM, {}), 1);
  key.raw.protocol = 17;
  EXPECT_EQ(client_of(key, 0, 0, {}), 0);
}

}  // namespace
}  // namespace l7mark
