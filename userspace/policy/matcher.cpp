// SPDX-License-Identifier: GPL-2.0-only
#include "policy/matcher.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <functional>
#include <unordered_map>
#include <utility>

#include "policy/host_index.hpp"
#include "policy/prefix_set.hpp"
#include "policy/values.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

// Kleene's logic: `maybe` is what detection has not settled yet.
enum class Truth : std::uint8_t { no, maybe, yes };

Truth truth(bool value) {
  return value ? Truth::yes : Truth::no;
}
Truth both(Truth a, Truth b) {
  return std::min(a, b);
}
Truth either(Truth a, Truth b) {
  return std::max(a, b);
}
Truth negate(Truth a) {
  return static_cast<Truth>(2 - static_cast<int>(a));
}

class IdSet {
 public:
  void add(std::uint16_t id) {
    if (id / 64U >= words_.size()) words_.resize(id / 64U + 1);
    words_[id / 64U] |= std::uint64_t{1} << (id % 64U);
  }
  [[nodiscard]] bool empty() const { return words_.empty(); }
  [[nodiscard]] bool contains(std::uint16_t id) const {
    return id / 64U < words_.size() && (words_[id / 64U] >> (id % 64U) & 1) != 0;
  }

 private:
  std::vector<std::uint64_t> words_;
};

bool in_ranges(const std::vector<PortRange>& ranges, std::uint16_t port) {
  return std::any_of(ranges.begin(), ranges.end(), [port](const PortRange& range) {
    return port >= range.first && port <= range.last;
  });
}

template <class T, class U>
bool contains(const std::vector<T>& values, const U& wanted) {
  return std::find(values.begin(), values.end(), wanted) != values.end();
}

bool any_glob_matches(const std::vector<std::string>& patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [text](const std::string& pattern) { return glob_match(pattern, text); });
}

// True if a pattern describes one of the protocols in "h2,http/1.1".
bool offers_protocol(const std::vector<std::string>& patterns, std::string_view offered) {
  while (!offered.empty()) {
    const std::size_t comma = offered.find(',');
    if (any_glob_matches(patterns, offered.substr(0, comma))) return true;
    offered.remove_prefix(comma == std::string_view::npos ? offered.size() : comma + 1);
  }
  return false;
}

constexpr std::uint32_t kNoHosts = UINT32_MAX;

struct CompiledOwn {
  const OwnApplication* own;
  std::uint32_t hosts;
  PrefixSet addresses;
};

struct CompiledMatch {
  explicit CompiledMatch(const Match& source)
      : match(&source), servers(source.servers), clients(source.clients) {}

  const Match* match;
  IdSet applications;
  IdSet masters;
  IdSet categories;
  std::vector<std::uint16_t> own;  // indexes into Policy::applications
  std::uint32_t hosts = kNoHosts;
  PrefixSet servers;
  PrefixSet clients;
  std::array<std::uint64_t, 4> transports{};
  std::vector<std::uint32_t> ifindexes;
  std::vector<CompiledMatch> any;
  std::vector<CompiledMatch> all;
  std::vector<CompiledMatch> none;
};

struct CompiledClass {
  CompiledMatch match;
  std::vector<CompiledMatch> except;
};

// A flow under examination, with what is worked out of it only once.
class Subject {
 public:
  Subject(const FlowFacts& facts, FlowState state, const HostIndex& hosts,
          const std::vector<CompiledOwn>& own)
      : facts_(facts),
        hosts_(hosts),
        own_(own),
        state_(state),
        doubt_(state == FlowState::undecided ? Truth::maybe : Truth::no) {}

  // From now on a guessed application, master or category is no reason to match.
  void distrust_guess() { distrusted_ = true; }

  [[nodiscard]] Truth matches(const CompiledMatch& compiled);
  [[nodiscard]] Truth is_own(const CompiledOwn& compiled);

