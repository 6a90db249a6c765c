// SPDX-License-Identifier: GPL-2.0-only
// Turns samples into answers: the part of a worker that knows flows but no system calls.
#pragma once

#include <l7mark/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dpi/answered_flows.hpp"
#include "dpi/engine.hpp"
#include "dpi/flow_pool.hpp"
#include "flow.hpp"

namespace l7mark {

// Receives what a classifier finds, on the caller's thread. Must not call back into it.
class ClassifierSink {
 public:
  virtual ~ClassifierSink() = default;
  // State `provisional`: more samples may change it. `final` or `guessed`, which is a last word
  // without an answer of the flow's own: the last.
  virtual void on_answer(Answer&& answer) = 0;
  virtual void on_dns(DnsAnswer&& answer) = 0;
  // nDPI is about to look at this flow, and not because of the record that was given last.
  virtual void on_revisit(const FlowKey& /*key*/) {}
};

struct ClassifierOptions {
  // Flows with state of nDPI (1.3 KB each in the mean).
  std::size_t max_flows = 32768;
  // Flows of which only a packet without payload has been seen (a few hundred bytes each). A limit
  // of their own, so that a SYN flood can't push out the others.
  std::size_t max_waiting = 32768;
  // A flow without a sample for so long is given up; 0 for never.
  std::uint64_t idle_ns = 10'000'000'000;
  // Flows whose hello is not whole yet (up to 36 KB each). The oldest is given up for a new one.
  std::size_t max_reading = 2048;
  // Flows with a resolver that have their answer and are read on, for hints; 0 for none. The
  // longest silent makes way for a new one (1 KB each).
  std::size_t max_followed = 0;
  // Prefixes of the clients' side: see client_of().
  std::vector<Prefix> inside;

  friend bool operator==(const ClassifierOptions&, const ClassifierOptions&) = default;
};

struct ClassifierStats {
  std::uint64_t samples = 0;
  std::uint64_t notices = 0;
  std::uint64_t malformed = 0;        // records that contradict themselves
  std::uint64_t answers = 0;          // final or guessed
  std::uint64_t provisional = 0;      // of flows that go on being sampled
  std::uint64_t evicted = 0;          // flows given up early because there were too many
  std::uint64_t waiting_dropped = 0;  // flows without payload forgotten for the same reason
  std::uint64_t dns_answers = 0;      // with addresses, to a question that was seen
  std::uint64_t dns_unasked = 0;      // likewise, but without one: ignored
  std::uint64_t memory_failures = 0;  // flows that nDPI had no memory for
};

// One per worker. Holds an entry for each flow from its first sample until it is answered,
// abandoned, idle, or pushed out by newer ones. Samples of an answered flow that are still under
// way are ignored. A flow with a resolver is answered as any other, and then followed: a socket may
// live as long as the resolver, and later answers name addresses too.
class Classifier {
 public:
  // Both must outlive the classifier.
  Classifier(Engine& engine, ClassifierSink& sink, ClassifierOptions options = {});
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // A ring buffer's record as it came. False, and counted, if it is malformed.
  bool take(std::span<const std::byte> record) {
    const bool taken = take_more(record);
    tell();
    return taken;
  }

  // Where more records are at hand: a flow's provisional answer waits for tell(), and never comes
  // if they bring the last word.
  bool take_more(std::span<const std::byte> record);
  void tell();

  // Gives up flows without a sample since `now_ns - idle_ns`; the clock is that of the samples.
  // True if a burst is over and much memory was freed.
  bool idle(std::uint64_t now_ns);

  // From the samples' clock to seconds since 1970: certificates are judged by it. 0 for captures,
  // whose samples have that time already.
  void set_wall_offset(std::int64_t offset_ns) { wall_offset_ns_ = offset_ns; }

  // Forgets a flow without an answer: its entry in the kernel is gone. Not another life of the key.
  void abandon(const FlowKey& key, std::uint64_t id);

  // Gives up all flows, oldest first: the input has ended.
  void finish();

  // Held: without an answer that is the last, or followed.
  [[nodiscard]] std::size_t flows() const;
  [[nodiscard]] const ClassifierStats& stats() const { return stats_; }

 private:
  struct Flow;
  // Least recently sampled first.
  using Queue = PoolQueue<Flow>;

  Flow& create(const FlowKey& key, const l7m_sample& sample);
  bool join_parts(Flow& flow, l7m_sample& sample, std::span<const std::uint8_t>& data);
  void move_to(Flow& flow, Queue& queue);
  void hold(Flow& flow, Queue& queue);
  void inspect(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> data);
  static bool begun(const Flow& flow);
  [[nodiscard]] bool is_guess(const Flow& flow) const;
  bool start(Flow& flow);
  void feed(Flow& flow, std::span<const std::uint8_t> copied, std::size_t length,
            std::uint64_t time_ns);
  bool look_at(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> packet,
               std::size_t length);
  void feed_bare_ack(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> packet);
  void show_detectors(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> packet);
  void add_findings(const Flow& flow, FlowFacts& facts) const;
  void watch_dns(Flow& flow, const l7m_sample& sample, std::span<const std::uint8_t> packet);
  [[nodiscard]] bool may_follow(const Flow& flow) const;
  void follow(Flow& flow);
  void end(Flow& flow);
  void give_up(Flow& flow);
  void answer(Flow& flow, FlowState state, bool followed = false);
  void tell_begun(const FlowKey& key, const l7m_sample& sample);
  void untell(Flow& flow);
  void settle(Flow& flow);
  void make_room(Queue& queue);
  void erase(Flow& flow);

  Engine& engine_;
  ClassifierSink& sink_;
  ClassifierOptions options_;
  ClassifierStats stats_;
  std::uint16_t dns_;  // nDPI's number
  std::unique_ptr<FlowPool<Flow>> flows_;
  Queue waiting_;   // no payload yet, nothing given to nDPI
  Queue active_;    // nDPI holds state
  Queue reading_;   // a hello or a packet that is not whole yet
  Queue twins_;     // answered, but one packet more is worth a moment: DNS's other family, QUIC's
                    // answer to the hello
  Queue followed_;  // had their last word; DNS is read on
  AnsweredFlows answered_;
  // The packet that nDPI is given. Its first `dirty_` bytes were written, the rest is zero.
  std::vector<std::uint8_t> packet_;
  std::size_t dirty_ = 0;
  std::vector<std::uint8_t> joined_;  // a packet that came in several records
  std::vector<Flow*> due_;            // have a provisional answer to be told; null for no more
  std::uint64_t time_ms_ = 0;
  std::int64_t wall_offset_ns_ = 0;
};

}  // namespace l7mark
