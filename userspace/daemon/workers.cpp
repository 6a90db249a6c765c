// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/workers.hpp"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>

#include "util/log.hpp"

namespace l7mark {

namespace {

using Clock = std::chrono::steady_clock;

// A socket buffer for many batches: a worker must not wait while the main process writes sets.
constexpr int kSocketBytes = 4 * 1024 * 1024;

// The first deaths are answered at once; a worker that can't live is tried every 30 seconds.
Clock::duration pause_after(std::uint64_t deaths_in_a_row) {
  if (deaths_in_a_row <= 3) return Clock::duration::zero();
  return std::chrono::seconds(
      std::min<std::uint64_t>(30, 1ULL << std::min<std::uint64_t>(5, deaths_in_a_row - 3)));
}

// BPF maps, netlink, the other workers' sockets: nothing of the main process stays with a worker.
void close_all_but(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned from = 0;
  for (const int fd : kept) {
    const auto at = static_cast<unsigned>(fd);
    if (at > from) close_range(from, at - 1, 0);
    from = at + 1;
  }
  close_range(from, ~0U, 0);
}

}  // namespace

struct WorkerPool::Slot {
  std::uint32_t index = 0;
  int ring_fd = -1;
  pid_t pid = -1;
  bool ready = false;
  Fd socket;
  WorkerPage* page = nullptr;
  std::uint64_t restarts = 0;
  std::uint64_t deaths_in_a_row = 0;
  Clock::time_point started;
  std::optional<Clock::time_point> start_at;

  ~Slot() {
    if (page != nullptr) munmap(page, sizeof(WorkerPage));
  }
};

WorkerPool::WorkerPool(const std::vector<int>& ring_fds, EngineOptions engine,
                       ClassifierOptions classifier, Events events)
    : engine_(std::move(engine)),
      classifier_(std::move(classifier)),
      events_(std::move(events)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      buffer_(kMessageBatch * 2),
      messages_(kMessagesAtOnce) {
  for (const int fd : ring_fds) {
    auto slot = std::make_unique<Slot>();
    slot->index = static_cast<std::uint32_t>(slots_.size());
    slot->ring_fd = fd;
    slots_.push_back(std::move(slot));
  }
}

WorkerPool::~WorkerPool() {
  stop();
}

Status WorkerPool::start() {
  if (!epoll_) return error_from_errno("start", "workers");
  for (auto& slot : slots_) {
    if (slot->page == nullptr) {
      void* memory = mmap(nullptr, sizeof(WorkerPage), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) return error_from_errno("start", "worker");
      slot->page = new (memory) WorkerPage;
    }
    L7MARK_TRY(launch(*slot));
  }
  return success();
}

Status WorkerPool::launch(Slot& slot) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return error_from_errno("start", "worker");
  Fd ours(pair[0]);
  Fd theirs(pair[1]);
  for (const int fd : pair) {
    // Beyond the administrator's limit only with CAP_NET_ADMIN, which the main process has.
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof(kSocketBytes)) != 0)
      setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSocketBytes, sizeof(kSocketBytes));
  }
  slot.page->busy.store(0);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return error_from_errno("start", "worker");
  if (pid == 0) {
    prctl(PR_SET_NAME, "l7mark-worker");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGINT, SIG_IGN);  // Ctrl-C goes to all; the main process ends its workers itself
    signal(SIGHUP, SIG_IGN);
    close_all_but({STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, slot.ring_fd, theirs.get()});
    WorkerOptions options;
    options.index = slot.index;
    options.ring_fd = slot.ring_fd;
    options.socket_fd = theirs.get();
    options.page = slot.page;
    options.engine = engine_;
    options.classifier = classifier_;
    _exit(run_worker(options));
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = slot.index;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ours.get(), &event) != 0) {
    const Error error = error_from_errno("start", "worker");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return error;
  }
  slot.pid = pid;
  slot.ready = false;
  slot.socket = std::move(ours);
  slot.started = Clock::now();
  slot.start_at.reset();
  return success();
}

