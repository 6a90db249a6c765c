// SPDX-License-Identifier: GPL-2.0-only
#include "publish/ipset_message.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/ipset/ip_set_hash.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace l7mark::ipset_message {

namespace {

// ipset refuses numbers and addresses that do not say that they are in network order.
constexpr std::uint16_t net_order(int attribute) {
  return static_cast<std::uint16_t>(attribute | NLA_F_NET_BYTEORDER);
}

void put_net32(nlmsghdr* message, int attribute, std::uint32_t value) {
  mnl_attr_put_u32(message, net_order(attribute), htonl(value));
}

std::uint32_t get_net32(const nlattr* attribute) {
  return mnl_attr_get_payload_len(attribute) == sizeof(std::uint32_t)
             ? ntohl(mnl_attr_get_u32(attribute))
             : 0;
}

template <class Visit>
void for_each_nested(const nlattr* nest, Visit visit) {
  const char* end =
      static_cast<const char*>(mnl_attr_get_payload(nest)) + mnl_attr_get_payload_len(nest);
  for (const auto* at = static_cast<const nlattr*>(mnl_attr_get_payload(nest));
       mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
       at = mnl_attr_next(at))
    visit(at);
}

template <class Visit>
void for_each_attribute(const nlmsghdr* message, Visit visit) {
  if (message->nlmsg_len < NLMSG_HDRLEN + sizeof(nfgenmsg)) return;
  const char* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  for (const auto* at =
           static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)));
       mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
       at = mnl_attr_next(at))
    visit(at);
}

nlmsghdr* put_command(void* at, std::uint32_t sequence, std::uint8_t protocol, std::uint8_t command,
                      std::uint16_t flags) {
  nlmsghdr* message = mnl_nlmsg_put_header(at);
  message->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_IPSET << 8 | command);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  message->nlmsg_seq = sequence;
  auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  netfilter->nfgen_family = AF_INET;  // the set's own family is an attribute
  netfilter->version = NFNETLINK_V0;
  mnl_attr_put_u8(message, IPSET_ATTR_PROTOCOL, protocol);
  return message;
}

std::uint8_t family_of(bool ipv6) {
  return ipv6 ? AF_INET6 : AF_INET;
}

void put_address(nlmsghdr* message, int attribute, const Address& address, bool ipv6) {
  nlattr* nest = mnl_attr_nest_start(message, static_cast<std::uint16_t>(attribute));
  if (ipv6)
    mnl_attr_put(message, net_order(IPSET_ATTR_IPADDR_IPV6), address.bytes.size(),
                 address.bytes.data());
  else
    mnl_attr_put_u32(message, net_order(IPSET_ATTR_IPADDR_IPV4), address.v4_bits());
  mnl_attr_nest_end(message, nest);
}

void put_data(nlmsghdr* message, const IpsetSpec& spec, const SetEntry& entry, bool with_timeout,
              const IpsetExtras& extras, std::uint32_t line) {
  nlattr* nest = mnl_attr_nest_start(message, IPSET_ATTR_DATA);
  put_address(message, IPSET_ATTR_IP, entry.server, spec.ipv6);
  if (spec.type == IpsetType::net) mnl_attr_put_u8(message, IPSET_ATTR_CIDR, spec.ipv6 ? 128 : 32);
  if (spec.type == IpsetType::ip_port || spec.type == IpsetType::ip_port_ip) {
    mnl_attr_put_u16(message, net_order(IPSET_ATTR_PORT), htons(entry.port));
    mnl_attr_put_u8(message, IPSET_ATTR_PROTO, entry.protocol);
  }
  if (spec.type == IpsetType::ip_port_ip)
    put_address(message, IPSET_ATTR_IP2, entry.client, spec.ipv6);
  if (with_timeout) put_net32(message, IPSET_ATTR_TIMEOUT, entry.timeout);
  if (!extras.comment.empty())
    mnl_attr_put_strz(message, IPSET_ATTR_COMMENT,
                      extras.comment.substr(0, IPSET_MAX_COMMENT_SIZE).c_str());
  if (extras.skbinfo) {
    const SkbInfo& info = *extras.skbinfo;
    mnl_attr_put_u64(message, net_order(IPSET_ATTR_SKBMARK),
                     htobe64(std::uint64_t{info.mark} << 32 | info.mark_mask));
    put_net32(message, IPSET_ATTR_SKBPRIO, info.classid);
    mnl_attr_put_u16(message, net_order(IPSET_ATTR_SKBQUEUE), htons(info.queue));
  }
  // Goes there and back only: the host's order.
  if (line != 0) mnl_attr_put_u32(message, IPSET_ATTR_LINENO, line);
  mnl_attr_nest_end(message, nest);
}

