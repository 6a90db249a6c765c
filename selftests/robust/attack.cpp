// SPDX-License-Identifier: GPL-2.0-only
#include "attack.hpp"

#include <algorithm>
#include <array>

#include "collide.hpp"
#include "unit/packets.hpp"

namespace l7mark::robust {

namespace {

const Address kSink4 = *Address::parse("198.51.100.64");      // and 63 more: nobody answers
const Address kSink6 = *Address::parse("2001:db8:5:ffff::");  // likewise
const Address kClientSink4 = *Address::parse("10.77.1.66");
const Address kClientSink6 = *Address::parse("fd77:1::66");
const Address kNeighbours4 = *Address::parse("10.77.128.0");  // and all of 10.77.128.0/17
const Address kNeighbours6 = *Address::parse("fd77:2::");
const Address kStrangers4 = *Address::parse("192.0.2.0");
const Address kStrangers6 = *Address::parse("2001:db8:bad::");
const Address kScanner4 = *Address::parse("10.77.1.77");
const Address kScanner6 = *Address::parse("fd77:1::77");
const Address kResolver4 = *Address::parse("198.51.100.53");
const Address kResolver6 = *Address::parse("2001:db8:5::53");

constexpr const char* kRequest = " HTTP/1.1\r\nHost: ";

std::uint16_t any_port(Random& random) {
  return static_cast<std::uint16_t>(1 + random.below(65535));
}

// Two addresses that nobody has, by which a packet of this side goes through the gateway.
struct Ends {
  Address from, to;
};

Ends strangers(Side side, bool v4, Random& random) {
  Ends out;
  const std::uint32_t bits = random.next();
  if (side == Side::lan) {
    out.from = v4 ? kNeighbours4 : kNeighbours6;
    out.to = v4 ? kSink4 : kSink6;
    if (v4) {
      out.from.bytes[14] |= static_cast<std::uint8_t>(bits >> 8 & 0x7f);
      out.to.bytes[15] |= static_cast<std::uint8_t>(bits >> 16 & 0x3f);
    } else {
      out.to.bytes[15] = static_cast<std::uint8_t>(bits >> 16);
    }
  } else {
    out.from = v4 ? kStrangers4 : kStrangers6;
    out.to = v4 ? kClientSink4 : kClientSink6;
  }
  out.from.bytes[15] = static_cast<std::uint8_t>(bits);
  if (!v4) {
    const std::uint32_t more = random.next();
    std::memcpy(&out.from.bytes[8], &more, sizeof(more));  // another /64 is another source
    std::memcpy(&out.from.bytes[6], &more, 2);
  }
  return out;
}

class Flood : public Attack {
 public:
  explicit Flood(Side side) : side_(side) {}

 protected:
  // Every second packet is of IPv6.
  Ends ends(Random& random) { return strangers(side_, v4_ = !v4_, random); }
  [[nodiscard]] bool v4() const { return v4_; }

 private:
  Side side_;
  bool v4_ = false;
};

class SynFlood final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    const Ends ends = this->ends(random);
    frame.type(v4());
    frame.ip(ends.from, ends.to, kTcp, 20);
    frame.tcp(any_port(random), any_port(random), kSyn, random.next(), 0);
  }
};

class UdpFlood final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    const Ends ends = this->ends(random);
    frame.type(v4());
    frame.ip(ends.from, ends.to, kUdp, 8 + 24);
    frame.udp(any_port(random), any_port(random), 24);
    for (int i = 0; i < 6; ++i) frame.put32(random.next());
  }
};

class IcmpFlood final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    constexpr std::array<std::uint8_t, 10> kTypes4 = {0, 3, 4, 8, 11, 12, 13, 14, 17, 42};
    constexpr std::array<std::uint8_t, 8> kTypes6 = {1, 2, 3, 4, 128, 129, 139, 160};
    const Ends ends = this->ends(random);
    frame.type(v4());
    frame.ip(ends.from, ends.to, v4() ? kIcmp : kIcmp6, 8 + 16);
    frame.put8(v4() ? kTypes4[random.below(kTypes4.size())]
                    : kTypes6[random.below(kTypes6.size())]);
    frame.put8(random.below(4));
    frame.put16(0);
    for (int i = 0; i < 5; ++i) frame.put32(random.next());
  }
};

