// SPDX-License-Identifier: GPL-2.0-only
// One thread sends and watches. It sends a flow's two packets, an NTP request and the same again (a
// flow of one packet gets no verdict), from the client's namespace by a packet socket: each call
// runs its packet through veth into the program on lan0, on the same CPU, before it returns. The
// first packet has the answer in it. Then it asks the map of verdicts, by the system call that
// anyone has, for every flow that is under way, until each is there; and then the kernel's ipset,
// by IPSET_CMD_TEST, for up to a thousand flows a second. In between it sleeps until the next
// packet is due.
//
// A flow's time begins before the first call that sends, and ends after the question that was first
// answered with yes: what is measured includes both, and errs to the longer side by at most the
// time between two questions about the same flow, which is in the table as well. The watcher keeps
// a CPU busy while a flow is under way: the daemon has the others.
#include "latency_bench.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <l7mark/parse.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <optional>

#include "dataplane/pins.hpp"
#include "publish/ipset.hpp"
#include "util/fd.hpp"
#include "util/netns.hpp"

namespace l7mark::bench {

namespace {

constexpr const char* kSet = "L7MB";
constexpr std::uint32_t kFirstClient = 0x0a400000;  // 10.64.0.0
constexpr std::uint16_t kNtp = 123;
constexpr double kLost = 2;              // seconds until a flow's answer is given up
constexpr double kSetQuestions = 1'000;  // flows a second that the set is asked for
constexpr const char* kPolicy = R"({
  "version": 1,
  "interfaces": [{"name": "lan0", "mode": "tc"}],
  "limits": {"flows": 1048576},
  "classes": [{"name": "all", "mark": "0x1/0xff", "ipset": {"name": "L7MB", "maxelem": 2097152}}]
})";

using Frame = std::array<std::uint8_t, 90>;
using Mac = std::array<std::uint8_t, 6>;

Result<Mac> mac_of(const char* device) {
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, device, sizeof(request.ifr_name) - 1);
  if (ioctl(fd.get(), SIOCGIFHWADDR, &request) != 0) return error_from_errno("read MAC of", device);
  Mac out{};
  std::memcpy(out.data(), request.ifr_hwaddr.sa_data, out.size());
  return out;
}

struct Sender {
  Fd fd;
  sockaddr_ll to{};
  Frame frame{};

