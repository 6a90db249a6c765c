// SPDX-License-Identifier: GPL-2.0-only
#include "publish/netlink.hpp"

#include <libmnl/libmnl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

namespace l7mark {

namespace {

// ipset echoes the whole request with an element's error, and dumps come in up to 32 KB.
constexpr std::size_t kReceiveBytes = 128 * 1024;
constexpr int kSocketBytes = 4 * 1024 * 1024;

// linux/netlink.h has these as enumerators, older ones not at all; the values are ABI.
constexpr std::uint16_t kFlagCapped = 0x100;  // NLM_F_CAPPED
constexpr std::uint16_t kFlagTlvs = 0x200;    // NLM_F_ACK_TLVS

// The attributes behind the echoed request (Documentation/userspace-api/netlink/intro.rst).
std::string extended_text(const nlmsghdr* message, const nlmsgerr* error) {
  if ((message->nlmsg_flags & kFlagTlvs) == 0) return {};
  std::size_t offset = NLMSG_HDRLEN + sizeof(nlmsgerr);
  if ((message->nlmsg_flags & kFlagCapped) == 0)
    offset += NLMSG_ALIGN(error->msg.nlmsg_len) - NLMSG_HDRLEN;
  while (offset + sizeof(nlattr) <= message->nlmsg_len) {
    nlattr attribute{};
    const char* at = reinterpret_cast<const char*>(message) + offset;
    std::memcpy(&attribute, at, sizeof(attribute));
    if (attribute.nla_len < sizeof(attribute) || offset + attribute.nla_len > message->nlmsg_len)
      break;
    if (attribute.nla_type == NLMSGERR_ATTR_MSG) {
      const std::string_view text(at + sizeof(attribute), attribute.nla_len - sizeof(attribute));
      return std::string(text.substr(0, text.find('\0')));
    }
    offset += NLA_ALIGN(attribute.nla_len);
  }
  return {};
}

}  // namespace

void NetlinkBatch::commit(const nlmsghdr* message) {
  used_ += NLMSG_ALIGN(message->nlmsg_len);
}

void NetlinkSocket::Closer::operator()(mnl_socket* socket) const {
  mnl_socket_close(socket);
}

NetlinkSocket::NetlinkSocket(mnl_socket* socket) : socket_(socket), buffer_(kReceiveBytes) {}

Result<NetlinkSocket> NetlinkSocket::open(int bus) {
  NetlinkSocket out(mnl_socket_open2(bus, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!out.socket_) return error_from_errno("open", "netlink socket");
  if (mnl_socket_bind(out.socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return error_from_errno("bind", "netlink socket");
  // Errors carry the kernel's words, but not our whole request: a window of refusals must fit the
  // receive buffer.
  int on = 1;
  mnl_socket_setsockopt(out.socket_.get(), NETLINK_EXT_ACK, &on, sizeof(on));
  mnl_socket_setsockopt(out.socket_.get(), NETLINK_CAP_ACK, &on, sizeof(on));
  // Without the right to exceed the system's limit, smaller buffers only mean more repeats.
  int bytes = kSocketBytes;
  if (setsockopt(out.fd(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
    setsockopt(out.fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  if (setsockopt(out.fd(), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
    setsockopt(out.fd(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  return out;
}

int NetlinkSocket::fd() const {
  return mnl_socket_get_fd(socket_.get());
}

std::uint32_t NetlinkSocket::reserve_sequence(std::uint32_t count) {
  if (sequence_ + count < sequence_ || sequence_ == 0) sequence_ = 1;
  return std::exchange(sequence_, sequence_ + count);
}

Status NetlinkSocket::set_receive_buffer(int bytes) {
  if (setsockopt(fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0)
    return error_from_errno("set the receive buffer of", "netlink socket");
  return success();
}

Status NetlinkSocket::join(int group) {
  if (mnl_socket_setsockopt(socket_.get(), NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
    return error_from_errno("join a group of", "netlink socket");
  return success();
}

Status NetlinkSocket::receive(const NetlinkHandler& handler, bool& lost, std::size_t datagrams) {
  for (; datagrams > 0; --datagrams) {
    const ssize_t received = mnl_socket_recvfrom(socket_.get(), buffer_.data(), buffer_.size());
    if (received < 0) {
      if (errno == EAGAIN) return success();
      if (errno == EINTR) continue;
      // What the kernel dropped is gone, what it queued can still be read.
      if (errno == ENOBUFS) {
        lost = true;
        continue;
      }
      return error_from_errno("read from", "netlink socket");
    }
    int left = static_cast<int>(received);
    for (auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
         mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
      NetlinkReply reply;
      reply.message = message;
      if (message->nlmsg_type == NLMSG_ERROR &&
          message->nlmsg_len >= NLMSG_HDRLEN + sizeof(nlmsgerr)) {
        const auto* error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(message));
        reply.ack = true;
        reply.error = -error->error;
        if (reply.error != 0) reply.text = extended_text(message, error);
      } else if (message->nlmsg_type == NLMSG_DONE) {
        // A dump that failed on its way ends with the error.
        reply.ack = true;
        int result = 0;
        if (message->nlmsg_len >= NLMSG_HDRLEN + sizeof(result))
          std::memcpy(&result, mnl_nlmsg_get_payload(message), sizeof(result));
        if (result < 0) reply.error = -result;
      }
      handler(reply);
    }
  }
  return success();
}

Status NetlinkSocket::exchange(std::span<const std::byte> messages, const NetlinkHandler& handler,
                               bool& lost) {
  while (mnl_socket_sendto(socket_.get(), messages.data(), messages.size()) < 0) {
    if (errno == EINTR) continue;
    return error_from_errno("send to", "netlink socket");
  }
  return receive(handler, lost, SIZE_MAX);
}

Result<NetlinkReply> NetlinkSocket::request(std::span<const std::byte> message,
                                            const NetlinkHandler& handler) {
  nlmsghdr sent{};
  std::memcpy(&sent, message.data(), sizeof(sent));
  NetlinkReply last;
  bool answered = false;
  bool lost = false;
  L7MARK_TRY(exchange(
      message,
      [&](const NetlinkReply& reply) {
        if (reply.message->nlmsg_seq != sent.nlmsg_seq) return;
        if (reply.ack) {
          answered = true;
          last = reply;
          last.message = nullptr;
        } else if (handler) {
          handler(reply);
        }
      },
      lost));
  if (!answered || lost) return Error{"read from", "netlink socket", ENOBUFS, "reply lost"};
  return last;
}

}  // namespace l7mark
