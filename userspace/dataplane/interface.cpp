// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/interface.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "dataplane/rtnetlink.hpp"
#include "util/fd.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

// From include/uapi/linux/if_arp.h; the C library's header lacks them.
constexpr unsigned short kArphrdRawIp = 519;
constexpr unsigned short kArphrdIp6Gre = 823;

// Whether frames of this hardware type begin with an Ethernet header (true) or with the IP header
// (false), as a TC program sees them; nothing for the types that we can't parse.
std::optional<bool> has_link_layer(unsigned short type) {
  switch (type) {
    case ARPHRD_ETHER:
    case ARPHRD_LOOPBACK:
      return true;
    case ARPHRD_NONE:  // tun, wireguard, xfrm
    case ARPHRD_PPP:
    case ARPHRD_TUNNEL:  // ipip, vti
    case ARPHRD_TUNNEL6:
    case ARPHRD_SIT:
    case ARPHRD_IPGRE:
    case kArphrdIp6Gre:
    case kArphrdRawIp:
      return false;
    default:
      return std::nullopt;
  }
}

class Query {
 public:
  explicit Query(const std::string& name)
      : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    name.copy(request_.ifr_name, IFNAMSIZ - 1);
  }
  bool ask(unsigned long what) { return ::ioctl(socket_.get(), what, &request_) == 0; }
  ifreq& answer() { return request_; }

 private:
  Fd socket_;
  ifreq request_{};
};

// "N/A" stands for no bus with some virtual drivers.
bool names_bus(const ethtool_drvinfo& info) {
  return info.bus_info[0] != '\0' && std::strcmp(info.bus_info, "N/A") != 0;
}

}  // namespace

std::vector<std::string> interface_names() {
  std::vector<std::string> names;
  const std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> table(
      if_nameindex(), if_freenameindex);
  if (!table) return names;
  for (const auto* entry = table.get(); entry->if_index != 0; ++entry)
    names.emplace_back(entry->if_name);
  return names;
}

Result<InterfaceFacts> describe_interface(const std::string& name) {
  InterfaceFacts facts;
  facts.name = name;
  facts.ifindex = name.empty() || name.size() >= IFNAMSIZ ? 0 : if_nametoindex(name.c_str());
  if (facts.ifindex == 0)
    return Error{"use interface", name, 0,
                 "there is no such interface" + did_you_mean(name, interface_names())};

  Query query(name);
  if (!query.ask(SIOCGIFHWADDR)) return error_from_errno("read link type of", name);
  const unsigned short type = query.answer().ifr_hwaddr.sa_family;
  const auto link_layer = has_link_layer(type);
  if (!link_layer)
    return Error{
        "use interface", name, 0,
        "its frames are neither Ethernet nor plain IP (link type " + std::to_string(type) + ")"};
  facts.link_layer = *link_layer;
  if (!query.ask(SIOCGIFMTU)) return error_from_errno("read MTU of", name);
  facts.mtu = static_cast<unsigned>(query.answer().ifr_mtu);

  // Virtual interfaces have a kind, and some of them name a bus all the same.
  facts.driver = link_kind(facts.ifindex);
  const bool is_virtual = !facts.driver.empty();
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  query.answer().ifr_data = reinterpret_cast<char*>(&info);
  if (query.ask(SIOCETHTOOL)) {
    facts.hardware = !is_virtual && names_bus(info);
    if (!is_virtual) facts.driver = info.driver;
  }
  return facts;
}

}  // namespace l7mark
