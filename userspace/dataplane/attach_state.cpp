// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/attach_state.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "util/fd.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

using nlohmann::json;

constexpr std::array kModes = {AttachMode::automatic, AttachMode::native, AttachMode::generic,
                               AttachMode::tc};

AttachMode mode_of(const std::string& word, AttachMode otherwise) {
  for (const AttachMode mode : kModes)
    if (attach_mode_name(mode) == word) return mode;
  return otherwise;
}

json to_json(const Attachment& attachment) {
  return {{"ifindex", attachment.ifindex},
          {"requested", attach_mode_name(attachment.requested)},
          {"mode", attach_mode_name(attachment.mode)},
          {"tc", attachment.tc},
          {"xdp", attachment.xdp},
          {"frags", attachment.frags},
          {"link_layer", attachment.link_layer},
          {"made_clsact", attachment.made_clsact}};
}

// Throws where a value is of another type.
Attachment from_json(const std::string& name, const json& value) {
  Attachment out;
  out.name = name;
  out.ifindex = value.value("ifindex", 0U);
  out.requested = mode_of(value.value("requested", ""), AttachMode::automatic);
  out.mode = mode_of(value.value("mode", ""), AttachMode::tc);
  out.tc = value.value("tc", "");
  out.xdp = value.value("xdp", "");
  out.frags = value.value("frags", false);
  out.link_layer = value.value("link_layer", true);
  out.made_clsact = value.value("made_clsact", false);
  return out;
}

Status write_file(const std::string& path, const std::string& text) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file) return error_from_errno("write", path);
  const auto written = ::write(file.get(), text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) return error_from_errno("write", path);
  return success();
}

}  // namespace

NamespaceRecords read_records(const std::string& file) {
  NamespaceRecords records;
  std::ifstream in(file);
  if (!in) return records;
  try {
    const json root = json::parse(in);
    for (const auto& [netns, interfaces] : root.items())
      for (const auto& [name, value] : interfaces.items())
        records[netns].emplace(name, from_json(name, value));
  } catch (const json::exception& failure) {
    log_warning("ignoring {}: {}", file, failure.what());
    records.clear();
  }
  return records;
}

Status write_records(const std::string& file, const NamespaceRecords& records) {
  std::error_code error;
  json root = json::object();
  for (const auto& [netns, interfaces] : records)
    for (const auto& [name, attachment] : interfaces) root[netns][name] = to_json(attachment);
  if (root.empty()) {
    std::filesystem::remove(file, error);
    if (error) return Error{"remove", file, error.value(), {}};
    return success();
  }
  std::filesystem::create_directories(std::filesystem::path(file).parent_path(), error);
  const std::string fresh = file + ".new";
  L7MARK_TRY(write_file(fresh, root.dump(2) + "\n"));
  if (::rename(fresh.c_str(), file.c_str()) != 0) return error_from_errno("write", file);
  return success();
}

}  // namespace l7mark
