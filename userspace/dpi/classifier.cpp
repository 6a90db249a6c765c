// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/classifier.hpp"

#include <l7mark/sampling.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "detectors/detectors.hpp"
#include "dpi/bare_ack.hpp"
#include "dpi/client.hpp"
#include "dpi/detector_packet.hpp"
#include "dpi/dns.hpp"
#include "dpi/flow_handshake.hpp"
#include "dpi/own_risks.hpp"

namespace l7mark {
namespace {

constexpr std::size_t kMaxPacket = 65535;  // nDPI takes 16 bits
// What is kept of a first packet without payload: IPv6 with extension headers, TCP with options.
constexpr std::size_t kMaxHeaders = 192;
constexpr std::uint16_t kDnsPort = 53;
constexpr std::uint8_t kBothDirections = 0x03;
// How long a resolver that has one answer may take to ask for the other on the same socket.
constexpr std::uint64_t kTwinLifeNs = 500'000'000;
// A flow with a resolver is followed so long without a packet. What comes later begins it anew.
constexpr std::uint64_t kFollowedLifeNs = 10'000'000'000;
constexpr std::uint64_t kNsPerMs = 1'000'000;
// After so many flows at a time, the memory for them is worth giving back.
constexpr std::size_t kBurstFlows = 4096;

// A packet that segmentation offload made longer than its header can say carries 0 there, and nDPI
// would ignore it.
void write_length(std::vector<std::uint8_t>& packet, std::size_t length) {
  const auto put = [&packet](std::size_t at, std::size_t value) {
    packet[at] = static_cast<std::uint8_t>(value >> 8);
    packet[at + 1] = static_cast<std::uint8_t>(value);
  };
  const unsigned version = packet[0] >> 4;
  if (version == 4 && length >= 20 && packet[2] == 0 && packet[3] == 0) put(2, length);
  if (version == 6 && length > 40 && packet[4] == 0 && packet[5] == 0) put(4, length - 40);
}

// Payload of a UDP packet without IPv6 extension headers; empty for anything else.
std::span<const std::uint8_t> udp_payload(std::span<const std::uint8_t> packet) {
  if (packet.empty()) return {};
  std::size_t header = 0;
  if (packet[0] >> 4 == 4) {
    header = (packet[0] & 0x0fU) * 4U;
  } else if (packet[0] >> 4 == 6 && packet.size() > 6 && packet[6] == IPPROTO_UDP) {
    header = 40;
  }
  if (header == 0 || packet.size() < header + 8) return {};
  return packet.subspan(header + 8);
}

bool is_resolvers(const FlowKey& key) {
  if (key.raw.protocol != IPPROTO_UDP) return false;
  return key.port(0) == kDnsPort || key.port(1) == kDnsPort;
}

bool has_ended(std::uint16_t flags) {
  return l7m_has_ended(flags) != 0;
}

// Adds what the handshake tells to what nDPI does. The fingerprint is ours in every build, and so
// is the version that the server chose: nDPI 4.2 tells the one that was offered.
void describe_handshake(const HandshakeFacts& handshake, const Engine& engine, FlowFacts& facts) {
  FlowDetails& details = facts.details;
  if (handshake.conflict) engine.add_risk(facts, kConflictingSegments.bit);
  if (!handshake.hello) return;
  details.ja4_client = handshake.ja4;
  details.ech = handshake.ech;
  if (details.alpn.empty()) details.alpn = handshake.alpn;
  if (facts.hostname.empty()) facts.hostname = handshake.server_name;
  if (handshake.version != 0) details.tls_version = handshake.version;
  if (handshake.cipher != 0 && details.tls_cipher_id != handshake.cipher) {
    details.tls_cipher_id = handshake.cipher;
    details.tls_cipher = Engine::cipher_name(handshake.cipher);
  }
}

}  // namespace

// The begin of a packet that comes in several records.
struct PartialPacket {
  std::vector<std::uint8_t> data;
  l7m_sample head;  // last: it ends in an array without a size
};

struct Classifier::Flow : PoolLinks<Flow> {
  FlowKey key;
  std::uint64_t id = 0;
  std::uint8_t initiator = 0;
  std::uint8_t client = 0;             // client_of()
  std::uint16_t flags = 0;             // L7M_FLOW_*
  bool detected = false;               // nDPI is done with it
  bool guessed = false;                // its detection is a guess by port or address
  Detector detector = Detector::none;  // whose detection it is, if not nDPI's
  std::uint8_t dns_queries = 0;        // over UDP
  std::uint8_t dns_responses = 0;
  bool followed = false;  // had its last word, and is read on as DNS
  std::uint8_t bare = 0;  // bit of the direction whose packet without payload was copied
  std::uint16_t vlan = 0;
  std::uint32_t ifindex = 0;
  std::array<std::uint8_t, 6> client_mac{};
  EngineFlow engine;
  DetectorState detectors;
  Detection detection;  // as the last call returned it: some corrections are only there
  Detection told;       // in the last provisional answer
  std::size_t due = 0;  // position in `due_`, from 1; 0 if it is not there
  l7m_counters count{};
  std::uint64_t first_ns = 0;
  std::uint64_t last_ns = 0;
  std::uint32_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
  std::vector<std::uint8_t> headers;  // of the first packet, while nDPI has not seen it
  std::size_t headers_length = 0;     // that packet's length on the wire
  std::unique_ptr<FlowHandshake> handshake;
  std::unique_ptr<PartialPacket> parts;
  std::unique_ptr<DnsQuestions> questions;
  std::uint32_t begin[2] = {0, 0};  // TCP: sequence number of each side's first payload byte...
  std::uint8_t begin_known = 0;     // ...where this bit of the side is set
  std::uint8_t spoke = 0;           // bits of the directions that had payload
  Queue* queue = nullptr;

