// SPDX-License-Identifier: GPL-2.0-only
// The classic way to show packets to a classifier: NFQUEUE copies each to userspace and waits for a
// verdict. This loop takes the packet and lets it go; a classifier would do more.
#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <vector>

#include "path_contender.hpp"

namespace l7mark::bench {

namespace {

struct CloseSocket {
  void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};
using Socket = std::unique_ptr<mnl_socket, CloseSocket>;

constexpr std::uint32_t kWholePacket = 0xffff;
constexpr std::uint32_t kQueueLength = 4096;

nlmsghdr* begin_message(void* at, int type, std::uint16_t queue) {
  nlmsghdr* message = mnl_nlmsg_put_header(at);
  message->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_QUEUE << 8 | type);
  message->nlmsg_flags = NLM_F_REQUEST;
  auto* header = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = AF_UNSPEC;
  header->version = NFNETLINK_V0;
  header->res_id = htons(queue);
  return message;
}

bool send_message(const Socket& socket, const nlmsghdr* message) {
  return mnl_socket_sendto(socket.get(), message, message->nlmsg_len) >= 0;
}

bool bind_queue(const Socket& socket, std::uint16_t queue) {
  std::array<char, 256> buffer{};
  nlmsghdr* message = begin_message(buffer.data(), NFQNL_MSG_CONFIG, queue);
  nfqnl_msg_config_cmd command{};
  command.command = NFQNL_CFG_CMD_BIND;
  command.pf = htons(AF_INET);
  mnl_attr_put(message, NFQA_CFG_CMD, sizeof(command), &command);
  if (!send_message(socket, message)) return false;
  message = begin_message(buffer.data(), NFQNL_MSG_CONFIG, queue);
  nfqnl_msg_config_params parameters{};
  parameters.copy_range = htonl(kWholePacket);
  parameters.copy_mode = NFQNL_COPY_PACKET;
  mnl_attr_put(message, NFQA_CFG_PARAMS, sizeof(parameters), &parameters);
  mnl_attr_put_u32(message, NFQA_CFG_QUEUE_MAXLEN, htonl(kQueueLength));
  // As suricata and the like do it: packets of GSO are not cut up for the copy.
  mnl_attr_put_u32(message, NFQA_CFG_FLAGS, htonl(NFQA_CFG_F_GSO));
  mnl_attr_put_u32(message, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO));
  return send_message(socket, message);
}

struct Loop {
  Socket socket;
  std::uint16_t queue = 0;
};

int take_id(const nlattr* attribute, void* id) {
  if (mnl_attr_get_type(attribute) != NFQA_PACKET_HDR) return MNL_CB_OK;
  *static_cast<std::uint32_t*>(id) =
      static_cast<const nfqnl_msg_packet_hdr*>(mnl_attr_get_payload(attribute))->packet_id;
  return MNL_CB_STOP;
}

int on_packet(const nlmsghdr* message, void* context) {
  const auto* loop = static_cast<const Loop*>(context);
  if ((message->nlmsg_type & 0xff) != NFQNL_MSG_PACKET) return MNL_CB_OK;
  std::uint32_t id = 0;
  mnl_attr_parse(message, sizeof(nfgenmsg), take_id, &id);
  std::array<char, 128> buffer{};
  nlmsghdr* answer = begin_message(buffer.data(), NFQNL_MSG_VERDICT, loop->queue);
  nfqnl_msg_verdict_hdr verdict{};
  verdict.verdict = htonl(NF_ACCEPT);
  verdict.id = id;  // in network order as it came
  mnl_attr_put(answer, NFQA_VERDICT_HDR, sizeof(verdict), &verdict);
  return send_message(loop->socket, answer) ? MNL_CB_OK : MNL_CB_ERROR;
}

}  // namespace

int accept_queue(std::uint16_t queue) {
  Loop loop{Socket(mnl_socket_open(NETLINK_NETFILTER)), queue};
  if (!loop.socket || mnl_socket_bind(loop.socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return 1;
  if (!bind_queue(loop.socket, queue)) return 1;
  std::vector<char> buffer(0xffff + 8192);
  for (;;) {
    const auto got = mnl_socket_recvfrom(loop.socket.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == ENOBUFS) continue;  // the kernel counts it
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return 1;
    // An error here is a packet that is gone by now: the next one may do.
    mnl_cb_run(buffer.data(), static_cast<std::size_t>(got), 0, 0, on_packet, &loop);
  }
}

}  // namespace l7mark::bench
