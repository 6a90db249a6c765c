// SPDX-License-Identifier: GPL-2.0-only
// Risks that l7mark finds itself. They take the upper bits of FlowFacts::risks; nDPI counts its own
// from below.
#pragma once

#include <array>
#include <string_view>

#include "policy/catalog.hpp"

namespace l7mark {

struct OwnRisk {
  unsigned bit;
  std::string_view name;
  RiskSeverity severity;
};

// A SYN, FIN or RST came in the name of an endpoint, but not from where it is: another interface,
// or another number of hops left (L7M_FLOW_FORGED). It was not believed.
inline constexpr OwnRisk kForgedClosing{61, "Forged connection control", RiskSeverity::medium};

// Segments of a handshake overlap and have different bytes: receivers differ in which they take
// (RFC 9293, 3.10.7.4, leaves it open), so that a sender can show an inspector another handshake.
inline constexpr OwnRisk kConflictingSegments{62, "Conflicting TCP segments", RiskSeverity::high};

// The first payload looks random, as Wu and others, "How the Great Firewall of China Detects and
// Blocks Fully Encrypted Traffic" (USENIX Security 2023), define it. Some versions of nDPI have
// this risk under a number of their own: Engine::fully_encrypted_risk() tells which one to set.
inline constexpr OwnRisk kFullyEncrypted{63, "Fully encrypted flow", RiskSeverity::medium};

inline constexpr std::array kOwnRisks{kForgedClosing, kConflictingSegments, kFullyEncrypted};
inline constexpr unsigned kFirstOwnRisk = 61;

// Null where the bit is nDPI's.
[[nodiscard]] constexpr const OwnRisk* own_risk(unsigned bit) {
  for (const OwnRisk& risk : kOwnRisks)
    if (risk.bit == bit) return &risk;
  return nullptr;
}

}  // namespace l7mark