  // As new, but for the room in `headers` and what the pool has written.
  void reset() {
    const PoolLinks<Flow> links = *this;
    std::vector<std::uint8_t> room = std::move(headers);
    room.clear();
    *this = Flow();
    static_cast<PoolLinks<Flow>&>(*this) = links;
    headers = std::move(room);
  }
};

bool Classifier::begun(const Flow& flow) {
  return flow.engine || flow.parts || (flow.handshake && flow.handshake->holds());
}

Classifier::Classifier(Engine& engine, ClassifierSink& sink, ClassifierOptions options)
    : engine_(engine),
      sink_(sink),
      options_(std::move(options)),
      dns_(engine_.application("DNS").application),
      flows_(std::make_unique<FlowPool<Flow>>()),
      packet_(kMaxPacket) {}

Classifier::~Classifier() = default;

bool Classifier::take_more(std::span<const std::byte> record) {
  const auto malformed = [this] {
    ++stats_.malformed;
    return false;
  };
  l7m_sample sample;
  if (record.size() < sizeof(sample)) return malformed();
  std::memcpy(&sample, record.data(), sizeof(sample));
  const std::span<const std::byte> rest = record.subspan(sizeof(sample));
  if (sample.direction > 1 || sample.initiator > 1 || sample.captured > rest.size())
    return malformed();
  const std::span<const std::uint8_t> data(reinterpret_cast<const std::uint8_t*>(rest.data()),
                                           sample.captured);
  FlowKey key;
  key.raw = sample.key;

  Flow* flow = flows_->find(key);
  if (sample.type == L7M_RECORD_REOPEN) {
    // Samples of the new life follow under an id of their own.
    ++stats_.notices;
    if (flow != nullptr && flow->id == sample.flow_id) end(*flow);
    return true;
  }
  if (flow != nullptr && flow->id != sample.flow_id) {
    // The five-tuple lives anew.
    end(*flow);
    flow = nullptr;
  }
  switch (sample.type) {
    case L7M_RECORD_NOTICE:
      ++stats_.notices;
      if (flow == nullptr) return true;
      flow->flags = sample.candidate_flags;
      flow->count = sample.count;
      // Refused connections wait: the next on the same ports is often the one that matters.
      if (begun(*flow) && has_ended(flow->flags)) give_up(*flow);
      return true;
    case L7M_RECORD_SAMPLE:
      break;
    default:
      return malformed();
  }
  if (sample.l3_offset >= sample.captured || sample.l3_length == 0) return malformed();
  ++stats_.samples;
  if ((sample.flags & L7M_SAMPLE_BEGUN) != 0) tell_begun(key, sample);
  if (flow == nullptr) {
    const bool first = (sample.flags & L7M_SAMPLE_FIRST) != 0;
    if (!first && answered_.contains(key, sample.flow_id)) return true;
    flow = &create(key, sample);
  }
  flow->flags = sample.candidate_flags;
  flow->count = sample.count;
  flow->last_ns = std::max<std::uint64_t>(flow->last_ns, sample.time_ns);
  flow->sampled_packets += sample.offset == 0 ? 1 : 0;
  flow->sampled_bytes += sample.captured;
  move_to(*flow, *flow->queue);
  std::span<const std::uint8_t> packet = data;
  if (flow->followed) {
    if (sample.offset == 0) watch_dns(*flow, sample, data.subspan(sample.l3_offset));
    return true;
  }
  if (sample.offset != 0 || sample.captured < sample.wanted || flow->parts) {
    if (!join_parts(*flow, sample, packet)) return true;
  }
  inspect(*flow, sample, packet);
  return true;
}

// Records of one packet follow each other. True when `sample` and `data` are of a packet that can
// be inspected: the one that has become whole, or the one of this record.
bool Classifier::join_parts(Flow& flow, l7m_sample& sample, std::span<const std::uint8_t>& data) {
  if (sample.offset == 0) {
    if (flow.parts) {
      // The rest of the packet before found no room in the ring.
      const std::unique_ptr<PartialPacket> cut = std::move(flow.parts);
      const FlowKey key = flow.key;
      inspect(flow, cut->head, cut->data);
      if (flows_->find(key) != &flow || flow.followed) return false;  // that was its last word
    }
    if (sample.captured >= sample.wanted) return true;
    flow.parts = std::make_unique<PartialPacket>();
    flow.parts->head = sample;
    flow.parts->data.assign(data.begin(), data.end());
    if (!flow.engine) hold(flow, reading_);
    return false;
  }
  if (!flow.parts || flow.parts->data.size() != sample.offset) return false;
  std::vector<std::uint8_t>& whole = flow.parts->data;
  whole.insert(whole.end(), data.begin(), data.end());
  if (whole.size() < flow.parts->head.wanted) return false;
  joined_ = std::move(whole);
  sample = flow.parts->head;
  sample.captured = static_cast<std::uint32_t>(joined_.size());
  data = joined_;
  flow.parts.reset();
  return true;
}

std::size_t Classifier::flows() const {
  return flows_->size();
}

Classifier::Flow& Classifier::create(const FlowKey& key, const l7m_sample& sample) {
  make_room(waiting_);
  Flow& flow = flows_->insert(key);
  flow.id = sample.flow_id;
  flow.initiator = sample.initiator;
  flow.client = static_cast<std::uint8_t>(
      client_of(key, sample.initiator, sample.candidate_flags, options_.inside));
  flow.vlan = sample.vlan;
  flow.ifindex = sample.ifindex;
  flow.first_ns = sample.time_ns;
  waiting_.push_back(flow);
  flow.queue = &waiting_;
  return flow;
}

void Classifier::move_to(Flow& flow, Queue& queue) {
  flow.queue->remove(flow);
  queue.push_back(flow);
  flow.queue = &queue;
}

// To another queue with state of nDPI.
void Classifier::hold(Flow& flow, Queue& queue) {
  if (flow.queue == &queue) return;
  make_room(queue);
  move_to(flow, queue);
}

void Classifier::make_room(Queue& queue) {
  const std::size_t limit = &queue == &waiting_    ? options_.max_waiting
                            : &queue == &reading_  ? options_.max_reading
                            : &queue == &followed_ ? options_.max_followed
                                                   : options_.max_flows;
  while (queue.size() >= std::max<std::size_t>(limit, 1)) {
    Flow& oldest = queue.front();
    if (&queue == &waiting_) {
      ++stats_.waiting_dropped;
      erase(oldest);
    } else if (&queue == &followed_) {
      erase(oldest);
    } else {
      ++stats_.evicted;
      give_up(oldest);
    }
  }
}

void Classifier::erase(Flow& flow) {
  untell(flow);
  flow.queue->remove(flow);
  flows_->erase(flow);
}

// Gives nDPI its state of the flow, and the first packet if that was put by. Where there is no
// memory for it, the flow is forgotten.
bool Classifier::start(Flow& flow) {
  if (flow.engine) return true;
  if (flow.queue != &active_) make_room(active_);
  flow.engine = engine_.new_flow();
  if (!flow.engine) {
    ++stats_.memory_failures;
    erase(flow);
    return false;
  }
  move_to(flow, active_);
  if (!flow.headers.empty()) {
    feed(flow, flow.headers, flow.headers_length, flow.first_ns);
    flow.headers.clear();
  }
  return true;
}

void Classifier::inspect(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> data) {
  if (sample.l2 != 0 && sample.l3_offset >= 14) {
    // Bytes 0 to 5 are the receiver's address, 6 to 11 the sender's.
    const std::size_t at = sample.direction == flow.client ? 6 : 0;
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(at), 6, flow.client_mac.begin());
  }
  const std::size_t length = std::min<std::size_t>(sample.l3_length, kMaxPacket);
  std::span<const std::uint8_t> packet = data.subspan(sample.l3_offset);
  packet = packet.first(std::min(packet.size(), length));

