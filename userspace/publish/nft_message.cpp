// SPDX-License-Identifier: GPL-2.0-only
#include "publish/nft_message.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstring>
#include <memory>
#include <utility>

namespace l7mark::nft_message {

namespace {

struct SetFree {
  void operator()(nftnl_set* set) const { nftnl_set_free(set); }
};
struct TableFree {
  void operator()(nftnl_table* table) const { nftnl_table_free(table); }
};
struct ElementFree {
  void operator()(nftnl_set_elem* element) const { nftnl_set_elem_free(element); }
};
using SetHandle = std::unique_ptr<nftnl_set, SetFree>;
using TableHandle = std::unique_ptr<nftnl_table, TableFree>;
using ElementHandle = std::unique_ptr<nftnl_set_elem, ElementFree>;

// nft(8)'s numbers of data types (enum datatypes in its datatype.h); in a concatenation each takes
// six bits.
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypeProtocol = 12;
constexpr std::uint32_t kTypeService = 13;

nlmsghdr* header(NetlinkBatch& batch, std::uint32_t sequence, std::uint16_t type, NftFamily family,
                 int flags) {
  return nftnl_nlmsg_build_hdr(static_cast<char*>(batch.tail()), type, family_number(family),
                               static_cast<std::uint16_t>(NLM_F_ACK | flags), sequence);
}

SetHandle named_set(const NftSpec& spec) {
  SetHandle set(nftnl_set_alloc());
  nftnl_set_set_str(set.get(), NFTNL_SET_TABLE, spec.table.c_str());
  nftnl_set_set_str(set.get(), NFTNL_SET_NAME, spec.set.c_str());
  return set;
}

void table_message(NetlinkBatch& batch, std::uint32_t sequence, std::uint16_t type, int flags,
                   const NftSpec& spec) {
  const TableHandle table(nftnl_table_alloc());
  nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, spec.table.c_str());
  nlmsghdr* message = header(batch, sequence, type, spec.family, flags);
  nftnl_table_nlmsg_build_payload(message, table.get());
  batch.commit(message);
}

void put_list_header(nlmsghdr* message, const NftSpec& spec) {
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, spec.table.c_str());
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, spec.set.c_str());
}

void set_key(nftnl_set_elem* element, const SetEntry& entry, bool ipv6) {
  const Key key = key_of(entry, ipv6);
  nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, key.bytes.data(), key.length);
}

}  // namespace

Error error(std::string operation, const std::string& object, int code, const std::string& text) {
  std::string detail = text;
  if (detail.empty()) {
    switch (code) {
      case EPERM:
        detail = "needs CAP_NET_ADMIN";
        break;
      case ENOENT:
        detail = "no such table or set";
        break;
      case EBUSY:
        detail = "a rule uses it: remove that first";
        break;
      case ENFILE:
        detail = "the set is full: raise its size";
        break;
      case EOPNOTSUPP:
        detail = "the kernel lacks nf_tables or this set type";
        break;
      default:
        break;
    }
  }
  return Error{std::move(operation), "nft set " + object, code, std::move(detail)};
}

Key key_of(const SetEntry& entry, bool ipv6) {
  Key key;
  std::uint8_t* at = key.bytes.data();
  const auto put_address = [&](const Address& address) {
    const std::size_t length = ipv6 ? 16 : 4;
    std::memcpy(at, address.bytes.data() + address.bytes.size() - length, length);
    at += length;
  };
  put_address(entry.server);
  *at = entry.protocol;
  at += 4;
  const std::uint16_t port = htons(entry.port);
  std::memcpy(at, &port, sizeof(port));
  at += 4;
  put_address(entry.client);
  key.length = static_cast<std::uint32_t>(at - key.bytes.data());
  return key;
}

std::uint32_t key_type(bool ipv6) {
  const std::uint32_t address = ipv6 ? kTypeIpv6 : kTypeIpv4;
  return ((address << 6 | kTypeProtocol) << 6 | kTypeService) << 6 | address;
}

std::uint8_t family_number(NftFamily family) {
  switch (family) {
    case NftFamily::inet:
      return NFPROTO_INET;
    case NftFamily::ip:
      return NFPROTO_IPV4;
    case NftFamily::ip6:
      return NFPROTO_IPV6;
  }
  return NFPROTO_INET;
}

void begin(NetlinkBatch& batch, std::uint32_t sequence, std::optional<std::uint32_t> generation) {
  nlmsghdr* message = nftnl_batch_begin(static_cast<char*>(batch.tail()), sequence);
  if (generation) mnl_attr_put_u32(message, NFNL_BATCH_GENID, htonl(*generation));
  batch.commit(message);
}

void end(NetlinkBatch& batch, std::uint32_t sequence) {
  batch.commit(nftnl_batch_end(static_cast<char*>(batch.tail()), sequence));
}

void new_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  table_message(batch, sequence, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, spec);
}

void delete_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  table_message(batch, sequence, NFT_MSG_DELTABLE, 0, spec);
}

