// SPDX-License-Identifier: GPL-2.0-only
// A flow's way between the kernel's tables after its first verdict: the second look, another life
// of its five-tuple, and entries that are gone.
#include <netinet/in.h>

#include <algorithm>
#include <bit>

#include "daemon/core.hpp"

namespace l7mark {

namespace {

// From here on a flow is looked at whenever its packets have doubled, and no more after a pause.
constexpr std::uint64_t kFirstLook = 16;

}  // namespace

// The number of the packet since the verdict at which a flow is looked at again; 0 for never. Its
// own answer is the last word. If it paused before all packets that are wanted of it had come, it
// is read on at once: a handshake may take its time. Each such look takes a packet, so there are
// few of them.
std::uint16_t Core::next_look(const Flow& flow) const {
  const std::uint64_t last = policy_->sampling.look_again;
  if (last == 0 || flow.own_answer()) return 0;
  const std::uint64_t sent = std::max(flow.total.packets[0], flow.total.packets[1]);
  if (sent < kFirstLook && flow.sampled_packets < policy_->sampling.packets) return 1;
  const std::uint64_t number = std::max(kFirstLook, std::bit_ceil(sent + 1));
  return number <= last ? static_cast<std::uint16_t>(number - sent) : 0;
}

void Core::on_reopened(const Reopened& reopened) {
  Flow* flow = flows_.find(reopened.key);
  if (flow == nullptr || flow->id != reopened.id) return;
  flow->set_since(reopened.count);
  if (reopened.again) {
    look_again(reopened.key, *flow);
    return;
  }
  flow->decided = false;  // the kernel has forgotten it: what is there now is another's
  end_flow(reopened.key, "reopened");
}

// It keeps its class and its places in sets until it is answered anew.
void Core::look_again(const FlowKey& key, Flow& flow) {
  // The first packet is sampled whatever it is; a SYN has said nothing.
  const unsigned silent = key.raw.protocol == IPPROTO_TCP ? 1 : 0;
  flow.heard = flow.heard || flow.sampled_packets > silent;
  flow.keep_count();
  keep_waiting(key, flow);
}

// A second look at a flow that has spoken before begins in the midst of its conversation, where
// nDPI takes random bytes for protocols: by one look 15 to 24 of 2,000 TCP flows, 94 of 3,000 UDP
// flows. There are up to eight looks. So an answer counts there only if a detector gave it or a
// handshake or request was read that names a host or offers ciphers.
bool Core::is_doubtful(const Flow& flow, const Answer& answer) {
  const FlowFacts& facts = answer.facts;
  return flow.heard && (answer.flags & L7M_FLOW_AGAIN) != 0 && facts.own_answer() &&
         facts.detector == Detector::none && facts.hostname.empty() &&
         !facts.details.client_hello_seen();
}

// Its worker has samples and will answer: by the last one that is wanted, or when the flow has been
// quiet for the idle timeout. Until then the old answer is no reason for a verdict.
bool Core::is_looked_at(const Flow& flow, const l7m_candidate& candidate,
                        std::uint64_t quiet_ms) const {
  return (candidate.flags & L7M_FLOW_AGAIN) != 0 && !flow.own_answer() && candidate.sampled > 0 &&
         candidate.sampled < candidate.packets &&
         quiet_ms <= std::uint64_t{policy_->sampling.idle_timeout} * 1000;
}

// A flow that was not found where it should be. A walk misses entries that change meanwhile.
void Core::look_for(const FlowLife& life) {
  Flow* flow = flows_.find(life.key);
  if (flow == nullptr || flow->id != life.id) return;
  const auto place = dataplane_.find_life(life.key, life.id);
  if (place == Dataplane::Place::none)
    end_flow(life.key, flow->decided ? "lost" : "evicted");
  else if (place == Dataplane::Place::verdict)
    flow->decided = true;  // the next sweep counts it
  else if (flow->decided)
    look_again(life.key, *flow);
  else
    keep_waiting(life.key, *flow);
}

}  // namespace l7mark
