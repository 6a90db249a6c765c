// SPDX-License-Identifier: GPL-2.0-only
#include "path_load.hpp"

#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/futex.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <new>

#include "util/fd.hpp"

namespace l7mark::bench {

namespace {

constexpr std::size_t kChunk = 128 * 1024;
constexpr std::uint32_t kWindow = 128;  // datagrams under way
constexpr std::size_t kDatagram = 36;   // bytes of payload: 64 with the headers
constexpr unsigned kBatch = 32;         // datagrams a system call
constexpr int kParallel = 16;           // connections at a time
constexpr unsigned kPorts = 4;          // of the server: together more than a run's connections
constexpr double kPatience = 10;        // seconds beyond the load's own
constexpr std::size_t kResponse = 512;

// What the two processes know of each other.
struct Shared {
  std::atomic<std::uint32_t> listening{0};
  std::atomic<std::uint32_t> done{0};  // the client has
  std::atomic<std::uint32_t> received{0};
  std::atomic<std::uint32_t> waiting{0};  // the client is, for `received` to change
  std::atomic<std::uint64_t> units{0};
  std::atomic<double> begin{0};
  std::atomic<double> end{0};
};

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* limit = nullptr) {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, limit, nullptr, 0);
}

void wait_until(std::atomic<std::uint32_t>& word) {
  const timespec limit{10, 0};
  if (word.load() == 0) futex(word, FUTEX_WAIT, 0, &limit);
}

void signal(std::atomic<std::uint32_t>& word) {
  word.store(1);
  futex(word, FUTEX_WAKE, 1);
}

sockaddr_in address_of(const char* address, unsigned port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, address, &out.sin_addr);
  return out;
}

Fd listen_on(unsigned port) {
  Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const sockaddr_in at = address_of(kServerAddress, port);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0 ||
      listen(fd.get(), 1024) != 0)
    return {};
  return fd;
}

unsigned port_of(unsigned number) {
  return 10'000 + number * kPorts % 20'000;
}

// --- TCP stream ----------------------------------------------------------------------------------

