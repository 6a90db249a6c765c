// SPDX-License-Identifier: GPL-2.0-only
#include "flow_row.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace l7mark {

namespace {

constexpr auto kRow = "{:<6} {:<40} {:<40} {:<22} {:<12} {:<11} {:>9} {:>12} {}";

std::string endpoint(const nlohmann::ordered_json& record, const char* address, const char* port) {
  const auto text = record.value(address, "");
  const int number = record.value(port, 0);
  return text.find(':') == std::string::npos ? fmt::format("{}:{}", text, number)
                                             : fmt::format("[{}]:{}", text, number);
}

}  // namespace

std::string flow_row_header() {
  return fmt::format(kRow, "PROTO", "FROM", "TO", "APPLICATION", "CLASS", "STATE", "PACKETS",
                     "BYTES", "NAME");
}

std::string flow_row(const nlohmann::ordered_json& record) {
  const auto name = record.value("class", "");
  return fmt::format(kRow, record.value("proto", ""), endpoint(record, "src", "sport"),
                     endpoint(record, "dst", "dport"), record.value("ndpi", ""),
                     name.empty() ? "-" : name, record.value("state", ""),
                     record.value("packets", 0ULL), record.value("bytes", 0ULL),
                     record.value("hostname", ""));
}

}  // namespace l7mark
