// SPDX-License-Identifier: GPL-2.0-only
#include "rate.hpp"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "sender.hpp"
#include "util/fd.hpp"
#include "util/netns.hpp"

namespace l7mark::robust {

namespace {

constexpr double kSettle = 0.03;  // for what is in the queues yet
constexpr double kPause = 0.1;    // between two measurements: for what a worker has to catch up
constexpr double kFirstStep = 0.9, kStep = 0.85, kLastStep = 0.2;  // of the highest rate

constexpr unsigned kTries = 2;
constexpr double kReached = 0.97;  // of the rate asked for: less is the sender's limit

struct Measured {
  double sent = 0;    // packets a second
  double passed = 0;  // of them the gateway took so many
  std::uint64_t lost = 0;
};

// From an attacker to a gateway.
class Way {
 public:
  static Result<Way> open(const std::string& from, const std::string& device,
                          const std::string& gateway, const std::string& mac,
                          const std::string& interface) {
    L7MARK_TRY(enter_network_namespace(from));
    auto sender = Sender::open(device, mac);
    if (!sender) return sender.error();
    L7MARK_TRY(enter_network_namespace(gateway));
    Fd devices(::open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC));
    if (!devices) return error_from_errno("open", "/proc/thread-self/net/dev");
    return Way(std::move(*sender), std::move(devices), interface);
  }

  Result<Measured> measure(Attack& attack, double rate, double seconds) {
    const auto before = lost();
    if (!before) return before.error();
    const auto sent = sender_.run(attack, rate, seconds);
    if (!sent) return sent.error();
    nap(kSettle);
    const auto after = lost();
    if (!after) return after.error();
    nap(kPause);
    Measured out;
    out.lost = *after - *before;
    out.sent = static_cast<double>(sent->frames) / sent->seconds;
    out.passed =
        (static_cast<double>(sent->frames) - static_cast<double>(out.lost)) / sent->seconds;
    return out;
  }

 private:
  Way(Sender sender, Fd devices, std::string interface)
      : sender_(std::move(sender)),
        devices_(std::move(devices)),
        interface_(std::move(interface)) {}

  // Packets that the interface received and found no room for.
  [[nodiscard]] Result<std::uint64_t> lost() const {
    std::array<char, 8192> text{};
    const ssize_t got = pread(devices_.get(), text.data(), text.size() - 1, 0);
    if (got <= 0) return error_from_errno("read", "/proc/net/dev");
    std::istringstream lines(std::string(text.data(), static_cast<std::size_t>(got)));
    for (std::string line; std::getline(lines, line);) {
      const auto colon = line.find(interface_ + ":");
      if (colon == std::string::npos) continue;
      std::istringstream fields(line.substr(colon + interface_.size() + 1));
      std::uint64_t bytes = 0, packets = 0, errors = 0, dropped = 0;
      fields >> bytes >> packets >> errors >> dropped;
      return dropped;
    }
    return Error{"read the counters of", interface_, 0, {}};
  }

  Sender sender_;
  Fd devices_;
  std::string interface_;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Ours by the empty one's, measured in turn.
Result<double> compare(Way& empty, Way& ours, Attack& attack, double rate,
                       const RateOptions& options) {
  std::vector<double> ratios;
  for (unsigned round = 0; round < options.rounds; ++round) {
    std::optional<Result<Measured>> measured[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned which = (round + i) % 2;
      measured[which] = (which == 0 ? empty : ours).measure(attack, rate, options.seconds);
      if (!*measured[which]) return measured[which]->error();
    }
    ratios.push_back((**measured[1]).passed / (**measured[0]).passed);
  }
  return median(ratios);
}

}  // namespace

Status measure_rates(const RateOptions& options) {
  const AttackFacts* facts = find_attack(options.attack);
  if (facts == nullptr) return Error{"find", options.attack, 0, "no such attack"};
  const bool lan = facts->lan;
  auto empty = lan ? Way::open(options.client, "eth1", options.bare, options.bare_lan0, "lan0")
                   : Way::open(options.server, "up1", options.bare, options.bare_wan0, "wan0");
  if (!empty) return empty.error();
  auto ours = lan ? Way::open(options.client, "eth0", options.gateway, options.lan0, "lan0")
                  : Way::open(options.server, "up0", options.gateway, options.wan0, "wan0");
  if (!ours) return ours.error();
  const auto attack = facts->make(options.made, lan ? Side::lan : Side::wan);
  // The gateways' interfaces are served by the other CPUs (run).
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof(first), &first);

  if (const auto warm = empty->measure(*attack, 0, 0.05); !warm) return warm.error();
  const auto most = empty->measure(*attack, 0, options.seconds);
  if (!most) return most.error();
  double rate = 0;
  for (double step = kFirstStep; step > kLastStep && rate == 0; step *= kStep) {
    // A busy machine may lose some at any rate.
    for (unsigned i = 0; i < kTries && rate == 0; ++i) {
      const auto tried = empty->measure(*attack, most->passed * step, options.seconds);
      if (!tried) return tried.error();
      if (tried->lost == 0 && tried->sent > kReached * most->passed * step)
        rate = most->passed * step;
    }
  }
  nlohmann::ordered_json out = {{"empty_full_pps", most->passed}, {"sent_full_pps", most->sent}};
  if (rate > 0) {
    const auto calm = compare(*empty, *ours, *attack, rate, options);
    if (!calm) return calm.error();
    out["calm_pps"] = rate;
    out["calm"] = *calm;
  }
  const auto full = compare(*empty, *ours, *attack, 0, options);
  if (!full) return full.error();
  out["full"] = *full;
  std::printf("%s\n", out.dump().c_str());
  return success();
}

}  // namespace l7mark::robust
