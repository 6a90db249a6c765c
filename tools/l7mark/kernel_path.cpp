// SPDX-License-Identifier: GPL-2.0-only
#include "kernel_path.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <l7mark/parse.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dataplane/dataplane.hpp"
#include "dataplane/features.hpp"
#include "dpi/classifier.hpp"

namespace l7mark {
namespace {

// A program run takes so much of a packet on every kernel: a page less its overhead. Headers fit;
// the length on the wire goes beside it, and complete() adds what is wanted beyond.
constexpr std::size_t kMaxRun = 3072;

struct RingBuffer {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

}  // namespace

struct KernelPath::State : ClassifierSink {
  explicit State(Dataplane&& loaded) : dataplane(std::move(loaded)) {}

  Dataplane dataplane;
  int program = -1;
  std::vector<Engine> engines;
  std::vector<std::unique_ptr<Classifier>> classifiers;
  std::vector<std::pair<State*, std::size_t>> callbacks;  // stable: the rings point into it
  std::unique_ptr<ring_buffer, RingBuffer> rings;
  std::unordered_map<FlowKey, std::size_t> index;
  std::deque<CaptureFlow> flows;
  std::unordered_map<FlowKey, std::pair<std::uint64_t, std::uint64_t>> excess;
  PathOptions options;
  std::uint64_t time_ns = 0;            // of the packet under way
  std::span<const std::uint8_t> frame;  // the same
  std::vector<std::byte> record;
  std::optional<Error> failure;  // of a callback: the first

  // One for each ring. nDPI remembers addresses and names from flow to flow: every capture has its
  // own.
  Status make_classifiers() {
    ClassifierOptions limits;
    limits.idle_ns = 0;
    limits.inside = options.inside;
    limits.max_flows = limits.max_waiting = SIZE_MAX;
    classifiers.clear();
    engines.clear();
    engines.reserve(options.rings);
    for (std::uint32_t ring = 0; ring < options.rings; ++ring) {
      auto engine = Engine::make(options.engine);
      if (!engine.ok()) return engine.error();
      engines.push_back(std::move(*engine));
      classifiers.push_back(std::make_unique<Classifier>(engines.back(), *this, limits));
    }
    return success();
  }

  void on_answer(Answer&& answer) override {
    const auto found = index.find(answer.key);
    if (found == index.end()) return;
    CaptureFlow& flow = flows[found->second];
    if (answer.state != FlowState::provisional)
      decide(flow, answer);
    else if (const auto* other = options.sampling.override_for(answer.facts.application))
      resample(answer, *other);
    flow.answer = std::move(answer);
  }
  void on_dns(DnsAnswer&& /*answer*/) override {}

  // As the daemon does it: the candidate makes way for a verdict that counts on from zero.
  void decide(CaptureFlow& flow, const Answer& answer) {
    l7m_settlement step{};
    step.key = answer.key.raw;
    step.step = L7M_SETTLE_DECIDE;
    step.verdict.initiator = answer.initiator;
    step.verdict.application = answer.facts.application;
    step.verdict.master = answer.facts.master;
    step.verdict.state = static_cast<std::uint8_t>(answer.state);
    step.flow_id = answer.id;
    if (const Status done = dataplane.settle({&step, 1}); !done.ok())
      fail(done.error());
    else if ((step.result & L7M_SETTLE_WROTE) == 0)
      fail(Error{"keep", "a flow", 0, "the verdict map is full"});
    else if ((step.result & L7M_SETTLE_TOOK) != 0)
      add(flow.count, wide(step.candidate.count));
  }

  void resample(const Answer& answer, const SamplingOverride& wanted) {
    l7m_edit edit{};
    edit.key = answer.key.raw;
    edit.flow_id = answer.id;
    edit.what = L7M_EDIT_PACKETS;
    edit.packets = wanted.packets;
    if (wanted.whole) {
      edit.what |= L7M_EDIT_WHOLE;
      edit.whole = *wanted.whole;
    }
    if (const Status done = dataplane.edit({&edit, 1}); !done.ok()) fail(done.error());
  }

