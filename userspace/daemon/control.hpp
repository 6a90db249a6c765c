// SPDX-License-Identifier: GPL-2.0-only
// The control socket, /run/l7mark/INSTANCE.sock: one JSON object a line each way. A request is
// {"command": NAME, "arguments": {…}}; its reply is any number of lines and then one with "ok":
// true or false. The command "events" turns a connection into a stream of event lines.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "util/result.hpp"

namespace l7mark {

// "/run/l7mark/INSTANCE.sock"
[[nodiscard]] std::string control_path(const std::string& instance);

// Never waits for a client: it is made for the main loop.
class ControlServer {
 public:
  // Gives the next line of a reply that has many, and nothing after the last. It is asked for a few
  // at a time, as the client reads, so that a million flows neither fill the memory nor hold up the
  // main loop; much may have changed between two calls.
  using Lines = std::function<std::optional<nlohmann::ordered_json>()>;
  struct Reply {
    nlohmann::ordered_json last;  // {"ok": true} is added if it has no "ok"
    Lines lines;                  // what comes before the last; may be empty
  };
  using Handler =
      std::function<Reply(const std::string& command, const nlohmann::ordered_json& arguments)>;

  // Takes over the socket of a daemon that is gone; fails if one is there.
  static Result<ControlServer> listen(const std::string& path);
  ControlServer(ControlServer&&) noexcept;
  ControlServer& operator=(ControlServer&&) noexcept;
  ~ControlServer();  // removes the socket

  // Must be set before process() is called.
  void set_handler(Handler handler);
  // An epoll descriptor that becomes readable when there is anything to do.
  [[nodiscard]] int fd() const;
  void process();
  // To every connection that follows events. One that reads too slowly loses events, and is told
  // how many, where they are missing: {"type": "lost", "count": N}.
  void publish(std::string_view line);
  [[nodiscard]] bool has_followers() const;

 private:
  struct State;
  explicit ControlServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace l7mark
