// SPDX-License-Identifier: GPL-2.0-only
#include "sender.hpp"

#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <memory>

namespace l7mark::robust {

namespace {

constexpr std::size_t kBatch = 64;
constexpr double kShortestNap = 0.0005;

struct Batch {
  std::array<Frame, kBatch> frames;
  std::array<iovec, kBatch> vectors{};
  std::array<mmsghdr, kBatch> messages{};
};

}  // namespace

double now_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void nap(double seconds) {
  if (seconds <= 0) return;
  const auto whole = static_cast<time_t>(seconds);
  const timespec time{whole, static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  nanosleep(&time, nullptr);
}

Result<Sender> Sender::open(const std::string& device, const std::string& gateway) {
  Mac to{};
  std::array<unsigned, 6> read{};
  if (std::sscanf(gateway.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &read[0], &read[1],  // NOLINT
                  &read[2], &read[3], &read[4], &read[5]) != 6)
    return Error{"read", gateway, 0, "not an Ethernet address"};
  std::transform(read.begin(), read.end(), to.begin(),
                 [](unsigned byte) { return static_cast<std::uint8_t>(byte); });
  sockaddr_ll at{};
  at.sll_family = AF_PACKET;
  at.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  if (at.sll_ifindex == 0) return error_from_errno("find", device);
  Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return error_from_errno("open", "a packet socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0)
    return error_from_errno("bind to", device);
  const int yes = 1;
  const int room = 4 << 20;
  setsockopt(fd.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof(yes));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
  return Sender(std::move(fd), to);
}

Result<Sent> Sender::run(Attack& attack, double rate, double seconds, const volatile bool* end) {
  constexpr Mac kFrom = {0x02, 0x6c, 0x37, 0, 0, 1};
  const auto batch = std::make_unique<Batch>();
  for (std::size_t i = 0; i < kBatch; ++i) {
    batch->messages[i].msg_hdr.msg_iov = &batch->vectors[i];
    batch->messages[i].msg_hdr.msg_iovlen = 1;
  }
  Sent out;
  const double begin = now_seconds();
  for (double now = begin; now - begin < seconds && (end == nullptr || !*end);
       now = now_seconds()) {
    std::size_t count = kBatch;
    if (rate > 0) {
      const double due = (now - begin) * rate - static_cast<double>(out.frames);
      if (due < 1) {
        nap(std::max(kShortestNap, (1 - due) / rate));
        continue;
      }
      count = std::min(count, static_cast<std::size_t>(due));
    }
    for (std::size_t i = 0; i < count; ++i) {
      Frame& frame = batch->frames[i];
      frame.clear();
      frame.ethernet(to_, kFrom);
      attack.next(frame, random_);
      batch->vectors[i] = {const_cast<std::uint8_t*>(frame.data()), frame.size()};
    }
    for (std::size_t done = 0; done < count;) {
      const int sent =
          sendmmsg(fd_.get(), &batch->messages[done], static_cast<unsigned>(count - done), 0);
      if (sent > 0) {
        done += static_cast<std::size_t>(sent);
      } else if (errno == ENOBUFS || errno == EINTR) {
        ++done;  // that one found no room in the receiver's queue: the gateway has lost it
      } else {
        return error_from_errno("send", "packets");
      }
    }
    out.frames += count;
  }
  out.seconds = now_seconds() - begin;
  return out;
}

}  // namespace l7mark::robust
