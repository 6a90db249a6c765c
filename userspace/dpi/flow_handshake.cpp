// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/flow_handshake.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <utility>

#include "dpi/made_packet.hpp"
#include "handshake/client_hello.hpp"
#include "handshake/dtls_stream.hpp"
#include "handshake/ja4.hpp"
#include "handshake/quic_hello.hpp"
#include "handshake/quic_packet.hpp"
#include "handshake/quic_server_hello.hpp"
#include "handshake/tls_stream.hpp"

namespace l7mark {
namespace {

constexpr int kNobody = -1;
constexpr std::uint8_t kHandshakeRecord = 0x16;
constexpr std::uint8_t kClientHello = 1, kServerHello = 2;
constexpr std::size_t kTlsRecordHeader = 5;
// A side's bytes that are kept once they are not held any more: for a second copy that differs, and
// for what follows a HelloRetryRequest. There may be many such flows.
constexpr std::size_t kMaxKept = 4096;

std::span<const std::uint8_t> payload_of(const HandshakePacket& packet) {
  return packet.packet.subspan(std::min(packet.payload_offset, packet.packet.size()));
}

bool is_cut(const HandshakePacket& packet) {
  return payload_of(packet).size() < packet.payload_length;
}

bool is_dtls(std::span<const std::uint8_t> payload) {
  return payload.size() > 1 && payload[0] == kHandshakeRecord && payload[1] == 0xfe;
}

// A copy that says how long it is: nDPI ignores a packet that is shorter than its header says.
std::vector<std::uint8_t> copy_of(const HandshakePacket& packet) {
  if (is_cut(packet)) {
    const auto headers = headers_of(packet.packet, packet.payload_offset);
    auto shorter = packet_with(headers, packet.protocol, packet.sequence, payload_of(packet));
    if (!shorter.empty()) return shorter;
  }
  return {packet.packet.begin(), packet.packet.end()};
}

// RFC 9000, 17.2: the header form and the fixed bit.
bool is_long_header(std::span<const std::uint8_t> payload) {
  return !payload.empty() && (payload[0] & 0xc0) == 0xc0;
}

std::string joined(const std::vector<std::string>& protocols) {
  std::string out;
  for (const std::string& protocol : protocols) {
    if (!out.empty()) out += ',';
    for (const char c : protocol) out += c < 0x20 || c >= 0x7f ? '?' : c;
  }
  return out;
}

// A record of DTLS (RFC 6347, 4.1 and 4.2.2) with a hello in one fragment, from one with the header
// that TLS has.
std::vector<std::uint8_t> dtls_record(std::span<const std::uint8_t> message) {
  const std::size_t body = message.size() - 4, fragment = body + 12;
  std::vector<std::uint8_t> out{kHandshakeRecord, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0};
  out.push_back(static_cast<std::uint8_t>(fragment >> 8));
  out.push_back(static_cast<std::uint8_t>(fragment));
  out.insert(out.end(), message.begin(), message.begin() + 4);
  out.insert(out.end(), {0, 0, 0, 0, 0});  // number of the message, offset of the fragment
  out.insert(out.end(), message.begin() + 1, message.begin() + 4);
  out.insert(out.end(), message.begin() + 4, message.end());
  return out;
}

}  // namespace

struct FlowHandshake::Tcp {
  TlsStream stream[2];
  bool read[2] = {false, false};    // this side's hello is read, or it has none
  bool passes[2] = {false, false};  // its packets are no longer held
  bool retry = false;               // a second hello is due
  int held = kNobody;               // side whose packets are held

  // A second copy of what was read may differ from it.
  void compare(int side, std::uint32_t sequence, std::span<const std::uint8_t> payload) {
    const auto known = static_cast<std::int64_t>(stream[side].flight_length());
    const std::int64_t offset = static_cast<std::int32_t>(sequence - stream[side].first_sequence());
    if (known == 0 || offset >= known) return;
    const auto most = static_cast<std::size_t>(known - offset);
    stream[side].add(sequence, payload.first(std::min(most, payload.size())));
  }

  void forget(int side) {
    if (held == side || stream[side].kept() <= kMaxKept) return;
    stream[side] = TlsStream();
    read[side] = true;
  }

  // The hello is whole and fills several records.
  [[nodiscard]] bool is_spread(int side) const {
    const auto message = stream[side].message();
    const auto there = stream[side].contiguous();
    return !message.empty() && (std::size_t{there[3]} << 8 | there[4]) < message.size();
  }

