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
  std::uint8_t protocol;
  std::uint8_t flags;
  const char* sender;
  std::uint16_t sender_port;
  const char* receiver;
  std::uint16_t receiver_port;
  bool sender_is_client;
};

const Case kCases[] = {
    {"SYN", 6, 0, kInside, 40000, kOutside, 443, true},
    {"SYN to a server inside, from a low port", 6, 0, kOutside, 20, kInside, 40000, true},
    {"SYN-ACK", 6, L7M_FLOW_ANSWER, kOutside, 40000, kInside, 443, false},
    {"under way, from the client", 6, L7M_FLOW_MIDSTREAM, kInside, 40000, kOutside, 443, true},
    {"under way, from the server", 6, L7M_FLOW_MIDSTREAM, kOutside, 443, kInside, 40000, false},
    {"under way, server inside", 6, L7M_FLOW_MIDSTREAM, kInside, 443, kOutside, 40000, false},
    {"under way, registered port", 6, L7M_FLOW_MIDSTREAM, kOutside, 8443, kInside, 32768, false},
    {"under way, NAT's port", 6, L7M_FLOW_MIDSTREAM, kOutside, 443, kInside, 1024, false},
    {"under way, ports alike, from outside", 6, L7M_FLOW_MIDSTREAM, kOutside, 50000, kInside, 40000,
     false},
    {"under way, ports alike, from inside", 6, L7M_FLOW_MIDSTREAM, kInside, 40000, kOutside, 50000,
     true},
    {"under way, ports alike, both outside", 6, L7M_FLOW_MIDSTREAM, kOutside, 50000, "203.0.113.1",
     40000, true},
    {"datagram of a client", 17, 0, kInside, 40000, kOutside, 8801, true},
    {"answer", 17, 0, kOutside, 443, kInside, 32768, false},
    {"answer from a registered port", 17, 0, kOutside, 8801, kInside, 40000, false},
    {"a client inside chooses its port", 17, 0, kInside, 443, kOutside, 40000, true},
    {"between two inside", 17, 0, "192.168.1.6", 443, kInside, 40000, true},
    {"to a service inside", 17, 0, kOutside, 443, kInside, 1194, true},
    {"to a service inside, ports alike", 17, 0, kOutside, 40000, kInside, 51820, true},
    {"DNS between resolvers", 17, 0, kOutside, 53, kInside, 53, true},
    {"SCTP", 132, 0, kOutside, 443, kInside, 40000, true},
    {"ICMP", 1, 0, kOutside, 0, kInside, 0, true},
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
