// SPDX-License-Identifier: GPL-2.0-only
#include "honest.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "conversation.hpp"
#include "netns/packet_socket.hpp"
#include "packet.hpp"
#include "sender.hpp"
#include "util/fd.hpp"
#include "util/netns.hpp"
#include "witness.hpp"

namespace l7mark::robust {

namespace {

constexpr double kSetup = 30;        // seconds at most until all flows are as they should be
constexpr double kPatience = 4;      // more than three times a packet was lost in a row
constexpr double kFinish = 6;        // for what is under way when the attack has ended
constexpr double kDecided = 2;       // seconds from a flow's begin: by then it has its mark
constexpr double kBannedLife = 3.0;  // seconds that a new flow of the dropped class is tried
constexpr double kProbeEvery = 0.4;
constexpr double kHelloPause = 0.3;
constexpr double kForever = 1e9;
constexpr unsigned kReplies = 3;  // records of the server's hello

volatile std::sig_atomic_t ending = 0;

enum class Step : std::uint8_t { planned, connecting, greeting, idle, asking, done };

struct Line {
  const Flow* flow = nullptr;
  Fd fd;
  Step step = Step::planned;
  std::string in, rest;  // not taken yet; of the hello, not sent yet
  double begun = 0;      // when it began to connect
  double since = 0;      // when what it waits for was asked
  double next = 0;       // when it does the next thing
  std::uint32_t serial = 0;
  unsigned answers = 0, hello = 0, early = 0;
  bool settled = false;  // as it should be before the attack
  bool probed = false;
  bool last = false;  // asked for the last time
  bool blocked = false;
  bool broken = false;  // an end closed the connection
};

class Client {
 public:
  static Result<Client> open(const HonestOptions& options) {
    auto counts = Counts::open(options.pin);
    if (!counts) return counts.error();
    Client out(options, std::move(*counts));
    L7MARK_TRY(out.open_probes());
    return out;
  }

  Status run() {
    epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
    L7MARK_TRY(counts_.clear());
    L7MARK_TRY(settle());
    std::printf("ready\n");
    std::fflush(stdout);
    attack_ = now_seconds();
    for (Line& line : lines_)
      if (!line.flow->banned() && line.step == Step::idle) line.next = attack_ + pause(*line.flow);
    while (!ending) turn();
    finish_ = now_seconds();
    for (Line& line : lines_)
      if (!line.flow->fresh && (line.flow->banned() || line.step == Step::idle))
        line.next = finish_ + 0.001 * (line.flow->number % 256);
    while (now_seconds() - finish_ < kFinish && !all_done()) turn();
    report();
    return success();
  }

 private:
  Client(const HonestOptions& options, Counts counts)
      : options_(options), counts_(std::move(counts)), plan_(make_plan(options.plan)) {
    lines_.resize(plan_.size());
    for (std::size_t i = 0; i < plan_.size(); ++i) lines_[i].flow = &plan_[i];
  }

  Status open_probes() {
    const auto open = [](const char* device, const std::string& mac,
                         std::vector<PacketSocket>& out) -> Status {
      for (const bool v4 : {false, true}) {
        auto socket = PacketSocket::open(device, mac, v4, false);
        if (!socket) return socket.error();
        out.push_back(std::move(*socket));
      }
      return success();
    };
    const Fd here(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    L7MARK_TRY(open("eth0", options_.lan0, from_client_));
    L7MARK_TRY(enter_network_namespace(options_.server_netns));
    L7MARK_TRY(open("up0", options_.wan0, from_server_));
    return enter_network_namespace("/proc/self/fd/" + std::to_string(here.get()));
  }

  // --- before the attack
  // ---------------------------------------------------------------------------

  Status settle() {
    const double begin = now_seconds();
    std::size_t begun = 0, old = 0;
    for (const Line& line : lines_) old += line.flow->fresh ? 0 : 1;
    for (;;) {
      // A few at a time, so that no queue overflows.
      for (unsigned i = 0; i < 4 && begun < old; ++i) connect_line(lines_[begun++]);
      turn();
      std::size_t settled = 0;
      for (const Line& line : lines_) settled += line.settled ? 1 : 0;
      if (settled == old) return success();
      if (now_seconds() - begin > kSetup || ending)
        return Error{"begin", "the honest flows", 0,
                     std::to_string(old - settled) + " of " + std::to_string(old) +
                         " do not get their mark, or pass though their class is dropped, without "
                         "any attack: " +
                         unsettled()};
    }
  }

  [[nodiscard]] std::string unsettled() const {
    for (const Line& line : lines_) {
      if (line.settled || line.flow->fresh) continue;
      const robust_count count = counts_.of(line.flow->number);
      return std::string(facts(line.flow->which).host) + (line.flow->tls ? " by TLS" : " by HTTP") +
             ", answers " + std::to_string(line.answers) + ", right " +
             std::to_string(count.right) + ", early " + std::to_string(count.early) + ", wrong " +
             std::to_string(count.wrong);
    }
    return {};
  }

  // --- a turn of the loop
  // ----------------------------------------------------------------------------

  void turn() {
    std::array<epoll_event, 64> events{};
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), 4);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      take_event(lines_[event.data.u32], event.events);
    }
    const double now = now_seconds();
    if (attack_ > 0 && finish_ == 0) begin_fresh(now);
    for (Line& line : lines_) {
      if (line.step == Step::planned || line.step == Step::done) continue;
      if (line.flow->banned())
        tend_banned(line, now);
      else
        tend(line, now);
    }
  }

