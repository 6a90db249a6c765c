// SPDX-License-Identifier: GPL-2.0-only
#include "policy/header_rules.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <iterator>
#include <map>
#include <set>

namespace l7mark {

namespace {

constexpr std::size_t kMaxRules = L7M_HEADER_RULES;
// Beyond so many products, or branches by "continue", a class is left to detection.
constexpr std::size_t kMaxProducts = 256;
constexpr std::size_t kMaxBranches = 16;
// Beyond so many conditions, or different ones, the classes behind are left out: each is compared
// with those before it.
constexpr std::size_t kMaxConditions = 8192;
constexpr std::size_t kMaxDifferent = 1024;
constexpr unsigned kMappedBits = 96;  // of ::ffff:0:0/96, where IPv4 lives

using Product = std::vector<std::uint16_t>;  // literals, ascending; empty: always true

// A disjunction of products; empty: never true.
struct Formula {
  std::vector<Product> products;
  bool too_long = false;
};

const Formula kNever{};
const Formula kAlways{{{}}, false};

bool implies(const Product& longer, const Product& shorter) {
  return std::includes(longer.begin(), longer.end(), shorter.begin(), shorter.end());
}

bool is_contradiction(const Product& product) {
  for (std::size_t i = 1; i < product.size(); ++i)
    if ((product[i] ^ product[i - 1]) == 1) return true;
  return false;
}

// Leaves out what another product implies.
void simplify(Formula& formula) {
  auto& products = formula.products;
  std::stable_sort(products.begin(), products.end(),
                   [](const Product& a, const Product& b) { return a.size() < b.size(); });
  std::vector<Product> kept;
  for (Product& product : products)
    if (std::none_of(kept.begin(), kept.end(),
                     [&](const Product& shorter) { return implies(product, shorter); }))
      kept.push_back(std::move(product));
  products = std::move(kept);
  if (products.size() > kMaxProducts) formula = Formula{{}, true};
}

void append(Formula& formula, const Formula& more) {
  formula.too_long = formula.too_long || more.too_long ||
                     formula.products.size() + more.products.size() > 16 * kMaxProducts;
  if (formula.too_long) formula.products.clear();
  if (!formula.too_long)
    formula.products.insert(formula.products.end(), more.products.begin(), more.products.end());
}

Formula both(const Formula& a, const Formula& b) {
  if (a.too_long || b.too_long || a.products.size() * b.products.size() > 16 * kMaxProducts)
    return Formula{{}, true};
  Formula out;
  for (const Product& left : a.products) {
    for (const Product& right : b.products) {
      Product product;
      std::set_union(left.begin(), left.end(), right.begin(), right.end(),
                     std::back_inserter(product));
      if (!is_contradiction(product)) out.products.push_back(std::move(product));
    }
  }
  simplify(out);
  return out;
}

Formula negate(const Formula& a) {
  if (a.too_long) return a;
  Formula out = kAlways;
  for (const Product& product : a.products) {
    Formula one;
    for (const std::uint16_t literal : product)
      one.products.push_back({static_cast<std::uint16_t>(literal ^ 1)});
    out = both(out, one);
  }
  return out;
}

// A match by what the headers tell: where it holds whatever detection finds, and where it may.
struct Bounds {
  Formula surely = kAlways;
  Formula maybe = kAlways;
  bool too_long = false;  // holds for sure in more places than `surely` tells

  // What is too long is never sure, and always possible.
  void settle() {
    too_long = too_long || surely.too_long;
    if (surely.too_long) surely = kNever;
    if (maybe.too_long) {
      too_long = true;
      maybe = kAlways;
    }
  }
  void narrow(const Bounds& other) {
    surely = both(surely, other.surely);
    maybe = both(maybe, other.maybe);
    too_long = too_long || other.too_long;
    settle();
  }
  void widen(const Bounds& other) {
    add(other);
    shorten();
  }
  // The same, for many: shorten() in the end.
  void add(const Bounds& other) {
    append(surely, other.surely);
    append(maybe, other.maybe);
    too_long = too_long || other.too_long;
  }
  void shorten() {
    simplify(surely);
    simplify(maybe);
    settle();
  }
  void exclude(const Bounds& other) {
    surely = both(surely, negate(other.maybe));
    maybe = both(maybe, negate(other.surely));
    too_long = too_long || other.too_long;
    settle();
  }
};

// Once a flow has a class by its headers it is provisional, until its answer.
bool depends_on_state(const Match& match) {
  constexpr unsigned kStates =
      1U << L7M_STATE_PROVISIONAL | 1U << L7M_STATE_GUESSED | 1U << L7M_STATE_FINAL;
  return match.states != 0 && (match.states & kStates) != kStates;
}

bool depends_on_detection(const Match& match) {
  return !match.masters.empty() || !match.categories.empty() || match.risks != 0 ||
         match.risk_score || !match.hostnames.empty() || !match.client_macs.empty() ||
         match.tls_versions != 0 || !match.tls_ciphers.empty() || !match.alpn.empty() ||
         !match.ja4.empty() || match.ech || match.confidences != 0 || match.midstream ||
         depends_on_state(match);
}

bool same_ports(const std::vector<PortRange>& a, const std::vector<PortRange>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.last == y.last;
  });
}