  // Leaves the caller in the gateway's namespace.
  static Result<Sender> open(const Lab& lab) {
    Sender out;
    L7MARK_TRY(enter_network_namespace(lab.ns("client")));
    const auto source = mac_of("eth0");
    if (!source) return source.error();
    out.to.sll_family = AF_PACKET;
    out.to.sll_ifindex = static_cast<int>(if_nametoindex("eth0"));
    out.to.sll_halen = ETH_ALEN;
    out.fd = Fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));  // protocol 0: it only sends
    if (!out.fd) return error_from_errno("open", "a packet socket");
    L7MARK_TRY(enter_network_namespace(lab.ns("gateway")));
    const auto destination = mac_of("lan0");
    if (!destination) return destination.error();
    std::copy(destination->begin(), destination->end(), out.frame.begin());
    std::copy(source->begin(), source->end(), out.frame.begin() + 6);
    const std::uint8_t rest[] = {
        0x08, 0x00,                                                  // Ethernet: IPv4
        0x45, 0,    0, 76,   0, 0,  0x40, 0, 64, IPPROTO_UDP, 0, 0,  // IPv4
        0,    0,    0, 0,    0, 0,  0,    0,                         // addresses
        0,    0,    0, kNtp, 0, 56, 0,    0,                         // UDP
        0x23, 0,    6, 0xec,                                         // NTP 4, a client's
    };
    std::copy(std::begin(rest), std::end(rest), out.frame.begin() + 12);
    inet_pton(AF_INET, kServerAddress, &out.frame[30]);
    return out;
  }

  // The flow's number makes its client's address and port.
  Status send(std::uint32_t flow) {
    const std::uint32_t client = htonl(kFirstClient + flow);
    std::memcpy(&frame[26], &client, sizeof(client));
    const std::uint16_t port = htons(static_cast<std::uint16_t>(1024 + flow % 60'000));
    std::memcpy(&frame[34], &port, sizeof(port));
    frame[24] = frame[25] = 0;
    std::uint32_t sum = 0;
    for (std::size_t i = 14; i < 34; i += 2)
      sum += static_cast<std::uint32_t>(frame[i] << 8 | frame[i + 1]);
    while (sum > 0xffff) sum = (sum >> 16) + (sum & 0xffff);
    frame[24] = static_cast<std::uint8_t>(~sum >> 8);
    frame[25] = static_cast<std::uint8_t>(~sum);
    for (int packet = 0; packet < 2; ++packet)
      if (sendto(fd.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                 sizeof(to)) < 0)
        return error_from_errno("send to", "eth0");
    return success();
  }

  [[nodiscard]] l7m_key4 key() const {
    l7m_packet packet{};
    std::memcpy(&packet.saddr[3], &frame[26], 4);
    std::memcpy(&packet.daddr[3], &frame[30], 4);
    std::memcpy(&packet.sport, &frame[34], 2);
    std::memcpy(&packet.dport, &frame[36], 2);
    packet.protocol = IPPROTO_UDP;
    l7m_key4 out{};
    l7m_make_key4(&packet, &out);
    return out;
  }
};

// A flow that is under way.
struct Watched {
  l7m_key4 key{};
  SetEntry entry;
  double sent = 0;
  double asked = 0;  // when the last question was answered with no
  bool in_map = false;
  bool ask_set = false;
};

// Seconds, of all rounds of one rate.
struct Seen {
  std::vector<double> after;  // from the packet
  std::vector<double> gap;    // from the last no to the first yes
  std::size_t missing = 0;

  void add(const Watched& flow, double now) {
    after.push_back(now - flow.sent);
    gap.push_back(now - flow.asked);
  }
  // The value that a share of all does not exceed, microseconds.
  [[nodiscard]] static std::string at(std::vector<double> values, double share) {
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    const auto rank =
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
    return number(values[std::max<std::size_t>(rank, 1) - 1] * 1e6, 0);
  }
};

struct Rate {
  double wanted = 0;
  std::size_t flows = 0;
  double seconds = 0;
  Seen map;
  Seen set;
};

void sleep_until(double when) {
  timespec at{};
  at.tv_sec = static_cast<time_t>(when);
  at.tv_nsec = static_cast<long>((when - std::floor(when)) * 1e9);
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
}

class Round {
 public:
  Round(Sender& sender, Rate& rate, Ipset& ipset, int map)
      : sender_(sender), rate_(rate), ipset_(ipset), map_(map) {
    spec_.name = kSet;
  }

  Status run(double seconds, std::uint32_t& number) {
    const double begin = now_seconds();
    const double end = begin + seconds;
    const double every = 1 / rate_.wanted;
    const auto ask_set_each =
        static_cast<std::uint32_t>(std::max(1.0, std::ceil(rate_.wanted / kSetQuestions)));
    double due = begin;
    for (;;) {
      const double now = now_seconds();
      if (now >= due && now < end) {
        L7MARK_TRY(send(number, number % ask_set_each == 0));
        ++number;
        due += every;
        // Behind, because somebody else had the CPU: no burst makes up for it.
        due = std::max(due, now);
      } else if (!watched_.empty()) {
        L7MARK_TRY(ask());
      } else if (now < end) {
        sleep_until(std::min(due, end));
      } else {
        rate_.seconds += now - begin;
        return success();
      }
    }
  }

 private:
  Status send(std::uint32_t number, bool ask_set) {
    Watched flow;
    flow.sent = flow.asked = now_seconds();
    L7MARK_TRY(sender_.send(number));
    flow.key = sender_.key();
    flow.ask_set = ask_set;
    flow.entry.server = Address::v4(flow.key.addr[1]);
    flow.entry.client = Address::v4(flow.key.addr[0]);
    flow.entry.port = kNtp;
    flow.entry.protocol = IPPROTO_UDP;
    watched_.push_back(flow);
    ++rate_.flows;
    return success();
  }

  // One question about each flow.
  Status ask() {
    for (Watched& flow : watched_) {
      if (!flow.in_map) {
        l7m_verdict verdict{};
        if (bpf_map_lookup_elem(map_, &flow.key, &verdict) == 0) {
          flow.in_map = true;
          rate_.map.add(flow, now_seconds());
          continue;
        }
      } else {
        const auto there = ipset_.contains(spec_, flow.entry);
        if (!there) return there.error();
        if (*there) {
          flow.ask_set = false;
          rate_.set.add(flow, now_seconds());
          continue;
        }
      }
      const double now = now_seconds();
      if (now > flow.sent + kLost) {
        if (!flow.in_map) ++rate_.map.missing;
        if (flow.ask_set) ++rate_.set.missing;
        flow.in_map = true;
        flow.ask_set = false;
      }
      flow.asked = now;
    }
    std::erase_if(watched_, [](const Watched& flow) { return flow.in_map && !flow.ask_set; });
    return success();
  }

  Sender& sender_;
  Rate& rate_;
  Ipset& ipset_;
  IpsetSpec spec_;
  int map_;
  std::deque<Watched> watched_;
};

std::vector<std::string> row(const Rate& rate, const char* where, const Seen& seen) {
  return {number(rate.wanted, 0),
          where,
          number(static_cast<double>(rate.flows) / rate.seconds, 0),
          fmt::format("{}", seen.after.size()),
          fmt::format("{}", seen.missing),
          Seen::at(seen.after, 0.5),
          Seen::at(seen.after, 0.9),
          Seen::at(seen.after, 0.99),
          Seen::at(seen.after, 0.999),
          Seen::at(seen.after, 1),
          Seen::at(seen.gap, 0.5),
          Seen::at(seen.gap, 0.99)};
}

}  // namespace

