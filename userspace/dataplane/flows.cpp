// SPDX-License-Identifier: GPL-2.0-only
// The tables of flows: verdicts, and candidates for one.
#include <bpf/bpf.h>
#include <l7mark/candidates.h>
#include <l7mark/parse.h>
#include <l7mark_control.skel.h>
#include <l7mark_tc.skel.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "dataplane/dataplane.hpp"
#include "dataplane/map_walk.hpp"

namespace l7mark {

namespace {

l7m_key4 to_v4(const FlowKey& key) {
  l7m_key4 out;
  l7m_key_to_v4(&key.raw, &out);
  return out;
}

bool is_v4(const FlowKey& key) {
  return l7m_key_is_v4(&key.raw) != 0;
}

FlowKey to_flow_key(const l7m_key4& key) {
  FlowKey out;
  l7m_key_from_v4(&key, &out.raw);
  return out;
}
FlowKey to_flow_key(const l7m_key& key) {
  FlowKey out;
  out.raw = key;
  return out;
}

// What a program run takes on every kernel.
constexpr std::size_t kRunBytes = 3584;
static_assert(L7M_BATCH_HEADER + L7M_EDIT_BATCH * sizeof(l7m_edit) <= kRunBytes);
static_assert(L7M_BATCH_HEADER + L7M_SETTLE_BATCH * sizeof(l7m_settlement) <= kRunBytes);

// Runs a program over `entries`, which it changes, `batch` of them at a time.
template <class Entry>
Status run_over(const bpf_program* program, std::span<Entry> entries, std::size_t batch) {
  std::array<std::byte, kRunBytes> frame{};
  while (!entries.empty()) {
    const auto now = entries.first(std::min(entries.size(), batch));
    std::memcpy(frame.data() + L7M_BATCH_HEADER, now.data(), now.size_bytes());
    const auto size = static_cast<__u32>(L7M_BATCH_HEADER + now.size_bytes());
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame.data(), .data_out = frame.data(),
                .data_size_in = size, .data_size_out = size, .repeat = 1);
    if (bpf_prog_test_run_opts(bpf_program__fd(program), &run) != 0)
      return error_from_errno("run", std::string("program ") + bpf_program__name(program));
    std::memcpy(now.data(), frame.data() + L7M_BATCH_HEADER, now.size_bytes());
    entries = entries.subspan(now.size());
  }
  return success();
}

}  // namespace

Status Dataplane::settle(std::span<l7m_settlement> steps) {
  return run_over(control_->progs.l7mark_settle, steps, L7M_SETTLE_BATCH);
}

Status Dataplane::edit(std::span<l7m_edit> edits) {
  return run_over(control_->progs.l7mark_edit, edits, L7M_EDIT_BATCH);
}

Result<std::vector<std::size_t>> Dataplane::put_verdicts(std::span<const VerdictEntry> entries) {
  const int v4 = bpf_map__fd(tc_->maps.flows4), v6 = bpf_map__fd(tc_->maps.flows6);
  std::vector<std::size_t> full;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto& [key, verdict] = entries[i];
    const l7m_key4 key4 = to_v4(key);
    const int code = is_v4(key) ? bpf_map_update_elem(v4, &key4, &verdict, BPF_ANY)
                                : bpf_map_update_elem(v6, &key.raw, &verdict, BPF_ANY);
    if (code == 0) continue;
    if (errno != E2BIG) return error_from_errno("write", "map flows");
    full.push_back(i);
  }
  return full;
}

std::optional<l7m_verdict> Dataplane::verdict(const FlowKey& key) const {
  l7m_verdict out{};
  const l7m_key4 key4 = to_v4(key);
  const int code = is_v4(key) ? bpf_map_lookup_elem(bpf_map__fd(tc_->maps.flows4), &key4, &out)
                              : bpf_map_lookup_elem(bpf_map__fd(tc_->maps.flows6), &key.raw, &out);
  if (code != 0) return std::nullopt;
  return out;
}

void Dataplane::remove_verdict(const FlowKey& key) {
  const l7m_key4 key4 = to_v4(key);
  if (is_v4(key))
    bpf_map_delete_elem(bpf_map__fd(tc_->maps.flows4), &key4);
  else
    bpf_map_delete_elem(bpf_map__fd(tc_->maps.flows6), &key.raw);
}