std::array<std::uint8_t, 16> big_endian(std::uint32_t number, unsigned bytes) {
  std::array<std::uint8_t, 16> out{};
  for (unsigned i = 0; i < bytes; ++i)
    out[i] = static_cast<std::uint8_t>(number >> (8 * (bytes - 1 - i)));
  return out;
}

bool covers(const Address& address, unsigned length, const Address& inner) {
  const unsigned whole = length / 8;
  if (!std::equal(address.bytes.begin(), address.bytes.begin() + whole, inner.bytes.begin()))
    return false;
  const auto kept = static_cast<std::uint8_t>(0xff00U >> (length % 8));
  return length % 8 == 0 || ((address.bytes[whole] ^ inner.bytes[whole]) & kept) == 0;
}

}  // namespace

HeaderPoint header_point(const FlowFacts& facts) {
  return {facts.client, facts.server, facts.server_port, facts.protocol, facts.ifindex};
}

// --- conditions ----------------------------------------------------------------------------------

bool HeaderRules::Condition::same_as(const Condition& other) const {
  return table == other.table && ip_version == other.ip_version && prefixes == other.prefixes &&
         same_ports(ports, other.ports) && transports == other.transports &&
         interfaces == other.interfaces;
}

bool HeaderRules::Condition::holds(const HeaderPoint& point) const {
  switch (table) {
    case HeaderTable::client:
      return prefix_set.contains(point.client);
    case HeaderTable::server:
      return prefix_set.contains(point.server);
    case HeaderTable::port:
      return std::any_of(ports.begin(), ports.end(), [&](const PortRange& range) {
        return point.server_port >= range.first && point.server_port <= range.last;
      });
    case HeaderTable::transport:
      if (ip_version != 0) return (ip_version == 4) == point.client.is_v4();
      return std::find(transports.begin(), transports.end(), point.protocol) != transports.end();
    case HeaderTable::interface:
      return std::find(ifindexes.begin(), ifindexes.end(), point.ifindex) != ifindexes.end();
  }
  return false;
}

// --- from the policy to rules --------------------------------------------------------------------

class HeaderRules::Compiler {
 public:
  Compiler(const Policy& policy, HeaderRules& out) : policy_(policy), out_(out) {}

  void run(const std::vector<bool>& in_schedule) {
    Bounds exempt = any_of(policy_.exemptions);
    emit(exempt.surely, true, {});
    emit(exempt.maybe, false, {});
    if (full_ && !policy_.classes.empty()) leave_out(0);
    for (std::size_t i = 0; i < policy_.classes.size() && !full_; ++i)
      if (i >= in_schedule.size() || in_schedule[i]) add_class(static_cast<std::uint16_t>(i));
    // Flows for which "continue" was the last word.
    for (const Branch& branch : branches_) {
      if (branch.classes.empty() || full_) continue;
      emit(branch.where, true, branch.classes);
      if (full_) leave_out(branch.classes.front());
    }
  }

 private:
  // Where just these classes with "continue" have matched so far.
  struct Branch {
    ClassList classes;
    Formula where;
  };

  void add_class(std::uint16_t index) {
    const PolicyClass& c = policy_.classes[index];
    Bounds bounds = bounds_of(c.match);
    if (!c.except.empty()) bounds.exclude(any_of(c.except));
    bool too_long = bounds.too_long;
    if (c.proceed) {
      if (!proceed_with(index, bounds.surely)) too_long = true;
      Formula open = too_long ? bounds.maybe : both(bounds.maybe, negate(bounds.surely));
      emit(open.too_long ? bounds.maybe : open, false, {});
    } else {
      for (const Branch& branch : branches_) {
        ClassList classes = branch.classes;
        classes.push_back(index);
        const Formula where = both(branch.where, bounds.surely);
        too_long = too_long || where.too_long;
        emit(where, true, classes);
      }
      emit(too_long ? bounds.maybe : without(bounds.maybe, bounds.surely), false, {});
    }
    if (full_)
      leave_out(index);
    else if (too_long)
      out_.left_out_.emplace_back(index, "its conditions have too many combinations");
  }

