// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/message.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace l7mark {

namespace {

enum class Tag : std::uint8_t { answer = 1, dns = 2, reopened = 3, ready = 4 };

// No name or fingerprint that nDPI keeps is longer; what is, was made to be.
constexpr std::size_t kMaxText = 2048;
constexpr std::size_t kMaxAddresses = 64;

template <class T>
void put(std::vector<std::byte>& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto* from = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), from, from + sizeof(value));
}

void put_text(std::vector<std::byte>& out, std::string_view text) {
  text = text.substr(0, kMaxText);
  put(out, static_cast<std::uint16_t>(text.size()));
  const auto* from = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), from, from + text.size());
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::span<const std::byte> left() const { return left_; }

  template <class T>
  T get() {
    T value{};
    if (left_.size() < sizeof(value)) {
      failed_ = true;
      left_ = {};
      return value;
    }
    std::memcpy(&value, left_.data(), sizeof(value));
    left_ = left_.subspan(sizeof(value));
    return value;
  }

  void text(std::string& out) {
    const std::size_t size = get<std::uint16_t>();
    out.clear();
    if (size > kMaxText || size > left_.size()) {
      failed_ = true;
      left_ = {};
      return;
    }
    out.assign(reinterpret_cast<const char*>(left_.data()), size);
    left_ = left_.subspan(size);
  }

 private:
  std::span<const std::byte> left_;
  bool failed_ = false;
};

// One list of the fields for both directions, so that they cannot drift apart.
template <class Archive, class FactsRef>
void facts_fields(Archive& io, FactsRef& f) {
  io(f.client);
  io(f.server);
  io(f.client_port);
  io(f.server_port);
  io(f.protocol);
  io(f.midstream);
  io(f.application);
  io(f.master);
  io(f.category);
  io(f.confidence);
  io(f.risks);
  io(f.risk_score);
  io(f.detector);
  io(f.hostname);
  io(f.details.alpn);
  io(f.details.ja3_client);
  io(f.details.ja3_server);
  io(f.details.ja4_client);
  io(f.details.tls_cipher);
  io(f.details.tls_subject);
  io(f.details.tls_issuer);
  io(f.details.user_agent);
  io(f.details.http_url);
  io(f.details.dns_query);
  io(f.details.bittorrent_hash);
  io(f.details.address_owner);
  io(f.details.tls_version);
  io(f.details.tls_cipher_id);
  io(f.details.tls_not_before);
  io(f.details.tls_not_after);
  io(f.details.ech);
  io(f.ifindex);
  io(f.vlan);
  io(f.client_mac);
}

template <class Archive, class AnswerRef>
void answer_fields(Archive& io, AnswerRef& a) {
  io(a.key.raw);
  io(a.id);
  io(a.initiator);
  io(a.state);
  io(a.closed);
  io(a.followed);
  io(a.flags);
  facts_fields(io, a.facts);
  io(a.sampled_packets);
  io(a.sampled_bytes);
  io(a.count);
  io(a.first_ns);
  io(a.last_ns);
  io(a.name);
}

// An answer has thirty fields: its size first, then all of it into one piece of memory.
struct Size {
  std::size_t bytes = 0;
  template <class T>
  void operator()(const T& value) {
    bytes += sizeof(value);
  }
  void operator()(const std::string& value) {
    bytes += sizeof(std::uint16_t) + std::min(value.size(), kMaxText);
  }
};

struct Output {
  std::byte* at;
  template <class T>
  void operator()(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(at, &value, sizeof(value));
    at += sizeof(value);
  }
  void operator()(const std::string& value) {
    const auto size = static_cast<std::uint16_t>(std::min(value.size(), kMaxText));
    (*this)(size);
    std::memcpy(at, value.data(), size);
    at += size;
  }
};

