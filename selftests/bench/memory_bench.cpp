// SPDX-License-Identifier: GPL-2.0-only
#include "memory_bench.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "daemon/client.hpp"
#include "dataplane/pins.hpp"
#include "made_capture.hpp"
#include "sample_feed.hpp"
#include "util/fd.hpp"

namespace l7mark::bench {

namespace {

constexpr double kPatience = 120;  // seconds until all flows have their answer
constexpr double kMega = 1e6;

void nap(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// The number behind `field` in a file of lines "field: number …"; 0 if it is not there.
std::uint64_t number_in(const std::string& file, const std::string& field) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(field)) return std::strtoull(line.c_str() + field.size(), nullptr, 10);
  return 0;
}

// Bytes of a process: its share of what it has in memory together with others.
double process_bytes(pid_t pid) {
  return 1024.0 * static_cast<double>(number_in(fmt::format("/proc/{}/smaps_rollup", pid), "Pss:"));
}

std::vector<pid_t> children_of(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{0}/task/{0}/children", pid));
  std::vector<pid_t> out;
  for (pid_t child = 0; in >> child;) out.push_back(child);
  return out;
}

struct Usage {
  double kernel = 0;  // bytes, all of them
  double daemon = 0;
  double workers = 0;
  [[nodiscard]] double all() const { return kernel + daemon + workers; }
};

// When the daemon says that it is ready, as it says it to systemd.
class ReadyClock {
 public:
  static Result<std::unique_ptr<ReadyClock>> listen(const std::string& path) {
    std::unique_ptr<ReadyClock> out(new ReadyClock);
    out->fd_ = Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path))
      return Error{"listen on", path, ENAMETOOLONG, "choose a shorter TMPDIR"};
    std::memcpy(address.sun_path, path.c_str(), path.size());
    unlink(path.c_str());
    if (!out->fd_ ||
        bind(out->fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      return error_from_errno("listen on", path);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
    out->begin_ = now_seconds();
    out->thread_ = std::thread([clock = out.get()] {
      char text[512];
      for (;;) {
        const ssize_t size = recv(clock->fd_.get(), text, sizeof(text), 0);
        if (size <= 0) return;
        if (std::string_view(text, static_cast<std::size_t>(size)).find("READY=1") ==
            std::string_view::npos)
          continue;
        clock->ready_ = now_seconds();
        return;
      }
    });
    return out;
  }
  ~ReadyClock() {
    unsetenv("NOTIFY_SOCKET");
    shutdown(fd_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
  }
  ReadyClock(const ReadyClock&) = delete;
  ReadyClock& operator=(const ReadyClock&) = delete;

  // Seconds from listen() on; negative if it does not come. The control socket answers a little
  // earlier.
  [[nodiscard]] double seconds() const {
    for (int i = 0; i < 200 && ready_ == 0; ++i) nap(0.01);
    return ready_ == 0 ? -1 : ready_ - begin_;
  }

 private:
  ReadyClock() = default;
  Fd fd_;
  double begin_ = 0;
  std::atomic<double> ready_{0};
  std::thread thread_;
};

// How full a ring buffer is, from the two positions that the kernel shows of it.
class RingLevel {
 public:
  explicit RingLevel(int fd) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    pages_ = mmap(nullptr, page * 2, PROT_READ, MAP_SHARED, fd, 0);
    page_ = page;
  }
  ~RingLevel() {
    if (pages_ != MAP_FAILED) munmap(pages_, page_ * 2);
  }
  RingLevel(const RingLevel&) = delete;
  RingLevel& operator=(const RingLevel&) = delete;

  [[nodiscard]] bool valid() const { return pages_ != MAP_FAILED; }
  [[nodiscard]] std::uint64_t bytes() const {
    const auto at = [this](std::size_t offset) {
      return __atomic_load_n(
          reinterpret_cast<const std::uint64_t*>(static_cast<const std::byte*>(pages_) + offset),
          __ATOMIC_ACQUIRE);
    };
    const std::uint64_t consumer = at(0);
    return at(page_) - consumer;
  }

 private:
  void* pages_ = MAP_FAILED;
  std::size_t page_ = 0;
};

class MemoryBench {
 public:
  MemoryBench(const Lab& lab, std::size_t flows, bool ipv6)
      : lab_(lab), pins_{lab.instance}, source_(PacketSource::made_up(false, ipv6)) {
    copies_ = (flows + source_.flows() - 1) / source_.flows();
    flows_ = copies_ * source_.flows();
  }

