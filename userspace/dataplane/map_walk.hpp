// SPDX-License-Identifier: GPL-2.0-only
// Every entry of a map, for the dataplane's own use.
#pragma once

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <span>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

// Batches where the kernel has them, key by key elsewhere. The next key is fetched before the call,
// which may remove the current one. In batches, `ahead` is told the keys of every next few calls.
template <class Key, class Value, class Call, class Ahead>
Status walk(int fd, bool batches, const Call& call, const Ahead& ahead) {
  constexpr __u32 kAhead = 16;
  constexpr std::uint32_t kBatch = 4096;
  std::vector<Key> keys;
  std::vector<Value> values;
  if (batches) {
    std::uint32_t size = kBatch;
    keys.resize(size);
    values.resize(size);
    std::uint32_t cursor = 0;
    bool first = true;
    for (;;) {
      std::uint32_t next = 0;
      __u32 count = size;
      const int code = bpf_map_lookup_batch(fd, first ? nullptr : &cursor, &next, keys.data(),
                                            values.data(), &count, nullptr);
      const int cause = errno;
      if (code != 0 && cause == ENOSPC) {  // one bucket holds more than a batch
        size *= 2;
        keys.resize(size);
        values.resize(size);
        continue;
      }
      if (code != 0 && cause != ENOENT) return Error{"walk", "map", cause, {}};
      for (__u32 i = 0; i < count; ++i) {
        if (i % kAhead == 0) ahead(std::span(keys).subspan(i, std::min(count - i, kAhead)));
        call(keys[i], values[i]);
      }
      if (code != 0) return success();
      cursor = next;
      first = false;
    }
  }
  Key key{};
  Key next{};
  bool more = bpf_map_get_next_key(fd, nullptr, &next) == 0;
  while (more) {
    key = next;
    more = bpf_map_get_next_key(fd, &key, &next) == 0;
    Value value{};
    if (bpf_map_lookup_elem(fd, &key, &value) == 0) call(key, value);
  }
  return success();
}

template <class Key, class Value, class Call>
Status walk(int fd, bool batches, const Call& call) {
  return walk<Key, Value>(fd, batches, call, [](std::span<const Key>) {});
}

}  // namespace l7mark
