// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/control.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "util/log.hpp"

namespace l7mark {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxRequest = 64 * 1024;
constexpr std::size_t kMaxClients = 64;
// Of an events stream. A reply has no such limit: it was asked for, and is as long as it is.
constexpr std::size_t kMaxBacklog = 4 * 1024 * 1024;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return Error{"use control socket", path, ENAMETOOLONG, "choose a shorter instance name"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool answers(const sockaddr_un& address) {
  const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

std::string control_path(const std::string& instance) {
  return "/run/l7mark/" + instance + ".sock";
}

// --- server --------------------------------------------------------------------------------------

struct ControlServer::State {
  struct Client {
    Fd fd;
    std::string in;
    std::string out;
    bool follows = false;
    bool closing = false;  // once `out` is sent
    bool waits_for_room = false;
    std::uint64_t lost = 0;
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
  void write_to(Client& client);
  void watch(Client& client);
  void drop(int fd);
};

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlServer::ControlServer(ControlServer&&) noexcept = default;
ControlServer& ControlServer::operator=(ControlServer&&) noexcept = default;
ControlServer::~ControlServer() {
  if (state_) unlink(state_->path.c_str());
}

Result<ControlServer> ControlServer::listen(const std::string& path) {
  auto address = address_of(path);
  if (!address) return address.error();
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return Error{"make control socket", path, error.value(), "needs root"};
  if (answers(*address))
    return Error{"make control socket", path, 0, "another l7markd runs as this instance"};
  unlink(path.c_str());
  auto state = std::make_unique<State>();
  state->path = path;
  state->listener = Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  state->epoll = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!state->listener || !state->epoll) return error_from_errno("make control socket", path);
  const mode_t mask = umask(0177);
  const int bound =
      bind(state->listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address));
  umask(mask);
  if (bound != 0 || ::listen(state->listener.get(), 16) != 0)
    return error_from_errno("make control socket", path, "needs root");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = state->listener.get();
  if (epoll_ctl(state->epoll.get(), EPOLL_CTL_ADD, state->listener.get(), &event) != 0)
    return error_from_errno("make control socket", path);
  return ControlServer(std::move(state));
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
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd.get();
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) continue;
    const int number = fd.get();
    clients[number].fd = std::move(fd);
  }
}

void ControlServer::State::drop(int fd) {
  const auto found = clients.find(fd);
  if (found == clients.end()) return;
  if (found->second.follows) --followers;
  clients.erase(found);
}

void ControlServer::State::watch(Client& client) {
  const bool wanted = !client.out.empty();
  if (wanted == client.waits_for_room) return;
  client.waits_for_room = wanted;
  epoll_event event{};
  event.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.fd = client.fd.get();
  epoll_ctl(epoll.get(), EPOLL_CTL_MOD, client.fd.get(), &event);
}

void ControlServer::State::write_to(Client& client) {
  std::size_t done = 0;
  while (done < client.out.size()) {
    const ssize_t sent = send(client.fd.get(), client.out.data() + done, client.out.size() - done,
                              MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) {
      client.out.clear();
      client.closing = true;
      return;
    }
    if (sent <= 0) break;
    done += static_cast<std::size_t>(sent);
  }
  client.out.erase(0, done);
  if (client.out.empty() && client.lost > 0) {
    client.out = dump({{"type", "lost"}, {"count", std::exchange(client.lost, 0)}}) + "\n";
  }
  watch(client);
}

void ControlServer::State::answer(Client& client, const std::string& line) {
  const Json request = Json::parse(line, nullptr, false);
  Json reply;
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string()) {
    reply = {{"ok", false}, {"error", "a request is an object with a \"command\""}};
  } else if (const auto command = request["command"].get<std::string>(); command == "events") {
    client.follows = true;
    ++followers;
    reply = {{"ok", true}};
  } else {
    const Json arguments =
        request.contains("arguments") ? request["arguments"] : Json(Json::value_t::object);
    reply = handler(command, arguments, [&client](const Json& part) {
      client.out += dump(part);
      client.out += '\n';
    });
    if (!reply.contains("ok")) reply["ok"] = true;
  }
  client.out += dump(reply);
  client.out += '\n';
  write_to(client);
}

