// SPDX-License-Identifier: GPL-2.0-only
#include "path_contender.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "dataplane/attach.hpp"
#include "dataplane/features.hpp"
#include "dataplane/interface.hpp"
#include "dataplane/pins.hpp"
#include "util/fd.hpp"

namespace l7mark::bench {

namespace {

constexpr const char* kInterface = "lan0";
constexpr std::uint16_t kQueue = 7;

class None final : public PathContender {
 public:
  [[nodiscard]] const char* name() const override { return "none"; }
  Status begin(const Lab&) override { return success(); }
  Result<std::optional<Captured>> end(const Lab&) override { return std::optional<Captured>(); }
};

Result<Fd> load_empty(bpf_prog_type type, int answer) {
  const bpf_insn program[] = {
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, answer},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  };
  Fd fd(bpf_prog_load(type, "l7mb_empty", "GPL", program, std::size(program), nullptr));
  if (!fd) return error_from_errno("load", "an empty program");
  return fd;
}

// In both directions, by the way that ours goes on.
class EmptyTc final : public PathContender {
 public:
  [[nodiscard]] const char* name() const override { return "tc-empty"; }

  Status begin(const Lab& lab) override {
    const auto features = probe_features();
    if (!features) return features.error();
    const auto program = load_empty(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC);
    if (!program) return program.error();
    const PinPaths pins{lab.instance + "-empty"};
    L7MARK_TRY(mount_bpffs());
    L7MARK_TRY(prepare_pins(pins));
    InterfaceConfig config;
    config.name = kInterface;
    config.mode = AttachMode::tc;
    const auto facts = describe_interface(kInterface);
    if (!facts) return facts.error();
    const int fd = program->get();
    const auto attached = attach(
        config, *facts, ProgramSet{fd, fd, fd, fd, fd},
        []() -> Result<bpf_object*> {
          return Error{"attach", kInterface, ENOTSUP, {}};
        },
        *features, attach_paths(pins));
    if (!attached) return attached.error();
    return success();
  }

  Result<std::optional<Captured>> end(const Lab& lab) override {
    const PinPaths pins{lab.instance + "-empty"};
    L7MARK_TRY(detach(kInterface, attach_paths(pins)));
    L7MARK_TRY(remove_pins(pins));
    return std::optional<Captured>();
  }
};

class EmptyXdp final : public PathContender {
 public:
  [[nodiscard]] const char* name() const override { return "xdp-empty"; }

  Status begin(const Lab&) override {
    const auto program = load_empty(BPF_PROG_TYPE_XDP, XDP_PASS);
    if (!program) return program.error();
    return set(program->get());
  }
  Result<std::optional<Captured>> end(const Lab&) override {
    L7MARK_TRY(set(-1));
    return std::optional<Captured>();
  }

 private:
  static Status set(int program) {
    const auto index = static_cast<int>(if_nametoindex(kInterface));
    const int code = program < 0 ? bpf_xdp_detach(index, XDP_FLAGS_DRV_MODE, nullptr)
                                 : bpf_xdp_attach(index, program, XDP_FLAGS_DRV_MODE, nullptr);
    if (code != 0) return Error{"attach an empty XDP program to", kInterface, -code, {}};
    return success();
  }
};

// The daemon, with one class that every flow gets a mark of. One client sends as much as thousands.
class Ours final : public PathContender {
 public:
  explicit Ours(bool xdp) : xdp_(xdp) {}
  [[nodiscard]] const char* name() const override { return xdp_ ? "l7mark-xdp" : "l7mark-tc"; }
  [[nodiscard]] const char* floor() const override { return xdp_ ? "xdp-empty" : "tc-empty"; }

  Status begin(const Lab& lab) override {
    auto daemon = start_daemon(
        lab, std::string(R"({"version": 1, "interfaces": [{"name": "lan0", "mode": ")") +
                 (xdp_ ? R"(native"}], "vlan": "ignore)" : R"(tc"}], "vlan": "key)") +
                 R"(", "sampling": {"source_budget": 1073741824, "outside_budget": 1073741824},)"
                 R"( "classes": [{"name": "all", "mark": "0x1/0xff"}]})");
    if (!daemon) return daemon.error();
    daemon_ = std::move(*daemon);
    return success();
  }

  Result<std::optional<Captured>> end(const Lab& lab) override {
    const auto counters = daemon_counters(
        lab, {"sampled_packets", "ring_full", "ring_missing", "paused", "copy_failed",
              "candidates_evicted_one_way", "candidates_evicted_two_way"});
    daemon_.stop();
    if (!counters) return counters.error();
    Captured out;
    for (std::size_t i = 0; i < counters->size(); ++i) {
      out.wanted += static_cast<double>((*counters)[i]);
      if (i > 0) out.lost += static_cast<double>((*counters)[i]);
    }
    return std::optional(out);
  }

  [[nodiscard]] pid_t process() const override { return daemon_.pid(); }

 private:
  bool xdp_;
  Process daemon_;
};

// Frames that the interface has received and sent.
double frames() {
  double out = 0;
  for (const char* const counter : {"rx_packets", "tx_packets"}) {
    // /sys shows the namespace that it was mounted in; /proc/self/net that of the reader.
    std::ifstream in("/proc/thread-self/net/dev");
    for (std::string line; std::getline(in, line);) {
      const auto colon = line.find(':');
      if (colon == std::string::npos || line.find(kInterface) > colon) continue;
      std::istringstream fields(line.substr(colon + 1));
      double value = 0;
      const int column = counter[0] == 'r' ? 1 : 9;
      for (int i = 0; i <= column; ++i) fields >> value;
      out += value;
    }
  }
  return out;
}

