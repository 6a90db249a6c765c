// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/control.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <unordered_map>
#include <utility>
#include <vector>

#include "util/fd.hpp"

namespace l7mark {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxRequest = 64 * 1024;
constexpr std::size_t kMaxClients = 64;
// Of an events stream that is not read.
constexpr std::size_t kMaxBacklog = 4 * 1024 * 1024;
// Of a long reply that is made in one go: a few milliseconds' work.
constexpr std::size_t kReplyPart = 256 * 1024;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return Error{"make control socket", path, ENAMETOOLONG, "choose a shorter instance name"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// Whether a process listens there, be it too busy to accept (EAGAIN).
bool is_alive(const sockaddr_un& address) {
  const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return false;
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
         errno == EAGAIN;
}

// Keeps two daemons that start at once from each taking the other's socket for a stale one. Held
// until the socket listens.
Result<Fd> lock_directory(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::create_directories(directory, error)) fs::permissions(directory, fs::perms{0755}, error);
  if (error) return Error{"make directory", directory, error.value(), "needs root"};
  Fd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || flock(fd.get(), LOCK_EX) != 0)
    return error_from_errno("lock directory", directory, "needs root");
  return fd;
}

Result<Fd> listen_on(const sockaddr_un& address, const std::string& path) {
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return error_from_errno("make control socket", path);
  const mode_t mask = umask(0177);
  const int bound = bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int code = errno;
  umask(mask);
  if (bound != 0) return Error{"make control socket", path, code, "needs root"};
  if (::listen(fd.get(), 16) != 0) return error_from_errno("make control socket", path);
  return fd;
}

}  // namespace

std::string control_path(const std::string& instance) {
  return "/run/l7mark/" + instance + ".sock";
}

struct ControlServer::State {
  struct Client {
    Fd fd;
    std::string in;
    std::string out;
    std::size_t sent = 0;  // of `out`
    Reply reply;           // what is still to come of it
    bool replying = false;
    bool follows = false;
    bool at_end = false;  // says no more: gone, once it has its answers
    bool broken = false;
    std::uint32_t watched = 0;  // epoll events
    std::uint64_t lost = 0;

    [[nodiscard]] std::size_t backlog() const { return out.size() - sent; }
  };

  std::string path;
  Fd listener;
  Fd epoll;
  Handler handler;
  std::unordered_map<int, Client> clients;
  std::size_t followers = 0;

  void accept_all();
  void read_from(Client& client);
  void answer(Client& client, const std::string& line);
  void answer_next(Client& client);
  void fill(Client& client);
  void write_to(Client& client);
  void watch(Client& client);
  void serve(Client& client, std::uint32_t events);
  void drop(int fd);
  Status add_to_epoll(int fd);
};

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlServer::ControlServer(ControlServer&&) noexcept = default;
ControlServer& ControlServer::operator=(ControlServer&&) noexcept = default;
ControlServer::~ControlServer() {
  if (state_) unlink(state_->path.c_str());
}

Status ControlServer::State::add_to_epoll(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return error_from_errno("watch control socket", path);
  return success();
}

Result<ControlServer> ControlServer::listen(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return address.error();
  const auto lock = lock_directory(std::filesystem::path(path).parent_path());
  if (!lock) return lock.error();
  if (is_alive(*address))
    return Error{"make control socket", path, 0, "another l7markd runs as this instance"};
  unlink(path.c_str());
  auto listener = listen_on(*address, path);
  if (!listener) return listener.error();
  auto state = std::make_unique<State>();
  state->path = path;
  state->listener = std::move(*listener);
  state->epoll = Fd(epoll_create1(EPOLL_CLOEXEC));
  ControlServer server(std::move(state));
  if (!server.state_->epoll) return error_from_errno("watch control socket", path);
  L7MARK_TRY(server.state_->add_to_epoll(server.state_->listener.get()));
  return server;
}

void ControlServer::set_handler(Handler handler) {
  state_->handler = std::move(handler);
}
int ControlServer::fd() const {
  return state_->epoll.get();
}
bool ControlServer::has_followers() const {
  return state_->followers > 0;
}