  // A first packet that is not under way is a SYN, or the answer to one; not so in a second look.
  if ((sample.flags & L7M_SAMPLE_FIRST) != 0 && flow.key.raw.protocol == IPPROTO_TCP &&
      (sample.candidate_flags & (L7M_FLOW_MIDSTREAM | L7M_FLOW_AGAIN)) == 0) {
    flow.begin[sample.direction] = sample.sequence;
    flow.begin_known |= static_cast<std::uint8_t>(1U << sample.direction);
  }
  const bool put_by = sample.l4_payload == 0 && !flow.engine && flow.headers.empty();
  if (put_by) {
    // A flood of these costs no state of nDPI.
    packet = packet.first(std::min(packet.size(), kMaxHeaders));
    flow.headers.assign(packet.begin(), packet.end());
    flow.headers_length = length;
    flow.bare = static_cast<std::uint8_t>(1U << sample.direction);
  } else if (!look_at(flow, sample, packet, length)) {
    return;
  }

  const bool last = (sample.flags & L7M_SAMPLE_LAST) != 0;
  // A resolver asks for A and AAAA on one socket, and a near server answers the one before the
  // other is asked: the second response is worth a packet more, and a moment.
  const bool more_dns = !last && flow.dns_queries > flow.dns_responses;
  const bool twin_dns = flow.dns_queries == 1 && flow.dns_responses == 1 && !may_follow(flow);
  // So is QUIC's server: its first packet tells the cipher.
  const bool server = flow.handshake && flow.handshake->awaits_server();
  const bool twin = !last && (twin_dns || server);
  if (flow.detected && !more_dns && !twin) {
    settle(flow);
  } else if (last || (begun(flow) && has_ended(flow.flags))) {
    give_up(flow);
  } else {
    if (flow.detected) hold(flow, twin ? twins_ : active_);
    if (flow.detection.known() && flow.detection != flow.told) {
      flow.told = flow.detection;
      if (flow.due == 0) {
        due_.push_back(&flow);
        flow.due = due_.size();
      }
    }
  }
}