// First ones, later ones with and without a first one, and later ones that overlap it.
class FragmentFlood final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    const unsigned step = step_++ % 4;
    if (step == 0 || step == 3) {
      ends_ = this->ends(random);
      id_ = static_cast<std::uint16_t>(random.next());
    }
    constexpr std::size_t kRoom = 48;
    const unsigned at = step == 0 ? 0 : step == 1 ? 8 : step == 2 ? 48 : 8 * random.below(64);
    frame.type(v4());
    frame.fragment(ends_.from, ends_.to, kUdp, id_, at, step < 2, kRoom);
    frame.udp(any_port(random), any_port(random), 88);
    for (std::size_t i = 0; i < (kRoom - 8) / 4; ++i) frame.put32(random.next());
  }

 private:
  Ends ends_;
  std::uint16_t id_ = 0;
  unsigned step_ = 0;
};

// One host that asks everybody at every port.
class Scan final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    Ends ends = this->ends(random);
    ends.from = v4() ? kScanner4 : kScanner6;
    frame.type(v4());
    frame.ip(ends.from, ends.to, kTcp, 20);
    frame.tcp(54321, static_cast<std::uint16_t>(++port_ / 64), kSyn, random.next(), 0);
  }

 private:
  unsigned port_ = 0;
};

class ShortFragments final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    const Ends ends = this->ends(random);
    frame.type(v4());
    frame.fragment(ends.from, ends.to, kTcp, static_cast<std::uint16_t>(random.next()), 0, true, 8);
    frame.put16(any_port(random));
    frame.put16(any_port(random));
    frame.put32(random.next());
  }
};

class Extensions final : public Flood {
 public:
  using Flood::Flood;
  void next(Frame& frame, Random& random) override {
    Ends ends = this->ends(random);
    if (v4()) ends = this->ends(random);
    frame.type(false);
    frame.extensions(ends.from, ends.to, kExtensions, 20);
    frame.tcp(any_port(random), any_port(random), kPsh | kAck, random.next(), random.next());
  }
};

// Answers to questions that nobody asked: each server's address for a name of another class. No
// address has two names: it would promise nothing.
class UnaskedAnswers final : public Attack {
 public:
  UnaskedAnswers() {
    for (const Class server : {Class::alpha, Class::beta, Class::plain, Class::banned})
      for (unsigned i = 0; i < 2 * kServers; ++i) {
        const bool v4 = i % 2 == 0;
        const Class name = false_class(server, i / 2);
        test::DnsRecord record{static_cast<std::uint16_t>(v4 ? 1 : 28), 3600, {}};
        put_address(record.data, server_address(server, i / 2, v4));
        answers_.push_back(test::dns_response(0, facts(name).host, record.type, {record}));
      }
  }

  void next(Frame& frame, Random& random) override {
    const bool v4 = random.below(2) == 0;
    Bytes& answer = answers_[random.below(static_cast<std::uint32_t>(answers_.size()))];
    answer[0] = static_cast<std::uint8_t>(random.next());
    frame.type(v4);
    frame.ip(v4 ? kResolver4 : kResolver6, client_address(random.below(kClients), v4), kUdp,
             8 + answer.size());
    frame.udp(53, static_cast<std::uint16_t>(1024 + random.below(60000)), answer.size());
    frame.put(answer.data(), answer.size());
  }

 private:
  std::vector<Bytes> answers_;
};

// Segments of known flows with one set of flags after the other, every hop limit and sampled
// sequence numbers.
class ForgedSegments final : public Attack {
 public:
  ForgedSegments(const AttackOptions& options, Side side, std::vector<std::uint8_t> flags)
      : side_(side), flags_(std::move(flags)) {
    for (const Flow& flow : options.flows)
      if (!flow.fresh) flows_.push_back(flow);
  }

