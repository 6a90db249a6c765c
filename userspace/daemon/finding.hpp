// SPDX-License-Identifier: GPL-2.0-only
// What nDPI found in a flow. A gateway sees the same clients talk to the same servers all day, so
// flows with the same finding share one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "flow.hpp"

namespace l7mark {

// The texts are packed into one: a flow without any costs none of them.
struct Finding {
  std::uint64_t risks = 0;
  const std::string* name = nullptr;  // interned: "TLS.Zoom"; null where nothing is known
  std::uint32_t risk_score = 0;
  std::uint16_t application = 0;
  std::uint16_t master = 0;
  std::uint16_t category = 0;
  Confidence confidence = Confidence::none;
  Detector detector = Detector::none;
  std::string texts;  // host name and FlowDetails, as pack_texts() writes them

  [[nodiscard]] std::string hostname() const;
  // Fills application, risks, host name, details and what else is in here.
  void tell(FlowFacts& facts) const;

  friend bool operator==(const Finding&, const Finding&) = default;
};

[[nodiscard]] std::string pack_texts(const FlowFacts& facts);

struct FindingHash {
  // Not noexcept: a table then keeps the hashes instead of reckoning them anew.
  std::size_t operator()(const Finding& finding) const;
};

// Keeps every finding once, as long as a flow refers to it.
class FindingTable {
 public:
  FindingTable() = default;
  FindingTable(const FindingTable&) = delete;
  FindingTable& operator=(const FindingTable&) = delete;

  // One reference more; give it back by release(). The pointer is good until then.
  [[nodiscard]] const Finding* share(Finding&& finding);
  void share(const Finding* finding);  // of this table
  void release(const Finding* finding);
  [[nodiscard]] std::size_t size() const { return findings_.size(); }

 private:
  std::unordered_map<Finding, std::uint32_t, FindingHash> findings_;  // with its references
};

}  // namespace l7mark
