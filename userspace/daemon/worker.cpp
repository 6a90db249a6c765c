// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/worker.hpp"

#include <bpf/libbpf.h>
#include <malloc.h>
#include <poll.h>
#include <sys/socket.h>
#include <ctime>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "daemon/message.hpp"
#include "daemon/sandbox.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr int kIdleCheckMs = 500;

// Where records come this fast, a wake-up for each costs more than what is in it: the worker lets
// some gather, the longer the faster they come. The kernel wakes nobody for a record behind one
// that has not been read.
constexpr std::uint64_t kBusyRecordsPerMs = 16;
constexpr std::uint64_t kVeryBusyRecordsPerMs = 40;
constexpr long kGatherNs = 1'000'000;
constexpr long kLongGatherNs = 2'000'000;
// After so many records, first answers are told, and answers are sent.
constexpr unsigned kTellRecords = 256;

class Worker final : public ClassifierSink {
 public:
  Worker(const WorkerOptions& options, Engine engine)
      : options_(options),
        page_(*options.page),
        engine_(std::move(engine)),
        classifier_(engine_, *this, options.classifier) {}

  Status open_ring() {
    ring_.reset(ring_buffer__new(options_.ring_fd, &Worker::on_record, this, nullptr));
    if (!ring_) return error_from_errno("map", "ring buffer " + std::to_string(options_.index));
    return success();
  }

  // False when the main process is gone.
  bool hello() {
    writer_.add(Ready{Engine::version()});
    return flush();
  }

  int run() {
    pollfd fds[2] = {{ring_buffer__epoll_fd(ring_.get()), POLLIN, 0},
                     {options_.socket_fd, 0, 0}};  // POLLHUP comes unasked
    std::uint64_t next_idle = now_ns();
    follow_wall_clock();
    while (!gone_) {
      const int ready = poll(fds, 2, kIdleCheckMs);
      if (ready < 0 && errno != EINTR) return 1;
      if ((fds[1].revents & (POLLHUP | POLLERR)) != 0) return 0;
      if (gather_ns_ > 0) gather();
      const int records = ring_buffer__consume(ring_.get());
      tell();
      const std::uint64_t now = now_ns();
      set_pace(records, now - std::exchange(consumed_ns_, now));
      if (now >= next_idle) {
        // The heap is in pieces by then, and would stay with us.
        if (classifier_.idle(now)) malloc_trim(0);
        page_.busy.store(0, std::memory_order_release);
        follow_wall_clock();
        next_idle = now + kIdleCheckMs * 1'000'000ULL;
      }
      flush();
      publish_figures();
    }
    return 0;
  }

  void on_answer(Answer&& answer) override {
    writer_.add(answer);
    flush_if_full();
  }

  // If it crashes on this one, the main process must know which it was.
  void on_revisit(const FlowKey& key) override {
    page_.current = key.raw;
    page_.busy.store(1, std::memory_order_release);
  }

  void on_dns(DnsAnswer&& answer) override {
    DnsHint hint;
    hint.application = engine_.match_host(answer.name);
    hint.answer = std::move(answer);
    writer_.add(hint);
    flush_if_full();
  }

 private:
  struct FreeRing {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
  };

  void gather() const {
    const timespec pause{0, gather_ns_};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  }

  // By the records that came in so many nanoseconds.
  void set_pace(int records, std::uint64_t elapsed_ns) {
    const std::uint64_t scaled = static_cast<std::uint64_t>(std::max(records, 0)) * 1'000'000;
    if (scaled > kVeryBusyRecordsPerMs * elapsed_ns)
      gather_ns_ = kLongGatherNs;
    else
      gather_ns_ = scaled > kBusyRecordsPerMs * elapsed_ns ? kGatherNs : 0;
  }

  static int on_record(void* context, void* data, std::size_t size) {
    // Nothing that a record can cause is worth losing the ones behind it.
    static_cast<Worker*>(context)->take({static_cast<const std::byte*>(data), size});
    return 0;
  }