  void next(Frame& frame, Random& random) override {
    if (step_ == 0) {
      flow_ = &flows_[random.below(static_cast<std::uint32_t>(flows_.size()))];
      // From the client's side also what only the server would send.
      reverse_ = side_ == Side::wan || random.below(4) == 0;
      hop_limit_ = static_cast<std::uint8_t>(hop_limit_ == 255 ? 1 : hop_limit_ + 1);
    }
    const Endpoint& from = reverse_ ? flow_->server : flow_->client;
    const Endpoint& to = reverse_ ? flow_->client : flow_->server;
    frame.type(flow_->v4());
    frame.ip(from.address, to.address, kTcp, 20, hop_limit_);
    frame.tcp(from.port, to.port, flags_[step_], sequence_, random.next());
    sequence_ += 0x9e3779b1;  // comes by all, spread evenly
    step_ = (step_ + 1) % flags_.size();
  }

 private:
  Side side_;
  std::vector<std::uint8_t> flags_;
  std::vector<Flow> flows_;
  const Flow* flow_ = nullptr;
  bool reverse_ = false;
  std::size_t step_ = 0;
  std::uint8_t hop_limit_ = 0;
  std::uint32_t sequence_ = 0;
};

void put_request(Frame& frame, const Endpoint& from, const Endpoint& to, Class of, Random& random) {
  const std::string_view host = facts(of).host;
  const std::size_t payload = 5 + std::string_view(kRequest).size() + host.size() + 4;
  frame.type(from.address.is_v4());
  frame.ip(from.address, to.address, kTcp, 20 + payload);
  frame.tcp(from.port, to.port, kPsh | kAck, random.next(), random.next());
  frame.put("GET /");
  frame.put(kRequest);
  frame.put(host);
  frame.put("\r\n\r\n");
}

// Another tenant's traffic: tagged, with the five-tuples of the client's flows, those yet to come
// included, and of other classes.
class OtherVlan final : public Attack {
 public:
  explicit OtherVlan(const AttackOptions& options) : flows_(options.flows) {}

  void next(Frame& frame, Random& random) override {
    if (step_ == 0) flow_ = &flows_[random.below(static_cast<std::uint32_t>(flows_.size()))];
    if (random.below(4) == 0) {
      frame.put16(0x88a8);
      frame.put16(1 + random.below(4094));
    }
    frame.put16(0x8100);
    frame.put16(1 + random.below(4094));
    if (step_ == 2) {
      put_request(frame, flow_->client, flow_->server, false_class(flow_->which, flow_->number),
                  random);
    } else {
      frame.type(flow_->v4());
      frame.ip(flow_->client.address, flow_->server.address, kTcp, 20);
      frame.tcp(flow_->client.port, flow_->server.port, step_ == 0 ? kRst : kSyn, random.next(), 0);
    }
    step_ = (step_ + 1) % 3;
  }

 private:
  std::vector<Flow> flows_;
  const Flow* flow_ = nullptr;
  unsigned step_ = 0;
};

// One spoofed segment a flow, from the clients' own addresses to their servers: a request for a
// name of another class than the server's.
class PoisonedService final : public Attack {
 public:
  void next(Frame& frame, Random& random) override {
    const bool v4 = random.below(2) == 0;
    const auto which = static_cast<Class>(random.below(4));
    const Endpoint client{client_address(random.below(kClients), v4),
                          static_cast<std::uint16_t>(2000 + random.below(16000))};
    const unsigned number = random.below(kServers);
    const Endpoint server{server_address(which, number, v4),
                          static_cast<std::uint16_t>(random.below(3) == 0 ? 443 : 80)};
    put_request(frame, client, server, false_class(which, number), random);
  }
};

// Flows that meet those which the client is about to begin in their buckets.
class Collisions final : public Attack {
 public:
  Collisions(const AttackOptions& options, bool always) : protocol_(always ? kTcp : kUdp) {
    constexpr unsigned kEach = 24;
    for (const Flow& flow : options.flows) {
      if (!flow.fresh) continue;
      const auto more =
          always ? collide_always(flow) : collide_for_a_seed(flow, options.buckets, kEach);
      tuples_.insert(tuples_.end(), more.begin(), more.end());
    }
  }