// Shows nDPI a packet, or in its place what the handshake that it belongs to has become by it.
// False if there was no memory and the flow is gone.
bool Classifier::look_at(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> packet,
                         std::size_t length) {
  using Step = FlowHandshake::Step;
  Step step = Step::as_it_is;
  bool begins = false;  // its direction's first packet with payload
  if (sample.l4_payload != 0) {
    HandshakePacket part;
    part.direction = sample.direction;
    part.protocol = flow.key.raw.protocol;
    part.sequence = sample.sequence;
    part.packet = packet;
    part.payload_length = sample.l4_payload;
    part.payload_offset = length - std::min<std::size_t>(length, sample.l4_payload);
    const auto side = static_cast<std::uint8_t>(1U << sample.direction);
    begins = (flow.spoke & side) == 0;
    flow.spoke |= side;
    // DTLS may come after STUN, on the same ports (RFC 7983).
    const bool may = begins || part.protocol == IPPROTO_UDP;
    if (!flow.handshake && may && !flow.detected &&
        FlowHandshake::may_begin(part, (flow.begin_known & side) != 0,
                                 flow.begin[sample.direction])) {
      flow.handshake = std::make_unique<FlowHandshake>();
      for (const int each : {0, 1})
        if ((flow.begin_known & 1U << each) != 0) flow.handshake->begin(each, flow.begin[each]);
    }
    if (flow.handshake) step = flow.handshake->take(part);
  }
  if (step == Step::hold) {
    hold(flow, reading_);
    return true;
  }
  if (!start(flow)) return false;
  if (flow.handshake && flow.handshake->holds())
    hold(flow, reading_);
  else if (flow.queue == &reading_)
    hold(flow, active_);
  // The other direction has spoken before.
  if (begins && flow.spoke == kBothDirections) feed_bare_ack(flow, sample, packet);
  if (step != Step::as_it_is) {
    const auto made = flow.handshake->take_made();
    feed(flow, made, made.size(), sample.time_ns);
  }
  if (step != Step::replaced) feed(flow, packet, length, sample.time_ns);
  show_detectors(flow, sample, packet);
  watch_dns(flow, sample, packet);
  return true;
}

