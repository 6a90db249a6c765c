// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/pins.hpp"

#include <l7mark/types.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr const char* kBpffs = "/sys/fs/bpf";

bool is_bpffs() {
  struct statfs fs {};
  return statfs(kBpffs, &fs) == 0 && static_cast<unsigned long>(fs.f_type) == BPF_FS_MAGIC;
}

}  // namespace

std::string PinPaths::root() const {
  return std::string(kBpffs) + "/l7mark/" + instance;
}
std::string PinPaths::version() const {
  return root() + "/v" + std::to_string(L7M_LAYOUT_VERSION);
}
std::string PinPaths::programs() const {
  return version() + "/programs";
}
std::string PinPaths::classid_program() const {
  return programs() + "/classid";
}
std::string PinPaths::links() const {
  return version() + "/links";
}
std::string PinPaths::map(const std::string& name) const {
  return version() + "/" + name;
}

Status mount_bpffs() {
  if (is_bpffs()) return success();
  if (mount("bpf", kBpffs, "bpf", 0, "mode=0700") != 0)
    return error_from_errno("mount bpffs on", kBpffs, "needs root or CAP_SYS_ADMIN");
  log_info("mounted bpffs on {}", kBpffs);
  return success();
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error))
    names.push_back(entry.path().filename().string());
  return names;
}

Status prepare_pins(const PinPaths& paths) {
  L7MARK_TRY(mount_bpffs());
  const std::string current = "v" + std::to_string(L7M_LAYOUT_VERSION);
  for (const std::string& name : list_directory(paths.root())) {
    if (name == current) continue;
    return Error{"adopt pins", paths.root() + "/" + name, 0,
                 "they are of another version of l7mark; run `l7mark --instance " + paths.instance +
                     " unload --all` to take them out"};
  }
  for (const std::string& directory : {paths.version(), paths.programs(), paths.links()}) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) return Error{"make directory", directory, error.value(), {}};
  }
  return success();
}

Status remove_pins(const PinPaths& paths) {
  std::error_code error;
  std::filesystem::remove_all(paths.root(), error);
  if (error) return Error{"remove pins", paths.root(), error.value(), {}};
  std::filesystem::remove(std::filesystem::path(paths.root()).parent_path(), error);
  return success();  // the parent goes with the last instance only
}

}  // namespace l7mark