int serve_stream(Shared& shared, unsigned port) {
  const Fd listener = listen_on(port);
  if (!listener) return 1;
  signal(shared.listening);
  epoll_event event{};
  event.events = EPOLLIN;
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_ctl(epoll.get(), EPOLL_CTL_ADD, listener.get(), &event);
  if (epoll_wait(epoll.get(), &event, 1, 5000) != 1) return 1;
  const Fd stream(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  std::vector<char> buffer(2 * kChunk);
  shared.begin = now_seconds();
  for (ssize_t got = 0; (got = recv(stream.get(), buffer.data(), buffer.size(), 0)) > 0;)
    shared.units += static_cast<std::uint64_t>(got);
  shared.end = now_seconds();
  return 0;
}

int send_stream(Shared& shared, unsigned port, double seconds) {
  wait_until(shared.listening);
  const Fd stream(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = address_of(kServerAddress, port);
  if (connect(stream.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) return 1;
  const std::vector<char> buffer(kChunk);
  for (const double end = now_seconds() + seconds; now_seconds() < end;)
    if (send(stream.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL) < 0) return 1;
  return 0;
}

// --- small datagrams -----------------------------------------------------------------------------

struct Datagrams {
  std::array<std::array<char, kDatagram>, kBatch> bytes{};
  std::array<iovec, kBatch> vectors{};
  std::array<mmsghdr, kBatch> messages{};

  Datagrams() {
    for (unsigned i = 0; i < kBatch; ++i) {
      vectors[i] = {bytes[i].data(), kDatagram};
      messages[i].msg_hdr.msg_iov = &vectors[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
  }
};

int serve_datagrams(Shared& shared, unsigned port) {
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in at = address_of(kServerAddress, port);
  const timeval limit{0, 20'000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0) return 1;
  signal(shared.listening);
  const auto batch = std::make_unique<Datagrams>();
  for (;;) {
    const int got = recvmmsg(fd.get(), batch->messages.data(), kBatch, MSG_WAITFORONE, nullptr);
    if (got <= 0) {
      if (shared.done.load() != 0) return 0;
      continue;
    }
    const double now = now_seconds();
    if (shared.units.load() == 0) shared.begin = now;
    shared.end = now;
    shared.units += static_cast<std::uint64_t>(got);
    shared.received += static_cast<std::uint32_t>(got);
    if (shared.waiting.load() != 0 && shared.waiting.exchange(0) != 0)
      futex(shared.received, FUTEX_WAKE, 1);
  }
}

int send_datagrams(Shared& shared, unsigned port, double seconds) {
  wait_until(shared.listening);
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = address_of(kServerAddress, port);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) return 1;
  const auto batch = std::make_unique<Datagrams>();
  const timespec lost{0, 50'000'000};
  std::uint32_t sent = 0;
  for (const double end = now_seconds() + seconds; now_seconds() < end;) {
    const std::uint32_t received = shared.received.load();
    if (sent - received > kWindow - kBatch) {
      // What has not come within this time never will: the window opens without it.
      shared.waiting = 1;
      const bool same = shared.received.load() == received;
      const timespec* limit = &lost;
      if (same) futex(shared.received, FUTEX_WAIT, received, limit);
      if (same && shared.received.load() == received) sent = received;
      continue;
    }
    const int count = sendmmsg(fd.get(), batch->messages.data(), kBatch, 0);
    if (count > 0) sent += static_cast<std::uint32_t>(count);
    if (count < 0 && errno != ENOBUFS && errno != EINTR) return 1;
  }
  signal(shared.done);
  return 0;
}

// --- connections ---------------------------------------------------------------------------------

constexpr std::string_view kRequest =
    "GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: l7mark-bench\r\n"
    "Accept: */*\r\nConnection: close\r\n\r\n";

std::string response() {
  std::string out =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ";
  out += std::to_string(kResponse) + "\r\n\r\n";
  out.append(kResponse, 'x');
  return out;
}

void watch(const Fd& epoll, int operation, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll.get(), operation, fd, &event);
}

int serve_connections(Shared& shared, unsigned port) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  std::array<Fd, kPorts> listeners;
  for (unsigned i = 0; i < kPorts; ++i) {
    listeners[i] = listen_on(port + i);
    if (!listeners[i]) return 1;
    watch(epoll, EPOLL_CTL_ADD, listeners[i].get(), EPOLLIN);
  }
  const auto listens = [&](int fd) {
    for (const Fd& listener : listeners)
      if (listener.get() == fd) return true;
    return false;
  };
  const std::string text = response();
  signal(shared.listening);
  std::array<epoll_event, 64> events{};
  std::array<char, 1024> buffer{};
  for (;;) {
    const int count = epoll_wait(epoll.get(), events.data(), events.size(), 20);
    if (count == 0 && shared.done.load() != 0) return 0;
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (listens(fd)) {
        const int stream = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (stream >= 0) watch(epoll, EPOLL_CTL_ADD, stream, EPOLLIN);
        continue;
      }
      if (recv(fd, buffer.data(), buffer.size(), 0) > 0)
        send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      close(fd);
    }
  }
}

// One connection: asks, and reads to the end. Which step comes next is known from the events.
int open_connection(const Fd& epoll, const std::array<sockaddr_in, kPorts>& servers,
                    unsigned number) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in& to = servers[number % kPorts];
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 &&
      errno != EINPROGRESS) {
    close(fd);
    return -1;
  }
  watch(epoll, EPOLL_CTL_ADD, fd, EPOLLOUT);
  return fd;
}

int make_connections(Shared& shared, unsigned port, double seconds) {
  std::array<sockaddr_in, kPorts> servers{};
  for (unsigned i = 0; i < kPorts; ++i) servers[i] = address_of(kServerAddress, port + i);
  wait_until(shared.listening);
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  unsigned opened = 0;
  int open = 0;
  const auto another = [&] {
    if (open_connection(epoll, servers, opened++) >= 0) ++open;
  };
  shared.begin = now_seconds();
  const double end = shared.begin + seconds;
  for (int i = 0; i < kParallel; ++i) another();
  std::array<epoll_event, kParallel> events{};
  std::array<char, 4096> buffer{};
  while (open > 0) {
    const int count = epoll_wait(epoll.get(), events.data(), kParallel, 3000);
    if (count == 0) break;  // those that are open have lost a packet too many
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      const int fd = event.data.fd;
      if ((event.events & EPOLLOUT) != 0 && (event.events & EPOLLERR) == 0) {
        if (send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) > 0) {
          watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
          continue;
        }
      } else {
        const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
        if (got > 0 || (got < 0 && errno == EAGAIN)) continue;
        if (got == 0) {
          shared.units += 1;
          shared.end = now_seconds();
        }
      }
      close(fd);
      --open;
      if (now_seconds() < end) another();
    }
  }
  signal(shared.done);
  return 0;
}