struct Input {
  Reader& in;
  template <class T>
  void operator()(T& value) {
    value = in.get<T>();
  }
  void operator()(std::string& value) { in.text(value); }
  // A bool of another byte than 0 and 1, or a value that an enumeration lacks, must not get in.
  void operator()(bool& value) { value = in.get<std::uint8_t>() != 0; }
  void operator()(FlowState& value) {
    const auto raw = in.get<std::uint8_t>();
    value = raw < L7M_STATES ? static_cast<FlowState>(raw) : FlowState::undecided;
  }
  void operator()(Confidence& value) {
    const auto raw = in.get<std::uint8_t>();
    value = raw < kConfidences ? static_cast<Confidence>(raw) : Confidence::none;
  }
  void operator()(Detector& value) {
    const auto raw = in.get<std::uint8_t>();
    value = raw < kDetectors ? static_cast<Detector>(raw) : Detector::none;
  }
  void operator()(std::uint8_t (&value)[6]) {
    for (std::uint8_t& byte : value) byte = in.get<std::uint8_t>();
  }
};

}  // namespace

void MessageWriter::add(const Answer& answer) {
  Size size;
  answer_fields(size, answer);
  const std::size_t before = bytes_.size();
  bytes_.resize(before + sizeof(Tag) + size.bytes);
  Output output{bytes_.data() + before};
  output(Tag::answer);
  answer_fields(output, answer);
}

void MessageWriter::add(const DnsHint& hint) {
  put(bytes_, Tag::dns);
  put(bytes_, hint.answer.client);
  put(bytes_, hint.answer.client_mac);
  put(bytes_, hint.answer.ifindex);
  put_text(bytes_, hint.answer.name);
  put(bytes_, hint.answer.ttl);
  put(bytes_, hint.application);
  const std::size_t count = std::min(hint.answer.addresses.size(), kMaxAddresses);
  put(bytes_, static_cast<std::uint16_t>(count));
  for (std::size_t i = 0; i < count; ++i) put(bytes_, hint.answer.addresses[i]);
}

void MessageWriter::add(const Reopened& reopened) {
  put(bytes_, Tag::reopened);
  put(bytes_, reopened.key.raw);
  put(bytes_, reopened.id);
  put(bytes_, reopened.count);
  put(bytes_, static_cast<std::uint8_t>(reopened.again));
}

void MessageWriter::add(const Ready& ready) {
  put(bytes_, Tag::ready);
  put_text(bytes_, ready.ndpi_version);
}

bool MessageReader::read_one(Message& out) {
  Reader in(left_);
  Input input{in};
  switch (in.get<Tag>()) {
    case Tag::answer: {
      // What was there is an answer nearly always: its texts' memory serves again.
      Answer* answer = std::get_if<Answer>(&out);
      if (answer == nullptr) answer = &out.emplace<Answer>();
      answer_fields(input, *answer);
      answer->initiator &= 1;
      break;
    }
    case Tag::dns: {
      auto& hint = out.emplace<DnsHint>();
      hint.answer.client = in.get<Address>();
      hint.answer.client_mac = in.get<std::array<std::uint8_t, 6>>();
      hint.answer.ifindex = in.get<std::uint32_t>();
      in.text(hint.answer.name);
      hint.answer.ttl = in.get<std::uint32_t>();
      hint.application = in.get<std::uint16_t>();
      const std::size_t count = in.get<std::uint16_t>();
      if (count > kMaxAddresses) return false;
      for (std::size_t i = 0; i < count && !in.failed(); ++i)
        hint.answer.addresses.push_back(in.get<Address>());
      break;
    }
    case Tag::reopened: {
      auto& reopened = out.emplace<Reopened>();
      reopened.key.raw = in.get<l7m_key>();
      reopened.id = in.get<std::uint64_t>();
      reopened.count = in.get<l7m_counters>();
      reopened.again = in.get<std::uint8_t>() != 0;
      break;
    }
    case Tag::ready:
      in.text(out.emplace<Ready>().ndpi_version);
      break;
    default:
      return false;
  }
  left_ = in.left();
  return !in.failed();
}

std::size_t MessageReader::read(std::span<Message> out) {
  std::size_t count = 0;
  while (count < out.size() && !left_.empty() && !malformed_) {
    malformed_ = !read_one(out[count]);
    if (!malformed_) ++count;
  }
  return count;
}

}  // namespace l7mark
