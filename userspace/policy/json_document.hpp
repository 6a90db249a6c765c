// SPDX-License-Identifier: GPL-2.0-only
// JSON with comments as a tree whose values know where in the file they stand; nlohmann's own tree
// does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

struct JsonNode {
  enum class Kind : std::uint8_t { null, boolean, integer, real, string, list, object };

  Kind kind = Kind::null;
  bool boolean = false;
  bool negative = false;       // of an integer: `number` is its absolute value
  std::uint64_t number = 0;    // of an integer
  std::string text;            // of a string
  std::string key;             // in the object that holds it
  std::size_t index = 0;       // in the list that holds it
  std::size_t offset = 0;      // of its first byte in the file
  std::size_t key_offset = 0;  // of its key's first byte
  const JsonNode* parent = nullptr;
  std::vector<JsonNode*> children;  // in the file's order; owned by the document

  [[nodiscard]] const JsonNode* find(std::string_view wanted) const;
};

class JsonDocument {
 public:
  // Fails on malformed text, on a key given twice, and on nesting beyond 32 levels. The text is
  // copied.
  [[nodiscard]] static Result<JsonDocument> parse(std::string_view text, const std::string& file);

  [[nodiscard]] const JsonNode& root() const { return nodes_.front(); }

  // "FILE:LINE:COLUMN", both from 1; a column is a character, not a byte.
  [[nodiscard]] std::string place(std::size_t offset) const;
  // Like "classes[2].match.applications[0]"; empty for the root.
  [[nodiscard]] static std::string path(const JsonNode& node);
  // A policy error at a byte of the file.
  [[nodiscard]] Error error(std::size_t offset, std::string_view detail) const;

 private:
  class Builder;

  std::string text_;
  std::string file_;
  std::deque<JsonNode> nodes_;  // pointers into it stay valid when the document is moved
};

}  // namespace l7mark