 private:
  // Of what detection may still change.
  [[nodiscard]] Truth settled(bool hit) const { return doubt_ == Truth::no ? truth(hit) : doubt_; }
  // The same of what may be guessed.
  [[nodiscard]] Truth believed(bool hit) const {
    return distrusted_ && hit ? Truth::maybe : settled(hit);
  }
  [[nodiscard]] Truth has_host(std::uint32_t set);
  [[nodiscard]] Truth matches_detection(const CompiledMatch& compiled);
  [[nodiscard]] Truth matches_application(const CompiledMatch& compiled);
  [[nodiscard]] Truth matches_tls(const Match& match) const;
  [[nodiscard]] Truth matches_client_hello(const Match& match) const;
  [[nodiscard]] bool matches_headers(const CompiledMatch& compiled) const;

  const FlowFacts& facts_;
  const HostIndex& hosts_;
  const std::vector<CompiledOwn>& own_;
  FlowState state_;
  Truth doubt_;  // what a fact that is not there yet counts as
  bool distrusted_ = false;
  bool looked_up_ = false;
  std::vector<std::uint32_t> host_sets_;
};

Truth Subject::has_host(std::uint32_t set) {
  if (facts_.hostname.empty()) return doubt_;
  if (!looked_up_) host_sets_ = hosts_.find(facts_.hostname);
  looked_up_ = true;
  return truth(std::binary_search(host_sets_.begin(), host_sets_.end(), set));
}

Truth Subject::is_own(const CompiledOwn& compiled) {
  const auto& own = *compiled.own;
  if (!own.ports.empty() && !in_ranges(own.ports, facts_.server_port)) return Truth::no;
  if (own.hosts.empty() && own.addresses.empty()) return Truth::yes;
  Truth out = truth(compiled.addresses.contains(facts_.server));
  if (out != Truth::yes && compiled.hosts != kNoHosts) out = either(out, has_host(compiled.hosts));
  return out;
}

Truth Subject::matches_application(const CompiledMatch& compiled) {
  Truth out = compiled.applications.empty()
                  ? Truth::no
                  : believed(compiled.applications.contains(facts_.application));
  for (const std::uint16_t index : compiled.own) {
    if (out == Truth::yes) break;
    out = either(out, is_own(own_[index]));
  }
  return out;
}

Truth Subject::matches_tls(const Match& match) const {
  Truth out = Truth::yes;
  if (match.tls_versions != 0) {
    const auto version = tls_version_from_wire(facts_.details.tls_version);
    const bool hit = version && (match.tls_versions >> static_cast<unsigned>(*version) & 1) != 0;
    out = facts_.details.tls_version == 0 ? doubt_ : truth(hit);
  }
  if (!match.tls_ciphers.empty()) {
    // Suite 0 is TLS_NULL_WITH_NULL_NULL, which no server chooses: here it is "not seen".
    const std::uint16_t id = facts_.details.tls_cipher_id;
    const bool hit = std::binary_search(match.tls_ciphers.begin(), match.tls_ciphers.end(), id);
    out = both(out, id == 0 ? doubt_ : truth(hit));
  }
  return out;
}

Truth Subject::matches_client_hello(const Match& match) const {
  const FlowDetails& details = facts_.details;
  Truth out = Truth::yes;
  if (!match.alpn.empty())
    out =
        details.alpn.empty() ? doubt_ : truth(offers_protocol(match.alpn, to_lower(details.alpn)));
  if (!match.ja4.empty()) {
    const bool hit = any_glob_matches(match.ja4, to_lower(details.ja4_client));
    out = both(out, details.ja4_client.empty() ? doubt_ : truth(hit));
  }
  if (match.ech)
    out = both(out, details.client_hello_seen() ? truth(*match.ech == details.ech) : doubt_);
  return out;
}

