// SPDX-License-Identifier: GPL-2.0-only
#include "util/keyed_hash.hpp"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

namespace l7mark {

namespace {

// Without random numbers no table is safe from its keys, and the kernel has them since 3.17.
HashKey draw() {
  HashKey key{};
  ssize_t got = 0;
  do got = getrandom(&key, sizeof(key), 0);
  while (got < 0 && errno == EINTR);
  if (got != sizeof(key)) std::abort();
  return key;
}

}  // namespace

const HashKey process_hash_key = draw();

}  // namespace l7mark
