// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <set>
#include <string>

#include "util/log.hpp"

namespace l7mark {

// An option that takes one of some words. CLI11's own transformer would show the values behind them
// in the help, too. `target` must live as long as the app.
template <class T>
CLI::Option* add_choice(CLI::App& app, const std::string& name, T& target,
                        const std::map<std::string, T>& words, const std::string& help) {
  std::set<std::string> names;
  for (const auto& [word, value] : words) names.insert(word);
  return app
      .add_option_function<std::string>(
          name, [&target, words](const std::string& word) { target = words.at(word); }, help)
      ->check(CLI::IsMember(names))
      ->type_name("WORD");
}

inline CLI::Option* add_log_level(CLI::App& app, LogLevel& level) {
  return add_choice<LogLevel>(app, "--log-level", level,
                              {{"debug", LogLevel::debug},
                               {"info", LogLevel::info},
                               {"warning", LogLevel::warning},
                               {"error", LogLevel::error}},
                              "How much to say on standard error");
}

}  // namespace l7mark
