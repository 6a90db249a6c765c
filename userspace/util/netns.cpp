// SPDX-License-Identifier: GPL-2.0-only
#include "util/netns.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "util/fd.hpp"

namespace l7mark {

namespace {

constexpr const char* kOwn = "/proc/thread-self/ns/net";

// Looks for a namespace by entering one after the other.
class Search {
 public:
  Search(const std::string& id, const std::function<void()>& call) : id_(id), call_(call) {}

  // True once the namespace was found, and called in.
  bool look_at(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      denied_ = denied_ || errno == EACCES || errno == EPERM;
      return false;
    }
    if (!seen_.emplace(info.st_dev, info.st_ino).second) return false;
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return false;
    bool found = false;
    std::thread([&] {
      if (::setns(fd.get(), CLONE_NEWNET) != 0 || network_namespace_id() != id_) return;
      found = true;
      call_();
    }).join();
    return found;
  }
  [[nodiscard]] bool denied() const { return denied_; }

 private:
  const std::string& id_;
  const std::function<void()>& call_;
  std::set<std::pair<dev_t, ino_t>> seen_;
  bool denied_ = false;
};

std::vector<std::string> entries(const std::string& directory) {
  std::vector<std::string> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error))
    paths.push_back(at->path().string());
  return paths;
}

std::vector<std::string> processes() {
  std::vector<std::string> paths = entries("/proc");
  std::erase_if(paths, [](const std::string& path) {
    const char first = path[sizeof("/proc/") - 1];
    return first < '0' || first > '9';
  });
  return paths;
}

// "36 35 0:4 net:[4026532008] /run/netns/NAME rw shared:5 - nsfs nsfs rw"
std::vector<std::string> mounted_namespaces() {
  std::vector<std::string> paths;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string number, parent, device, root, path;
    if (fields >> number >> parent >> device >> root >> path && root.starts_with("net:["))
      paths.push_back(path);
  }
  return paths;
}

bool is_network_namespace(const std::string& fd) {
  std::error_code error;
  return std::filesystem::read_symlink(fd, error).string().starts_with("net:[");
}

}  // namespace

Status enter_network_namespace(const std::string& name) {
  const bool is_path = name.find('/') != std::string::npos;
  const std::string path = is_path ? name : "/run/netns/" + name;
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return error_from_errno("enter network namespace", name, "`ip netns list` shows them");
  if (setns(fd.get(), CLONE_NEWNET) != 0)
    return error_from_errno("enter network namespace", name, "needs root or CAP_SYS_ADMIN");
  return success();
}

std::string network_namespace_id() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0)
    return std::to_string(cookie);
  struct stat info {};
  if (::stat(kOwn, &info) != 0) return "unknown";
  return std::to_string(info.st_ino) + "-" + std::to_string(info.st_dev);
}

NamespaceSearch in_network_namespace(const std::string& id, const std::function<void()>& call) {
  Search search(id, call);
  const auto look_at = [&](const std::string& path) { return search.look_at(path); };
  const std::vector<std::string> mounted = mounted_namespaces();
  if (std::any_of(mounted.begin(), mounted.end(), look_at)) return NamespaceSearch::found;
  const std::vector<std::string> all = processes();
  for (const std::string& process : all)
    if (look_at(process + "/ns/net")) return NamespaceSearch::found;
  // The long way: what processes have open.
  for (const std::string& process : all)
    for (const std::string& fd : entries(process + "/fd"))
      if (is_network_namespace(fd) && look_at(fd)) return NamespaceSearch::found;
  return search.denied() ? NamespaceSearch::hidden : NamespaceSearch::gone;
}

}  // namespace l7mark