void Classifier::feed(Flow& flow, std::span<const std::uint8_t> copied, std::size_t length,
                      std::uint64_t time_ns) {
  if (flow.detected || copied.empty()) return;
  std::copy(copied.begin(), copied.end(), packet_.begin());
  if (copied.size() < dirty_)
    std::fill(packet_.begin() + static_cast<std::ptrdiff_t>(copied.size()),
              packet_.begin() + static_cast<std::ptrdiff_t>(dirty_), std::uint8_t{0});
  dirty_ = std::max<std::size_t>(copied.size(), 6);
  write_length(packet_, length);
  if (!Engine::finds(flow.key.raw.protocol, packet_.data(), length)) return;
  // Samples of two CPUs may come in the wrong order; nDPI's clock must not go back.
  const std::uint64_t wall_ns = time_ns + static_cast<std::uint64_t>(wall_offset_ns_);
  time_ms_ = std::max(time_ms_, wall_ns / kNsPerMs);
  flow.detection = engine_.process(flow.engine, packet_.data(), length, time_ms_);
  if (flow.detection.application == 0) return;
  // A port is no reason to stop looking: a detector may know better.
  if (!engine_.wants_more(flow.engine) && !engine_.is_told_by_port(flow.detection)) {
    flow.detected = true;
    flow.guessed = engine_.is_guess(flow.engine);
  }
}

// nDPI 4.2 reads the headers of an HTTP response only if it was given a packet without payload of
// the server's between request and response. Most servers send such an ACK, but none is copied: a
// flow has more of them than of anything else. So one is made up before the first payload of the
// side that spoke second, if the counters tell that this side sent a packet that was not copied and
// was no SYN-ACK.
void Classifier::feed_bare_ack(Flow& flow, const l7m_sample& sample,
                               std::span<const std::uint8_t> packet) {
  if (flow.key.raw.protocol != IPPROTO_TCP) return;
  const auto bit = static_cast<std::uint8_t>(1U << sample.direction);
  const bool syn_ack = sample.direction != flow.initiator &&
                       (flow.flags & (L7M_FLOW_MIDSTREAM | L7M_FLOW_ANSWER | L7M_FLOW_AGAIN)) == 0;
  const unsigned known = 1U + ((flow.bare & bit) != 0 ? 1U : 0U) + (syn_ack ? 1U : 0U);
  if (flow.count.packets[sample.direction] <= known) return;
  std::array<std::uint8_t, kBareAckRoom> ack{};
  const std::size_t length = make_bare_ack(packet, ack);
  if (length != 0) feed(flow, std::span(ack).first(length), length, sample.time_ns);
}

bool Classifier::is_guess(const Flow& flow) const {
  return engine_.is_guess(flow.engine) || engine_.is_told_by_port(flow.detection);
}

// While nDPI has no name for the flow, or only a guess. A detector's answer is the last word.
void Classifier::show_detectors(Flow& flow, const l7m_sample& sample,
                                std::span<const std::uint8_t> packet) {
  if (flow.detection.known() && !is_guess(flow)) return;
  auto shown = detector_packet(packet, flow.key.raw.protocol, sample.l4_payload);
  if (!shown) return;
  shown->from_client = sample.direction == flow.client;
  const auto match = look(flow.detectors, *shown);
  if (!match) return;
  const Detection named = engine_.application(match->application);
  if (!named.known()) return;
  flow.detection = named;
  flow.detector = match->detector;
  flow.detected = true;
  flow.guessed = false;
}

