// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/rtnetlink.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace l7mark {

namespace {

// Larger than any message of a link with many virtual functions.
constexpr std::size_t kBuffer = 65536;

using Visit = std::function<void(const nlmsghdr*)>;

int visit_message(const nlmsghdr* message, void* visit) {
  (*static_cast<const Visit*>(visit))(message);
  return MNL_CB_OK;
}

// Sends one request and visits each message of the answer. False on any error.
bool ask(nlmsghdr* request, const Visit& visit) {
  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(
      mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC), mnl_socket_close);
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return false;
  request->nlmsg_seq = 1;
  if (mnl_socket_sendto(socket.get(), request, request->nlmsg_len) < 0) return false;
  std::vector<char> buffer(kBuffer);
  Visit copy = visit;
  for (;;) {
    const auto length = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
    if (length < 0) return false;
    const int code = mnl_cb_run(buffer.data(), static_cast<std::size_t>(length), request->nlmsg_seq,
                                mnl_socket_get_portid(socket.get()), visit_message, &copy);
    if (code < 0) return false;
    if (code == MNL_CB_STOP) return true;
  }
}

int visit_link_info(const nlattr* attribute, void* kind) {
  if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
    *static_cast<std::string*>(kind) = mnl_attr_get_str(attribute);
  return MNL_CB_OK;
}

int visit_link(const nlattr* attribute, void* kind) {
  if (mnl_attr_get_type(attribute) == IFLA_LINKINFO)
    mnl_attr_parse_nested(attribute, visit_link_info, kind);
  return MNL_CB_OK;
}

bool dump_filters(unsigned ifindex, std::uint32_t minor, const Visit& visit) {
  std::vector<char> buffer(kBuffer);
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETTFILTER;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  auto* filter = static_cast<tcmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(tcmsg)));
  filter->tcm_family = AF_UNSPEC;
  filter->tcm_ifindex = static_cast<int>(ifindex);
  filter->tcm_parent = TC_H_MAKE(TC_H_CLSACT, minor);
  return ask(request, [&](const nlmsghdr* message) {
    if (message->nlmsg_type == RTM_NEWTFILTER) visit(message);
  });
}

struct FilterAttributes {
  TcFilter filter;
  std::uint32_t chain = 0;
};

int visit_bpf(const nlattr* attribute, void* out) {
  if (mnl_attr_get_type(attribute) == TCA_BPF_ID)
    static_cast<FilterAttributes*>(out)->filter.program = mnl_attr_get_u32(attribute);
  return MNL_CB_OK;
}

// The kind comes before the options, which are the kind's own.
int visit_filter(const nlattr* attribute, void* out) {
  auto* to = static_cast<FilterAttributes*>(out);
  switch (mnl_attr_get_type(attribute)) {
    case TCA_KIND:
      to->filter.kind = mnl_attr_get_str(attribute);
      break;
    case TCA_CHAIN:
      to->chain = mnl_attr_get_u32(attribute);
      break;
    case TCA_OPTIONS:
      if (to->filter.kind == "bpf") mnl_attr_parse_nested(attribute, visit_bpf, out);
      break;
    default:
      break;
  }
  return MNL_CB_OK;
}

}  // namespace

std::string link_kind(unsigned ifindex) {
  std::vector<char> buffer(kBuffer);
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETLINK;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  auto* link = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg)));
  link->ifi_index = static_cast<int>(ifindex);
  std::string kind;
  const bool answered = ask(request, [&](const nlmsghdr* message) {
    mnl_attr_parse(message, sizeof(ifinfomsg), visit_link, &kind);
  });
  return answered ? kind : std::string();
}

bool has_tc_filters(unsigned ifindex) {
  bool found = false;
  for (const std::uint32_t minor : {TC_H_MIN_INGRESS, TC_H_MIN_EGRESS}) {
    const bool answered = dump_filters(ifindex, minor, [&](const nlmsghdr*) { found = true; });
    if (!answered || found) return true;
  }
  return false;
}

std::optional<std::vector<TcFilter>> tc_filters(unsigned ifindex, bool egress) {
  std::vector<TcFilter> filters;
  const bool answered = dump_filters(
      ifindex, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS, [&](const nlmsghdr* message) {
        const auto* header = static_cast<const tcmsg*>(mnl_nlmsg_get_payload(message));
        FilterAttributes out;
        mnl_attr_parse(message, sizeof(tcmsg), visit_filter, &out);
        if (out.chain != 0) return;
        out.filter.preference = TC_H_MAJ(header->tcm_info) >> 16;
        out.filter.protocol = ntohs(static_cast<std::uint16_t>(TC_H_MIN(header->tcm_info)));
        out.filter.handle = header->tcm_handle;
        filters.push_back(std::move(out.filter));
      });
  if (!answered) return std::nullopt;
  return filters;
}

}  // namespace l7mark
