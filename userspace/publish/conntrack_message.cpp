// SPDX-License-Identifier: GPL-2.0-only
#include "publish/conntrack_message.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include <array>
#include <cstring>
#include <utility>

namespace l7mark::conntrack_message {

namespace {

// Bits of CTA_FILTER_ORIG_FLAGS; the kernel has them in nf_internals.h only.
constexpr std::uint32_t kFilterSource = 1U << 0;       // CTA_FILTER_F_CTA_IP_SRC
constexpr std::uint32_t kFilterDestination = 1U << 1;  // CTA_FILTER_F_CTA_IP_DST
constexpr std::uint32_t kFilterProtocol = 1U << 3;     // CTA_FILTER_F_CTA_PROTO_NUM

nlmsghdr* header(void* at, std::uint32_t sequence, std::uint8_t command, int flags, bool ipv6) {
  nlmsghdr* message = mnl_nlmsg_put_header(at);
  message->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | command);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  message->nlmsg_seq = sequence;
  auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  netfilter->nfgen_family = ipv6 ? AF_INET6 : AF_INET;
  netfilter->version = NFNETLINK_V0;
  return message;
}

nlattr* nest(nlmsghdr* message, int attribute) {
  return mnl_attr_nest_start(message, static_cast<std::uint16_t>(attribute));
}

void put_tuple(nlmsghdr* message, const ConntrackTuple& tuple) {
  const bool ipv6 = !tuple.source.is_v4();
  nlattr* outer = nest(message, CTA_TUPLE_ORIG);
  nlattr* addresses = nest(message, CTA_TUPLE_IP);
  if (ipv6) {
    mnl_attr_put(message, CTA_IP_V6_SRC, tuple.source.bytes.size(), tuple.source.bytes.data());
    mnl_attr_put(message, CTA_IP_V6_DST, tuple.destination.bytes.size(),
                 tuple.destination.bytes.data());
  } else {
    mnl_attr_put_u32(message, CTA_IP_V4_SRC, tuple.source.v4_bits());
    mnl_attr_put_u32(message, CTA_IP_V4_DST, tuple.destination.v4_bits());
  }
  mnl_attr_nest_end(message, addresses);
  nlattr* transport = nest(message, CTA_TUPLE_PROTO);
  mnl_attr_put_u8(message, CTA_PROTO_NUM, tuple.protocol);
  if (is_icmp(tuple.protocol)) {
    if (tuple.icmp) {
      const bool v6 = tuple.protocol == IPPROTO_ICMPV6;
      mnl_attr_put_u16(message, v6 ? CTA_PROTO_ICMPV6_ID : CTA_PROTO_ICMP_ID,
                       htons(tuple.icmp->id));
      mnl_attr_put_u8(message, v6 ? CTA_PROTO_ICMPV6_TYPE : CTA_PROTO_ICMP_TYPE, tuple.icmp->type);
      mnl_attr_put_u8(message, v6 ? CTA_PROTO_ICMPV6_CODE : CTA_PROTO_ICMP_CODE, tuple.icmp->code);
    }
  } else {
    // Protocols without ports ignore these.
    mnl_attr_put_u16(message, CTA_PROTO_SRC_PORT, htons(tuple.source_port));
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(tuple.destination_port));
  }
  mnl_attr_nest_end(message, transport);
  mnl_attr_nest_end(message, outer);
}

void put_zone(nlmsghdr* message, const ConntrackTuple& tuple) {
  if (tuple.zone != 0) mnl_attr_put_u16(message, CTA_ZONE, htons(tuple.zone));
}

using Words = std::array<std::uint32_t, kConntrackLabels / 32>;

// Label n is bit n % 32 of word n / 32, each word in the host's order.
Words words_of(const ConntrackLabels& labels) {
  Words out{};
  for (std::size_t bit = 0; bit < labels.size(); ++bit)
    if (labels[bit]) out[bit / 32] |= 1U << (bit % 32);
  return out;
}

