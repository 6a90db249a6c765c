// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/dns.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace l7mark {
namespace {

constexpr std::size_t kHeader = 12;
constexpr std::size_t kMaxRecords = 128;  // looked at in one message
constexpr std::size_t kMaxName = 255;     // RFC 1035, 2.3.4
constexpr int kMaxPointers = 32;          // followed within one name
constexpr int kMaxAliases = 16;           // in a chain of CNAME records

constexpr std::uint16_t kTypeA = 1;
constexpr std::uint16_t kTypeCname = 5;
constexpr std::uint16_t kTypeAaaa = 28;
constexpr std::uint16_t kClassInternet = 1;

using Message = std::span<const std::uint8_t>;

// Reads forward through a message; once anything lies beyond its end, `ok` stays false.
struct Reader {
  Message message;
  std::size_t at = 0;
  bool ok = true;

  bool need(std::size_t count) {
    if (message.size() - at < count) ok = false;
    return ok;
  }
  std::uint16_t u16() {
    if (!need(2)) return 0;
    const auto value = static_cast<std::uint16_t>(message[at] << 8 | message[at + 1]);
    at += 2;
    return value;
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }

  // A name in lower case without the last dot; pointers lead backwards only, so they can't loop.
  std::string name() {
    std::string out;
    std::size_t pos = at;
    std::size_t earliest = at;
    int pointers = 0;
    bool jumped = false;
    while (ok) {
      if (pos >= message.size()) break;
      const std::uint8_t length = message[pos];
      if ((length & 0xc0) == 0xc0) {
        if (pos + 1 >= message.size() || ++pointers > kMaxPointers) break;
        const std::size_t target = (length & 0x3fU) << 8 | message[pos + 1];
        if (!jumped) at = pos + 2;
        jumped = true;
        if (target >= earliest) break;
        earliest = pos = target;
        continue;
      }
      if ((length & 0xc0) != 0) break;
      if (length == 0) {
        if (!jumped) at = pos + 1;
        return out;
      }
      if (message.size() - pos - 1 < length || out.size() + length + 1 > kMaxName) break;
      if (!out.empty()) out += '.';
      for (std::size_t i = 1; i <= length; ++i) {
        const char c = static_cast<char>(message[pos + i]);
        const bool printable = c > 0x20 && c < 0x7f;
        out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : printable ? c : '?';
      }
      pos += length + 1U;
    }
    ok = false;
    return {};
  }
};

struct Record {
  std::string owner;
  std::uint16_t type = 0;
  std::uint32_t ttl = 0;
  std::string target;  // of a CNAME
  Address address;     // of an A or AAAA
};

// Reads one resource record; other types come back as type 0.
Record read_record(Reader& reader) {
  Record record;
  record.owner = reader.name();
  const std::uint16_t type = reader.u16();
  const std::uint16_t klass = reader.u16();
  record.ttl = reader.u32();
  // RFC 2181, 8: a TTL with the top bit set counts as zero.
  if (record.ttl > 0x7fffffff) record.ttl = 0;
  const std::size_t length = reader.u16();
  if (!reader.need(length)) return record;
  const std::size_t next = reader.at + length;
  if (klass == kClassInternet) {
    if (type == kTypeA && length == 4) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, reader.message.data() + reader.at, sizeof(bits));
      record.address = Address::v4(bits);
      record.type = type;
    } else if (type == kTypeAaaa && length == 16) {
      std::memcpy(record.address.bytes.data(), reader.message.data() + reader.at, 16);
      record.type = type;
    } else if (type == kTypeCname) {
      record.target = reader.name();
      record.type = type;
      if (reader.at > next) reader.ok = false;
    }
  }
  reader.at = next;
  return record;
}

}  // namespace

std::optional<DnsKind> dns_kind(Message message) {
  if (message.size() < kHeader) return std::nullopt;
  const auto opcode = (message[2] >> 3) & 0x0f;
  const auto questions = message[4] << 8 | message[5];
  if (opcode != 0 || questions > 1) return std::nullopt;
  return (message[2] & 0x80) != 0 ? DnsKind::response : DnsKind::query;
}

std::optional<DnsQuestion> parse_dns_question(Message message) {
  if (!dns_kind(message) || (message[4] << 8 | message[5]) != 1) return std::nullopt;
  Reader reader{message, kHeader};
  DnsQuestion out;
  out.id = static_cast<std::uint16_t>(message[0] << 8 | message[1]);
  out.name = reader.name();
  out.type = reader.u16();
  const std::uint16_t klass = reader.u16();
  if (!reader.ok || klass != kClassInternet) return std::nullopt;
  return out;
}

void DnsQuestions::ask(DnsQuestion question, std::uint8_t direction) {
  for (const Asked& asked : asked_)
    if (asked.direction == direction && asked.question == question) return;
  if (asked_.size() == kDnsMaxQuestions) asked_.erase(asked_.begin());
  asked_.push_back({std::move(question), direction});
}

bool DnsQuestions::answer(const DnsQuestion& question, std::uint8_t direction) {
  const auto found = std::find_if(asked_.begin(), asked_.end(), [&](const Asked& asked) {
    return asked.direction != direction && asked.question == question;
  });
  if (found == asked_.end()) return false;
  asked_.erase(found);
  return true;
}

std::optional<DnsAnswer> parse_dns_answer(Message message) {
  if (dns_kind(message) != DnsKind::response) return std::nullopt;
  const bool truncated = (message[2] & 0x02) != 0;
  const bool error = (message[3] & 0x0f) != 0;
  const auto questions = message[4] << 8 | message[5];
  if (truncated || error || questions != 1) return std::nullopt;
  const std::size_t answers =
      std::min<std::size_t>(static_cast<std::size_t>(message[6] << 8 | message[7]), kMaxRecords);

  Reader reader{message, kHeader};
  DnsAnswer out;
  out.name = reader.name();
  reader.u16();
  const std::uint16_t klass = reader.u16();
  if (!reader.ok || klass != kClassInternet || out.name.empty()) return std::nullopt;

  std::vector<Record> records;
  for (std::size_t i = 0; i < answers; ++i) {
    Record record = read_record(reader);
    if (!reader.ok) return std::nullopt;
    if (record.type != 0) records.push_back(std::move(record));
  }

  // The name's aliases, in whatever order the records came.
  std::vector<std::string> names{out.name};
  std::uint32_t ttl = 0x7fffffff;
  for (std::size_t i = 0; i < names.size() && i < kMaxAliases; ++i) {
    for (const Record& record : records) {
      if (record.type != kTypeCname || record.owner != names[i]) continue;
      if (std::find(names.begin(), names.end(), record.target) != names.end()) continue;
      names.push_back(record.target);
      ttl = std::min(ttl, record.ttl);
      break;
    }
  }
  for (const Record& record : records) {
    if (record.type == kTypeCname || out.addresses.size() == kDnsMaxAddresses) continue;
    if (std::find(names.begin(), names.end(), record.owner) == names.end()) continue;
    out.addresses.push_back(record.address);
    ttl = std::min(ttl, record.ttl);
  }
  if (out.addresses.empty()) return std::nullopt;
  out.ttl = ttl;
  return out;
}

}  // namespace l7mark
