// SPDX-License-Identifier: GPL-2.0-only
// What becomes of a capture's packets, whichever way they go: through the programs in the kernel or
// through the same logic in userspace.
#pragma once

#include <l7mark/types.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "capture/reader.hpp"
#include "dpi/engine.hpp"
#include "flow.hpp"
#include "policy/policy.hpp"
#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {

struct PathOptions {
  SamplingConfig sampling;
  std::uint32_t rings = 1;     // classifiers, each with an Engine of its own
  std::uint32_t parse = 0;     // L7M_PARSE_*
  std::vector<Prefix> inside;  // of clients: chooses the ring, and tells who is one
  EngineOptions engine;

  [[nodiscard]] l7m_settings settings() const {
    l7m_settings out{};
    out.packets = sampling.packets;
    out.whole = sampling.whole;
    out.whole_plain = sampling.whole_plain;
    out.snaplen = sampling.snaplen;
    out.whole_snaplen = sampling.whole_snaplen;
    out.flight = sampling.handshake;
    out.rings = rings;
    return out;
  }
};

// A flow of the capture and what became of it.
struct CaptureFlow {
  Answer answer;         // the last; state `undecided` if there was none
  l7m_counters count{};  // of all its packets
  std::uint32_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
};

class CapturePath {
 public:
  virtual ~CapturePath() = default;

  [[nodiscard]] virtual Status packet(const CapturedPacket& packet) = 0;
  // The capture has ended: every flow gets its last word.
  [[nodiscard]] virtual Status finish() = 0;
  // For another capture: nothing is left of the one before, whatever became of it.
  [[nodiscard]] virtual Status restart() = 0;

  // In the order of their first packets.
  [[nodiscard]] virtual const std::deque<CaptureFlow>& flows() const = 0;
  // For names.
  [[nodiscard]] virtual const Engine& engine() const = 0;
};

}  // namespace l7mark