void Classifier::add_findings(const Flow& flow, FlowFacts& facts) const {
  facts.detector = flow.detector;
  if (flow.detector != Detector::none)
    facts.confidence = Confidence::detector;
  else if (engine_.is_told_by_port(flow.detection))
    facts.confidence = Confidence::port;
  if ((flow.flags & L7M_FLOW_FORGED) != 0) engine_.add_risk(facts, kForgedClosing.bit);
  const bool named = flow.detection.known() && !flow.guessed;
  const bool from_first = !facts.midstream && (flow.flags & L7M_FLOW_AGAIN) == 0;
  if (flow.detectors.fully_encrypted && !named && from_first)
    engine_.add_risk(facts, Engine::fully_encrypted_risk());
}

// Only an answer to a question of this flow may tell names: same id, type and name, from port 53 of
// the server that was asked. Anybody can send a packet that looks like any other answer.
void Classifier::watch_dns(Flow& flow, const l7m_sample& sample,
                           std::span<const std::uint8_t> packet) {
  if (!is_resolvers(flow.key)) return;
  const std::span<const std::uint8_t> message = udp_payload(packet);
  const auto kind = dns_kind(message);
  if (!kind) return;
  auto question = parse_dns_question(message);
  if (kind == DnsKind::query) {
    if (flow.dns_queries < 0xff) ++flow.dns_queries;
    if (!question || flow.key.port(1 - sample.direction) != kDnsPort) return;
    if (!flow.questions) flow.questions = std::make_unique<DnsQuestions>();
    flow.questions->ask(std::move(*question), sample.direction);
    return;
  }
  if (flow.dns_responses < 0xff) ++flow.dns_responses;
  if (flow.key.port(sample.direction) != kDnsPort) return;
  const bool asked =
      question && flow.questions && flow.questions->answer(*question, sample.direction);
  if (flow.questions && flow.questions->empty()) flow.questions.reset();
  auto parsed = parse_dns_answer(message);
  if (!parsed) return;
  if (!asked) {
    ++stats_.dns_unasked;
    return;
  }
  const int client = 1 - sample.direction;
  parsed->client = flow.key.address(client);
  if (client == flow.client) parsed->client_mac = flow.client_mac;
  parsed->ifindex = flow.ifindex;
  ++stats_.dns_answers;
  sink_.on_dns(std::move(*parsed));
}

// Also where nobody has asked yet: a forged response must not keep a socket from being read.
bool Classifier::may_follow(const Flow& flow) const {
  if (options_.max_followed == 0 || dns_ == 0 || !is_resolvers(flow.key)) return false;
  if (flow.guessed) return false;
  return flow.detection.application == dns_ || flow.detection.master == dns_;
}

// After its last word: what nDPI and the handshakes held is given back.
void Classifier::follow(Flow& flow) {
  untell(flow);
  hold(flow, followed_);
  flow.followed = true;
  flow.engine = {};
  flow.handshake.reset();
  flow.parts.reset();
  flow.headers.clear();
}

// It is gone afterwards, followed or not.
void Classifier::end(Flow& flow) {
  const FlowKey key = flow.key;
  if (!flow.followed) give_up(flow);
  if (Flow* left = flows_->find(key)) erase(*left);
}

// nDPI looks at no more of it. The flow is gone then, or followed.
void Classifier::give_up(Flow& flow) {
  if (!start(flow)) return;
  if (flow.handshake) {
    const auto held = flow.handshake->give_up();
    feed(flow, held, held.size(), flow.last_ns);
  }
  if (flow.parts && flow.parts->data.size() > flow.parts->head.l3_offset) {
    const std::span<const std::uint8_t> cut =
        std::span(flow.parts->data).subspan(flow.parts->head.l3_offset);
    feed(flow, cut, std::min<std::size_t>(flow.parts->head.l3_length, kMaxPacket), flow.last_ns);
  }
  if (!flow.detected) {
    flow.detection = engine_.give_up(flow.engine);
    flow.guessed = flow.detection.known() && is_guess(flow);
  }
  settle(flow);
}

void Classifier::tell() {
  for (Flow* flow : due_) {
    if (flow == nullptr) continue;
    flow->due = 0;
    sink_.on_revisit(flow->key);
    answer(*flow, FlowState::provisional);
  }
  due_.clear();
}

void Classifier::untell(Flow& flow) {
  if (flow.due == 0) return;
  due_[flow.due - 1] = nullptr;
  flow.due = 0;
}