// --- both ends -----------------------------------------------------------------------------------

using Serve = int (*)(Shared&, unsigned);
using Ask = int (*)(Shared&, unsigned, double);

Result<LoadResult> run_both(const Lab& lab, double seconds, unsigned number, Serve serve, Ask ask) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return error_from_errno("start", "a load");
  struct Unmap {
    void operator()(Shared* shared) const { munmap(shared, sizeof(Shared)); }
  };
  const std::unique_ptr<Shared, Unmap> shared(new (memory) Shared);
  const unsigned port = port_of(number);
  auto server = Process::fork_off(lab.ns("server"), [&] { return serve(*shared, port); });
  if (!server) return server.error();
  auto client = Process::fork_off(lab.ns("client"), [&] { return ask(*shared, port, seconds); });
  if (!client) return client.error();
  const auto asked = client->wait(seconds + kPatience);
  if (!asked) return asked.error();
  const auto served = server->wait(kPatience);
  if (!served) return served.error();
  if (asked->status != 0 || served->status != 0 || shared->units == 0)
    return Error{"send through", "the gateway", 0,
                 "the load's processes ended with " + std::to_string(asked->status) + " and " +
                     std::to_string(served->status)};
  LoadResult out;
  out.units = static_cast<double>(shared->units.load());
  out.seconds = shared->end - shared->begin;
  out.cpu_seconds = asked->cpu_seconds + served->cpu_seconds;
  return out;
}

Result<LoadResult> tcp(const Lab& lab, double seconds, unsigned number) {
  return run_both(lab, seconds, number, serve_stream, send_stream);
}

// Segmentation by the client's device, which the gateway then need not do: on, or off, where the
// stack cuts the stream up before the device has it.
Status offload_segmentation(const Lab& lab, bool on) {
  auto process = Process::fork_off(lab.ns("client"), [&] {
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ethtool_value value{ETHTOOL_STSO, on ? 1U : 0U};
    ifreq request{};
    std::strncpy(request.ifr_name, "eth0", sizeof(request.ifr_name) - 1);
    request.ifr_data = reinterpret_cast<char*>(&value);
    return ioctl(fd.get(), SIOCETHTOOL, &request) == 0 ? 0 : errno;
  });
  if (!process) return process.error();
  const auto ended = process->wait(kPatience);
  if (!ended) return ended.error();
  // Below XDP, veth has it off and takes no order.
  if (ended->status != 0 && ended->status != EOPNOTSUPP)
    return Error{"switch", "the client's segmentation offload", ended->status, {}};
  return success();
}

Result<LoadResult> tcp_segments(const Lab& lab, double seconds, unsigned number) {
  L7MARK_TRY(offload_segmentation(lab, false));
  auto out = tcp(lab, seconds, number);
  L7MARK_TRY(offload_segmentation(lab, true));
  return out;
}

Result<LoadResult> udp(const Lab& lab, double seconds, unsigned number) {
  return run_both(lab, seconds, number, serve_datagrams, send_datagrams);
}

Result<LoadResult> connections(const Lab& lab, double seconds, unsigned number) {
  return run_both(lab, seconds, number, serve_connections, make_connections);
}

}  // namespace

const std::vector<Load>& path_loads() {
  static const std::vector<Load> loads = {
      {"tcp", "Gbit/s", 8e-9, "MB", 1e6, tcp},
      {"tcp-mss", "Gbit/s", 8e-9, "MB", 1e6, tcp_segments},
      {"udp", "kpackets/s", 1e-3, "packet", 1, udp},
      {"connections", "connections/s", 1, "connection", 1, connections},
  };
  return loads;
}

}  // namespace l7mark::bench