  void next(Frame& frame, Random& random) override {
    const Tuple& tuple = tuples_[at_];
    at_ = (at_ + 1) % tuples_.size();
    const bool tcp = protocol_ == kTcp;
    frame.type(tuple.from.address.is_v4());
    frame.ip(tuple.from.address, tuple.to.address, protocol_, tcp ? 20 : 16);
    if (tcp) {
      frame.tcp(tuple.from.port, tuple.to.port, kSyn, random.next(), 0);
    } else {
      frame.udp(tuple.from.port, tuple.to.port, 8);
      frame.put32(random.next());
      frame.put32(random.next());
    }
  }

 private:
  std::uint8_t protocol_;
  std::vector<Tuple> tuples_;
  std::size_t at_ = 0;
};

template <class T>
std::unique_ptr<Attack> flood(const AttackOptions&, Side side) {
  return std::make_unique<T>(side);
}

template <std::uint8_t... kFlags>
std::unique_ptr<Attack> forged(const AttackOptions& options, Side side) {
  return std::make_unique<ForgedSegments>(options, side, std::vector<std::uint8_t>{kFlags...});
}

}  // namespace

const std::vector<AttackFacts>& attacks() {
  static const std::vector<AttackFacts> all = {
      {"syn", "SYN flood from random addresses", true, true, Probe::plain, flood<SynFlood>},
      {"udp", "UDP with random tuples", true, true, Probe::plain, flood<UdpFlood>},
      {"icmp", "ICMP of many types, random addresses and ids", true, true, Probe::plain,
       flood<IcmpFlood>},
      {"fragments", "first, later and overlapping fragments", true, true, Probe::plain,
       flood<FragmentFlood>},
      {"scan", "SYN from one address to all ports", true, false, Probe::plain, flood<Scan>},
      {"dns", "DNS answers that nobody asked for", false, true, Probe::plain,
       [](const AttackOptions&, Side) -> std::unique_ptr<Attack> {
         return std::make_unique<UnaskedAnswers>();
       }},
      {"rst", "forged RST, every hop limit and sequence", true, true, Probe::plain, forged<kRst>},
      {"fin", "forged FIN, likewise", true, true, Probe::plain, forged<kFin | kAck>},
      {"syn-known", "forged SYN, likewise", true, true, Probe::plain, forged<kSyn>},
      {"rst-syn", "forged RST and then SYN, likewise", true, true, Probe::plain,
       forged<kRst, kSyn>},
      {"short-fragment", "first fragments with 8 bytes of TCP", true, false, Probe::short_fragment,
       flood<ShortFragments>},
      {"extensions", "nine IPv6 extension headers", true, false, Probe::extensions,
       flood<Extensions>},
      {"vlan", "tagged frames with the same five-tuples", true, false, Probe::plain,
       [](const AttackOptions& options, Side) -> std::unique_ptr<Attack> {
         return std::make_unique<OtherVlan>(options);
       }},
      {"service", "spoofed requests that poison a service", true, false, Probe::plain,
       [](const AttackOptions&, Side) -> std::unique_ptr<Attack> {
         return std::make_unique<PoisonedService>();
       }},
      {"collide-seed", "keys that collide for one seed", true, false, Probe::plain,
       [](const AttackOptions& options, Side) -> std::unique_ptr<Attack> {
         return std::make_unique<Collisions>(options, false);
       }},
      {"collide-any", "keys that collided for every seed", true, false, Probe::plain,
       [](const AttackOptions& options, Side) -> std::unique_ptr<Attack> {
         return std::make_unique<Collisions>(options, true);
       }},
  };
  return all;
}

const AttackFacts* find_attack(const std::string& name) {
  for (const AttackFacts& attack : attacks())
    if (attack.name == name) return &attack;
  return nullptr;
}

}  // namespace l7mark::robust
