// SPDX-License-Identifier: GPL-2.0-only
// Keeps ipsets and nftables sets in step with the flows. The main process calls on_flow() with each
// answer, seen() for each live flow of its ageing sweep, on_end(), flush() after a batch of
// answers, and tick() about once a second. Trouble with a set is logged once and cured in tick();
// nothing here stops the daemon.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "flow.hpp"
#include "publish/entries.hpp"
#include "publish/ipset.hpp"
#include "publish/nft.hpp"
#include "publish/outcome.hpp"

namespace l7mark {

// One kernel set that entries are written to.
class EntrySink {
 public:
  virtual ~EntrySink() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  virtual Result<Ensured> ensure() = 0;
  virtual WriteOutcome add(std::span<const SetEntry> entries) = 0;
  virtual WriteOutcome refresh(std::span<const SetEntry> entries) = 0;
  virtual WriteOutcome remove(std::span<const SetEntry> entries) = 0;
  // False if elements are missing: fewer than `written`, or one of `sample`. ENOENT: no set.
  virtual Result<bool> intact(std::size_t written, std::span<const SetEntry> sample) = 0;
  // Destroys the set if ensure() created it, or empties it if a rule still uses it (EBUSY). From an
  // adopted or a `shared` one (another target has it too) only `entries` are deleted.
  virtual Status withdraw(std::span<const SetEntry> entries, bool shared) = 0;
  [[nodiscard]] virtual bool created() const = 0;
  // Elements have vanished: where that cannot be told from a set that someone else made anew, the
  // set is not ours any more, so that withdraw() leaves it.
  virtual void disown() {}
};

// What a target's sets can tell apart.
struct TargetShape {
  bool port = true;
  bool client = true;
  bool (*holds)(std::uint8_t protocol) = nullptr;  // null: every protocol
};

struct IpsetTarget {
  IpsetSpec spec;  // of the IPv4 set; the IPv6 sibling follows from it
  IpsetExtras extras;
  bool remove_at_end = false;
  friend bool operator==(const IpsetTarget&, const IpsetTarget&) = default;
};

struct NftTarget {
  NftSpec spec;
  bool remove_at_end = false;
  friend bool operator==(const NftTarget&, const NftTarget&) = default;
};

// Since the start. Named as in `l7mark status`.
struct PublishCounters {
  std::uint64_t added = 0;
  std::uint64_t refreshed = 0;
  std::uint64_t removed = 0;
  std::uint64_t failed = 0;       // writes that failed and are tried again
  std::uint64_t full = 0;         // of these: the set was full
  std::uint64_t unsupported = 0;  // flows whose protocol the set cannot hold
  std::uint64_t rewritten = 0;    // entries written again after a set was flushed or destroyed
  std::uint64_t resyncs = 0;      // acknowledgements lost and writes repeated
};

class Publisher {
 public:
  // Creates or adopts the kernel sets at once. An Error leaves nothing behind. A target equal to
  // one that is there gives that one's id.
  Result<TargetId> add_target(const IpsetTarget& target);
  Result<TargetId> add_target(const NftTarget& target);
  // For other kinds of sets; `ipv4` or `ipv6` may be null.
  Result<TargetId> add_target(std::unique_ptr<EntrySink> ipv4, std::unique_ptr<EntrySink> ipv6,
                              TargetShape shape, TargetPolicy policy);
  // Takes out all that was written to the target, and its sets if we made them. To be called when
  // its flows have been moved to other targets; ids of those that have not stay valid.
  Status drop_target(TargetId target);

  // The flow's share in an element; the caller keeps the id with the flow. kNoEntry if the target
  // cannot hold it. `facts` need only be right in client, server, server_port and protocol.
  [[nodiscard]] EntryId on_flow(TargetId target, const FlowFacts& facts, Milliseconds now);
  void seen(EntryId id, Milliseconds when, Milliseconds now);
  void on_end(EntryId id);

  // Writes what is new.
  void flush(Milliseconds now);
  // flush(), refreshes that are due, retries, and every few seconds a check that the sets still
  // hold what they should.
  void tick(Milliseconds now);
  // Within which time seen() should come round for every live flow; 0 if no target has a timeout.
  [[nodiscard]] Milliseconds sweep_interval() const;

  // On exit: takes out everything. The first Error, after all has been tried.
  Status withdraw();

  [[nodiscard]] const PublishCounters& counters() const { return counters_; }
  [[nodiscard]] const EntryRegistry& registry() const { return registry_; }
  // Names of the kernel sets that were created rather than adopted, for the state file.
  [[nodiscard]] std::vector<std::string> created() const;

 private:
  struct Slot {
    std::unique_ptr<EntrySink> sink;
    bool broken = false;    // cannot be written to until ensure() succeeds
    bool reported = false;  // the cause has been logged
    bool full = false;      // likewise that it is full
    Milliseconds retry_at = 0;
  };
  struct Target {
    Slot slots[2];  // IPv4, IPv6
    TargetShape shape;
    TargetPolicy policy;
    std::variant<std::monostate, IpsetTarget, NftTarget> origin;
    bool dropped = false;
  };
  Result<TargetId> place(Target target);
  template <class T>
  [[nodiscard]] std::optional<TargetId> known(const T& target) const;
  void write(Milliseconds now);
  void write_group(TargetId target, bool ipv6, EntryDelta::Kind kind,
                   std::span<const EntryDelta* const> deltas, Milliseconds now);
  void cure(TargetId target, bool ipv6, Milliseconds now);
  void check(Milliseconds now);
  [[nodiscard]] bool shared(TargetId target, const std::string& name) const;

  std::unique_ptr<Ipset> ipset_;  // opened by the first target that needs it
  std::unique_ptr<Nft> nft_;
  EntryRegistry registry_;
  std::vector<Target> targets_;
  std::vector<EntryDelta> deltas_;
  PublishCounters counters_;
  Milliseconds next_check_ = 0;
};

}  // namespace l7mark