class NdpiReader final : public PathContender {
 public:
  [[nodiscard]] const char* name() const override { return "ndpiReader"; }

  std::optional<std::string> missing(const Lab&) override {
    const char* folders = std::getenv("PATH");
    std::istringstream path(folders != nullptr ? std::string(folders) : std::string());
    for (std::string folder; std::getline(path, folder, ':');)
      if (access((folder + "/ndpiReader").c_str(), X_OK) == 0) return std::nullopt;
    return "not found in PATH";
  }

  Status begin(const Lab& lab) override {
    log_ = lab.folder + "/ndpiReader.log";
    auto reader =
        Process::start({"ndpiReader", "-i", kInterface, "-s", "3600"}, lab.ns("gateway"), log_);
    if (!reader) return reader.error();
    reader_ = std::move(*reader);
    // It captures from when its socket is there.
    for (int i = 0; i < 500; ++i) {
      std::ifstream in("/proc/thread-self/net/packet");
      std::string line;
      if (std::getline(in, line) && std::getline(in, line)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        before_ = frames();
        return success();
      }
      if (!reader_.running()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    reader_.stop();
    std::string line;
    std::ifstream in(log_);
    std::getline(in, line);
    return Error{"start", "ndpiReader", 0, line};
  }

  Result<std::optional<Captured>> end(const Lab&) override {
    // What is in its buffer yet is not lost.
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    Captured out;
    out.wanted = frames() - before_;
    reader_.stop(SIGINT);
    // "IP packets: 123 of 124 packets total"
    std::ifstream in(log_);
    for (std::string line; std::getline(in, line);) {
      const auto of = line.find(" of ");
      if (line.find("packets total") == std::string::npos || of == std::string::npos) continue;
      const double seen = std::strtod(line.c_str() + of + 4, nullptr);
      out.lost = std::max(0.0, out.wanted - seen);
      return std::optional(out);
    }
    return Error{"read", log_, 0, "ndpiReader does not say how many packets it saw"};
  }

  [[nodiscard]] pid_t process() const override { return reader_.pid(); }

 private:
  Process reader_;
  std::string log_;
  double before_ = 0;
};

// The first 20 packets of a connection, both directions together, go through a queue.
class Queue final : public PathContender {
 public:
  [[nodiscard]] const char* name() const override { return "nfqueue-20"; }

  std::optional<std::string> missing(const Lab& lab) override {
    if (const Status done = rule(lab, "-A"); !done.ok()) return done.error().message();
    if (const Status done = rule(lab, "-D"); !done.ok()) return done.error().message();
    return std::nullopt;
  }

  Status begin(const Lab& lab) override {
    auto loop = Process::fork_off(lab.ns("gateway"), [] { return accept_queue(kQueue); });
    if (!loop) return loop.error();
    loop_ = std::move(*loop);
    for (int i = 0; i < 100 && !queue_line(lab); ++i) {
      if (!loop_.running()) return Error{"open", "netfilter queue 7", 0, {}};
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    L7MARK_TRY(run(lab, {"sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1"}, lab.ns("gateway")));
    return rule(lab, "-A");
  }

  Result<std::optional<Captured>> end(const Lab& lab) override {
    const auto line = queue_line(lab);
    L7MARK_TRY(rule(lab, "-D"));
    loop_.stop();
    if (!line) return Error{"read", "/proc/net/netfilter/nfnetlink_queue", 0, "no queue 7"};
    // queue, port id, waiting, copy mode, copy range, dropped in kernel, dropped for the reader,
    // number of the last packet, 1
    std::istringstream in(*line);
    double field[8] = {};
    for (double& value : field) in >> value;
    Captured out;
    out.lost = field[5] + field[6];
    out.wanted = field[7] + field[5];
    return std::optional(out);
  }

  [[nodiscard]] pid_t process() const override { return loop_.pid(); }

 private:
  static Status rule(const Lab& lab, const char* action) {
    return run(lab,
               {"iptables", "-w", "-t", "mangle", action, "FORWARD", "-m", "connbytes",
                "--connbytes", "0:20", "--connbytes-dir", "both", "--connbytes-mode", "packets",
                "-j", "NFQUEUE", "--queue-num", std::to_string(kQueue)},
               lab.ns("gateway"));
  }
  static std::optional<std::string> queue_line(const Lab&) {
    std::ifstream in("/proc/thread-self/net/netfilter/nfnetlink_queue");
    for (std::string line; std::getline(in, line);)
      if (std::strtol(line.c_str(), nullptr, 10) == kQueue) return line;
    return std::nullopt;
  }

  Process loop_;
};

}  // namespace

std::vector<std::unique_ptr<PathContender>> path_contenders() {
  std::vector<std::unique_ptr<PathContender>> out;
  out.push_back(std::make_unique<None>());
  out.push_back(std::make_unique<EmptyTc>());
  out.push_back(std::make_unique<Ours>(false));
  out.push_back(std::make_unique<EmptyXdp>());
  out.push_back(std::make_unique<Ours>(true));
  out.push_back(std::make_unique<NdpiReader>());
  out.push_back(std::make_unique<Queue>());
  return out;
}

}  // namespace l7mark::bench
