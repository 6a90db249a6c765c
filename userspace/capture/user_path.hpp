// SPDX-License-Identifier: GPL-2.0-only
// The data plane's logic in userspace: what the programs in the kernel do to a packet up to its
// sample, over the same shared headers, for `l7mark classify --path user` and for tests.
#pragma once

#include <l7mark/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "capture/reader.hpp"
#include "dpi/classifier.hpp"
#include "dpi/engine.hpp"
#include "flow.hpp"
#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {

struct UserPathOptions {
  std::uint32_t packets = 8;  // as in struct l7m_settings
  std::uint32_t whole = 4;
  std::uint32_t snaplen = 128;
  std::uint32_t whole_snaplen = 1600;
  std::uint32_t rings = 1;            // classifiers, each with an Engine of its own
  std::uint32_t parse = 0;            // L7M_PARSE_*
  std::vector<Prefix> inside;         // of clients: chooses the ring
  EngineOptions engine;
};

// A flow of the capture and what became of it.
struct CaptureFlow {
  Answer answer;         // the last; state `undecided` if there was none
  l7m_counters count{};  // of all its packets
  std::uint32_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
};

struct UserPathStats {
  std::uint64_t packets = 0;  // that belong to a flow
  std::uint64_t bytes = 0;
  std::uint64_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
  std::uint64_t not_ip = 0;
  std::uint64_t malformed = 0;
  std::uint64_t later_fragments = 0;  // not counted in flows
};

class UserPath {
 public:
  [[nodiscard]] static Result<UserPath> make(const UserPathOptions& options);
  UserPath(UserPath&&) noexcept;
  UserPath& operator=(UserPath&&) noexcept;
  ~UserPath();

  void packet(const CapturedPacket& packet);
  // The capture has ended: every flow gets its last word.
  void finish();

  // In the order of their first packets.
  [[nodiscard]] const std::deque<CaptureFlow>& flows() const;
  [[nodiscard]] const UserPathStats& stats() const;
  // For names.
  [[nodiscard]] const Engine& engine() const;

 private:
  struct State;
  explicit UserPath(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace l7mark
