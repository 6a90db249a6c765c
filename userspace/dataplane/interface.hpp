// SPDX-License-Identifier: GPL-2.0-only
// What an interface of the current network namespace is. Asked by ioctl and rtnetlink: /sys may
// belong to another namespace.
#pragma once

#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

struct InterfaceFacts {
  std::string name;
  unsigned ifindex = 0;
  bool link_layer = false;  // frames begin with an Ethernet header; false: with the IP header
  bool hardware = false;    // its driver sits on a bus: native XDP runs there before an skb exists
  std::string driver;  // by ethtool ("ixgbe", "veth", "tun"), else the kind by rtnetlink; or empty
  unsigned mtu = 0;    // bytes
};

// Fails on an unknown interface, naming those that are near to it, and on one whose frames are
// neither Ethernet nor plain IP (802.11 monitor, InfiniBand, CAN).
[[nodiscard]] Result<InterfaceFacts> describe_interface(const std::string& name);

// The hardware takes the outer VLAN tag off the frame as it comes in ("rx-vlan-hw-parse" or
// "rx-vlan-stag-hw-parse" of `ethtool -k`), so that XDP does not see it; TC does, beside the
// packet. True where the kernel does not say.
[[nodiscard]] bool strips_vlan_tags(unsigned ifindex);

// In the order of their indexes.
[[nodiscard]] std::vector<std::string> interface_names();

}  // namespace l7mark
