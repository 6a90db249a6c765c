// SPDX-License-Identifier: GPL-2.0-only
#include "server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <unordered_map>

#include "bpf/token.h"
#include "conversation.hpp"
#include "util/fd.hpp"

namespace l7mark::robust {

namespace {

struct Connection {
  Fd fd;
  std::string in;
};

Result<Fd> listen_on(std::uint16_t port) {
  Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  sockaddr_in6 at{};
  at.sin6_family = AF_INET6;
  at.sin6_port = htons(port);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0 ||
      listen(fd.get(), 4096) != 0)
    return error_from_errno("listen on port", std::to_string(port));
  return fd;
}

// Answers what is whole in `in`, and takes it out.
void answer(Connection& connection) {
  for (;;) {
    const std::size_t size = message_size(connection.in);
    if (size == 0 || size > connection.in.size()) return;
    const std::string reply = reply_to(std::string_view(connection.in).substr(0, size));
    connection.in.erase(0, size);
    send(connection.fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL);
  }
}

}  // namespace

Status serve() {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  const auto watch = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  };
  auto http = listen_on(80);
  if (!http) return http.error();
  auto tls = listen_on(443);
  if (!tls) return tls.error();
  watch(http->get());
  watch(tls->get());
  std::printf("ready\n");
  std::fflush(stdout);
  std::unordered_map<int, Connection> connections;
  std::array<epoll_event, 64> events{};
  std::array<char, 4096> buffer{};
  for (;;) {
    const int count = epoll_wait(epoll.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == http->get() || fd == tls->get()) {
        const int stream = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (stream < 0) continue;
        const int yes = 1;
        setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        connections[stream] = {Fd(stream), {}};
        watch(stream);
        continue;
      }
      const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EAGAIN) continue;
      if (got <= 0) {
        connections.erase(fd);
        continue;
      }
      Connection& connection = connections[fd];
      connection.in.append(buffer.data(), static_cast<std::size_t>(got));
      answer(connection);
    }
  }
}

}  // namespace l7mark::robust