  Status run(Table& table) {
    auto clock = ReadyClock::listen(lab_.folder + "/ready");
    if (!clock) return clock.error();
    auto daemon = start_daemon(
        lab_,
        fmt::format(R"({{"version": 1, "limits": {{"flows": {}, "unprotected": 100}},)"
                    // With hints, flows with resolvers stay candidates.
                    R"("first_packet": {{"hints": false}},)"
                    R"("sampling": {{"source_budget": 1073741824, "outside_budget": 1073741824}},)"
                    R"("classes": [{{"name": "all", "mark": "0x1/0xff"}}]}})",
                    flows_));
    if (!daemon) return daemon.error();
    const double start = (*clock)->seconds();
    L7MARK_TRY(find_ingress());
    const Usage before = usage(daemon->pid());
    L7MARK_TRY(fill());
    const auto live = wait_for_answers();
    if (!live) return live.error();
    const Usage after = usage(daemon->pid());
    program_.reset();
    daemon->stop();
    const auto tracked = static_cast<double>(*live);
    const auto mega = [](double bytes) { return number(bytes / kMega); };
    table.rows.push_back({fmt::format("{}", flows_), fmt::format("{}", *live),
                          start < 0 ? "not told" : number(start * 1000, 0), mega(before.all()),
                          mega(after.kernel), mega(after.daemon), mega(after.workers),
                          mega(after.all()), number(after.kernel / tracked, 0),
                          number((after.daemon + after.workers) / tracked, 0)});
    return success();
  }

 private:
  // The program of TC ingress that uses this instance's maps; it is not pinned itself.
  Status find_ingress() {
    const Fd flows(bpf_obj_get(pins_.map("flows4").c_str()));
    bpf_map_info wanted{};
    __u32 size = sizeof(wanted);
    if (!flows || bpf_obj_get_info_by_fd(flows.get(), &wanted, &size) != 0)
      return error_from_errno("open", pins_.map("flows4"));
    for (__u32 id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
      Fd fd(bpf_prog_get_fd_by_id(id));
      __u32 maps[64] = {};
      bpf_prog_info info{};
      info.nr_map_ids = 64;
      info.map_ids = reinterpret_cast<__u64>(maps);
      size = sizeof(info);
      if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) continue;
      if (std::strncmp(info.name, "l7mark_ingress", sizeof(info.name) - 1) != 0) continue;
      const auto* end = maps + std::min<__u32>(info.nr_map_ids, 64);
      if (std::find(static_cast<const __u32*>(maps), end, wanted.id) == end) continue;
      program_ = std::move(fd);
      return success();
    }
    return Error{"find", "the daemon's program for TC ingress", 0, {}};
  }

  Status fill() {
    const std::string path = pins_.map("ring0");
    const Fd ring(bpf_obj_get(path.c_str()));
    if (!ring) return error_from_errno("open", path);
    const RingLevel level(ring.get());
    if (!level.valid()) return error_from_errno("map", path);
    for (std::size_t copy = 0; copy < copies_; ++copy) {
      L7MARK_TRY(feed(program_.get(), source_, copy, 1));
      // A copy is half a megabyte of samples; the ring has four.
      const double end = now_seconds() + kPatience;
      while (level.bytes() > (1U << 20)) {
        if (now_seconds() > end) return Error{"feed", "the daemon's worker", ETIMEDOUT, {}};
        nap(0.0005);
      }
    }
    return success();
  }

  // Flows that the daemon tracks, once all have their last word.
  Result<std::uint64_t> wait_for_answers() {
    auto client = ControlClient::connect(lab_.instance, std::chrono::seconds(60));
    if (!client) return client.error();
    std::uint64_t live = 0;
    for (const double end = now_seconds() + kPatience; now_seconds() < end; nap(1)) {
      const auto status = client->request("status", {});
      if (!status) return status.error();
      const auto& flows = status->at("flows");
      live = flows.value("live", std::uint64_t{0});
      if (flows.value("provisional", std::uint64_t{1}) == 0 &&
          flows.value("candidates", std::uint64_t{1}) == 0)
        break;
    }
    return live;
  }

  [[nodiscard]] Usage usage(pid_t daemon) const {
    Usage out;
    std::set<__u32> seen;  // a map may have several pins
    for (const std::string& name : list_directory(pins_.version())) {
      const Fd fd(bpf_obj_get(pins_.map(name).c_str()));
      bpf_map_info info{};
      __u32 size = sizeof(info);
      if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) continue;
      if (!seen.insert(info.id).second) continue;
      out.kernel +=
          static_cast<double>(number_in(fmt::format("/proc/self/fdinfo/{}", fd.get()), "memlock:"));
    }
    out.daemon = process_bytes(daemon);
    for (const pid_t worker : children_of(daemon)) out.workers += process_bytes(worker);
    return out;
  }

  const Lab& lab_;
  PinPaths pins_;
  PacketSource source_;
  std::size_t copies_ = 0;
  std::size_t flows_ = 0;
  Fd program_;
};

}  // namespace

Result<Table> run_memory_bench(const Lab& lab, const MemoryBenchOptions& options) {
  L7MARK_TRY(make_path(lab));
  Table table;
  table.columns = {"flows",         "tracked",         "start-up, ms", "empty, MB",
                   "kernel, MB",    "daemon, MB",      "workers, MB",  "all, MB",
                   "B/flow kernel", "B/flow processes"};
  for (const std::size_t flows : options.flows) {
    MemoryBench bench(lab, flows, options.ipv6);
    L7MARK_TRY(bench.run(table));
  }
  return table;
}

}  // namespace l7mark::bench