Truth Subject::matches_detection(const CompiledMatch& compiled) {
  const Match& match = *compiled.match;
  Truth out = Truth::yes;
  if (!match.applications.empty()) out = matches_application(compiled);
  if (out == Truth::no) return out;
  if (!match.masters.empty()) out = both(out, believed(compiled.masters.contains(facts_.master)));
  if (!match.categories.empty())
    out = both(out, believed(compiled.categories.contains(facts_.category)));
  if (match.confidences != 0) {
    const bool hit = (match.confidences >> static_cast<unsigned>(facts_.confidence) & 1) != 0;
    out = both(out, settled(hit));
  }
  // A risk that was seen stays; a score only grows.
  if (match.risks != 0) out = both(out, (match.risks & facts_.risks) != 0 ? Truth::yes : doubt_);
  if (match.risk_score) {
    const auto& [min, max] = *match.risk_score;
    const bool hit = facts_.risk_score >= min && facts_.risk_score <= max;
    out = both(out, hit && max == UINT32_MAX ? Truth::yes : settled(hit));
  }
  if (out == Truth::no) return out;
  out = both(out, matches_tls(match));
  out = both(out, matches_client_hello(match));
  if (out != Truth::no && compiled.hosts != kNoHosts) out = both(out, has_host(compiled.hosts));
  return out;
}

bool Subject::matches_headers(const CompiledMatch& compiled) const {
  const Match& match = *compiled.match;
  if (match.states != 0 && (match.states >> static_cast<unsigned>(state_) & 1) == 0) return false;
  if (match.ip_version != 0 && (match.ip_version == 4) != facts_.client.is_v4()) return false;
  if (!match.transports.empty() &&
      (compiled.transports[facts_.protocol / 64] >> (facts_.protocol % 64) & 1) == 0)
    return false;
  if (match.midstream && *match.midstream != facts_.midstream) return false;
  if (!match.server_ports.empty() && !in_ranges(match.server_ports, facts_.server_port))
    return false;
  if (!match.interfaces.empty() && !contains(compiled.ifindexes, facts_.ifindex)) return false;
  if (!match.client_macs.empty()) {
    const auto same = [this](const MacAddress& mac) {
      return std::equal(mac.begin(), mac.end(), std::begin(facts_.client_mac));
    };
    if (std::none_of(match.client_macs.begin(), match.client_macs.end(), same)) return false;
  }
  if (!compiled.servers.empty() && !compiled.servers.contains(facts_.server)) return false;
  return compiled.clients.empty() || compiled.clients.contains(facts_.client);
}

Truth Subject::matches(const CompiledMatch& compiled) {
  if (!matches_headers(compiled)) return Truth::no;
  Truth out = matches_detection(compiled);
  for (const auto& inner : compiled.all) {
    if (out == Truth::no) return out;
    out = both(out, matches(inner));
  }
  const bool distrusted = std::exchange(distrusted_, false);
  for (const auto& inner : compiled.none) {
    if (out == Truth::no) break;
    out = both(out, negate(matches(inner)));
  }
  distrusted_ = distrusted;
  if (out == Truth::no || compiled.any.empty()) return out;
  Truth one = Truth::no;
  for (const auto& inner : compiled.any) {
    one = either(one, matches(inner));
    if (one == Truth::yes) break;
  }
  return both(out, one);
}

bool needs_detection(const CompiledMatch& compiled, const std::vector<CompiledOwn>& own) {
  const Match& match = *compiled.match;
  const auto inner_needs = [&own](const std::vector<CompiledMatch>& list) {
    return std::any_of(list.begin(), list.end(),
                       [&own](const CompiledMatch& inner) { return needs_detection(inner, own); });
  };
  const bool names_hosts =
      std::any_of(compiled.own.begin(), compiled.own.end(),
                  [&own](std::uint16_t index) { return own[index].hosts != kNoHosts; });
  return names_hosts || !compiled.applications.empty() || !match.masters.empty() ||
         !match.categories.empty() || match.risks != 0 || match.risk_score ||
         !match.hostnames.empty() || match.tls_versions != 0 || !match.tls_ciphers.empty() ||
         !match.alpn.empty() || !match.ja4.empty() || match.ech || match.confidences != 0 ||
         inner_needs(compiled.any) || inner_needs(compiled.all) || inner_needs(compiled.none);
}

// What the match asks for by `confidence`, in the lists of matches too.
std::uint8_t named_confidences(const Match& match) {
  std::uint8_t out = match.confidences;
  for (const auto* list : {&match.any, &match.all})
    for (const Match& inner : *list) out |= named_confidences(inner);
  return out;
}

}  // namespace