// The last word. The flow is gone then, or followed.
void Classifier::settle(Flow& flow) {
  const bool followed = may_follow(flow);
  answer(flow, FlowState::final, followed);
  if (followed) {
    follow(flow);
    return;
  }
  answered_.add(flow.key, flow.id);
  erase(flow);
}

// `final` becomes `guessed` where the flow has no answer of its own.
void Classifier::answer(Flow& flow, FlowState state, bool followed) {
  Answer out;
  out.key = flow.key;
  out.id = flow.id;
  out.initiator = flow.initiator;
  out.state = state;
  out.closed = has_ended(flow.flags);
  out.followed = followed;
  out.flags = flow.flags;
  FlowFacts& facts = out.facts;
  const int client = flow.client;
  facts.client = flow.key.address(client);
  facts.server = flow.key.address(1 - client);
  facts.client_port = flow.key.port(client);
  facts.server_port = flow.key.port(1 - client);
  facts.protocol = flow.key.raw.protocol;
  facts.midstream = (flow.flags & L7M_FLOW_MIDSTREAM) != 0;
  facts.ifindex = flow.ifindex;
  facts.vlan = flow.vlan;
  std::copy(flow.client_mac.begin(), flow.client_mac.end(), std::begin(facts.client_mac));
  const bool both_ways = flow.count.packets[0] != 0 && flow.count.packets[1] != 0;
  engine_.describe(flow.engine, flow.detection, facts, both_ways);
  if (flow.handshake) describe_handshake(flow.handshake->facts(), engine_, facts);
  add_findings(flow, facts);
  if (state == FlowState::final && !facts.own_answer()) out.state = FlowState::guessed;
  out.sampled_packets = flow.sampled_packets;
  out.sampled_bytes = flow.sampled_bytes;
  out.count = flow.count;
  out.first_ns = flow.first_ns;
  out.last_ns = flow.last_ns;
  out.name = engine_.name(flow.detection);
  ++(state == FlowState::provisional ? stats_.provisional : stats_.answers);
  sink_.on_answer(std::move(out));
}

// A flow that its headers gave a class: nothing of it needs to be read for that.
void Classifier::tell_begun(const FlowKey& key, const l7m_sample& sample) {
  Answer out;
  out.key = key;
  out.id = sample.flow_id;
  out.initiator = sample.initiator;
  out.state = FlowState::provisional;
  out.flags = sample.candidate_flags;
  const int client = client_of(key, sample.initiator, sample.candidate_flags, options_.inside);
  FlowFacts& facts = out.facts;
  facts.client = key.address(client);
  facts.server = key.address(1 - client);
  facts.client_port = key.port(client);
  facts.server_port = key.port(1 - client);
  facts.protocol = key.raw.protocol;
  facts.midstream = (sample.candidate_flags & L7M_FLOW_MIDSTREAM) != 0;
  facts.ifindex = sample.ifindex;
  facts.vlan = sample.vlan;
  out.count = sample.count;
  out.first_ns = out.last_ns = sample.time_ns;
  out.name = engine_.name({});
  ++stats_.provisional;
  sink_.on_answer(std::move(out));
}

bool Classifier::idle(std::uint64_t now_ns) {
  if (options_.idle_ns == 0) return false;
  const auto expired = [&](const Queue& queue) {
    if (queue.empty()) return false;
    const std::uint64_t life = &queue == &twins_      ? std::min(options_.idle_ns, kTwinLifeNs)
                               : &queue == &followed_ ? std::max(options_.idle_ns, kFollowedLifeNs)
                                                      : options_.idle_ns;
    const std::uint64_t last = queue.front().last_ns;
    return last < now_ns && now_ns - last >= life;
  };
  for (Queue* queue : {&waiting_, &active_, &reading_, &twins_}) {
    while (expired(*queue)) {
      sink_.on_revisit(queue->front().key);
      give_up(queue->front());
    }
  }
  while (expired(followed_)) erase(followed_.front());
  return flows_->release(kBurstFlows);
}

void Classifier::abandon(const FlowKey& key, std::uint64_t id) {
  if (Flow* flow = flows_->find(key); flow != nullptr && flow->id == id) erase(*flow);
}

void Classifier::finish() {
  for (Queue* queue : {&waiting_, &active_, &reading_, &twins_})
    while (!queue->empty()) give_up(queue->front());
  while (!followed_.empty()) erase(followed_.front());
}

}  // namespace l7mark