  void begin_fresh(double now) {
    const std::size_t first = options_.plan.old_flows + options_.plan.old_banned;
    while (first + fresh_ < lines_.size() &&
           static_cast<double>(fresh_) < (now - attack_) * options_.fresh_rate)
      connect_line(lines_[first + fresh_++]);
  }

  void tend(Line& line, double now) {
    if (line.step == Step::idle) {
      if (now >= line.next) ask(line, now);
      return;
    }
    if (!line.rest.empty() && now >= line.next) {
      send_text(line, line.rest);
      line.rest.clear();
    }
    if (now - line.since > kPatience) line.blocked = true;
  }

  // Probes come from the flow's own ends, past the stack, which would wait for answers to what was
  // dropped.
  void tend_banned(Line& line, double now) {
    if (line.step == Step::idle && line.serial == 0) ask(line, now);
    const Flow& flow = *line.flow;
    if (flow.fresh) {
      if (now - line.begun > kBannedLife) {
        close_line(line, true);
      } else if (now - line.begun > kDecided && now >= line.next) {
        probe(line, now, true);
      }
      return;
    }
    // Of TLS the hello is dropped already.
    const bool said = line.serial > 0 || (line.step == Step::greeting && now - line.since > 0.3);
    if (now < line.next || !said) return;
    if (!line.settled) {
      const unsigned early = counts_.of(flow.number).early;
      line.settled = line.probed && early == line.early;
      line.early = early;
      line.probed = true;
      if (!line.settled) probe(line, now, false);
      return;
    }
    if (attack_ == 0 || line.last) return;
    line.last = finish_ > 0;
    probe(line, now, true);
  }

  [[nodiscard]] bool all_done() const {
    return std::all_of(lines_.begin(), lines_.end(), [](const Line& line) {
      if (line.step == Step::planned || line.step == Step::done || line.broken) return true;
      if (line.flow->fresh) return false;
      return line.last && (line.flow->banned() || line.step == Step::idle);
    });
  }

  // --- connections
  // -----------------------------------------------------------------------------------

  static sockaddr_in6 at(const Endpoint& end) {
    sockaddr_in6 out{};
    out.sin6_family = AF_INET6;
    out.sin6_port = htons(end.port);
    std::memcpy(&out.sin6_addr, end.address.bytes.data(), 16);
    return out;
  }

