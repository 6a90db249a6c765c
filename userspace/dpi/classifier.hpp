// SPDX-License-Identifier: GPL-2.0-only
// Turns samples into answers: the part of a worker that knows flows but no system calls.
#pragma once

#include <l7mark/types.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "dpi/engine.hpp"
#include "flow.hpp"

namespace l7mark {

// Receives what a classifier finds, on the caller's thread. Must not call back into it.
class ClassifierSink {
 public:
  virtual ~ClassifierSink() = default;
  virtual void on_answer(Answer&& answer) = 0;
  virtual void on_dns(DnsAnswer&& answer) = 0;
};

struct ClassifierOptions {
  // Flows with state of nDPI (1.3 KB each in the mean), and flows of which only a packet without
  // payload was seen (a few hundred bytes): two limits, so that a SYN flood can't push out the
  // first.
  std::size_t max_flows = 32768;
  std::size_t max_waiting = 32768;
  // A flow without a sample for so long is given up; 0 for never.
  std::uint64_t idle_ns = 10'000'000'000;
};

struct ClassifierStats {
  std::uint64_t samples = 0;
  std::uint64_t notices = 0;
  std::uint64_t malformed = 0;        // records that contradict themselves
  std::uint64_t answers = 0;          // final or guessed
  std::uint64_t provisional = 0;      // of flows that go on being sampled
  std::uint64_t evicted = 0;          // flows given up early because the table was full
  std::uint64_t waiting_dropped = 0;  // flows without payload forgotten because theirs was
  std::uint64_t dns_answers = 0;
  std::uint64_t memory_failures = 0;
};

// One per worker. Holds one entry for each flow that is being sampled, from its first sample until
// it is abandoned, idle, or pushed out by newer ones. Every byte of a sample is checked before use.
class Classifier {
 public:
  // Both must outlive the classifier.
  Classifier(Engine& engine, ClassifierSink& sink, ClassifierOptions options = {});
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // A ring buffer's record as it came. False, and counted, if it is malformed.
  bool take(std::span<const std::byte> record);

  // Gives up flows without a sample since `now_ns - idle_ns`; the clock is that of the samples.
  void idle(std::uint64_t now_ns);

  // Forgets a flow without an answer: its entry in the kernel is gone.
  void abandon(const FlowKey& key);

  // Gives up all flows, oldest first: the input has ended.
  void finish();

  [[nodiscard]] std::size_t flows() const { return flows_.size(); }
  [[nodiscard]] const ClassifierStats& stats() const { return stats_; }

 private:
  struct Flow;
  using Table = std::unordered_map<FlowKey, std::unique_ptr<Flow>>;

  void note(Flow& flow, const l7m_sample& sample);
  Flow& find_or_create(const FlowKey& key, const l7m_sample& sample);
  void touch(Flow& flow);
  bool inspect(Flow& flow, const l7m_sample& sample);
  void feed(Flow& flow, std::span<const std::uint8_t> packet, std::size_t length,
            std::uint64_t time_ns);
  bool begin(Flow& flow);
  void watch_dns(Flow& flow, const l7m_sample& sample);
  void give_up(Flow& flow);
  void answer(Flow& flow, FlowState state);
  void complete(Flow& flow);
  void make_room(bool waiting);
  void erase(Flow& flow);

  Engine& engine_;
  ClassifierSink& sink_;
  ClassifierOptions options_;
  ClassifierStats stats_;
  Table flows_;
  // Least recently sampled first. A flow is in one of them.
  std::list<Flow*> active_;
  std::list<Flow*> waiting_;
  // The packet given to nDPI: zeroes but for what was copied, `dirty_` bytes from its start.
  std::vector<std::uint8_t> packet_;
  std::size_t dirty_ = 0;
};

}  // namespace l7mark
