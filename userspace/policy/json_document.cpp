// SPDX-License-Identifier: GPL-2.0-only
#include "policy/json_document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace l7mark {

namespace {

constexpr std::size_t kDeepest = 32;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Offset of the next token at or behind `at`: past white space, comments, commas and colons.
// A comment without an end counts as a token, which no parser takes.
std::size_t skip_to_token(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    if (rest.starts_with("//")) {
      at = std::min(text.find_first_of("\r\n", at), text.size());
    } else if (rest.starts_with("/*")) {
      const auto end = text.find("*/", at + 2);
      if (end == std::string_view::npos) break;
      at = end + 2;
    } else if (std::string_view(" \t\r\n,:").find(rest.front()) != std::string_view::npos) {
      ++at;
    } else {
      break;
    }
  }
  return at;
}

// End of the token that begins at `at`, which the parser has found to be well formed.
std::size_t end_of_token(std::string_view text, std::size_t at) {
  if (text[at] == '"') {
    for (++at; at < text.size() && text[at] != '"'; ++at)
      if (text[at] == '\\') ++at;
    return std::min(at + 1, text.size());
  }
  if (std::string_view("{}[]").find(text[at]) != std::string_view::npos) return at + 1;
  return std::min(text.find_first_of(" \t\r\n,:]}/", at), text.size());
}

// nlohmann's message without its own position and without the text that it had read last.
std::string plain_message(std::string message) {
  if (const auto at = message.find("syntax error"); at != std::string::npos) message.erase(0, at);
  if (const auto last = message.find("; last read: "); last != std::string::npos) {
    const auto expected = message.rfind("; expected");
    const bool behind = expected != std::string::npos && expected > last;
    message.erase(last, behind ? expected - last : std::string::npos);
  }
  return message;
}

// A file's own text in a message must neither break its line nor reach a terminal as a command.
std::string without_controls(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return out;
}

}  // namespace

const JsonNode* JsonNode::find(std::string_view wanted) const {
  for (const JsonNode* child : children)
    if (child->key == wanted) return child;
  return nullptr;
}

// Takes nlohmann's events, which come without positions, and finds each token again in the text.
class JsonDocument::Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(JsonDocument& document) : document_(document) {
    if (document_.text_.starts_with(kByteOrderMark)) end_ = kByteOrderMark.size();
  }

  bool null() override { return add(JsonNode::Kind::null) != nullptr; }
  bool boolean(bool value) override {
    add(JsonNode::Kind::boolean)->boolean = value;
    return true;
  }
  bool number_integer(number_integer_t value) override {
    JsonNode* node = add(JsonNode::Kind::integer);
    node->negative = value < 0;
    node->number =
        value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    add(JsonNode::Kind::integer)->number = value;
    return true;
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return add(JsonNode::Kind::real) != nullptr;
  }
  bool string(string_t& value) override {
    add(JsonNode::Kind::string)->text = std::move(value);
    return true;
  }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*elements*/) override { return open(JsonNode::Kind::object); }
  bool start_array(std::size_t /*elements*/) override { return open(JsonNode::Kind::list); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    key_offset_ = take_token();
    if (open_.back()->find(value) != nullptr) {
      error_ = document_.error(key_offset_, fmt::format("key \"{}\" is given twice", value));
      return false;
    }
    key_ = std::move(value);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const nlohmann::detail::exception& exception) override {
    // The parser's position is the end of the token that it could not take.
    const std::size_t last = position > 0 ? position - 1 : 0;
    error_ = document_.error(std::min(skip_to_token(document_.text_, end_), last),
                             plain_message(exception.what()));
    return false;
  }

  std::optional<Error> take_error() { return std::move(error_); }

 private:
  std::size_t take_token() {
    const std::size_t begin = skip_to_token(document_.text_, end_);
    end_ = end_of_token(document_.text_, begin);
    return begin;
  }

  JsonNode* add(JsonNode::Kind kind) {
    JsonNode& node = document_.nodes_.emplace_back();
    node.kind = kind;
    node.offset = take_token();
    node.key_offset = node.offset;
    if (!open_.empty()) {
      JsonNode* parent = open_.back();
      node.parent = parent;
      node.index = parent->children.size();
      if (parent->kind == JsonNode::Kind::object) {
        node.key = std::move(key_);
        node.key_offset = key_offset_;
      }
      parent->children.push_back(&node);
    }
    return &node;
  }

  bool open(JsonNode::Kind kind) {
    JsonNode* node = add(kind);
    open_.push_back(node);
    if (open_.size() <= kDeepest) return true;
    error_ = document_.error(node->offset, fmt::format("nested deeper than {} levels", kDeepest));
    return false;
  }

  bool close() {
    take_token();
    open_.pop_back();
    return true;
  }

  JsonDocument& document_;
  std::size_t end_ = 0;  // of the last token taken
  std::string key_;
  std::size_t key_offset_ = 0;
  std::vector<JsonNode*> open_;
  std::optional<Error> error_;
};

Result<JsonDocument> JsonDocument::parse(std::string_view text, const std::string& file) {
  JsonDocument document;
  document.text_ = text;
  document.file_ = file;
  Builder builder(document);
  bool ok = false;
  try {
    ok = nlohmann::json::sax_parse(document.text_.begin(), document.text_.end(), &builder,
                                   nlohmann::json::input_format_t::json, true, true);
  } catch (const std::exception& exception) {
    return document.error(0, exception.what());
  }
  if (auto error = builder.take_error()) return *error;
  if (!ok || document.nodes_.empty()) return document.error(0, "no JSON value");
  return document;
}

std::string JsonDocument::place(std::size_t offset) const {
  const std::string_view before = std::string_view(text_).substr(0, offset);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const auto line_start = before.rfind('\n') + 1;  // npos + 1 is 0
  const auto in_line = before.substr(line_start);
  const auto column =
      std::count_if(in_line.begin(), in_line.end(), [](char c) { return (c & 0xc0) != 0x80; }) + 1;
  return fmt::format("{}:{}:{}", file_, line, column);
}

std::string JsonDocument::path(const JsonNode& node) {
  if (node.parent == nullptr) return {};
  const std::string above = path(*node.parent);
  if (node.parent->kind == JsonNode::Kind::list) return fmt::format("{}[{}]", above, node.index);
  return above.empty() ? node.key : above + "." + node.key;
}

Error JsonDocument::error(std::size_t offset, std::string_view detail) const {
  return Error{"read policy", place(offset), 0, without_controls(detail)};
}

}  // namespace l7mark
