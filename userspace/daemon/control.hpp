// SPDX-License-Identifier: GPL-2.0-only
// The control socket, /run/l7mark/INSTANCE.sock: one JSON object a line each way. A request is
// {"command": NAME, "arguments": {…}}; its reply is any number of lines and then one with "ok":
// true or false. The command "events" turns a connection into a stream of event lines.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

// "/run/l7mark/INSTANCE.sock"
[[nodiscard]] std::string control_path(const std::string& instance);

class ControlServer {
 public:
  // Answers a command: calls `line` for each line of the reply before the last, and returns the
  // last, to which "ok" is added if it has none.
  using Line = std::function<void(const nlohmann::ordered_json&)>;
  using Handler = std::function<nlohmann::ordered_json(
      const std::string& command, const nlohmann::ordered_json& arguments, const Line& line)>;

  // Takes over the socket of a daemon that is gone; fails if one is there.
  static Result<ControlServer> listen(const std::string& path);
  ControlServer(ControlServer&&) noexcept;
  ControlServer& operator=(ControlServer&&) noexcept;
  ~ControlServer();  // removes the socket

  void set_handler(Handler handler);
  // An epoll descriptor that becomes readable when there is anything to do.
  [[nodiscard]] int fd() const;
  void process();
  // To every connection that follows events. One that reads too slowly loses events, and is told
  // how many: {"type": "lost", "count": N}.
  void publish(std::string_view line);
  [[nodiscard]] bool has_followers() const;

 private:
  struct State;
  explicit ControlServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The other end, for the command line: waits for what it asks.
class ControlClient {
 public:
  static Result<ControlClient> connect(const std::string& instance);

  // `line` gets each line of the reply before the last; the last is returned, if it is ok.
  Result<nlohmann::ordered_json> request(
      const std::string& command, const nlohmann::ordered_json& arguments,
      const std::function<void(const nlohmann::ordered_json&)>& line = {});
  // Calls with each event until it returns false or the daemon ends.
  Status follow(const std::function<bool(const nlohmann::ordered_json&)>& event);

 private:
  ControlClient(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Status send(const std::string& command, const nlohmann::ordered_json& arguments);
  Result<std::string> read_line();

  Fd fd_;
  std::string path_;
  std::string pending_;
};

}  // namespace l7mark
