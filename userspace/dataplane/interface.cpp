// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/interface.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
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
  // `command` is one of ethtool's structures, and gets the answer.
  bool ask_ethtool(void* command) {
    request_.ifr_data = static_cast<char*>(command);
    return ask(SIOCETHTOOL);
  }
  ifreq& answer() { return request_; }

 private:
  Fd socket_;
  ifreq request_{};
};

// A structure of ethtool's with an array behind it, zeroed.
class EthtoolBuffer {
 public:
  explicit EthtoolBuffer(std::size_t bytes) : words_((bytes + 7) / 8) {}
  template <typename Command>
  Command* as() {
    return reinterpret_cast<Command*>(words_.data());
  }

 private:
  std::vector<std::uint64_t> words_;
};

// The names of what a driver can be told to do, as the kernel numbers them; empty on failure.
std::vector<std::string> offload_names(Query& query) {
  EthtoolBuffer set(sizeof(ethtool_sset_info) + sizeof(std::uint32_t));
  auto* info = set.as<ethtool_sset_info>();
  info->cmd = ETHTOOL_GSSET_INFO;
  info->sset_mask = 1ULL << ETH_SS_FEATURES;
  if (!query.ask_ethtool(info) || info->sset_mask == 0) return {};
  const std::uint32_t count = info->data[0];
  EthtoolBuffer buffer(sizeof(ethtool_gstrings) + std::size_t{count} * ETH_GSTRING_LEN);
  auto* strings = buffer.as<ethtool_gstrings>();
  strings->cmd = ETHTOOL_GSTRINGS;
  strings->string_set = ETH_SS_FEATURES;
  strings->len = count;
  if (!query.ask_ethtool(strings)) return {};
  std::vector<std::string> names;
  const auto* text = reinterpret_cast<const char*>(strings->data);
  for (std::uint32_t i = 0; i < std::min(count, strings->len); ++i, text += ETH_GSTRING_LEN)
    names.emplace_back(text, strnlen(text, ETH_GSTRING_LEN));
  return names;
}

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
  if (query.ask_ethtool(&info)) {
    facts.hardware = !is_virtual && names_bus(info);
    if (!is_virtual) facts.driver = info.driver;
  }
  return facts;
}

bool strips_vlan_tags(unsigned ifindex) {
  char name[IFNAMSIZ];
  if (if_indextoname(ifindex, name) == nullptr) return true;
  Query query(name);
  const std::vector<std::string> names = offload_names(query);
  const std::size_t blocks = (names.size() + 31) / 32;
  EthtoolBuffer buffer(sizeof(ethtool_gfeatures) + blocks * sizeof(ethtool_get_features_block));
  auto* offloads = buffer.as<ethtool_gfeatures>();
  offloads->cmd = ETHTOOL_GFEATURES;
  offloads->size = static_cast<std::uint32_t>(blocks);
  if (names.empty() || !query.ask_ethtool(offloads)) return true;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != "rx-vlan-hw-parse" && names[i] != "rx-vlan-stag-hw-parse") continue;
    if ((offloads->features[i / 32].active >> i % 32 & 1U) != 0) return true;
  }
  return false;
}

}  // namespace l7mark