// Of an echo and its answer, which the tracker takes for one conversation.
std::uint8_t reversed_type(std::uint8_t protocol, std::uint8_t type) {
  constexpr std::pair<std::uint8_t, std::uint8_t> v4[] = {{ICMP_ECHO, ICMP_ECHOREPLY},
                                                          {ICMP_TIMESTAMP, ICMP_TIMESTAMPREPLY},
                                                          {ICMP_INFO_REQUEST, ICMP_INFO_REPLY},
                                                          {ICMP_ADDRESS, ICMP_ADDRESSREPLY}};
  constexpr std::pair<std::uint8_t, std::uint8_t> v6[] = {{ICMP6_ECHO_REQUEST, ICMP6_ECHO_REPLY}};
  const auto swap = [type](const auto& pairs) {
    for (const auto& [ask, answer] : pairs) {
      if (type == ask) return answer;
      if (type == answer) return ask;
    }
    return type;
  };
  return protocol == IPPROTO_ICMPV6 ? swap(v6) : swap(v4);
}

template <class Visit>
void for_each(const void* from, std::size_t bytes, Visit visit) {
  const char* end = static_cast<const char*>(from) + bytes;
  for (const auto* at = static_cast<const nlattr*>(from);
       mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
       at = mnl_attr_next(at))
    visit(at);
}

template <class Visit>
void for_each_nested(const nlattr* outer, Visit visit) {
  for_each(mnl_attr_get_payload(outer), mnl_attr_get_payload_len(outer), visit);
}

void parse_addresses(const nlattr* attribute, ConntrackTuple& out) {
  for_each_nested(attribute, [&](const nlattr* inner) {
    const std::size_t length = mnl_attr_get_payload_len(inner);
    const auto type = mnl_attr_get_type(inner);
    if (length == 4 && (type == CTA_IP_V4_SRC || type == CTA_IP_V4_DST))
      (type == CTA_IP_V4_SRC ? out.source : out.destination) = Address::v4(mnl_attr_get_u32(inner));
    if (length == 16 && (type == CTA_IP_V6_SRC || type == CTA_IP_V6_DST))
      std::memcpy((type == CTA_IP_V6_SRC ? out.source : out.destination).bytes.data(),
                  mnl_attr_get_payload(inner), length);
  });
}

void parse_transport(const nlattr* attribute, ConntrackTuple& out) {
  for_each_nested(attribute, [&](const nlattr* inner) {
    const std::size_t length = mnl_attr_get_payload_len(inner);
    const std::uint8_t byte = length == 1 ? mnl_attr_get_u8(inner) : std::uint8_t{0};
    const std::uint16_t pair = length == 2 ? ntohs(mnl_attr_get_u16(inner)) : std::uint16_t{0};
    const auto icmp = [&]() -> ConntrackTuple::Icmp& {
      if (!out.icmp) out.icmp = ConntrackTuple::Icmp{};
      return *out.icmp;
    };
    switch (mnl_attr_get_type(inner)) {
      case CTA_PROTO_NUM:
        out.protocol = byte;
        break;
      case CTA_PROTO_SRC_PORT:
        out.source_port = pair;
        break;
      case CTA_PROTO_DST_PORT:
        out.destination_port = pair;
        break;
      case CTA_PROTO_ICMP_ID:
      case CTA_PROTO_ICMPV6_ID:
        icmp().id = pair;
        break;
      case CTA_PROTO_ICMP_TYPE:
      case CTA_PROTO_ICMPV6_TYPE:
        icmp().type = byte;
        break;
      case CTA_PROTO_ICMP_CODE:
      case CTA_PROTO_ICMPV6_CODE:
        icmp().code = byte;
        break;
      default:
        break;
    }
  });
}