  static void add(l7m_counters& to, const l7m_counters& more) {
    for (int endpoint = 0; endpoint < 2; ++endpoint) {
      to.packets[endpoint] += more.packets[endpoint];
      to.bytes[endpoint] += more.bytes[endpoint];
    }
  }

  void fail(const Error& error) {
    if (!failure) failure = error;
  }

  void take(std::size_t ring, const std::byte* data, std::size_t size) {
    record.assign(data, data + size);
    if (size >= sizeof(l7m_sample)) {
      l7m_sample head;
      std::memcpy(&head, record.data(), sizeof(head));
      // The kernel's clock says when it was replayed, not when it was captured.
      head.time_ns = time_ns;
      std::memcpy(record.data(), &head, sizeof(head));
      FlowKey key;
      key.raw = head.key;
      const auto [place, fresh] = index.try_emplace(key, flows.size());
      if (fresh) {
        CaptureFlow flow;
        flow.answer.key = key;
        flow.answer.initiator = head.initiator;
        flows.push_back(std::move(flow));
      }
      if (head.type == L7M_RECORD_SAMPLE) {
        complete(head);
        CaptureFlow& flow = flows[place->second];
        ++flow.sampled_packets;
        flow.sampled_bytes += head.captured;
      }
    }
    if (!classifiers[ring]->take(record)) fail(Error{"read", "a sample", 0, "it is malformed"});
  }

  // A run takes less of a packet than may be wanted of it: the capture has the rest, or as much as
  // was recorded, and the worker is to wait for no more.
  void complete(l7m_sample& head) {
    const std::size_t whole = std::min<std::size_t>(head.wanted, frame.size());
    if (head.captured < whole) {
      record.resize(sizeof(head));
      const auto bytes = std::as_bytes(frame.first(whole));
      record.insert(record.end(), bytes.begin(), bytes.end());
      head.captured = static_cast<std::uint32_t>(whole);
    }
    head.wanted = static_cast<std::uint16_t>(whole);
    std::memcpy(record.data(), &head, sizeof(head));
  }

  static int on_record(void* context, void* data, std::size_t size) {
    const auto& [state, ring] = *static_cast<std::pair<State*, std::size_t>*>(context);
    state->take(ring, static_cast<const std::byte*>(data), size);
    return 0;
  }