  void leave_out(std::uint16_t index) {
    out_.left_out_.emplace_back(index, "there is no room for it and those behind it among the " +
                                           std::to_string(kMaxRules) +
                                           " rules and their conditions");
  }

  // The products that are not among the others, which have rules already.
  static Formula without(Formula formula, const Formula& others) {
    std::erase_if(formula.products, [&](const Product& product) {
      return std::find(others.products.begin(), others.products.end(), product) !=
             others.products.end();
    });
    return formula;
  }

  // Parts the branches by whether the class matches. False: there would be too many.
  bool proceed_with(std::uint16_t index, const Formula& surely) {
    if (surely.products.empty()) return true;
    const Formula otherwise = negate(surely);
    std::vector<Branch> parted;
    for (const Branch& branch : branches_) {
      ClassList classes = branch.classes;
      classes.push_back(index);
      for (Branch& part : std::array{Branch{std::move(classes), both(branch.where, surely)},
                                     Branch{branch.classes, both(branch.where, otherwise)}}) {
        if (part.where.too_long) return false;
        if (!part.where.products.empty()) parted.push_back(std::move(part));
      }
    }
    if (parted.size() > kMaxBranches) return false;
    branches_ = std::move(parted);
    return true;
  }

  Bounds bounds_of(const Match& match) {
    Bounds out;
    narrow(out, {.table = HeaderTable::client, .prefixes = match.clients});
    narrow(out, {.table = HeaderTable::server, .prefixes = match.servers});
    narrow(out, {.table = HeaderTable::port, .ports = match.server_ports});
    narrow(out, {.table = HeaderTable::transport, .transports = match.transports});
    narrow(out, {.table = HeaderTable::transport, .ip_version = match.ip_version});
    narrow(out, {.table = HeaderTable::interface, .interfaces = match.interfaces});
    if (depends_on_detection(match)) out.surely = kNever;
    if (!match.applications.empty()) out.narrow(any_application(match.applications));
    for (const Match& inner : match.all) out.narrow(bounds_of(inner));
    for (const Match& inner : match.none) out.exclude(bounds_of(inner));
    if (!match.any.empty()) out.narrow(any_of(match.any));
    return out;
  }

  Bounds any_of(const std::vector<Match>& matches) {
    Bounds out{kNever, kNever};
    for (const Match& match : matches) out.add(bounds_of(match));
    out.shorten();
    return out;
  }

  Bounds any_application(const std::vector<std::uint16_t>& applications) {
    Bounds out{kNever, kNever};
    for (const std::uint16_t id : applications) {
      if (id == kAbsentApplication) continue;
      if (id < kFirstOwnApplication)
        out.add({kNever, kAlways});
      else
        out.add(bounds_of(policy_.applications[id - kFirstOwnApplication]));
    }
    out.shorten();
    return out;
  }

  Bounds bounds_of(const OwnApplication& own) {
    Bounds out;
    narrow(out, {.table = HeaderTable::port, .ports = own.ports});
    if (own.hosts.empty() && own.addresses.empty()) return out;
    Bounds at{kNever, own.hosts.empty() ? kNever : kAlways};
    if (!own.addresses.empty()) {
      Bounds addresses;
      narrow(addresses, {.table = HeaderTable::server, .prefixes = own.addresses});
      at.widen(addresses);
    }
    out.narrow(at);
    return out;
  }

  // An empty condition holds always.
  void narrow(Bounds& bounds, Condition&& condition) {
    if (condition.prefixes.empty() && condition.ports.empty() && condition.transports.empty() &&
        condition.ip_version == 0 && condition.interfaces.empty())
      return;
    const auto number = literal(std::move(condition));
    const Formula formula = number ? Formula{{{*number}}, false} : Formula{{}, true};
    bounds.narrow({formula, formula});
  }