const char* explain(int code) {
  switch (code) {
    case IPSET_ERR_PROTOCOL:
      return "the kernel did not understand the message: the set is of another type";
    case IPSET_ERR_FIND_TYPE:
      return "the kernel lacks this set type: load module ip_set_hash_…";
    case IPSET_ERR_MAX_SETS:
      return "no more sets are possible: raise max_sets of module ip_set";
    case IPSET_ERR_BUSY:
      return "a rule or another set uses it: remove that first";
    case IPSET_ERR_TYPE_MISMATCH:
      return "a set of this name with another type exists";
    case IPSET_ERR_EXIST:
      return "the element is there already, or is not";
    case IPSET_ERR_INVALID_FAMILY:
      return "the set type has no such family";
    case IPSET_ERR_TIMEOUT:
      return "the set was created without timeouts";
    case IPSET_ERR_REFERENCED:
      return "a rule or another set uses it: remove that first";
    case IPSET_ERR_IPADDR_IPV4:
    case IPSET_ERR_IPADDR_IPV6:
      return "the set is of the other IP version";
    case IPSET_ERR_COMMENT:
      return "the set was created without comments";
    case IPSET_ERR_SKBINFO:
      return "the set was created without skbinfo";
    case IPSET_ERR_HASH_FULL:
      return "the set is full: raise maxelem";
    case IPSET_ERR_HASH_ELEM:
      return "address 0 cannot be an element";
    case IPSET_ERR_INVALID_PROTO:
    case IPSET_ERR_MISSING_PROTO:
      return "protocol missing or invalid";
    default:
      return nullptr;
  }
}

}  // namespace

Error error(std::string operation, const std::string& name, int code) {
  std::string object = "ipset " + name;
  if (code < IPSET_ERR_PRIVATE) {
    std::string detail;
    if (code == EPERM) detail = "needs CAP_NET_ADMIN";
    if (code == ENOENT) detail = "no set of this name";
    return Error{std::move(operation), std::move(object), code, std::move(detail)};
  }
  const char* words = explain(code);
  return Error{std::move(operation), std::move(object), 0,
               words != nullptr ? words : "ipset error " + std::to_string(code)};
}

nlmsghdr* put_header(void* at, const Context& context, std::uint8_t command, std::uint16_t flags,
                     std::string_view name) {
  nlmsghdr* message = put_command(at, context.sequence, context.protocol, command, flags);
  mnl_attr_put_strz(message, IPSET_ATTR_SETNAME, std::string(name).c_str());
  return message;
}

nlmsghdr* put_protocol(void* at, std::uint32_t sequence) {
  return put_command(at, sequence, IPSET_PROTOCOL, IPSET_CMD_PROTOCOL, 0);
}

nlmsghdr* put_type(void* at, const Context& context, IpsetType type, bool ipv6) {
  nlmsghdr* message = put_command(at, context.sequence, context.protocol, IPSET_CMD_TYPE, 0);
  mnl_attr_put_strz(message, IPSET_ATTR_TYPENAME, std::string(to_string(type)).c_str());
  mnl_attr_put_u8(message, IPSET_ATTR_FAMILY, family_of(ipv6));
  return message;
}

nlmsghdr* put_create(void* at, const Context& context, const IpsetSpec& spec,
                     std::uint8_t revision) {
  nlmsghdr* message =
      put_header(at, context, IPSET_CMD_CREATE, NLM_F_CREATE | NLM_F_EXCL, spec.name);
  mnl_attr_put_strz(message, IPSET_ATTR_TYPENAME, std::string(to_string(spec.type)).c_str());
  mnl_attr_put_u8(message, IPSET_ATTR_REVISION, revision);
  mnl_attr_put_u8(message, IPSET_ATTR_FAMILY, family_of(spec.ipv6));
  nlattr* nest = mnl_attr_nest_start(message, IPSET_ATTR_DATA);
  put_net32(message, IPSET_ATTR_HASHSIZE, ipset_hashsize(spec));
  if (spec.maxelem != 0) put_net32(message, IPSET_ATTR_MAXELEM, spec.maxelem);
  if (spec.timeout != 0) put_net32(message, IPSET_ATTR_TIMEOUT, spec.timeout);
  std::uint32_t flags = 0;
  if (spec.counters) flags |= IPSET_FLAG_WITH_COUNTERS;
  if (spec.comment) flags |= IPSET_FLAG_WITH_COMMENT;
  if (spec.skbinfo) flags |= IPSET_FLAG_WITH_SKBINFO;
  if (flags != 0) put_net32(message, IPSET_ATTR_CADT_FLAGS, flags);
  mnl_attr_nest_end(message, nest);
  return message;
}