  // A made-up Ethernet header is longer than what the capture had, a run can't be told of a packet
  // that is shorter than its bytes, nor of one of 64 KiB and a header: what was counted too much or
  // too little, modulo 2^64, is taken off at the end.
  void note_excess(const CapturedPacket& captured, std::uint32_t told) {
    l7m_packet packet{};
    const std::uint8_t* start = captured.frame.data();
    l7m_cursor cursor{start, start + captured.frame.size(), 0, nullptr, 0};
    if (l7m_parse(&cursor, &packet, 0, l7m_replayed_frame(told), options.parse) != L7M_PARSE_OK ||
        packet.fragment == L7M_FRAGMENT_LATER)
      return;
    l7m_map_ipv4(&packet);
    FlowKey key;
    const int sender = l7m_make_key(&packet, &key.raw);
    auto& [first, second] = excess[key];
    (sender == 0 ? first : second) += std::uint64_t{told} - captured.bytes;
  }
};

KernelPath::KernelPath(std::unique_ptr<State> state) : state_(std::move(state)) {}
KernelPath::KernelPath(KernelPath&&) noexcept = default;
KernelPath& KernelPath::operator=(KernelPath&&) noexcept = default;
KernelPath::~KernelPath() = default;

Result<KernelPath> KernelPath::make(const PathOptions& options, std::uint32_t expected_flows) {
  DataplaneOptions wanted;
  // A least-recently-used map begins to evict before it is full: free places are held per CPU.
  wanted.flows = std::clamp<std::uint32_t>(expected_flows * 2, 16384, 1U << 20);
  // Few in a set, so that none makes way for another.
  wanted.candidates = std::clamp<std::uint32_t>(expected_flows * 4, 16384, 1U << 20);
  wanted.services = wanted.hints = 1024;
  wanted.rings = options.rings;
  wanted.parse = options.parse;
  wanted.replay = true;
  // Once for all captures: probing costs more than many a capture.
  static const Result<Features> features = probe_features();
  if (!features.ok()) return features.error();
  L7MARK_TRY(features->check_required());
  auto dataplane = Dataplane::open_private(wanted, *features);
  if (!dataplane.ok()) return dataplane.error();
  auto state = std::make_unique<State>(std::move(*dataplane));
  state->options = options;
  state->program = state->dataplane.program_fd("l7mark_ingress");
  if (state->program < 0) return Error{"find program", "l7mark_ingress", 0, ""};

  std::vector<std::pair<Address, unsigned>> inside;
  for (const Prefix& prefix : options.inside)
    inside.emplace_back(prefix.address, prefix.length128());
  L7MARK_TRY(state->dataplane.set_inside(inside));
  L7MARK_TRY(state->dataplane.write_settings(options.settings()));

  L7MARK_TRY(state->make_classifiers());
  state->callbacks.reserve(options.rings);
  for (std::uint32_t ring = 0; ring < options.rings; ++ring) {
    state->callbacks.emplace_back(state.get(), ring);
    const int fd = state->dataplane.ring_fd(ring);
    if (!state->rings) {
      state->rings.reset(ring_buffer__new(fd, State::on_record, &state->callbacks.back(), nullptr));
      if (!state->rings) return error_from_errno("map", "ring buffer");
    } else if (ring_buffer__add(state->rings.get(), fd, State::on_record,
                                &state->callbacks.back()) != 0) {
      return error_from_errno("map", "ring buffer");
    }
  }
  return KernelPath(std::move(state));
}

Status KernelPath::packet(const CapturedPacket& captured) {
  State& state = *state_;
  state.time_ns = captured.time_ns;
  state.frame = captured.frame;
  __sk_buff context{};
  context.wire_len =
      std::min(std::max(captured.bytes, static_cast<std::uint32_t>(captured.frame.size())),
               std::uint32_t{L7M_REPLAY_MAX});
  if (context.wire_len != captured.bytes) state.note_excess(captured, context.wire_len);
  LIBBPF_OPTS(
      bpf_test_run_opts, run, .data_in = captured.frame.data(),
      .data_size_in = static_cast<__u32>(std::min<std::size_t>(captured.frame.size(), kMaxRun)),
      .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1, );
  if (bpf_prog_test_run_opts(state.program, &run) != 0)
    return error_from_errno("run", "l7mark_ingress");
  if (const int got = ring_buffer__consume(state.rings.get()); got < 0)
    return Error{"read", "ring buffer", -got, ""};
  if (state.failure) return *state.failure;
  return success();
}

Status KernelPath::finish() {
  State& state = *state_;
  for (const auto& classifier : state.classifiers) classifier->finish();
  if (state.failure) return *state.failure;
  for (CaptureFlow& flow : state.flows) {
    const FlowKey& key = flow.answer.key;
    if (const auto verdict = state.dataplane.verdict(key)) State::add(flow.count, verdict->count);
    if (const auto candidate = state.dataplane.candidate(key))
      State::add(flow.count, wide(candidate->count));
    if (const auto found = state.excess.find(key); found != state.excess.end()) {
      flow.count.bytes[0] -= found->second.first;
      flow.count.bytes[1] -= found->second.second;
    }
  }
  return success();
}

Status KernelPath::restart() {
  State& state = *state_;
  L7MARK_TRY(state.make_classifiers());
  state.index.clear();
  state.flows.clear();
  state.excess.clear();
  state.failure.reset();
  return state.dataplane.forget_flows();
}

const std::deque<CaptureFlow>& KernelPath::flows() const {
  return state_->flows;
}
const Engine& KernelPath::engine() const {
  return state_->engines.front();
}

}  // namespace l7mark