void WorkerPool::stop() {
  for (auto& slot : slots_) slot->socket.reset();  // which ends it
  for (auto& slot : slots_) {
    if (slot->pid < 0) continue;
    for (int i = 0; i < 100 && waitpid(slot->pid, nullptr, WNOHANG) == 0; ++i) {
      if (i == 99) {
        kill(slot->pid, SIGKILL);
        waitpid(slot->pid, nullptr, 0);
        break;
      }
      usleep(10'000);
    }
    slot->pid = -1;
    slot->ready = false;
    slot->start_at.reset();
  }
}

bool WorkerPool::receive(Slot& slot) {
  const ssize_t size = recv(slot.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (size <= 0) return false;  // nothing there, or dead: SIGCHLD tells
  MessageReader reader(std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(size)));
  while (const std::size_t count = reader.read(messages_)) {
    const auto some = std::span<const Message>(messages_).first(count);
    for (const Message& message : some)
      if (std::holds_alternative<Ready>(message)) slot.ready = true;
    events_.messages(some);
  }
  if (reader.malformed()) {
    // Only a worker that was taken over writes such: it does not get another chance to.
    log_error("worker {} sent a malformed message and is replaced", slot.index);
    kill(slot.pid, SIGKILL);
    return false;
  }
  return true;
}

bool WorkerPool::process(std::size_t most) {
  for (std::size_t done = 0; done < most;) {
    bool any = false;
    for (auto& slot : slots_) {
      if (!slot->socket || !receive(*slot)) continue;
      any = true;
      ++done;
    }
    if (!any) return false;
  }
  return true;
}

void WorkerPool::bury(Slot& slot, int status) {
  while (slot.socket && receive(slot)) {
  }
  slot.socket.reset();
  const pid_t pid = std::exchange(slot.pid, -1);
  slot.ready = false;
  ++slot.restarts;
  const bool lived = Clock::now() - slot.started > std::chrono::seconds(60);
  slot.deaths_in_a_row = lived ? 1 : slot.deaths_in_a_row + 1;
  std::optional<FlowKey> culprit;
  if (WIFSIGNALED(status) && slot.page->busy.load() != 0) {
    culprit.emplace();
    culprit->raw = slot.page->current;
    WorkerPage& page = *slot.page;
    page.barred[page.barred_count % kBarredFlows] = page.current;
    ++page.barred_count;
  }
  if (WIFSIGNALED(status))
    log_warning("worker {} (pid {}) was ended by signal {} ({}){}; it is replaced", slot.index, pid,
                WTERMSIG(status), sigabbrev_np(WTERMSIG(status)),
                culprit ? " while it looked at a flow, which is not sampled again" : "");
  else
    log_warning("worker {} (pid {}) ended with status {}; it is replaced", slot.index, pid,
                WEXITSTATUS(status));
  events_.died(slot.index, culprit);
  slot.start_at = Clock::now() + pause_after(slot.deaths_in_a_row);
}

void WorkerPool::reap() {
  for (auto& slot : slots_) {
    int status = 0;
    if (slot->pid > 0 && waitpid(slot->pid, &status, WNOHANG) == slot->pid) bury(*slot, status);
  }
  tick();
}

void WorkerPool::tick() {
  for (auto& slot : slots_) {
    if (!slot->start_at || Clock::now() < *slot->start_at) continue;
    if (const auto status = launch(*slot); !status.ok()) {
      log_error("{}", status.error().message());
      slot->start_at = Clock::now() + std::chrono::seconds(5);
    }
  }
}

bool WorkerPool::all_ready() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->ready; });
}

std::vector<WorkerFigures> WorkerPool::figures() const {
  std::vector<WorkerFigures> out;
  for (const auto& slot : slots_) {
    WorkerFigures figures;
    figures.pid = slot->pid;
    figures.ready = slot->ready;
    figures.restarts = slot->restarts;
    if (const WorkerPage* page = slot->page) {
      figures.flows = page->flows.load();
      figures.samples = page->samples.load();
      figures.notices = page->notices.load();
      figures.malformed = page->malformed.load();
      figures.answers = page->answers.load();
      figures.evicted = page->evicted.load();
      figures.dns_answers = page->dns_answers.load();
      figures.dns_unasked = page->dns_unasked.load();
      figures.skipped = page->skipped.load();
    }
    out.push_back(figures);
  }
  return out;
}

}  // namespace l7mark