  // The same bytes with the hello in one record, as nDPI 4.2 reads it.
  [[nodiscard]] std::vector<std::uint8_t> in_one_record(int side) const {
    const auto message = stream[side].message();
    const auto there = stream[side].contiguous();
    const auto behind = there.subspan(stream[side].flight_length());
    std::vector<std::uint8_t> out(there.begin(), there.begin() + 3);
    out.push_back(static_cast<std::uint8_t>(message.size() >> 8));
    out.push_back(static_cast<std::uint8_t>(message.size()));
    out.insert(out.end(), message.begin(), message.end());
    out.insert(out.end(), behind.begin(), behind.end());
    return out;
  }

  // The beginning of a side's stream, up to the first hole. `padded`: up to the end that its first
  // record states, for nDPI finds a name in a hello that lacks its end. Zeros would not do: they
  // read as extensions of type 0, server names without a name, and nDPI takes the last.
  [[nodiscard]] std::vector<std::uint8_t> bytes(int side, bool padded) const {
    if (!retry && is_spread(side)) return in_one_record(side);
    const auto there = stream[side].contiguous();
    std::vector<std::uint8_t> out(there.begin(), there.end());
    if (padded && out.size() >= kTlsRecordHeader) {
      const std::size_t stated = kTlsRecordHeader + (std::size_t{out[3]} << 8 | out[4]);
      if (stated > out.size()) out.resize(std::min(stated, kHandshakeLimit), 0xff);
    }
    return out;
  }
};

struct FlowHandshake::Dtls {
  DtlsStream stream[2];
  bool read[2] = {false, false};
  int held = kNobody;
  std::vector<std::uint8_t> first;  // packet that is held
};

struct FlowHandshake::Quic {
  QuicHello hello;
  QuicServerHello server;
  std::vector<std::uint8_t> dcid;  // that the server's keys come from
  bool retried = false;            // it is the one of the server's Retry
  int client = kNobody;
  bool passes = false;
  bool answered = false;            // the server's hello is read, or there will be none
  std::vector<std::uint8_t> first;  // packet that is held
};

FlowHandshake::FlowHandshake() = default;
FlowHandshake::~FlowHandshake() = default;
FlowHandshake::FlowHandshake(FlowHandshake&&) noexcept = default;
FlowHandshake& FlowHandshake::operator=(FlowHandshake&&) noexcept = default;

bool FlowHandshake::may_begin(const HandshakePacket& packet, bool has_begin, std::uint32_t begin) {
  const auto payload = payload_of(packet);
  if (payload.empty()) return false;
  if (packet.protocol == IPPROTO_UDP) return is_dtls(payload) || is_long_header(payload);
  if (packet.protocol != IPPROTO_TCP) return false;
  // Not the first segment: what the first is will be seen when it comes.
  const std::uint32_t offset = packet.sequence - begin;
  if (has_begin && offset != 0) return offset < kHandshakeLimit;
  return payload[0] == kHandshakeRecord && (payload.size() < 2 || payload[1] == 3);
}

void FlowHandshake::begin(int direction, std::uint32_t sequence) {
  if (!tcp_) tcp_ = std::make_unique<Tcp>();
  tcp_->stream[direction].begin(sequence);
}

FlowHandshake::Step FlowHandshake::take(const HandshakePacket& packet) {
  if (payload_of(packet).empty()) return Step::as_it_is;
  if (packet.protocol == IPPROTO_TCP) return take_tcp(packet);
  if (quic_ || (!dtls_ && is_long_header(payload_of(packet)))) return take_quic(packet);
  return take_dtls(packet);
}

void FlowHandshake::keep_headers(const HandshakePacket& packet) {
  headers_ = headers_of(packet.packet, packet.payload_offset);
}

FlowHandshake::Step FlowHandshake::take_tcp(const HandshakePacket& packet) {
  if (!tcp_) tcp_ = std::make_unique<Tcp>();
  Tcp& t = *tcp_;
  const int side = packet.direction;
  Step step = Step::as_it_is;
  if (t.held == 1 - side) {
    // It is answered before it is whole: what is missing was not copied.
    made_ = packet_with(headers_, IPPROTO_TCP, t.stream[1 - side].first_sequence(),
                        t.bytes(1 - side, true));
    t.passes[1 - side] = true;
    t.held = kNobody;
    step = Step::released;
  }
  if (t.read[side])
    t.compare(side, packet.sequence, payload_of(packet));
  else
    step = read_tcp(packet, step);
  facts_.conflict = facts_.conflict || t.stream[side].conflict();
  for (const int each : {0, 1}) t.forget(each);
  return step;
}

// A packet of a side whose hello is not whole yet. `step` is what is to be done besides.
FlowHandshake::Step FlowHandshake::read_tcp(const HandshakePacket& packet, Step step) {
  Tcp& t = *tcp_;
  const int side = packet.direction;
  TlsStream& stream = t.stream[side];
  const auto payload = payload_of(packet);
  stream.add(packet.sequence, payload);
  const TlsState state = stream.state();
  const auto there = stream.contiguous();
  // True if nothing of this packet is left to be given.
  const auto covered = [&] {
    const std::uint32_t end =
        packet.sequence + static_cast<std::uint32_t>(payload.size()) - stream.first_sequence();
    return end <= there.size();
  };
  const auto release = [&](bool padded) {
    if (t.held != side) return step;
    made_ = packet_with(headers_, IPPROTO_TCP, stream.first_sequence(), t.bytes(side, padded));
    t.held = kNobody;
    t.passes[side] = true;
    return covered() ? Step::replaced : Step::released;
  };
  if (state == TlsState::not_tls || state == TlsState::overflow) {
    t.read[side] = true;
    return release(false);
  }
  if (state == TlsState::complete) {
    const auto message = stream.message();
    const bool client = message[0] == kClientHello;
    const bool again = t.retry;
    if (client && !again && !t.passes[side] && step == Step::as_it_is && t.held == kNobody &&
        t.is_spread(side)) {
      keep_headers(packet);
      if (!headers_.empty()) t.held = side;
    }
    step = release(false);
    t.passes[side] = true;
    t.read[side] = true;
    if (client) {
      read_client(message, HelloTransport::tls);
    } else {
      const auto hello = parse_server_hello(message);
      read_server(message);
      if (hello && hello->is_retry && !again) {
        // RFC 8446, 4.1.4: both sides say hello once more.
        t.retry = true;
        for (const int each : {0, 1}) {
          t.stream[each].next();
          t.read[each] = t.stream[each].state() == TlsState::not_tls;
        }
      }
    }
    return step;
  }
  if (t.passes[side]) return step;
  // The server's hello is not held: nDPI puts the certificates together by itself.
  if (there.size() > kTlsRecordHeader && there[kTlsRecordHeader] == kServerHello) {
    t.passes[side] = true;
    return release(false);
  }
  if (t.held == kNobody) {
    keep_headers(packet);
    // One packet is made at a time: beside the other side's, this one goes as it is.
    if (headers_.empty() || step == Step::released) {
      t.passes[side] = true;
      return step;
    }
    t.held = side;
  }
  // The part that was left out will not come.
  return is_cut(packet) ? release(true) : Step::hold;
}

FlowHandshake::Step FlowHandshake::take_dtls(const HandshakePacket& packet) {
  if (!dtls_) dtls_ = std::make_unique<Dtls>();
  Dtls& d = *dtls_;
  const int side = packet.direction;
  const auto payload = payload_of(packet);
  if (d.read[side]) return Step::as_it_is;
  DtlsStream& stream = d.stream[side];
  stream.add(payload);
  facts_.conflict = facts_.conflict || stream.conflict();
  const bool held = d.held == side;
  switch (stream.state()) {
    case TlsState::complete: {
      const auto message = stream.message();
      const bool client = message[0] == kClientHello;
      if (client)
        read_client(message, HelloTransport::dtls);
      else
        read_server(message);
      if (held)
        made_ = client ? packet_with(headers_, IPPROTO_UDP, 0, dtls_record(message)) : d.first;
      d.read[side] = true;
      stream = DtlsStream();
      if (!held) return Step::as_it_is;
      d.held = kNobody;
      d.first = {};
      return client ? Step::replaced : Step::released;
    }
    case TlsState::partial:
      if (d.held != kNobody) return Step::hold;
      if (facts_.hello) return Step::as_it_is;  // the server's
      keep_headers(packet);
      d.held = side;
      d.first = copy_of(packet);
      return Step::hold;
    default:
      if (stream.state() == TlsState::overflow) {
        d.read[side] = true;
        stream = DtlsStream();
      }
      // STUN and RTP go on between the fragments; DTLS is an answer, or the end of the hello.
      if (d.held == kNobody || !is_dtls(payload)) return Step::as_it_is;
      made_ = std::exchange(d.first, {});
      d.held = kNobody;
      return Step::released;
  }
}

FlowHandshake::Step FlowHandshake::take_quic(const HandshakePacket& packet) {
  if (!quic_) quic_ = std::make_unique<Quic>();
  Quic& q = *quic_;
  const auto payload = payload_of(packet);
  if (q.client == kNobody) q.client = packet.direction;
  if (packet.direction != q.client) {
    if (!is_long_header(payload)) return q.first.empty() ? Step::as_it_is : Step::hold;
    const auto first = QuicPacketReader(payload).next();
    if (first && first->type == QuicPacketType::retry && !std::exchange(q.retried, true))
      q.dcid.assign(first->scid.begin(), first->scid.end());
    if (awaits_server() && q.server.add(payload, q.dcid)) {
      read_server(q.server.message());
      q.answered = true;
    }
    // nDPI makes nothing of a server's packet before it has seen the client's.
    return q.first.empty() ? Step::as_it_is : Step::hold;
  }
  if (q.passes) return Step::as_it_is;
  const QuicHelloState state = q.hello.add(payload);
  if (state == QuicHelloState::collecting) {
    if (q.first.empty()) q.first = copy_of(packet);
    if (headers_.empty()) keep_headers(packet);
    return Step::hold;
  }
  q.passes = true;
  if (state == QuicHelloState::complete) {
    read_client(q.hello.message(), HelloTransport::quic);
    facts_.conflict = facts_.conflict || q.hello.conflict();
    const auto dcid = q.hello.dcid();
    if (!q.retried) q.dcid.assign(dcid.begin(), dcid.end());
    // nDPI 4.2 does not know version 2.
    const bool plain = q.first.empty() && q.hello.is_plain() && q.hello.version() == kQuicVersion1;
    if (facts_.hello && !plain) {
      if (headers_.empty()) keep_headers(packet);
      made_ = packet_with(headers_, IPPROTO_UDP, 0, q.hello.sealed_initial());
      q.first = {};
    }
    q.hello = QuicHello();
    if (facts_.hello) {
      facts_.version = 0x0304;  // RFC 9001, 4.2: QUIC has no other
      if (plain) return Step::as_it_is;
      if (!made_.empty()) return Step::replaced;
    }
  }
  q.answered = true;
  if (q.first.empty()) return Step::as_it_is;
  made_ = std::exchange(q.first, {});
  return Step::released;
}

std::vector<std::uint8_t> FlowHandshake::give_up() {
  made_.clear();
  if (tcp_ && tcp_->held != kNobody) {
    const int side = std::exchange(tcp_->held, kNobody);
    tcp_->passes[side] = true;
    if (!tcp_->stream[side].contiguous().empty())
      made_ = packet_with(headers_, IPPROTO_TCP, tcp_->stream[side].first_sequence(),
                          tcp_->bytes(side, true));
  } else if (dtls_ && dtls_->held != kNobody) {
    dtls_->held = kNobody;
    made_ = std::exchange(dtls_->first, {});
  } else if (quic_ && !quic_->first.empty()) {
    quic_->passes = true;
    quic_->answered = true;
    made_ = std::exchange(quic_->first, {});
  }
  return take_made();
}

bool FlowHandshake::holds() const {
  return (tcp_ && tcp_->held != kNobody) || (dtls_ && dtls_->held != kNobody) ||
         (quic_ && !quic_->first.empty());
}

bool FlowHandshake::awaits_server() const {
  return quic_ && facts_.hello && !quic_->answered;
}

void FlowHandshake::read_client(std::span<const std::uint8_t> message, HelloTransport transport) {
  const auto hello = parse_client_hello(message, transport);
  if (!hello) return;
  if (facts_.server_name.empty()) facts_.server_name = hello->server_name;
  if (facts_.hello) return;  // after a HelloRetryRequest: the fingerprint is that of the first
  facts_.hello = true;
  facts_.alpn = joined(hello->alpn);
  facts_.ja4 = ja4_of(*hello, transport);
  facts_.ech = hello->ech;
}

void FlowHandshake::read_server(std::span<const std::uint8_t> message) {
  const auto hello = parse_server_hello(message);
  if (!hello) return;
  facts_.version = hello->version;
  facts_.cipher = hello->cipher;
}

}  // namespace l7mark
