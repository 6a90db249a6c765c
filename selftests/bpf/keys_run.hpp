// SPDX-License-Identifier: GPL-2.0-only
// One packet through the hot path's parser, the whole parser in the kernel and the whole parser in
// userspace: they must give the same key, or the same refusal.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "keys/keys.h"
// Behind the types that they use.
#include <keys_tc.skel.h>
#include <keys_xdp.skel.h>

namespace l7mark::test {

// The program of one hook, loaded with some options of l7m_parse().
template <typename Skeleton>
class KeysRun {
 public:
  // Null if the kernel does not take it; `why` says so.
  static std::unique_ptr<KeysRun> make(std::uint32_t options, std::string& why) {
    std::unique_ptr<KeysRun> out(new KeysRun(options));
    Skeleton* object = out->object_;
    if (object == nullptr) {
      why = "the skeleton does not open";
      return nullptr;
    }
    object->rodata->l7m_config.parse = options;
    object->rodata->l7m_config.flags = 0;
    object->rodata->l7m_config.sets = 1;
    for (bpf_map* map : {object->maps.flows4, object->maps.flows6})
      bpf_map__set_max_entries(map, 1);
    bpf_map__set_max_entries(object->maps.candidates, 1);
    if (const int code = Skeleton::load(object); code != 0) {
      why = std::strerror(-code);
      return nullptr;
    }
    void* found = mmap(nullptr, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_READ,
                       MAP_SHARED, bpf_map__fd(object->maps.found), 0);
    if (found == MAP_FAILED) {
      why = std::strerror(errno);
      return nullptr;
    }
    out->found_ = static_cast<const keys_found*>(found);
    return out;
  }
  KeysRun(const KeysRun&) = delete;
  KeysRun& operator=(const KeysRun&) = delete;
  ~KeysRun() {
    if (found_ != nullptr)
      munmap(const_cast<keys_found*>(found_), static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    Skeleton::destroy(object_);
  }

  // What differs; empty if nothing does. Frames that a run does not take are as good as equal.
  std::string difference(std::span<const std::uint8_t> frame) {
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()), .repeat = 1);
    if (bpf_prog_test_run_opts(bpf_program__fd(object_->progs.keys_of), &run) != 0) return {};
    ++runs_;

    l7m_packet packet{};
    l7m_cursor cursor{frame.data(), frame.data() + frame.size(), 0, nullptr, 0};
    const int result =
        l7m_parse(&cursor, &packet, 0, static_cast<std::uint32_t>(frame.size()), options_);
    const keys_found& kernel = *found_;
    if (kernel.slow != static_cast<std::uint32_t>(result))
      return fmt::format("result {} in the kernel, {} in userspace", kernel.slow, result);
    l7m_key key{};
    l7m_key4 key4{};
    std::uint32_t sender = 0;
    if (result == L7M_PARSE_OK) {
      if (packet.version == 4) l7m_make_key4(&packet, &key4);
      l7m_map_ipv4(&packet);
      sender = static_cast<std::uint32_t>(l7m_make_key(&packet, &key));
      if (!same(kernel.slow_packet, packet)) return "headers of the whole parsers";
      if (!same(kernel.slow_key, key)) return "keys of the whole parsers";
      if (kernel.slow_sender != sender) return "senders of the whole parsers";
      ++flows_;
    }
    if (kernel.fast == 0) return {};
    ++fast_;
    // IPv4-mapped addresses: no verdict has such a key, and a miss is refused.
    if (kernel.refused != 0)
      return result == L7M_PARSE_WRONG ? "" : "only the hot path's look-up refuses";
    if (result != L7M_PARSE_OK) return fmt::format("the hot path looks up what gives {}", result);
    if (packet.fragment != L7M_FRAGMENT_NONE) return "the hot path takes a fragment";
    if (kernel.fast_version != packet.version) return "version of the hot path";
    if (packet.version == 4 ? std::memcmp(&kernel.fast_key, &key4, sizeof(key4)) != 0
                            : !same(kernel.fast_key, key))
      return "key of the hot path";
    if (kernel.fast_sender != sender) return "sender of the hot path";
    if (!same(kernel.missed_packet, packet)) return "headers behind the hot path";
    return {};
  }

  [[nodiscard]] std::uint64_t runs() const { return runs_; }    // that the kernel took
  [[nodiscard]] std::uint64_t flows() const { return flows_; }  // that had a key
  [[nodiscard]] std::uint64_t fast() const { return fast_; }    // that the hot path looked up

 private:
  explicit KeysRun(std::uint32_t options) : options_(options), object_(Skeleton::open()) {}

  template <typename T>
  static bool same(const T& a, const T& b) {
    return std::memcmp(&a, &b, sizeof(T)) == 0;
  }

  std::uint32_t options_;
  Skeleton* object_;
  const keys_found* found_ = nullptr;
  std::uint64_t runs_ = 0;
  std::uint64_t flows_ = 0;
  std::uint64_t fast_ = 0;
};

}  // namespace l7mark::test
