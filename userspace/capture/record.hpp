// SPDX-License-Identifier: GPL-2.0-only
// A flow as people and programs read it: one JSON object, or a row of a table. `l7mark classify`
// and the daemon's event stream use the same keys.
#pragma once

#include <l7mark/types.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "dpi/engine.hpp"
#include "flow.hpp"
#include "policy/catalog.hpp"

namespace l7mark {

// Names for the numbers in an answer. Copied out of an Engine once, so that a process without one
// can write records too.
struct RecordNames {
  Catalog catalog;

  [[nodiscard]] static RecordNames of(const Engine& engine);
};

// What a record tells besides the answer.
struct RecordContext {
  std::string capture;     // file name in `classify`; empty elsewhere
  std::string class_name;  // empty for none
  Source source = Source::none;
  l7m_counters count{};  // by endpoint of the answer's key
  std::uint32_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
};

// Keys `capture` (where there is one), proto, src, sport, dst, dport, ndpi, application, master,
// category, source, confidence, hostname, risks, class, packets, bytes, sampled_packets,
// sampled_bytes, state, midstream; then, only where known: risk_score, risk_details, tls, http,
// dns, bittorrent.
[[nodiscard]] nlohmann::ordered_json to_json(const Answer& answer, const RecordContext& context,
                                             const RecordNames& names);

// One line without a newline. Bytes that are no UTF-8 are replaced.
[[nodiscard]] std::string to_json_line(const Answer& answer, const RecordContext& context,
                                       const RecordNames& names);

[[nodiscard]] std::string table_header();
[[nodiscard]] std::string to_table_row(const Answer& answer, const RecordContext& context,
                                       const RecordNames& names);

}  // namespace l7mark
