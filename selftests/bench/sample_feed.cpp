// SPDX-License-Identifier: GPL-2.0-only
#include "sample_feed.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "capture/path.hpp"
#include "dataplane/features.hpp"

namespace l7mark::bench {

namespace {

// What a program run takes of a packet on every kernel.
constexpr std::size_t kMaxRun = 3072;
constexpr std::size_t kRecordHeader = 8;  // BPF_RINGBUF_HDR_SZ
constexpr std::size_t kCollectRing = 64U << 20;

struct FreeRing {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

struct Collector {
  Samples samples;
  std::unordered_map<FlowKey, std::uint32_t> flows;
  std::vector<bool> started;  // given to nDPI

  void take(const std::byte* data, std::size_t size) {
    samples.ring_bytes += (size + kRecordHeader + 7) / 8 * 8;
    l7m_sample head;
    if (size < sizeof(head)) return;
    std::memcpy(&head, data, sizeof(head));
    if (head.type != L7M_RECORD_SAMPLE) return;
    ++samples.count;
    FlowKey key;
    key.raw = head.key;
    const auto [flow, fresh] = flows.try_emplace(key, static_cast<std::uint32_t>(samples.flows));
    if (fresh) {
      ++samples.flows;
      started.push_back(false);
    }
    NdpiInput input;
    input.flow = flow->second;
    input.offset = static_cast<std::uint32_t>(samples.bytes.size());
    input.length = std::min<std::uint32_t>(head.l3_length, 65535);
    input.put_by = fresh && head.l4_payload == 0;
    const std::size_t copied = std::min<std::size_t>(head.captured - head.l3_offset, input.length);
    const auto* packet =
        reinterpret_cast<const std::uint8_t*>(data + sizeof(head) + head.l3_offset);
    samples.bytes.insert(samples.bytes.end(), packet, packet + copied);
    samples.bytes.resize(input.offset + input.length);
    samples.inputs.push_back(input);
  }

  static int on_record(void* context, void* data, std::size_t size) {
    static_cast<Collector*>(context)->take(static_cast<const std::byte*>(data), size);
    return 0;
  }
};

}  // namespace

Result<Dataplane> open_for_samples(std::size_t flows, std::uint32_t rings, std::size_t ring_bytes) {
  static const Result<Features> features = probe_features();
  if (!features) return features.error();
  L7MARK_TRY(features->check_required());
  DataplaneOptions options;
  options.candidates = static_cast<std::uint32_t>(std::max<std::size_t>(flows * 2, 16384));
  options.flows = options.services = options.hints = 1024;
  options.rings = rings;
  options.ring_bytes = static_cast<std::uint32_t>(ring_bytes);
  options.replay = true;  // a five-tuple is one flow, as it is to ndpiReader
  auto dataplane = Dataplane::open_private(options, *features);
  if (!dataplane) return dataplane.error();
  PathOptions path;
  path.rings = rings;
  L7MARK_TRY(dataplane->write_settings(path.settings()));
  return dataplane;
}

Status feed(int program, const PacketSource& source, std::size_t first, std::size_t copies) {
  const auto run = [&](std::span<const std::uint8_t> frame) -> Status {
    __sk_buff context{};
    context.wire_len = static_cast<__u32>(std::min<std::size_t>(frame.size(), 65536));
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(std::min(frame.size(), kMaxRun)),
                .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1);
    if (bpf_prog_test_run_opts(program, &options) != 0)
      return error_from_errno("run", "l7mark_ingress");
    return success();
  };
  return source.replay(first, copies, run);
}

Status check_rings(const Dataplane& dataplane) {
  if (dataplane.counters()[L7M_COUNT_RING_FULL] != 0)
    return Error{"keep", "the samples", 0, "the ring buffer is too small for them"};
  return success();
}

Result<Samples> collect(const PacketSource& source, std::size_t copies) {
  auto dataplane = open_for_samples(source.flows() * copies, 1, kCollectRing);
  if (!dataplane) return dataplane.error();
  Collector collector;
  const std::unique_ptr<ring_buffer, FreeRing> ring(
      ring_buffer__new(dataplane->ring_fd(0), Collector::on_record, &collector, nullptr));
  if (!ring) return error_from_errno("map", "the ring buffer");
  const int program = dataplane->program_fd("l7mark_ingress");
  for (std::size_t copy = 0; copy < copies; ++copy) {
    L7MARK_TRY(feed(program, source, copy, 1));
    L7MARK_TRY(check_rings(*dataplane));
    if (ring_buffer__consume(ring.get()) < 0) return Error{"read", "the ring buffer", 0, {}};
  }
  return std::move(collector.samples);
}

}  // namespace l7mark::bench