class PolicyMatcher::Compiled {
 public:
  explicit Compiled(std::shared_ptr<const Policy> policy) : policy_(std::move(policy)) {
    tzset();  // the zone may have changed since the last policy was read
    for (const auto& own : policy_->applications)
      own_.push_back(CompiledOwn{&own, own.hosts.empty() ? kNoHosts : hosts_.add(own.hosts),
                                 PrefixSet(own.addresses)});
    for (const auto& match : policy_->exemptions) exemptions_.push_back(compile(match));
    for (const auto& c : policy_->classes) {
      CompiledClass out{compile(c.match), {}};
      for (const auto& match : c.except) out.except.push_back(compile(match));
      classes_.push_back(std::move(out));
    }
  }

  [[nodiscard]] const Policy& policy() const { return *policy_; }

  void set_interfaces(const std::vector<std::pair<std::string, std::uint32_t>>& indexes) {
    for (auto& match : exemptions_) set_interfaces(match, indexes);
    for (auto& c : classes_) {
      set_interfaces(c.match, indexes);
      for (auto& match : c.except) set_interfaces(match, indexes);
    }
  }

  [[nodiscard]] ClassList match(const FlowFacts& facts, FlowState state, WallTime now) const {
    Subject subject(facts, state, hosts_, own_);
    Moment moment(now);
    ClassList out;
    if (any_of(subject, exemptions_) != Truth::no) return out;
    for (std::size_t i = 0; i < classes_.size(); ++i) {
      const PolicyClass& c = policy_->classes[i];
      Truth hit = subject.matches(classes_[i].match);
      if (hit == Truth::no || !moment.within_any(c.schedules)) continue;
      if (!c.except.empty()) hit = both(hit, negate(any_of(subject, classes_[i].except)));
      if (hit == Truth::no) continue;
      if (hit == Truth::maybe) return out;
      out.push_back(static_cast<std::uint16_t>(i));
      if (!c.proceed) return out;
    }
    return out;
  }

  [[nodiscard]] ClassList by_guess(const FlowFacts& facts, FlowState state,
                                   const ClassList& classes) const {
    ClassList out;
    if (!facts.answered() || facts.own_answer()) return out;
    // An answer that was taken over from the kernel has no confidence, but its state tells.
    if (facts.confidence == Confidence::none && state == FlowState::final) return out;
    Subject subject(facts, state, hosts_, own_);
    subject.distrust_guess();
    for (const std::uint16_t index : classes) {
      const std::uint8_t named = named_confidences(policy_->classes[index].match);
      if ((named >> static_cast<unsigned>(facts.confidence) & 1) != 0) continue;
      if (subject.matches(classes_[index].match) != Truth::yes) out.push_back(index);
    }
    return out;
  }

  [[nodiscard]] bool needs_detection(std::uint16_t index) const {
    if (index >= classes_.size()) return true;
    const CompiledClass& c = classes_[index];
    return l7mark::needs_detection(c.match, own_) ||
           std::any_of(c.except.begin(), c.except.end(), [this](const CompiledMatch& match) {
             return l7mark::needs_detection(match, own_);
           });
  }

  [[nodiscard]] std::uint16_t application(const FlowFacts& facts) const {
    Subject subject(facts, FlowState::final, hosts_, own_);
    for (const auto& own : own_)
      if (subject.is_own(own) == Truth::yes) return own.own->id;
    return facts.application;
  }

 private:
  static Truth any_of(Subject& subject, const std::vector<CompiledMatch>& matches) {
    Truth out = Truth::no;
    for (const auto& match : matches) {
      out = either(out, subject.matches(match));
      if (out == Truth::yes) break;
    }
    return out;
  }

