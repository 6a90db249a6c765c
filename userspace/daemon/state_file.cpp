// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/state_file.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "util/log.hpp"

namespace l7mark {

std::string state_path(const std::string& instance) {
  return "/run/l7mark/" + instance + ".state.json";
}

DaemonState read_state(const std::string& path) {
  DaemonState out;
  std::ifstream file(path);
  if (!file) return out;
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) {
    log_warning("{} is not readable; what an earlier daemon left stays where it is", path);
    return out;
  }
  const auto strings = [&json](const char* key, std::set<std::string>& to) {
    const auto list = json.find(key);
    if (list == json.end() || !list->is_array()) return;
    for (const auto& item : *list)
      if (item.is_string()) to.insert(item.get<std::string>());
  };
  if (const auto netns = json.find("netns"); netns != json.end() && netns->is_string())
    out.netns = netns->get<std::string>();
  strings("interfaces", out.interfaces);
  strings("sets", out.sets);
  return out;
}

Status write_state(const std::string& path, const DaemonState& state) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return Error{"write", path, error.value(), {}};
  const std::string fresh = path + ".new";
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << nlohmann::json{{"netns", state.netns},
                           {"interfaces", state.interfaces},
                           {"sets", state.sets}}
                .dump(2)
         << '\n';
    if (!file.flush()) return error_from_errno("write", fresh);
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return error_from_errno("write", path);
  return success();
}

}  // namespace l7mark
