// SPDX-License-Identifier: GPL-2.0-only
// The worker processes, seen from the main one: started, listened to, and replaced when they die.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/message.hpp"
#include "daemon/worker.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

struct WorkerFigures {
  pid_t pid = -1;
  bool ready = false;
  std::uint64_t restarts = 0;
  std::uint64_t flows = 0;
  std::uint64_t samples = 0;
  std::uint64_t notices = 0;
  std::uint64_t malformed = 0;
  std::uint64_t answers = 0;
  std::uint64_t evicted = 0;
  std::uint64_t dns_answers = 0;
  std::uint64_t dns_unasked = 0;
  std::uint64_t skipped = 0;
};

class WorkerPool {
 public:
  struct Events {
    std::function<void(std::span<const Message>)> messages;  // some of one send
    // A worker died with this flow in its hands; it will not be sent again.
    std::function<void(std::uint32_t worker, std::optional<FlowKey> culprit)> died;
  };

  // `ring_fds` are borrowed.
  WorkerPool(const std::vector<int>& ring_fds, EngineOptions engine, ClassifierOptions classifier,
             Events events);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  Status start();
  // Ends all of them and waits. They may be started again.
  void stop();
  // For a change of what they classify with: takes effect with the next start().
  void set_options(EngineOptions engine, ClassifierOptions classifier) {
    engine_ = std::move(engine);
    classifier_ = std::move(classifier);
  }

  // An epoll descriptor that becomes readable when any worker has sent something.
  [[nodiscard]] int fd() const { return epoll_.get(); }
  // Reads what there is, `most` sends at the most; true if there may be more.
  bool process(std::size_t most);
  // After SIGCHLD: buries and replaces. A worker that keeps dying is replaced ever more slowly.
  void reap();
  // Starts those whose pause is over. Call it about once a second.
  void tick();
  [[nodiscard]] bool all_ready() const;
  [[nodiscard]] std::vector<WorkerFigures> figures() const;

 private:
  struct Slot;
  Status launch(Slot& slot);
  void bury(Slot& slot, int status);
  bool receive(Slot& slot);

  EngineOptions engine_;
  ClassifierOptions classifier_;
  Events events_;
  Fd epoll_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::byte> buffer_;
  std::vector<Message> messages_;
};

}  // namespace l7mark
