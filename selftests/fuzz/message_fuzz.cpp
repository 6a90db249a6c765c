// SPDX-License-Identifier: GPL-2.0-only
// What a worker that was taken over could send to the main process.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "daemon/message.hpp"

namespace {

std::size_t copy(std::span<const std::byte> bytes, l7mark::MessageWriter& writer) {
  std::array<l7mark::Message, 4> places;
  l7mark::MessageReader reader(bytes);
  std::size_t all = 0;
  while (const std::size_t count = reader.read(places)) {
    all += count;
    for (std::size_t i = 0; i < count; ++i)
      std::visit([&writer](const auto& m) { writer.add(m); }, places[i]);
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // What was read can be written, and is read as the same number of messages again.
  l7mark::MessageWriter first;
  l7mark::MessageWriter second;
  if (copy(std::as_bytes(std::span(data, size)), first) != copy(first.bytes(), second))
    __builtin_trap();
  return 0;
}