Result<Table> run_latency_bench(const Lab& lab, const LatencyBenchOptions& options) {
  L7MARK_TRY(make_path(lab));
  // The packets end here, after the program has seen them.
  L7MARK_TRY(run(lab, {"sysctl", "-qw", "net.ipv4.ip_forward=0"}, lab.ns("gateway")));
  auto sender = Sender::open(lab);
  if (!sender) return sender.error();
  auto ipset = Ipset::open();
  if (!ipset) return ipset.error();
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::vector<Rate> rates;
  for (const double wanted : options.rates) rates.emplace_back().wanted = wanted;
  for (unsigned round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < rates.size(); ++i) {
      // A new daemon each time: how many flows it knows is the rate's doing alone.
      auto daemon = start_daemon(lab, kPolicy);
      if (!daemon) return daemon.error();
      const std::string pin = PinPaths{lab.instance}.map("flows4");
      const Fd map(bpf_obj_get(pin.c_str()));
      if (!map) return error_from_errno("open", pin);
      std::uint32_t number = 0;
      Round one(*sender, rates[(i + round) % rates.size()], *ipset, map.get());
      L7MARK_TRY(one.run(options.seconds, number));
    }
  }
  Table out;
  out.columns = {"flows a second", "readable in", "sent a second", "seen",
                 "missing",        "p50 us",      "p90 us",        "p99 us",
                 "p99.9 us",       "highest us",  "asked each us", "p99 of it"};
  for (const Rate& rate : rates) {
    out.rows.push_back(row(rate, "map", rate.map));
    out.rows.push_back(row(rate, "ipset", rate.set));
  }
  return out;
}

}  // namespace l7mark::bench