void ControlServer::State::accept_all() {
  for (;;) {
    Fd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    if (clients.size() >= kMaxClients) {
      const std::string refusal =
          dump({{"ok", false}, {"error", "too many connections to the control socket"}}) + "\n";
      [[maybe_unused]] const auto sent =
          send(fd.get(), refusal.data(), refusal.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      continue;
    }
    const int number = fd.get();
    if (!add_to_epoll(number).ok()) continue;
    Client& client = clients[number];
    client.fd = std::move(fd);
    client.watched = EPOLLIN;
  }
}

void ControlServer::State::drop(int fd) {
  const auto found = clients.find(fd);
  if (found == clients.end()) return;
  if (found->second.follows) --followers;
  clients.erase(found);
}

// A client is not listened to while it has not read its last answer. A follower is: that is how its
// end shows.
void ControlServer::State::watch(Client& client) {
  const bool waits = client.replying || client.backlog() > 0;
  std::uint32_t wanted = waits ? std::uint32_t{EPOLLOUT} : 0;
  if (!client.at_end && (client.follows || !waits)) wanted |= EPOLLIN;
  if (wanted == client.watched) return;
  client.watched = wanted;
  epoll_event event{};
  event.events = wanted;
  event.data.fd = client.fd.get();
  if (epoll_ctl(epoll.get(), EPOLL_CTL_MOD, client.fd.get(), &event) != 0) client.broken = true;
}

// Makes the next part of a reply.
void ControlServer::State::fill(Client& client) {
  try {
    while (client.replying && client.backlog() < kReplyPart) {
      const auto line = client.reply.lines ? client.reply.lines() : std::nullopt;
      if (!line) {
        if (!client.reply.last.contains("ok")) client.reply.last["ok"] = true;
        client.replying = false;
      }
      client.out += dump(line ? *line : client.reply.last);
      client.out += '\n';
    }
  } catch (const std::exception& error) {
    client.out += dump({{"ok", false}, {"error", error.what()}}) + "\n";
    client.replying = false;
  }
  if (!client.replying) client.reply = {};
}

void ControlServer::State::write_to(Client& client) {
  while (client.backlog() > 0) {
    const ssize_t sent = send(client.fd.get(), client.out.data() + client.sent, client.backlog(),
                              MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent <= 0) {
      client.broken = true;
      return;
    }
    client.sent += static_cast<std::size_t>(sent);
  }
  if (client.backlog() == 0) {
    client.out.clear();
    client.sent = 0;
    if (client.lost > 0)
      client.out = dump({{"type", "lost"}, {"count", std::exchange(client.lost, 0)}}) + "\n";
  } else if (client.sent >= kReplyPart) {
    client.out.erase(0, std::exchange(client.sent, 0));
  }
}

void ControlServer::State::answer(Client& client, const std::string& line) {
  const Json request = Json::parse(line, nullptr, false);
  client.replying = true;
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string()) {
    client.reply.last = {{"ok", false}, {"error", "a request is an object with a \"command\""}};
    return;
  }
  const auto command = request["command"].get<std::string>();
  if (command == "events") {
    client.follows = true;
    ++followers;
    return;
  }
  try {
    client.reply = handler(command, request.contains("arguments") ? request["arguments"]
                                                                  : Json(Json::value_t::object));
  } catch (const std::exception& error) {
    client.reply = {Json({{"ok", false}, {"error", error.what()}}), {}};
  }
}

// Takes up the next request that is there, once the one before is answered.
void ControlServer::State::answer_next(Client& client) {
  if (client.follows) {
    client.in.clear();
    return;
  }
  while (!client.broken && !client.replying && client.backlog() == 0 && !client.follows) {
    const auto end = client.in.find('\n');
    if (end == std::string::npos) return;
    const std::string line = client.in.substr(0, end);
    client.in.erase(0, end + 1);
    answer(client, line);
    fill(client);
    write_to(client);
  }
}

void ControlServer::State::read_from(Client& client) {
  char bytes[4096];
  const ssize_t got = recv(client.fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0) {
    client.broken = errno != EAGAIN && errno != EINTR;
    return;
  }
  if (got == 0) {
    client.at_end = true;
    return;
  }
  client.in.append(bytes, static_cast<std::size_t>(got));
  if (client.in.size() <= kMaxRequest || client.in.find('\n') != std::string::npos) return;
  client.in.clear();
  client.at_end = true;
  client.out += dump({{"ok", false}, {"error", "the request is too long"}}) + "\n";
  write_to(client);
}

void ControlServer::State::serve(Client& client, std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    fill(client);
    write_to(client);
  }
  if ((events & EPOLLIN) != 0) read_from(client);
  answer_next(client);
  watch(client);
  const bool gone = (events & (EPOLLERR | EPOLLHUP)) != 0;
  const bool served = client.at_end && !client.follows && !client.replying && client.backlog() == 0;
  if (gone || client.broken || served) drop(client.fd.get());
}

void ControlServer::process() {
  State& state = *state_;
  epoll_event events[32];
  const int count = epoll_wait(state.epoll.get(), events, 32, 0);
  bool arrivals = false;
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == state.listener.get()) {
      arrivals = true;
      continue;
    }
    const auto found = state.clients.find(fd);
    if (found != state.clients.end()) state.serve(found->second, events[i].events);
  }
  // At the end: a new connection may get the number of one that has just gone, which must not be
  // taken for it.
  if (arrivals) state.accept_all();
}

void ControlServer::publish(std::string_view line) {
  std::vector<int> broken;
  for (auto& [fd, client] : state_->clients) {
    if (!client.follows) continue;
    if (client.lost > 0 || client.backlog() + line.size() > kMaxBacklog) {
      ++client.lost;
      continue;
    }
    const bool idle = client.backlog() == 0;
    client.out += line;
    client.out += '\n';
    if (!idle) continue;  // EPOLLOUT tells when there is room
    state_->write_to(client);
    state_->watch(client);
    if (client.broken) broken.push_back(fd);
  }
  for (const int fd : broken) state_->drop(fd);
}

}  // namespace l7mark
