// SPDX-License-Identifier: GPL-2.0-only
#include "scale_bench.hpp"

#include <fmt/format.h>
#include <l7mark/parse.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "capture/path.hpp"
#include "dataplane/dataplane.hpp"
#include "lab.hpp"
#include "made_capture.hpp"
#include "policy/actions.hpp"
#include "policy/matcher.hpp"
#include "policy/policy.hpp"
#include "sample_feed.hpp"
#include "walk.hpp"
#include "worker_run.hpp"

namespace l7mark::bench {

namespace {

constexpr std::size_t kPolicyFlows = 1024;  // established, of all classes in turn
constexpr std::size_t kMatches = 20'000;    // flows matched a round

std::string host_name(std::size_t number) {
  return fmt::format("host{}.site{}.example.org", number, number % 97);
}

// Classes of host names, as even as it goes; every fourth name is a pattern for those below it.
std::string policy_text(std::size_t classes, std::size_t hosts) {
  std::string out = R"({"version": 1, "classes": [)";
  for (std::size_t c = 0; c < classes; ++c) {
    out += fmt::format(R"({}{{"name": "class{}", "mark": "{:#x}/0xfff", "match": {{"hostnames": [)",
                       c == 0 ? "" : ", ", c, c + 1);
    for (std::size_t h = c; h < hosts; h += classes)
      out += fmt::format(R"({}"{}{}")", h == c ? "" : ", ", h % 4 == 3 ? "*." : "", host_name(h));
    out += "]}}";
  }
  return out + "]}";
}

FlowFacts facts_of_flow(std::size_t number, std::size_t hosts) {
  FlowFacts facts;
  facts.client = Address::v4(L7M_BE32(0x0a000000U + static_cast<std::uint32_t>(number)));
  facts.server = Address::v4(L7M_BE32(0xc6336414U));
  facts.client_port = 40000;
  facts.server_port = 443;
  facts.protocol = L7M_PROTO_TCP;
  facts.application = facts.master = 91;
  facts.hostname = host_name(number % hosts);
  if (number % hosts % 4 == 3) facts.hostname.insert(0, "www.");
  return facts;
}

// A policy, and a data plane with flows of all its classes.
struct Subject {
  std::size_t classes = 0;
  std::size_t hosts = 0;
  std::string text;
  std::shared_ptr<const Policy> policy;
  std::unique_ptr<PolicyMatcher> matcher;
  std::vector<FlowFacts> facts;
  std::optional<Dataplane> dataplane;
  int program = -1;
};

class ScaleBench {
 public:
  explicit ScaleBench(const ScaleBenchOptions& options) : options_(options) {
    for (std::size_t& flows : options_.flows) flows = std::bit_ceil(flows);
  }

  Result<Table> run() {
    table_.columns = {"what", "of", "median", "lowest", "highest", "by smallest"};
    auto features = probe_features();
    if (!features) return features.error();
    features_ = *features;
    L7MARK_TRY(by_flows());
    L7MARK_TRY(by_policy());
    L7MARK_TRY(by_workers());
    return std::move(table_);
  }

 private:
  Result<Dataplane> open(std::size_t flows) const {
    DataplaneOptions options;
    options.flows = static_cast<std::uint32_t>(std::max<std::size_t>(flows, 1024));
    options.candidates = options.services = options.hints = 1024;
    auto dataplane = Dataplane::open_private(options, *features_);
    if (!dataplane) return dataplane.error();
    L7MARK_TRY(dataplane->write_settings(PathOptions().settings()));
    return dataplane;
  }

  static Status decide(Dataplane& dataplane, const std::vector<std::uint32_t>& actions,
                       std::size_t flows) {
    std::vector<VerdictEntry> entries(flows);
    for (std::size_t i = 0; i < flows; ++i) {
      entries[i].key = Walk::key(static_cast<std::uint32_t>(i));
      entries[i].verdict.action = actions[i % actions.size()];
      entries[i].verdict.state = L7M_STATE_FINAL;
    }
    const auto full = dataplane.put_verdicts(entries);
    if (!full) return full.error();
    if (!full->empty()) return Error{"fill", "the table of flows", 0, "it is too small"};
    return success();
  }

  // Takes the walk's share off, round by round: contender `at` is the walk with nothing behind it.
  static void settle(std::vector<Contender>& contenders, std::size_t at) {
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (i == at) continue;
      for (std::size_t r = 0; r < contenders[i].values.size(); ++r)
        contenders[i].values[r] -= contenders[at].values[r];
    }
  }

  void report(const std::string& what, const std::string& of, const Contender& c,
              const Contender* smallest, int digits) {
    const auto [low, high] = std::minmax_element(c.values.begin(), c.values.end());
    table_.rows.push_back({what, of, number(median(c.values), digits), number(*low, digits),
                           number(*high, digits),
                           smallest != nullptr ? number(ratio(c, *smallest), 2) : ""});
  }

  // Packets of established flows, by their number. All the tables have room for the largest.
  Status by_flows() {
    std::vector<std::size_t> sizes = options_.flows;
    std::sort(sizes.begin(), sizes.end());
    auto walk = Walk::load(sizes.back());
    if (!walk) return walk.error();
    auto dataplane = open(sizes.back() + sizes.back() / 8);
    if (!dataplane) return dataplane.error();
    l7m_action mark{};
    mark.flags = L7M_ACT_MARK;
    mark.mark = 1;
    mark.mark_mask = 0xff;
    L7MARK_TRY(dataplane->write_action(4, mark));
    const int ours = dataplane->program_fd("l7mark_ingress");
    std::vector<Contender> floors, packets;
    for (const std::size_t flows : sizes) {
      L7MARK_TRY(decide(*dataplane, {4}, flows));
      L7MARK_TRY(walk->fill_floor(flows));
      std::vector<Contender> contenders;
      for (const int program : {walk->empty(), walk->floor(), ours})
        contenders.push_back({fmt::format("{} flows", flows), [&walk, this, program, flows] {
                                return walk->run(program, flows, options_.repeat);
                              }});
      if (!run_rounds(contenders, options_.rounds))
        return error_from_errno("run", "the TC programs");
      settle(contenders, 0);
      floors.push_back(contenders[1]);
      packets.push_back(contenders[2]);
    }
    for (const Contender& c : floors)
      report("floor's packet over an empty program, ns", c.name, c, floors.data(), 1);
    for (const Contender& c : packets)
      report("packet over an empty program, ns", c.name, c, packets.data(), 1);
    for (std::size_t i = 0; i < sizes.size(); ++i)
      table_.rows.push_back({"packet by floor's, both over an empty program", packets[i].name,
                             number(ratio(packets[i], floors[i]), 2), "", "", ""});
    return success();
  }

  Status prepare(Subject& subject) const {
    subject.text = policy_text(subject.classes, subject.hosts);
    auto policy = parse_policy(subject.text, "bench", Catalog());
    if (!policy) return policy.error();
    subject.policy = std::make_shared<const Policy>(std::move(*policy));
    subject.matcher = std::make_unique<PolicyMatcher>(subject.policy);
    ActionTable actions(subject.policy);
    std::vector<std::uint32_t> indexes;
    for (std::size_t i = 0; i < std::max(kPolicyFlows, subject.hosts); ++i) {
      subject.facts.push_back(facts_of_flow(i, subject.hosts));
      const ClassList classes =
          subject.matcher->match(subject.facts.back(), FlowState::final, now_);
      if (classes.size() != 1)
        return Error{"match", subject.facts.back().hostname, 0, "it should be of one class"};
      const auto id = actions.intern(classes);
      if (!id) return id.error();
      indexes.push_back(ActionTable::index(*id, FlowState::final));
    }
    auto dataplane = open(kPolicyFlows * 2);
    if (!dataplane) return dataplane.error();
    subject.dataplane.emplace(std::move(*dataplane));
    for (const ActionTable::Write& write : actions.take_writes())
      L7MARK_TRY(subject.dataplane->write_action(write.index, write.action));
    subject.program = subject.dataplane->program_fd("l7mark_ingress");
    return decide(*subject.dataplane, indexes, kPolicyFlows);
  }

  [[nodiscard]] double match_ns(const Subject& subject) const {
    const double begin = now_seconds();
    std::size_t found = 0;
    for (std::size_t i = 0; i < kMatches; ++i)
      found +=
          subject.matcher->match(subject.facts[i % subject.facts.size()], FlowState::final, now_)
              .size();
    return found == kMatches ? (now_seconds() - begin) * 1e9 / static_cast<double>(kMatches) : -1;
  }

  [[nodiscard]] static double load_ms(const Subject& subject) {
    const double begin = now_seconds();
    auto policy = parse_policy(subject.text, "bench", Catalog());
    if (!policy) return -1;
    const PolicyMatcher matcher(std::make_shared<const Policy>(std::move(*policy)));
    return (now_seconds() - begin) * 1e3;
  }

  Status by_policy() {
    std::vector<std::unique_ptr<Subject>> subjects;
    for (const std::size_t classes : options_.classes) {
      for (const std::size_t hosts : options_.hosts) {
        if (hosts < classes) continue;
        auto subject = std::make_unique<Subject>();
        subject->classes = classes;
        subject->hosts = hosts;
        L7MARK_TRY(prepare(*subject));
        subjects.push_back(std::move(subject));
      }
    }
    if (subjects.empty()) return success();
    auto walk = Walk::load(kPolicyFlows);
    if (!walk) return walk.error();
    std::vector<Contender> packets, matches, loads;
    packets.push_back(
        {"walk", [&] { return walk->run(walk->empty(), kPolicyFlows, options_.repeat); }});
    for (const auto& subject : subjects) {
      const std::string of = fmt::format("{} classes, {} hosts", subject->classes, subject->hosts);
      packets.push_back({of, [&walk, this, s = subject.get()] {
                           return walk->run(s->program, kPolicyFlows, options_.repeat);
                         }});
      matches.push_back({of, [this, s = subject.get()] { return match_ns(*s); }});
      loads.push_back({of, [s = subject.get()] { return load_ms(*s); }});
    }
    for (std::vector<Contender>* contenders : {&packets, &matches, &loads})
      if (!run_rounds(*contenders, options_.rounds))
        return Error{"run", "the policies", 0, "a program run or a match failed"};
    settle(packets, 0);
    for (std::size_t i = 1; i < packets.size(); ++i)
      report("packet over an empty program, ns", packets[i].name, packets[i], &packets[1], 1);
    for (const Contender& c : matches)
      report("policy's match of a flow, ns", c.name, c, matches.data(), 0);
    for (const Contender& c : loads) report("load of a policy, ms", c.name, c, loads.data(), 1);
    return success();
  }

  Status by_workers() {
    const PacketSource source = PacketSource::made_up();
    const std::size_t copies =
        std::max<std::size_t>(1, (options_.worker_flows + source.flows() - 1) / source.flows());
    const auto samples = collect(source, copies);
    if (!samples) return samples.error();
    std::vector<Contender> contenders;
    std::vector<Contender> clock;  // the same runs, by the clock
    std::optional<Error> failure;
    clock.reserve(options_.workers.size());
    for (const unsigned count : options_.workers) {
      const std::string of = fmt::format("{} {}", count, count == 1 ? "worker" : "workers");
      Contender* paced = &clock.emplace_back(Contender{of, nullptr});
      contenders.push_back({of, [&, paced, count] {
                              const auto done = run_workers(source, copies, *samples, count);
                              if (!done) {
                                failure = done.error();
                                return -1.0;
                              }
                              const auto flows = static_cast<double>(samples->flows);
                              paced->values.push_back(flows / std::max(done->seconds, 1e-9));
                              return flows / std::max(done->cpu_seconds, 1e-9);
                            }});
    }
    if (!run_rounds(contenders, options_.rounds)) return *failure;
    for (const Contender& c : contenders)
      report("workers' flows a CPU second", c.name, c, contenders.data(), 0);
    for (const Contender& c : clock) report("workers' flows a second", c.name, c, clock.data(), 0);
    return success();
  }

  ScaleBenchOptions options_;
  std::optional<Features> features_;
  WallTime now_ = std::chrono::system_clock::now();
  Table table_;
};

}  // namespace

Result<Table> run_scale_bench(const ScaleBenchOptions& options) {
  return ScaleBench(options).run();
}

}  // namespace l7mark::bench
