// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/client.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "daemon/control.hpp"

namespace l7mark {

namespace {

using Json = nlohmann::ordered_json;

Error no_answer(const std::string& path) {
  return Error{"read from", path, 0, "l7markd does not answer"};
}

}  // namespace

Result<ControlClient> ControlClient::connect(const std::string& instance,
                                             std::chrono::milliseconds patience) {
  const std::string path = control_path(instance);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return Error{"connect to", path, ENAMETOOLONG, "choose a shorter instance name"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return error_from_errno("connect to", path);
  if (patience > std::chrono::milliseconds::zero()) {
    timeval limit{};
    limit.tv_sec = static_cast<time_t>(patience.count() / 1000);
    limit.tv_usec = static_cast<suseconds_t>(patience.count() % 1000 * 1000);
    // connect(2) waits by the limit for sending, when the daemon is too busy to accept.
    for (const int option : {SO_SNDTIMEO, SO_RCVTIMEO})
      if (setsockopt(fd.get(), SOL_SOCKET, option, &limit, sizeof(limit)) != 0)
        return error_from_errno("connect to", path);
  }
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int code = errno;
    if (code == ENOENT || code == ECONNREFUSED)
      return Error{"reach l7markd", "", 0,
                   "none runs as instance " + instance + " (no answer on " + path + ")"};
    if (code == EAGAIN) return no_answer(path);
    return Error{"connect to", path, code, code == EACCES ? "needs root" : ""};
  }
  return ControlClient(std::move(fd), path);
}

Status ControlClient::send(const std::string& command, const Json& arguments) {
  const Json request = {{"command", command}, {"arguments", arguments}};
  const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t sent = ::send(fd_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EPIPE) break;  // refused: the reason is there to be read
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
    if (got < 0 && errno == EAGAIN) return no_answer(path_);
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
    if (!json.is_object()) return Error{"understand", path_, 0, "its answer is no JSON object"};
    if (const auto ok = json.find("ok"); ok != json.end() && ok->is_boolean()) {
      if (ok->get<bool>()) return json;
      return Error{command, "", 0, json.value("error", "l7markd gave no reason")};
    }
    if (line) line(json);
  }
}

Status ControlClient::follow(const std::function<bool(const Json&)>& event) {
  if (auto begun = request("events", Json::object()); !begun) return begun.error();
  for (;;) {
    auto text = read_line();
    if (!text) return text.error();
    const Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object()) return Error{"understand", path_, 0, "an event is no JSON object"};
    if (!event(json)) return success();
  }
}

}  // namespace l7mark