nlmsghdr* put_list(void* at, const Context& context, std::string_view name) {
  nlmsghdr* message = put_header(at, context, IPSET_CMD_LIST, NLM_F_DUMP, name);
  put_net32(message, IPSET_ATTR_FLAGS, IPSET_FLAG_LIST_HEADER);
  return message;
}

nlmsghdr* put_elements(void* at, const Context& context, std::uint8_t command,
                       const IpsetSpec& spec, std::span<const SetEntry> entries,
                       std::span<const std::size_t> chosen, std::size_t first,
                       const IpsetExtras& extras, std::size_t& count) {
  nlmsghdr* message = put_header(at, context, command, 0, spec.name);
  // The kernel overwrites it in the echo of a request whose element it refused.
  mnl_attr_put_u32(message, IPSET_ATTR_LINENO, 0);
  nlattr* nest = mnl_attr_nest_start(message, IPSET_ATTR_ADT);
  const bool with_timeout = command == IPSET_CMD_ADD && spec.timeout != 0;
  count = 0;
  while (first + count < chosen.size() && count < kElementsPerMessage &&
         message->nlmsg_len + kElementBytes <= kMessageBytes) {
    const std::size_t place = first + count;
    put_data(message, spec, entries[chosen[place]], with_timeout, extras,
             static_cast<std::uint32_t>(place + 1));
    ++count;
  }
  mnl_attr_nest_end(message, nest);
  return message;
}

nlmsghdr* put_element(void* at, const Context& context, std::uint8_t command, const IpsetSpec& spec,
                      const SetEntry& entry) {
  nlmsghdr* message = put_header(at, context, command, 0, spec.name);
  put_data(message, spec, entry, false, {}, 0);
  return message;
}

std::uint32_t error_line(const nlmsghdr* error) {
  const auto* body = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(error));
  // The echo is complete only in ipset's own error replies.
  const auto* request = &body->msg;
  const std::size_t behind = error->nlmsg_len - NLMSG_HDRLEN - offsetof(nlmsgerr, msg);
  if (request->nlmsg_len > behind) return 0;
  std::uint32_t line = 0;
  for_each_attribute(request, [&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == IPSET_ATTR_LINENO &&
        mnl_attr_get_payload_len(attribute) == sizeof(line))
      line = mnl_attr_get_u32(attribute);
  });
  return line;
}

std::optional<Versions> parse_versions(const nlmsghdr* reply, bool of_type) {
  Versions out;
  bool found = false;
  const int newest = of_type ? IPSET_ATTR_REVISION : IPSET_ATTR_PROTOCOL;
  for_each_attribute(reply, [&](const nlattr* attribute) {
    if (mnl_attr_get_payload_len(attribute) != 1) return;
    if (mnl_attr_get_type(attribute) == newest) {
      out.newest = mnl_attr_get_u8(attribute);
      found = true;
    } else if (mnl_attr_get_type(attribute) == IPSET_ATTR_PROTOCOL_MIN) {
      out.oldest = mnl_attr_get_u8(attribute);
    }
  });
  if (!found) return std::nullopt;
  return out;
}

std::optional<IpsetHeader> parse_header(const nlmsghdr* reply) {
  IpsetHeader out;
  for_each_attribute(reply, [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case IPSET_ATTR_TYPENAME:
        if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
          out.type = mnl_attr_get_str(attribute);
        break;
      case IPSET_ATTR_FAMILY:
        if (mnl_attr_get_payload_len(attribute) == 1)
          out.ipv6 = mnl_attr_get_u8(attribute) == AF_INET6;
        break;
      case IPSET_ATTR_DATA:
        for_each_nested(attribute, [&](const nlattr* inner) {
          const std::uint32_t value = get_net32(inner);
          switch (mnl_attr_get_type(inner)) {
            case IPSET_ATTR_TIMEOUT:
              out.with_timeout = true;
              out.timeout = value;
              break;
            case IPSET_ATTR_MAXELEM:
              out.maxelem = value;
              break;
            case IPSET_ATTR_REFERENCES:
              out.references = value;
              break;
            case IPSET_ATTR_ELEMENTS:
              out.elements = value;
              break;
            case IPSET_ATTR_CADT_FLAGS:
              out.counters = (value & IPSET_FLAG_WITH_COUNTERS) != 0;
              out.comment = (value & IPSET_FLAG_WITH_COMMENT) != 0;
              out.skbinfo = (value & IPSET_FLAG_WITH_SKBINFO) != 0;
              break;
            default:
              break;
          }
        });
        break;
      default:
        break;
    }
  });
  if (out.type.empty()) return std::nullopt;
  return out;
}

}  // namespace l7mark::ipset_message