  // Somebody may set the clock: the kernel's stamps do not follow, certificates' dates do.
  void follow_wall_clock() {
    classifier_.set_wall_offset(static_cast<std::int64_t>(clock_ns(CLOCK_REALTIME) - now_ns()));
  }

  void tell() {
    classifier_.tell();
    page_.busy.store(0, std::memory_order_release);
  }

  bool barred(const l7m_key& key) const {
    const std::uint32_t count = page_.barred_count;
    for (std::uint32_t i = 0; i < count && i < kBarredFlows; ++i)
      if (std::memcmp(&page_.barred[i], &key, sizeof(key)) == 0) return true;
    return false;
  }

  void take(std::span<const std::byte> record) {
    if (record.size() >= sizeof(l7m_sample)) {
      const auto* sample = reinterpret_cast<const l7m_sample*>(record.data());
      if (page_.barred_count > 0 && barred(sample->key)) {
        page_.skipped.fetch_add(1, std::memory_order_relaxed);
        return;
      }
      if (sample->type == L7M_RECORD_REOPEN) {
        Reopened reopened;
        reopened.key.raw = sample->key;
        reopened.id = sample->flow_id;
        reopened.count = sample->count;
        reopened.again = (sample->candidate_flags & L7M_FLOW_AGAIN) != 0;
        classifier_.abandon(reopened.key, reopened.id);
        writer_.add(reopened);
        flush_if_full();
        return;
      }
      page_.current = sample->key;
    }
    page_.busy.store(1, std::memory_order_release);
    classifier_.take_more(record);
    page_.busy.store(0, std::memory_order_release);
    // As long as records come in faster than they are read, there is no end to a round.
    if (++since_told_ >= kTellRecords) {
      since_told_ = 0;
      tell();
      flush();
    }
  }

  void flush_if_full() {
    // Half of the limit: the next message may be a long one.
    if (writer_.bytes().size() >= kMessageBatch / 2) flush();
  }

  bool flush() {
    if (writer_.empty()) return !gone_;
    const auto bytes = writer_.bytes();
    // Blocks when the main process is behind: then the ring fills, and the kernel counts that.
    while (send(options_.socket_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) {
      if (errno == EINTR) continue;
      gone_ = true;
      break;
    }
    writer_.clear();
    return !gone_;
  }

  void publish_figures() {
    const ClassifierStats& stats = classifier_.stats();
    page_.samples.store(stats.samples, std::memory_order_relaxed);
    page_.notices.store(stats.notices, std::memory_order_relaxed);
    page_.malformed.store(stats.malformed, std::memory_order_relaxed);
    page_.answers.store(stats.answers, std::memory_order_relaxed);
    page_.evicted.store(stats.evicted, std::memory_order_relaxed);
    page_.dns_answers.store(stats.dns_answers, std::memory_order_relaxed);
    page_.dns_unasked.store(stats.dns_unasked, std::memory_order_relaxed);
    page_.flows.store(classifier_.flows(), std::memory_order_relaxed);
  }

  const WorkerOptions& options_;
  WorkerPage& page_;
  Engine engine_;
  Classifier classifier_;
  std::unique_ptr<ring_buffer, FreeRing> ring_;
  MessageWriter writer_;
  bool gone_ = false;
  unsigned since_told_ = 0;        // records
  long gather_ns_ = 0;             // by what the last round found
  std::uint64_t consumed_ns_ = 0;  // when that was
};

}  // namespace

int run_worker(const WorkerOptions& options) {
  auto engine = Engine::make(options.engine);
  if (!engine) {
    log_error("worker {}: {}", options.index, engine.error().message());
    return 1;
  }
  Worker worker(options, std::move(*engine));
  if (const auto status = worker.open_ring(); !status.ok()) {
    log_error("worker {}: {}", options.index, status.error().message());
    return 1;
  }
  if (const auto status = enter_sandbox(); !status.ok()) {
    log_error("worker {}: {}", options.index, status.error().message());
    return 1;
  }
  if (!worker.hello()) return 0;
  return worker.run();
}

}  // namespace l7mark
