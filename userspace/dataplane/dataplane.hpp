// SPDX-License-Identifier: GPL-2.0-only
// The programs and maps of one instance: loaded or adopted, pinned, and written to.
#pragma once

#include <l7mark/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataplane/features.hpp"
#include "dataplane/pins.hpp"
#include "flow.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

struct bpf_object;
struct l7mark_control;
struct l7mark_tc;

namespace l7mark {

struct DataplaneOptions {
  std::uint32_t flows = L7M_DEFAULT_FLOWS;            // of each family
  std::uint32_t candidates = L7M_DEFAULT_CANDIDATES;  // of both families
  std::uint32_t services = L7M_DEFAULT_SERVICES;
  std::uint32_t hints = L7M_DEFAULT_HINTS;
  std::uint32_t ring_bytes = L7M_DEFAULT_RING_BYTES;
  std::uint32_t rings = 1;
  std::uint32_t parse = 0;  // L7M_PARSE_*
  bool replay = false;      // L7M_CFG_REPLAY: for captures
};

// Jiffies to seconds and back; the kernel tells userspace neither jiffies nor HZ.
class JiffiesClock {
 public:
  JiffiesClock() = default;
  JiffiesClock(l7m_clock first, l7m_clock second);
  [[nodiscard]] std::uint32_t hz() const { return hz_; }
  // Milliseconds between a 32-bit stamp in an entry and `now`.
  [[nodiscard]] std::uint64_t age_ms(std::uint32_t stamp, const l7m_clock& now) const;
  // What `after_ms` from `now` will be.
  [[nodiscard]] std::uint64_t later(const l7m_clock& now, std::uint64_t after_ms) const;

 private:
  std::uint32_t hz_ = 250;
};

struct VerdictEntry {
  FlowKey key;
  l7m_verdict verdict{};
};

struct ServiceEntry {
  l7m_service_key key{};
  l7m_promise promise{};
};

// An entry of one table of map `header_prefixes`.
struct HeaderPrefix {
  l7m_header_table table = L7M_HEADER_CLIENT;
  std::uint8_t length = 0;  // bits of key
  std::array<std::uint8_t, 16> key{};
  l7m_header_mask mask{};
};

using CounterValues = std::array<std::uint64_t, L7M_COUNTER_COUNT>;
[[nodiscard]] std::string_view counter_name(std::size_t counter);
[[nodiscard]] std::string_view counter_help(std::size_t counter);

class Dataplane {
 public:
  // Loads, and pins under `paths`; maps that are pinned there already are adopted with what is in
  // them, at the size that they have.
  static Result<Dataplane> open(const PinPaths& paths, const DataplaneOptions& options,
                                const Features& features);
  // Loads without pins: for replays, tests and benchmarks.
  static Result<Dataplane> open_private(const DataplaneOptions& options, const Features& features);

  // L7M_PARSE_* that the programs were loaded with.
  [[nodiscard]] std::uint32_t parse() const { return options_.parse; }

  Dataplane(Dataplane&&) noexcept;
  Dataplane& operator=(Dataplane&&) noexcept;
  ~Dataplane();

  [[nodiscard]] bool adopted() const { return adopted_; }
  [[nodiscard]] std::uint32_t rings() const { return static_cast<std::uint32_t>(ring_fds_.size()); }
  [[nodiscard]] int ring_fd(std::uint32_t ring) const { return ring_fds_[ring].get(); }
  // "l7mark_ingress", …; -1 if there is none of that name. Owned by this object.
  [[nodiscard]] int program_fd(const char* name) const;
  [[nodiscard]] int map_fd(const char* name) const;
  // An XDP object over the same maps, opened and not loaded; the caller owns it. Its programs take
  // frames of several buffers where the kernel has such: what refuses that may clear the flag.
  [[nodiscard]] Result<bpf_object*> open_xdp() const;

  Status write_settings(const l7m_settings& settings);
  Result<l7m_settings> read_settings() const;
  Status write_action(std::uint32_t index, const l7m_action& action);
  [[nodiscard]] std::optional<l7m_action> action(std::uint32_t index) const;
  Status set_inside(std::span<const std::pair<Address, unsigned>> prefixes);  // length of the 128
  // Classes by headers, from one packet to the next as a whole. Without an exact rule, or after a
  // failure, nothing is looked up.
  Status write_headers(std::span<const HeaderPrefix> prefixes, const l7m_header_rules& rules);
  Status set_marks(std::span<const std::pair<std::uint32_t, std::uint32_t>> marks);

