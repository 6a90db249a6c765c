// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/finding.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include "util/keyed_hash.hpp"

namespace l7mark {

namespace {

// One list of the texts for both directions; the host name comes first.
template <class Archive, class Facts>
void each_text(Archive& io, Facts& f) {
  io(f.hostname);
  auto& d = f.details;
  io(d.alpn);
  io(d.ja3_client);
  io(d.ja3_server);
  io(d.ja4_client);
  io(d.tls_cipher);
  io(d.tls_subject);
  io(d.tls_issuer);
  io(d.user_agent);
  io(d.http_url);
  io(d.dns_query);
  io(d.bittorrent_hash);
  io(d.address_owner);
}

template <class Archive, class Details>
void each_number(Archive& io, Details& d) {
  io(d.tls_version);
  io(d.tls_cipher_id);
  io(d.tls_not_before);
  io(d.tls_not_after);
  io(d.ech);
}

// Texts are a length of 16 bits each, and their bytes. Numbers follow where one is not 0; empty
// texts at the end are left out if no number follows.
struct Pack {
  std::string out;
  std::size_t used = 0;  // up to the last thing that is not empty

  void operator()(const std::string& text) {
    const auto size = static_cast<std::uint16_t>(std::min<std::size_t>(text.size(), 0xffff));
    put(size);
    out.append(text, 0, size);
    if (size > 0) used = out.size();
  }
  template <class T>
  requires std::is_integral_v<T>
  void operator()(const T& value) {
    put(value);
    if (value != 0) used = out.size();
  }
  template <class T>
  void put(const T& value) {
    char bytes[sizeof(value)];
    std::memcpy(bytes, &value, sizeof(value));
    out.append(bytes, sizeof(value));
  }
};

struct Unpack {
  std::string_view left;

  void operator()(std::string& text) {
    std::uint16_t size = 0;
    get(size);
    text = left.substr(0, size);
    left.remove_prefix(text.size());
  }
  template <class T>
  requires std::is_integral_v<T>
  void operator()(T& value) { get(value); }
  template <class T>
  void get(T& value) {
    value = 0;
    if (left.size() < sizeof(value)) return;
    std::memcpy(&value, left.data(), sizeof(value));
    left.remove_prefix(sizeof(value));
  }
};

}  // namespace

std::string pack_texts(const FlowFacts& facts) {
  Pack pack;
  each_text(pack, facts);
  each_number(pack, facts.details);
  pack.out.resize(pack.used);
  pack.out.shrink_to_fit();
  return std::move(pack.out);
}

std::string Finding::hostname() const {
  std::string out;
  Unpack unpack{texts};
  unpack(out);
  return out;
}

void Finding::tell(FlowFacts& facts) const {
  facts.application = application;
  facts.master = master;
  facts.category = category;
  facts.confidence = confidence;
  facts.risks = risks;
  facts.risk_score = risk_score;
  facts.detector = detector;
  if (texts.empty()) return;
  Unpack unpack{texts};
  each_text(unpack, facts);
  each_number(unpack, facts.details);
}

std::size_t FindingHash::operator()(const Finding& finding) const {
  return keyed_hash(
      {keyed_hash(finding.texts), finding.risks,
       std::uint64_t{finding.risk_score} << 32 | static_cast<std::uint8_t>(finding.confidence),
       std::uint64_t{finding.application} << 32 | std::uint64_t{finding.master} << 16 |
           finding.category,
       std::uint64_t{static_cast<std::uint8_t>(finding.detector)}});
}

const Finding* FindingTable::share(Finding&& finding) {
  const auto place = findings_.try_emplace(std::move(finding), 0U).first;
  ++place->second;
  return &place->first;
}

void FindingTable::share(const Finding* finding) {
  const auto place = findings_.find(*finding);
  if (place != findings_.end()) ++place->second;
}

void FindingTable::release(const Finding* finding) {
  const auto place = findings_.find(*finding);
  if (place != findings_.end() && --place->second == 0) findings_.erase(place);
}

}  // namespace l7mark