void ControlServer::State::read_from(Client& client) {
  char bytes[4096];
  for (;;) {
    const ssize_t got = recv(client.fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (got <= 0) {
      client.closing = true;
      client.out.clear();
      return;
    }
    client.in.append(bytes, static_cast<std::size_t>(got));
    if (client.in.size() > kMaxRequest) {
      client.out += dump({{"ok", false}, {"error", "the request is too long"}}) + "\n";
      client.in.clear();
      client.closing = true;
      write_to(client);
      return;
    }
  }
  for (std::size_t end = 0; (end = client.in.find('\n')) != std::string::npos && !client.follows;) {
    const std::string line = client.in.substr(0, end);
    client.in.erase(0, end + 1);
    answer(client, line);
  }
}

void ControlServer::process() {
  State& state = *state_;
  epoll_event events[32];
  const int count = epoll_wait(state.epoll.get(), events, 32, 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == state.listener.get()) {
      state.accept_all();
      continue;
    }
    const auto found = state.clients.find(fd);
    if (found == state.clients.end()) continue;
    State::Client& client = found->second;
    if ((events[i].events & EPOLLOUT) != 0) state.write_to(client);
    if ((events[i].events & EPOLLIN) != 0) state.read_from(client);
    const bool broken = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
    if (broken || (client.closing && client.out.empty())) state.drop(fd);
  }
}

void ControlServer::publish(std::string_view line) {
  std::vector<int> gone;
  for (auto& [fd, client] : state_->clients) {
    if (!client.follows) continue;
    if (client.out.size() + line.size() > kMaxBacklog) {
      ++client.lost;
      continue;
    }
    client.out += line;
    client.out += '\n';
    state_->write_to(client);
    if (client.closing) gone.push_back(fd);
  }
  for (const int fd : gone) state_->drop(fd);
}

// --- client --------------------------------------------------------------------------------------

Result<ControlClient> ControlClient::connect(const std::string& instance) {
  const std::string path = control_path(instance);
  auto address = address_of(path);
  if (!address) return address.error();
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return error_from_errno("connect to", path);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) {
    const int code = errno;
    if (code == ENOENT || code == ECONNREFUSED)
      return Error{"reach l7markd", "", 0,
                   "none runs as instance " + instance + " (no answer on " + path + ")"};
    return Error{"connect to", path, code, code == EACCES ? "needs root" : ""};
  }
  return ControlClient(std::move(fd), path);
}

Status ControlClient::send(const std::string& command, const Json& arguments) {
  const std::string line = dump({{"command", command}, {"arguments", arguments}}) + "\n";
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t sent = ::send(fd_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return error_from_errno("write to", path_);
    done += static_cast<std::size_t>(sent);
  }
  return success();
}

Result<std::string> ControlClient::read_line() {
  for (;;) {
    if (const auto end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    char bytes[16384];
    const ssize_t got = recv(fd_.get(), bytes, sizeof(bytes), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return error_from_errno("read from", path_);
    if (got == 0) return Error{"read from", path_, 0, "l7markd has ended"};
    pending_.append(bytes, static_cast<std::size_t>(got));
  }
}

Result<Json> ControlClient::request(const std::string& command, const Json& arguments,
                                    const std::function<void(const Json&)>& line) {
  L7MARK_TRY(send(command, arguments));
  for (;;) {
    auto text = read_line();
    if (!text) return text.error();
    Json json = Json::parse(*text, nullptr, false);
    if (json.is_discarded()) return Error{"understand", path_, 0, "its answer is not JSON"};
    if (const auto ok = json.find("ok"); ok != json.end() && ok->is_boolean()) {
      if (ok->get<bool>()) return json;
      return Error{command, "", 0, json.value("error", "l7markd gave no reason")};
    }
    if (line) line(json);
  }
}

Status ControlClient::follow(const std::function<bool(const Json&)>& event) {
  L7MARK_TRY(send("events", Json::object()));
  for (;;) {
    auto text = read_line();
    if (!text) return text.error();
    const Json json = Json::parse(*text, nullptr, false);
    if (json.is_discarded() || json.contains("ok")) continue;
    if (!event(json)) return success();
  }
}

}  // namespace l7mark