  void connect_line(Line& line) {
    line.begun = line.since = now_seconds();
    line.step = Step::connecting;
    line.fd = Fd(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int yes = 1;
    const int no = 0;
    setsockopt(line.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
    setsockopt(line.fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    setsockopt(line.fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    const sockaddr_in6 from = at(line.flow->client);
    const sockaddr_in6 to = at(line.flow->server);
    if (bind(line.fd.get(), reinterpret_cast<const sockaddr*>(&from), sizeof(from)) != 0 ||
        (connect(line.fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 &&
         errno != EINPROGRESS)) {
      std::fprintf(stderr, "flow %u: %s\n", line.flow->number, strerror(errno));  // NOLINT
      end_line(line);
      return;
    }
    watch(line, EPOLL_CTL_ADD, EPOLLOUT);
  }

  void watch(const Line& line, int operation, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u32 = line.flow->number;
    epoll_ctl(epoll_.get(), operation, line.fd.get(), &event);
  }

  // An end has closed it.
  void end_line(Line& line) {
    line.broken = !line.flow->banned();
    if (line.broken && line.step != Step::done)
      std::fprintf(stderr, "flow %u to %s is broken\n", line.flow->number,
                   facts(line.flow->which).host);
    line.fd.reset();
    // Of a flow that is dropped only the probes matter.
    if (!line.flow->banned()) line.step = Step::done;
  }

  static void close_line(Line& line, bool reset) {
    const linger now{1, 0};
    if (reset && line.fd) setsockopt(line.fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    line.fd.reset();
    line.step = Step::done;
  }

  void take_event(Line& line, std::uint32_t events) {
    if (!line.fd) return;
    if (line.step == Step::connecting) {
      int code = 0;
      socklen_t size = sizeof(code);
      getsockopt(line.fd.get(), SOL_SOCKET, SO_ERROR, &code, &size);
      if (code != 0) {
        end_line(line);
        return;
      }
      watch(line, EPOLL_CTL_MOD, EPOLLIN);
      greet(line);
      return;
    }
    if (events == 0) return;
    std::array<char, 4096> buffer{};
    const ssize_t got = recv(line.fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      end_line(line);
      return;
    }
    line.in.append(buffer.data(), static_cast<std::size_t>(got));
    for (;;) {
      const std::size_t whole = message_size(line.in);
      if (whole == 0 || whole > line.in.size()) break;
      take_message(line, std::string_view(line.in).substr(0, whole));
      line.in.erase(0, whole);
      if (!line.fd) return;
    }
  }

  // The hello of a new flow comes in two segments: what is known of the first must not be
  // forgotten.
  void greet(Line& line) {
    const double now = now_seconds();
    if (!line.flow->tls) {
      line.step = Step::idle;
      line.next = now + (line.flow->fresh ? 0.1 : 0);
      return;
    }
    line.step = Step::greeting;
    line.since = now;
    std::string hello = hello_for(facts(line.flow->which).host);
    if (line.flow->fresh && !line.flow->banned()) {
      line.rest = hello.substr(hello.size() / 2);
      hello.resize(hello.size() / 2);
      line.next = now + kHelloPause;
    }
    send_text(line, hello);
  }

  static void send_text(const Line& line, const std::string& text) {
    if (line.fd) send(line.fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }

  [[nodiscard]] robust_token token_for(const Line& line, bool must) const {
    robust_token token{};
    token.magic = ROBUST_MAGIC;
    token.mark = facts(line.flow->which).mark;
    token.flags = static_cast<std::uint8_t>((must ? ROBUST_MUST : 0) |
                                            (line.flow->banned() ? ROBUST_BARRED : 0));
    token.flow = line.flow->number;
    token.serial = line.serial;
    return token;
  }

  void ask(Line& line, double now) {
    const Flow& flow = *line.flow;
    ++line.serial;
    const bool must = !flow.banned() && (flow.fresh ? now - line.begun >= kDecided : attack_ > 0);
    line.last = must && (flow.fresh || finish_ > 0);
    line.step = Step::asking;
    line.since = now;
    send_text(line, request_of(flow.tls, facts(flow.which).host, token_for(line, must)));
    line.next = now + 0.2;
  }

  void take_message(Line& line, std::string_view message) {
    const double now = now_seconds();
    const Flow& flow = *line.flow;
    if (line.step == Step::greeting) {
      if (++line.hello < kReplies) return;
      line.step = Step::idle;
      line.next = now;
      return;
    }
    robust_token token{};
    std::memcpy(&token, message.data() + message.size() - sizeof(token), sizeof(token));
    if (line.step != Step::asking || token.serial != line.serial) return;
    ++line.answers;
    line.step = Step::idle;
    if (flow.fresh && line.last) {
      close_line(line, false);
    } else if (flow.fresh) {
      line.next = std::min(line.begun + kDecided, now + 0.8);
      if (now + 0.4 > line.begun + kDecided) line.next = line.begun + kDecided;
    } else if (attack_ == 0) {
      line.settled = counts_.of(flow.number).right >= 3 && line.answers >= 2;
      line.next = now + (line.settled ? kForever : 0.1);
    } else if (finish_ > 0) {
      line.next = line.last ? kForever : now;
    } else {
      line.next = now + pause(flow);
    }
  }

  // Every second flow is idle for nearly as long as one that was closed is remembered.
  [[nodiscard]] static double pause(const Flow& flow) {
    return flow.number % 2 == 0 ? 7 : 0.3 + 0.01 * (flow.number % 60);
  }

  // --- probes of what is dropped
  // -------------------------------------------------------------------------

  void probe(Line& line, double now, bool must) {
    line.next = now + kProbeEvery;
    ++line.serial;
    const Flow& flow = *line.flow;
    const robust_token token = token_for(line, must);
    const std::string payload = noise(32) + std::string(bytes_of(token));
    const auto& client = from_client_[flow.v4() ? 1 : 0];
    const auto& server = from_server_[flow.v4() ? 1 : 0];
    send_segment(client, flow.client, flow.server, payload, must ? options_.probe : Probe::plain);
    send_segment(server, flow.server, flow.client, payload, Probe::plain);
  }

  void send_segment(const PacketSocket& socket, const Endpoint& from, const Endpoint& to,
                    const std::string& payload, Probe form) {
    Frame segment;
    segment.tcp(from.port, to.port, kPsh | kAck, 1, 1);
    segment.put(payload);
    Frame frame;
    const auto send = [&] {
      const auto status = socket.send(Bytes(frame.data(), frame.data() + frame.size()));
      if (!status) std::fprintf(stderr, "%s\n", status.error().message().c_str());
      frame.clear();
    };
    const Address& source = from.address;
    const Address& target = to.address;
    if (form == Probe::short_fragment) {
      ++id_;
      frame.fragment(source, target, kTcp, id_, 0, true, 8);
      frame.put(segment.data(), 8);
      send();
      frame.fragment(source, target, kTcp, id_, 8, false, segment.size() - 8);
      frame.put(segment.data() + 8, segment.size() - 8);
    } else if (form == Probe::extensions && !source.is_v4()) {
      frame.extensions(source, target, kExtensions, segment.size());
      frame.put(segment.data(), segment.size());
    } else {
      frame.ip(source, target, kTcp, segment.size());
      frame.put(segment.data(), segment.size());
    }
    send();
  }

  // --- the end
  // -----------------------------------------------------------------------------------------

  void report() {
    unsigned fresh = 0, lost_old = 0, lost_fresh = 0, wrong = 0, blocked = 0, broken = 0;
    unsigned passed_old = 0, passed_fresh = 0, banned = 0;
    for (const Line& line : lines_) {
      if (line.step == Step::planned) continue;
      const Flow& flow = *line.flow;
      const robust_count count = counts_.of(flow.number);
      fresh += flow.fresh ? 1 : 0;
      banned += flow.banned() ? 1 : 0;
      if (count.lost > 0) ++(flow.fresh ? lost_fresh : lost_old);
      if (count.passed > 0) ++(flow.fresh ? passed_fresh : passed_old);
      wrong += count.wrong > 0 ? 1 : 0;
      const bool waits = !flow.banned() && line.step != Step::idle && line.step != Step::done;
      blocked += line.blocked || waits ? 1 : 0;
      broken += line.broken ? 1 : 0;
    }
    const nlohmann::ordered_json out = {
        {"flows_before", options_.plan.old_flows + options_.plan.old_banned},
        {"flows_begun", fresh},
        {"flows_dropped_by_policy", banned},
        {"marks_lost", lost_old + lost_fresh},
        {"marks_lost_of_begun", lost_fresh},
        {"wrong_marks", wrong},
        {"wrongly_blocked", blocked + broken},
        {"broken", broken},
        {"passed", passed_old + passed_fresh},
        {"passed_of_begun", passed_fresh}};
    std::printf("%s\n", out.dump().c_str());
    // What is open yet is closed without a word that the next attack would meet.
    for (Line& line : lines_) close_line(line, true);
  }

  HonestOptions options_;
  Counts counts_;
  std::vector<Flow> plan_;
  std::vector<Line> lines_;
  std::vector<PacketSocket> from_client_, from_server_;  // of IPv6, of IPv4
  Fd epoll_;
  double attack_ = 0, finish_ = 0;  // when it began, and when it ended
  std::size_t fresh_ = 0;
  std::uint16_t id_ = 0;
};

}  // namespace

Status be_honest(const HonestOptions& options) {
  std::signal(SIGTERM, [](int) { ending = 1; });
  auto client = Client::open(options);
  if (!client) return client.error();
  return client->run();
}

}  // namespace l7mark::robust
