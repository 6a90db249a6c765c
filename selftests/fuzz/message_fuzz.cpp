// SPDX-License-Identifier: GPL-2.0-only
// What a worker that was taken over could send to the main process.
#include <cstddef>
#include <cstdint>
#include <span>

#include "daemon/message.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto messages = l7mark::read_messages(std::as_bytes(std::span(data, size)));
  if (!messages) return 0;
  // What was read can be written, and is read as the same number of messages again.
  l7mark::MessageWriter writer;
  for (const auto& message : *messages)
    std::visit([&writer](const auto& m) { writer.add(m); }, message);
  const auto again = l7mark::read_messages(writer.bytes());
  if (!again || again->size() != messages->size()) __builtin_trap();
  return 0;
}