  CompiledMatch compile(const Match& source) {
    CompiledMatch out(source);
    for (const std::uint16_t id : source.applications) {
      if (id == kAbsentApplication) continue;
      if (id >= kFirstOwnApplication)
        out.own.push_back(static_cast<std::uint16_t>(id - kFirstOwnApplication));
      else
        out.applications.add(id);
    }
    for (const std::uint16_t id : source.masters)
      if (id != kAbsentApplication) out.masters.add(id);
    for (const std::uint16_t id : source.categories) out.categories.add(id);
    if (!source.hostnames.empty()) out.hosts = hosts_.add(source.hostnames);
    for (const std::uint8_t protocol : source.transports)
      out.transports[protocol / 64] |= std::uint64_t{1} << (protocol % 64);
    for (const auto& match : source.any) out.any.push_back(compile(match));
    for (const auto& match : source.all) out.all.push_back(compile(match));
    for (const auto& match : source.none) out.none.push_back(compile(match));
    return out;
  }

  static void set_interfaces(CompiledMatch& match,
                             const std::vector<std::pair<std::string, std::uint32_t>>& indexes) {
    match.ifindexes.clear();
    for (const auto& [name, index] : indexes)
      if (contains(match.match->interfaces, name)) match.ifindexes.push_back(index);
    for (auto* list : {&match.any, &match.all, &match.none})
      for (auto& inner : *list) set_interfaces(inner, indexes);
  }

  std::shared_ptr<const Policy> policy_;
  HostIndex hosts_;
  std::vector<CompiledOwn> own_;
  std::vector<CompiledMatch> exemptions_;
  std::vector<CompiledClass> classes_;
};

PolicyMatcher::PolicyMatcher(std::shared_ptr<const Policy> policy)
    : compiled_(std::make_unique<Compiled>(std::move(policy))) {}
PolicyMatcher::PolicyMatcher(PolicyMatcher&&) noexcept = default;
PolicyMatcher& PolicyMatcher::operator=(PolicyMatcher&&) noexcept = default;
PolicyMatcher::~PolicyMatcher() = default;

void PolicyMatcher::set_interfaces(
    const std::vector<std::pair<std::string, std::uint32_t>>& indexes) {
  compiled_->set_interfaces(indexes);
}

ClassList PolicyMatcher::match(const FlowFacts& facts, FlowState state, WallTime now) const {
  return compiled_->match(facts, state, now);
}

ClassList PolicyMatcher::by_guess(const FlowFacts& facts, FlowState state,
                                  const ClassList& classes) const {
  return compiled_->by_guess(facts, state, classes);
}

Source PolicyMatcher::source(const FlowFacts& facts, const ClassList& classes) const {
  const bool guess = facts.confidence != Confidence::none && !is_own(facts.confidence);
  if (facts.answered()) return guess ? Source::guess : Source::answer;
  if (classes.empty()) return Source::none;
  const bool by_headers = std::none_of(classes.begin(), classes.end(), [this](std::uint16_t index) {
    return compiled_->needs_detection(index);
  });
  return by_headers ? Source::headers : Source::answer;
}

std::uint16_t PolicyMatcher::application(const FlowFacts& facts) const {
  return compiled_->application(facts);
}

std::optional<WallTime> PolicyMatcher::next_change(WallTime now) const {
  std::vector<Schedule> schedules;
  for (const auto& c : policy().classes)
    schedules.insert(schedules.end(), c.schedules.begin(), c.schedules.end());
  if (schedules.empty()) return std::nullopt;
  const auto holding = [&schedules](WallTime when) {
    Moment moment(when);
    std::vector<bool> out;
    out.reserve(schedules.size());
    for (const auto& schedule : schedules) out.push_back(moment.within(schedule));
    return out;
  };
  // Minute by minute rather than by arithmetic: days of 23 or 25 hours need no care.
  const auto before = holding(now);
  const auto start = std::chrono::floor<std::chrono::minutes>(now);
  for (int minute = 1; minute <= 8 * 24 * 60; ++minute)
    if (holding(start + std::chrono::minutes(minute)) != before)
      return start + std::chrono::minutes(minute);
  return std::nullopt;
}

std::vector<bool> PolicyMatcher::in_schedule(WallTime now) const {
  Moment moment(now);
  std::vector<bool> out;
  out.reserve(policy().classes.size());
  for (const PolicyClass& c : policy().classes) out.push_back(moment.within_any(c.schedules));
  return out;
}

const Policy& PolicyMatcher::policy() const {
  return compiled_->policy();
}

}  // namespace l7mark