  // Carries out the steps in their order; fills in what was taken, and each one's `result`.
  Status settle(std::span<l7m_settlement> steps);
  // Inserts or replaces, whatever life is there: for tests and measurements. Returns the positions
  // that were not taken because the table is full.
  Result<std::vector<std::size_t>> put_verdicts(std::span<const VerdictEntry> entries);
  [[nodiscard]] std::optional<l7m_verdict> verdict(const FlowKey& key) const;
  void remove_verdict(const FlowKey& key);
  // Every verdict, in batches. Entries changed meanwhile may be seen twice or not at all. `ahead`
  // is told the keys of every next few calls, where the kernel gives many at once.
  Status for_each_verdict(const std::function<void(const FlowKey&, const l7m_verdict&)>& call,
                          const std::function<void(std::span<const FlowKey>)>& ahead = {}) const;
  Status for_each_candidate(
      const std::function<void(const FlowKey&, const l7m_candidate&)>& call) const;
  [[nodiscard]] std::optional<l7m_candidate> candidate(const FlowKey& key) const;
  // The table that has this life of a flow. A verdict of another life hides a candidate: packets
  // find the verdict first.
  enum class Place : std::uint8_t { none, verdict, candidate };
  [[nodiscard]] Place find_life(const FlowKey& key, std::uint64_t flow_id) const;
  // Inserts or replaces. What programs write into its set meanwhile is lost: for tests.
  Status put_candidate(const FlowKey& key, const l7m_candidate& candidate);
  // Empties the tables of flows, of candidates and of fragments, for a replay that begins anew.
  // Programs must not run meanwhile.
  Status forget_flows();
  // Changes entries in place, without losing what is counted meanwhile; fills in `result`.
  Status edit(std::span<l7m_edit> edits);

  Status put_service(const l7m_service_key& key, const l7m_promise& promise);
  // Many at once; of equal keys the last holds.
  Status put_services(std::span<const ServiceEntry> entries);
  Status put_hint(const l7m_hint_key& key, const l7m_promise& promise);
  void remove_hint(const l7m_hint_key& key);  // if it is there
  // Of `services` and `hints`: calls with every promise; what is returned is written back, nothing
  // removes it.
  Status rewrite_promises(const std::function<std::optional<l7m_promise>(l7m_promise)>& call);

  // Those that have been above their budget, as long as they are not forgotten; IPv6 by its /64,
  // and by no address (::) what all flows begun from outside share.
  Status for_each_source(const std::function<void(const Address&, const l7m_source&)>& call) const;

  [[nodiscard]] Result<l7m_clock> clock() const;
  [[nodiscard]] CounterValues counters() const;

 private:
  Dataplane();
  static Result<Dataplane> load(const PinPaths* paths, const DataplaneOptions& options,
                                const Features& features);
  // Puts this object's maps in the place of `object`'s, which is opened and not loaded.
  Status share_maps(bpf_object* object) const;
  Status load_control();
  Status make_rings(const PinPaths* paths, const DataplaneOptions& options);
  Status choose_secrets();
  Status clear_headers(std::uint32_t generation);
  Status fill_headers(std::uint32_t generation, std::span<const HeaderPrefix> prefixes);

  // The set that a key belongs to, as it was read, and the key's place in it.
  struct CandidateSpot {
    std::uint32_t index = 0;
    std::uint32_t tag = 0;
    std::uint32_t place = 0;  // L7M_WAYS if it has none
    l7m_candidate_set set{};
  };
  Status read_set(const FlowKey& key, CandidateSpot& spot) const;

  struct TcObject {
    void operator()(l7mark_tc* object) const;
  };
  struct ControlObject {
    void operator()(l7mark_control* object) const;
  };
  std::unique_ptr<l7mark_tc, TcObject> tc_;
  std::unique_ptr<l7mark_control, ControlObject> control_;  // over the maps of `tc_`
  std::vector<Fd> ring_fds_;
  DataplaneOptions options_;
  std::uint32_t config_flags_ = 0;
  std::uint32_t sets_ = 0;  // entries of map `candidates`
  l7m_secrets secrets_{};
  std::uint32_t header_flags_ = 0;  // of the settings: the generation of classes by headers
  bool xdp_load_bytes_ = false;
  bool xdp_frags_ = false;
  bool batches_ = true;
  bool adopted_ = false;
};

}  // namespace l7mark
