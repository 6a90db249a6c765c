// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/hook_pins.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string_view>

#include "util/log.hpp"

namespace l7mark {

namespace {

void log_words(const char* format, va_list arguments) {
  if (!log_enabled(LogLevel::debug)) return;
  char line[512];
  const int length = vsnprintf(line, sizeof(line), format, arguments);
  if (length <= 0) return;
  std::string_view text(line,
                        std::min<std::size_t>(static_cast<std::size_t>(length), sizeof(line) - 1));
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  log_debug("{}", text);
}

int log_libbpf(libbpf_print_level level, const char* format, va_list arguments) {
  if (level != LIBBPF_DEBUG) log_words(format, arguments);
  return 0;
}

int log_libxdp(libxdp_print_level, const char* format, va_list arguments) {
  log_words(format, arguments);
  return 0;
}

}  // namespace

std::string interface_pins(const std::string& links, const std::string& name) {
  std::string file = name;
  std::replace(file.begin(), file.end(), '.', ':');
  return links + "/" + file;
}

std::string interface_of_pins(const std::string& directory) {
  std::string name = directory;
  std::replace(name.begin(), name.end(), ':', '.');
  return name;
}

std::string aside(const std::string& pin) {
  return pin + ":old";
}

Status put_aside(const std::string& pin, Transaction& transaction) {
  const std::string old = aside(pin);
  if (::rename(pin.c_str(), old.c_str()) != 0) {
    if (errno == ENOENT) return success();
    return error_from_errno("rename", pin);
  }
  transaction.on_failure([pin, old] { ::rename(old.c_str(), pin.c_str()); });
  return success();
}

Status pin_object(int fd, const std::string& pin, Transaction& transaction) {
  if (bpf_obj_pin(fd, pin.c_str()) != 0) return attach_error("pin", pin, errno);
  transaction.on_failure([pin] { unpin(pin); });
  return success();
}

bool exists(const std::string& pin) {
  return ::access(pin.c_str(), F_OK) == 0;
}

void unpin(const std::string& pin) {
  if (::unlink(pin.c_str()) != 0 && errno != ENOENT)
    log_warning("{}", error_from_errno("remove", pin).message());
}

ProgramFacts program_facts(int program_fd) {
  bpf_prog_info info{};
  __u32 length = sizeof(info);
  if (program_fd < 0 || bpf_obj_get_info_by_fd(program_fd, &info, &length) != 0) return {};
  return {info.id, info.name};
}

std::vector<std::uint32_t> pinned_ids(const std::string& pin) {
  std::vector<std::uint32_t> ids;
  for (const std::string& path : {pin, aside(pin)}) {
    const Fd program(bpf_obj_get(path.c_str()));
    if (const auto facts = program_facts(program.get()); facts.id != 0) ids.push_back(facts.id);
  }
  return ids;
}

Error attach_error(std::string operation, std::string object, int code, std::string detail) {
  if (code == EPERM || code == EACCES) detail = "needs root or CAP_BPF, CAP_NET_ADMIN";
  return Error{std::move(operation), std::move(object), code, std::move(detail)};
}

void route_library_logs() {
  libbpf_set_print(log_libbpf);
  libxdp_set_print(log_libxdp);
}

}  // namespace l7mark
