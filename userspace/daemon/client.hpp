// SPDX-License-Identifier: GPL-2.0-only
// The other end of the control socket, for the command line: waits for what it asks.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

class ControlClient {
 public:
  // `patience` bounds each wait for the daemon; zero waits as long as it takes.
  static Result<ControlClient> connect(const std::string& instance,
                                       std::chrono::milliseconds patience = {});

  // `line` gets each line of the reply before the last; the last is returned, if it is ok.
  Result<nlohmann::ordered_json> request(
      const std::string& command, const nlohmann::ordered_json& arguments,
      const std::function<void(const nlohmann::ordered_json&)>& line = {});
  // Calls with each event until it returns false; an error when the daemon ends before.
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