void new_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  const SetHandle set = named_set(spec);
  nftnl_set_set_u32(set.get(), NFTNL_SET_ID, 1);
  nftnl_set_set_u32(set.get(), NFTNL_SET_KEY_TYPE, key_type(spec.ipv6));
  nftnl_set_set_u32(set.get(), NFTNL_SET_KEY_LEN, key_of({}, spec.ipv6).length);
  if (spec.timeout != 0) {
    nftnl_set_set_u32(set.get(), NFTNL_SET_FLAGS, NFT_SET_TIMEOUT);
    nftnl_set_set_u64(set.get(), NFTNL_SET_TIMEOUT, std::uint64_t{spec.timeout} * 1000);
  }
  if (spec.size != 0) nftnl_set_set_u32(set.get(), NFTNL_SET_DESC_SIZE, spec.size);
  nlmsghdr* message =
      header(batch, sequence, NFT_MSG_NEWSET, spec.family, NLM_F_CREATE | NLM_F_EXCL);
  nftnl_set_nlmsg_build_payload(message, set.get());
  batch.commit(message);
}

void delete_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec,
                std::uint64_t handle) {
  const SetHandle set = named_set(spec);
  nftnl_set_set_u64(set.get(), NFTNL_SET_HANDLE, handle);
  nlmsghdr* message = header(batch, sequence, NFT_MSG_DELSET, spec.family, 0);
  nftnl_set_nlmsg_build_payload(message, set.get());
  batch.commit(message);
}

void flush_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  // A deletion without elements empties the set.
  nlmsghdr* message = header(batch, sequence, NFT_MSG_DELSETELEM, spec.family, 0);
  put_list_header(message, spec);
  batch.commit(message);
}

void elements(NetlinkBatch& batch, std::uint32_t sequence, bool deletion, const NftSpec& spec,
              std::span<const SetEntry> entries, std::span<const std::size_t> chosen) {
  nlmsghdr* message = header(batch, sequence, deletion ? NFT_MSG_DELSETELEM : NFT_MSG_NEWSETELEM,
                             spec.family, deletion ? 0 : NLM_F_CREATE);
  put_list_header(message, spec);
  nlattr* nest = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
  // One element object for all: only its key and timeout change.
  const ElementHandle element(nftnl_set_elem_alloc());
  int place = 0;
  for (const std::size_t index : chosen) {
    set_key(element.get(), entries[index], spec.ipv6);
    if (!deletion && spec.timeout != 0)
      nftnl_set_elem_set_u64(element.get(), NFTNL_SET_ELEM_TIMEOUT,
                             std::uint64_t{entries[index].timeout} * 1000);
    nftnl_set_elem_nlmsg_build(message, element.get(), ++place);
  }
  mnl_attr_nest_end(message, nest);
  batch.commit(message);
}

void get_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  const SetHandle set = named_set(spec);
  nlmsghdr* message = header(batch, sequence, NFT_MSG_GETSET, spec.family, 0);
  nftnl_set_nlmsg_build_payload(message, set.get());
  batch.commit(message);
}

void get_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec) {
  table_message(batch, sequence, NFT_MSG_GETTABLE, 0, spec);
}

void get_element(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec,
                 const SetEntry& entry) {
  nlmsghdr* message = header(batch, sequence, NFT_MSG_GETSETELEM, spec.family, 0);
  put_list_header(message, spec);
  nlattr* nest = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
  const ElementHandle element(nftnl_set_elem_alloc());
  set_key(element.get(), entry, spec.ipv6);
  nftnl_set_elem_nlmsg_build(message, element.get(), 1);
  mnl_attr_nest_end(message, nest);
  batch.commit(message);
}

void get_generation(NetlinkBatch& batch, std::uint32_t sequence) {
  batch.commit(header(batch, sequence, NFT_MSG_GETGEN, NftFamily::inet, 0));
}

std::optional<NftHeader> parse_set(const nlmsghdr* reply) {
  const SetHandle set(nftnl_set_alloc());
  if (nftnl_set_nlmsg_parse(reply, set.get()) < 0) return std::nullopt;
  NftHeader out;
  out.key_type = nftnl_set_get_u32(set.get(), NFTNL_SET_KEY_TYPE);
  out.key_length = nftnl_set_get_u32(set.get(), NFTNL_SET_KEY_LEN);
  out.flags = nftnl_set_get_u32(set.get(), NFTNL_SET_FLAGS);
  out.handle = nftnl_set_get_u64(set.get(), NFTNL_SET_HANDLE);
  if (nftnl_set_is_set(set.get(), NFTNL_SET_TIMEOUT))
    out.timeout_ms = nftnl_set_get_u64(set.get(), NFTNL_SET_TIMEOUT);
  return out;
}

std::optional<Table> parse_table(const nlmsghdr* reply) {
  const TableHandle table(nftnl_table_alloc());
  if (nftnl_table_nlmsg_parse(reply, table.get()) < 0) return std::nullopt;
  return Table{nftnl_table_get_u64(table.get(), NFTNL_TABLE_HANDLE),
               nftnl_table_get_u32(table.get(), NFTNL_TABLE_USE)};
}

std::optional<std::uint32_t> parse_generation(const nlmsghdr* reply) {
  const char* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(reply));
  for (const auto* at =
           static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(reply, sizeof(nfgenmsg)));
       mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
       at = mnl_attr_next(at))
    if (mnl_attr_get_type(at) == NFTA_GEN_ID && mnl_attr_get_payload_len(at) == sizeof(uint32_t))
      return ntohl(mnl_attr_get_u32(at));
  return std::nullopt;
}

}  // namespace l7mark::nft_message