void parse_tuple(const nlattr* attribute, ConntrackTuple& out) {
  for_each_nested(attribute, [&](const nlattr* inner) {
    if (mnl_attr_get_type(inner) == CTA_TUPLE_IP) parse_addresses(inner, out);
    if (mnl_attr_get_type(inner) == CTA_TUPLE_PROTO) parse_transport(inner, out);
  });
}

}  // namespace

bool is_icmp(std::uint8_t protocol) {
  return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

bool has_ports(std::uint8_t protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
         protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

ConntrackTuple reversed(const ConntrackTuple& tuple) {
  ConntrackTuple out = tuple;
  std::swap(out.source, out.destination);
  std::swap(out.source_port, out.destination_port);
  if (out.icmp) out.icmp->type = reversed_type(tuple.protocol, tuple.icmp->type);
  return out;
}

nlmsghdr* put_change(void* at, std::uint32_t sequence, const ConntrackTuple& tuple,
                     const ConntrackChange& change) {
  // Without NLM_F_CREATE: an entry that is not there stays so.
  nlmsghdr* message = header(at, sequence, IPCTNL_MSG_CT_NEW, NLM_F_ACK, !tuple.source.is_v4());
  put_tuple(message, tuple);
  put_zone(message, tuple);
  if (change.mark_mask != 0) {
    mnl_attr_put_u32(message, CTA_MARK, htonl(change.mark & change.mark_mask));
    mnl_attr_put_u32(message, CTA_MARK_MASK, htonl(change.mark_mask));
  }
  if (change.labels_mask.any()) {
    const Words labels = words_of(change.labels & change.labels_mask);
    const Words mask = words_of(change.labels_mask);
    mnl_attr_put(message, CTA_LABELS, sizeof(labels), labels.data());
    mnl_attr_put(message, CTA_LABELS_MASK, sizeof(mask), mask.data());
  }
  return message;
}

nlmsghdr* put_dump(void* at, std::uint32_t sequence, const ConntrackTuple& tuple) {
  nlmsghdr* message = header(at, sequence, IPCTNL_MSG_CT_GET, NLM_F_DUMP, !tuple.source.is_v4());
  put_tuple(message, tuple);
  put_zone(message, tuple);
  nlattr* filter = nest(message, CTA_FILTER);
  // For IPv6 the filter is inverted (seen on 6.18: it gives the entries whose addresses differ), so
  // there only the protocol is left to the kernel, and the reader compares.
  const std::uint32_t addresses =
      tuple.source.is_v4() ? kFilterSource | kFilterDestination : std::uint32_t{0};
  mnl_attr_put_u32(message, CTA_FILTER_ORIG_FLAGS, addresses | kFilterProtocol);
  mnl_attr_put_u32(message, CTA_FILTER_REPLY_FLAGS, 0);
  mnl_attr_nest_end(message, filter);
  return message;
}

std::optional<ConntrackEntry> parse_entry(const nlmsghdr* message) {
  if (message->nlmsg_len < NLMSG_HDRLEN + sizeof(nfgenmsg)) return std::nullopt;
  ConntrackEntry out;
  bool original = false;
  bool reply = false;
  std::uint16_t zone = 0;
  for_each(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)),
           mnl_nlmsg_get_payload_len(message) - sizeof(nfgenmsg), [&](const nlattr* attribute) {
             switch (mnl_attr_get_type(attribute)) {
               case CTA_TUPLE_ORIG:
                 parse_tuple(attribute, out.original);
                 original = true;
                 break;
               case CTA_TUPLE_REPLY:
                 parse_tuple(attribute, out.reply);
                 reply = true;
                 break;
               case CTA_ZONE:
                 if (mnl_attr_get_payload_len(attribute) == sizeof(zone))
                   zone = ntohs(mnl_attr_get_u16(attribute));
                 break;
               default:
                 break;
             }
           });
  if (!original || !reply) return std::nullopt;
  out.original.zone = out.reply.zone = zone;
  return out;
}

bool is_destroyed(const nlmsghdr* message) {
  return message->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE);
}

}  // namespace l7mark::conntrack_message