Status Dataplane::for_each_verdict(
    const std::function<void(const FlowKey&, const l7m_verdict&)>& call,
    const std::function<void(std::span<const FlowKey>)>& ahead) const {
  const auto pass = [&](const auto& key, const l7m_verdict& value) {
    call(to_flow_key(key), value);
  };
  std::vector<FlowKey> next;
  const auto pass_ahead = [&](const auto& keys) {
    if (!ahead) return;
    next.clear();
    for (const auto& key : keys) next.push_back(to_flow_key(key));
    ahead(next);
  };
  L7MARK_TRY(
      (walk<l7m_key4, l7m_verdict>(bpf_map__fd(tc_->maps.flows4), batches_, pass, pass_ahead)));
  return walk<l7m_key, l7m_verdict>(bpf_map__fd(tc_->maps.flows6), batches_, pass, pass_ahead);
}

Status Dataplane::for_each_candidate(
    const std::function<void(const FlowKey&, const l7m_candidate&)>& call) const {
  return walk<std::uint32_t, l7m_candidate_set>(
      bpf_map__fd(tc_->maps.candidates), batches_, [&](std::uint32_t, const auto& set) {
        for (std::uint32_t i = 0; i < L7M_WAYS; ++i)
          if (set.tag[i] != 0) call(to_flow_key(set.place[i].key), set.place[i].value);
      });
}

Status Dataplane::forget_flows() {
  L7MARK_TRY(for_each_verdict([this](const FlowKey& key, const auto&) { remove_verdict(key); }));
  std::vector<l7m_settlement> steps;
  L7MARK_TRY(for_each_candidate([&steps](const FlowKey& key, const l7m_candidate& candidate) {
    l7m_settlement& step = steps.emplace_back();
    step.key = key.raw;
    step.flow_id = candidate.flow_id;
    step.step = L7M_SETTLE_TAKE;
  }));
  L7MARK_TRY(settle(steps));
  const int fragments = bpf_map__fd(tc_->maps.fragments);
  l7m_fragment_key key{};
  while (bpf_map_get_next_key(fragments, nullptr, &key) == 0)
    if (bpf_map_delete_elem(fragments, &key) != 0 && errno != ENOENT)
      return error_from_errno("empty", "map fragments");
  return success();
}

Status Dataplane::read_set(const FlowKey& key, CandidateSpot& spot) const {
  const std::uint32_t hash = l7m_candidate_hash(&key.raw, &secrets_);
  spot.index = l7m_candidate_set_of(hash, sets_);
  spot.tag = l7m_candidate_tag(hash);
  if (bpf_map_lookup_elem(bpf_map__fd(tc_->maps.candidates), &spot.index, &spot.set) != 0)
    return error_from_errno("read", "map candidates");
  spot.place = L7M_WAYS;
  for (std::uint32_t i = 0; i < L7M_WAYS; ++i)
    if ((spot.set.tag[i] & ~L7M_TAG_PLACE) == spot.tag &&
        std::memcmp(&spot.set.place[i].key, &key.raw, sizeof(key.raw)) == 0)
      spot.place = i;
  return success();
}

std::optional<l7m_candidate> Dataplane::candidate(const FlowKey& key) const {
  CandidateSpot spot;
  if (!read_set(key, spot).ok() || spot.place == L7M_WAYS) return std::nullopt;
  return spot.set.place[spot.place].value;
}

Dataplane::Place Dataplane::find_life(const FlowKey& key, std::uint64_t flow_id) const {
  // Twice: it may go from one table to the other while the other is being looked at.
  for (int i = 0; i < 2; ++i) {
    if (const auto decided = verdict(key))
      return decided->flow_id == flow_id ? Place::verdict : Place::none;
    const auto sampled = candidate(key);
    if (sampled && sampled->flow_id == flow_id) return Place::candidate;
  }
  return Place::none;
}

Status Dataplane::put_candidate(const FlowKey& key, const l7m_candidate& value) {
  CandidateSpot spot;
  L7MARK_TRY(read_set(key, spot));
  for (std::uint32_t i = 0; i < L7M_WAYS && spot.place == L7M_WAYS; ++i)
    if (spot.set.tag[i] == 0) spot.place = i;
  if (spot.place == L7M_WAYS) spot.place = 0;  // full: somebody has to go
  spot.set.tag[spot.place] = spot.tag | spot.place;
  spot.set.place[spot.place].key = key.raw;
  spot.set.place[spot.place].value = value;
  if (bpf_map_update_elem(bpf_map__fd(tc_->maps.candidates), &spot.index, &spot.set, BPF_ANY) != 0)
    return error_from_errno("write", "map candidates");
  return success();
}

}  // namespace l7mark