  // Nothing: there is no room for the condition.
  std::optional<std::uint16_t> literal(Condition&& condition) {
    auto& known = out_.conditions_;
    const auto found = std::find_if(known.begin(), known.end(), [&](const Condition& other) {
      return other.same_as(condition);
    });
    const auto index = static_cast<std::uint16_t>(found - known.begin());
    if (index == kMaxDifferent || ++conditions_ > kMaxConditions) {
      full_ = true;
      return std::nullopt;
    }
    if (found == known.end()) {
      condition.prefix_set = PrefixSet(condition.prefixes);
      known.push_back(std::move(condition));
    }
    return static_cast<std::uint16_t>(2 * index);
  }

  // Leaves out rules that a rule in front makes needless.
  void emit(const Formula& formula, bool exact, const ClassList& classes) {
    auto& rules = out_.rules_;
    for (const Product& product : formula.products) {
      const bool needless = std::any_of(rules.begin(), rules.end(), [&](const HeaderRule& rule) {
        return (rule.exact || !exact) && implies(product, rule.literals);
      });
      if (needless) continue;
      if (rules.size() == kMaxRules) {
        full_ = true;
        return;
      }
      rules.push_back({exact, classes, product});
    }
  }

  const Policy& policy_;
  HeaderRules& out_;
  std::vector<Branch> branches_{{{}, kAlways}};
  std::size_t conditions_ = 0;  // read so far
  bool full_ = false;
};

HeaderRules::HeaderRules(const Policy& policy, const std::vector<bool>& in_schedule) {
  Compiler(policy, *this).run(in_schedule);
  // Behind the last exact rule nothing is looked for.
  while (!rules_.empty() && !rules_.back().exact) rules_.pop_back();
}

bool HeaderRules::any_exact() const {
  return std::any_of(rules_.begin(), rules_.end(), [](const HeaderRule& r) { return r.exact; });
}

bool HeaderRules::uses_interfaces() const {
  return std::any_of(conditions_.begin(), conditions_.end(),
                     [](const Condition& c) { return c.table == HeaderTable::interface; });
}

void HeaderRules::set_interfaces(
    const std::vector<std::pair<std::string, std::uint32_t>>& indexes) {
  interfaces_ = indexes;
  for (Condition& condition : conditions_) {
    condition.ifindexes.clear();
    for (const auto& [name, index] : indexes)
      if (std::find(condition.interfaces.begin(), condition.interfaces.end(), name) !=
          condition.interfaces.end())
        condition.ifindexes.push_back(index);
  }
}

std::optional<HeaderMatch> HeaderRules::find(const HeaderPoint& point) const {
  bool certain = true;
  for (const HeaderRule& rule : rules_) {
    const bool holds =
        std::all_of(rule.literals.begin(), rule.literals.end(), [&](std::uint16_t literal) {
          return conditions_[literal / 2].holds(point) == (literal % 2 == 0);
        });
    if (!holds) continue;
    if (rule.exact) return HeaderMatch{rule.classes, certain};
    certain = false;
  }
  return std::nullopt;
}

// --- from rules to masks -------------------------------------------------------------------------

// The rules that the table's own conditions leave.
HeaderMask HeaderRules::mask(HeaderTable table, const Truths& truths) const {
  HeaderMask out{};
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    const auto& literals = rules_[i].literals;
    const bool left = std::all_of(literals.begin(), literals.end(), [&](std::uint16_t literal) {
      return conditions_[literal / 2].table != table || truths[literal / 2] == (literal % 2 == 0);
    });
    if (left) out[i / 64] |= std::uint64_t{1} << (i % 64);
  }
  return out;
}

// Every prefix that a condition names is an entry, with the conditions of all that hold it.
void HeaderRules::add_prefixes(HeaderTable table, std::vector<HeaderEntry>& out) const {
  std::map<std::pair<Address, unsigned>, std::vector<std::size_t>> named;
  named[{Address{}, 0}];
  // An IPv6 block such as ::/0 does not hold the mapped addresses inside it.
  const std::pair<Address, unsigned> mapped{Address::v4(0), kMappedBits};
  named[mapped];
  for (std::size_t i = 0; i < conditions_.size(); ++i)
    if (conditions_[i].table == table)
      for (const Prefix& prefix : conditions_[i].prefixes)
        named[{prefix.address, prefix.length128()}].push_back(i);

  struct Level {
    Address address;
    unsigned length = 0;
    Truths truths;
    HeaderMask rules{};
  };
  std::vector<Level> around;  // the entries that hold the one at hand
  std::map<Truths, HeaderMask> masks;
  for (const auto& [prefix, conditions] : named) {
    while (!around.empty() && !covers(around.back().address, around.back().length, prefix.first))
      around.pop_back();
    Truths truths =
        around.empty() || prefix == mapped ? Truths(conditions_.size()) : around.back().truths;
    for (const std::size_t condition : conditions) truths[condition] = true;
    auto known = masks.find(truths);
    if (known == masks.end()) known = masks.emplace(truths, mask(table, truths)).first;
    if (around.empty() || around.back().rules != known->second)
      out.push_back(
          {table, static_cast<std::uint8_t>(prefix.second), prefix.first.bytes, known->second});
    around.push_back({prefix.first, prefix.second, std::move(truths), known->second});
  }
}

