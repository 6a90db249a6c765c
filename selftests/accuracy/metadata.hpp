// SPDX-License-Identifier: GPL-2.0-only
// The metadata of a flow besides its name: from l7mark's record, from what `ndpiReader -I -v 2`
// prints, and how the two compare.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace l7mark {

struct Metadata {
  // By kind: "host name", "JA3", "ALPN", "cipher"; those that the flow has.
  std::map<std::string, std::string> texts;
  std::set<std::string> risks;
};

[[nodiscard]] Metadata metadata_of(const nlohmann::json& record);

// By flow_key(). 4.2 writes no JSON, and its CSV has neither risks nor ciphers: its text is read.
[[nodiscard]] std::map<std::string, Metadata> read_reader(std::string_view text);

// One kind of metadata, over the flows for which ndpiReader has it (for risks: either of the two).
struct MetadataTally {
  std::uint64_t flows = 0, equal = 0, lacking = 0, other = 0;
  std::uint64_t more = 0;  // flows that l7mark alone has it of; not among `flows`
};

struct MetadataSummary {
  std::map<std::string, MetadataTally> kinds;
  std::map<std::string, std::uint64_t> risks;  // by "without NAME" and "with NAME": flows
};

// Adds the flow to `out`, and a line to `lines` for each difference.
void compare_metadata(const std::string& flow, const Metadata& reader, const Metadata& mine,
                      MetadataSummary& out, std::vector<std::string>& lines);

// The table; false if a kind is equal in less than `minimum` percent of its flows.
[[nodiscard]] bool print_metadata(const MetadataSummary& summary, double minimum);

}  // namespace l7mark