void HeaderRules::add_ports(std::vector<HeaderEntry>& out) const {
  std::set<std::uint32_t> begins{0};
  for (const Condition& condition : conditions_) {
    for (const PortRange& range : condition.ports) {
      begins.insert(range.first);
      begins.insert(range.last + 1U);
    }
  }
  begins.insert(0x10000);
  out.push_back({HeaderTable::port, 0, {}, {}});
  const std::size_t root = out.size() - 1;
  for (auto begin = begins.begin(); std::next(begin) != begins.end(); ++begin) {
    Truths truths(conditions_.size());
    for (std::size_t i = 0; i < conditions_.size(); ++i)
      if (conditions_[i].table == HeaderTable::port)
        truths[i] = conditions_[i].holds({.server_port = static_cast<std::uint16_t>(*begin)});
    const HeaderMask rules = mask(HeaderTable::port, truths);
    // The upper ports are clients', of which policies seldom speak.
    if (*std::next(begin) == 0x10000) {
      out[root].rules = rules;
      break;
    }
    for (std::uint32_t at = *begin; at < *std::next(begin);) {
      unsigned bits = at == 0 ? 16 : static_cast<unsigned>(std::countr_zero(at));
      while (at + (1U << bits) > *std::next(begin)) --bits;
      out.push_back(
          {HeaderTable::port, static_cast<std::uint8_t>(16 - bits), big_endian(at, 2), rules});
      at += 1U << bits;
    }
  }
}

// Keyed by the IP version, then the protocol; protocol 255, which is reserved, stands for those
// that no condition names.
void HeaderRules::add_transports(std::vector<HeaderEntry>& out) const {
  const auto mask_of = [this](unsigned version, unsigned protocol) {
    HeaderPoint point;
    if (version == 4) point.client = Address::v4(0);
    point.protocol = static_cast<std::uint8_t>(protocol);
    Truths truths(conditions_.size());
    for (std::size_t i = 0; i < conditions_.size(); ++i)
      if (conditions_[i].table == HeaderTable::transport) truths[i] = conditions_[i].holds(point);
    return mask(HeaderTable::transport, truths);
  };
  out.push_back({HeaderTable::transport, 0, {}, mask_of(6, 255)});
  for (const unsigned version : {4U, 6U}) {
    const HeaderMask others = mask_of(version, 255);
    out.push_back({HeaderTable::transport, 8, big_endian(version, 1), others});
    for (unsigned protocol = 0; protocol < 255; ++protocol)
      if (const HeaderMask rules = mask_of(version, protocol); rules != others)
        out.push_back({HeaderTable::transport, 16, big_endian(version << 8 | protocol, 2), rules});
  }
}

void HeaderRules::add_interfaces(std::vector<HeaderEntry>& out) const {
  const auto mask_of = [this](std::uint32_t ifindex) {
    Truths truths(conditions_.size());
    for (std::size_t i = 0; i < conditions_.size(); ++i)
      if (conditions_[i].table == HeaderTable::interface)
        truths[i] = conditions_[i].holds({.ifindex = ifindex});
    return mask(HeaderTable::interface, truths);
  };
  const HeaderMask others = mask_of(0);
  out.push_back({HeaderTable::interface, 0, {}, others});
  for (const auto& [name, index] : interfaces_)
    if (const HeaderMask rules = mask_of(index); rules != others)
      out.push_back({HeaderTable::interface, 32, big_endian(index, 4), rules});
}

std::vector<HeaderEntry> HeaderRules::entries() const {
  std::vector<HeaderEntry> out;
  add_prefixes(HeaderTable::client, out);
  add_prefixes(HeaderTable::server, out);
  add_ports(out);
  add_transports(out);
  add_interfaces(out);
  return out;
}

}  // namespace l7mark
