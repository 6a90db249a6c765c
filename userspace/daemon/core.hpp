// SPDX-License-Identifier: GPL-2.0-only
// What the main process does with answers: policy, verdicts in the kernel, sets, conntrack, events,
// and the ageing of all of it. It owns no process and no socket but netlink's, and never sees a
// packet.
#pragma once

#include <l7mark/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "capture/record.hpp"
#include "daemon/admission.hpp"
#include "daemon/flow_table.hpp"
#include "daemon/hint_table.hpp"
#include "daemon/message.hpp"
#include "dataplane/dataplane.hpp"
#include "policy/actions.hpp"
#include "policy/header_rules.hpp"
#include "policy/matcher.hpp"
#include "policy/policy.hpp"
#include "publish/conntrack.hpp"
#include "publish/conntrack_marks.hpp"
#include "publish/publisher.hpp"

namespace l7mark {

// Packets and bytes of flows that have ended, by class and in all.
struct Tally {
  std::uint64_t flows = 0;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};

// What became of promises: flows by their own answer, and those without one.
struct PromiseCounters {
  std::uint64_t confirmed = 0;
  std::uint64_t corrected = 0;
  std::uint64_t absent = 0;
};

struct CoreCounters {
  std::uint64_t flows_begun = 0;
  std::uint64_t flows_ended = 0;
  std::uint64_t adopted = 0;
  std::uint64_t table_full = 0;          // answers without a place in the verdict table
  std::uint64_t share_full = 0;          // … or in the share of unprotected flows
  std::uint64_t no_memory = 0;           // answers for which the kernel had no memory
  std::uint64_t one_packet = 0;          // flows of one packet, not given a verdict
  std::uint64_t evicted_verdicts = 0;    // flows that made way for others
  std::uint64_t evicted_candidates = 0;  // likewise
  std::uint64_t doubted = 0;             // answers of second looks that did not count
  std::uint64_t log_left_out = 0;        // lines of flows beyond log.rate
  std::uint64_t hints_mixed = 0;         // addresses whose names, or flows, had different classes
  std::uint64_t hints_replaced = 0;      // that made way for newer ones before they expired
  std::uint64_t hints_private = 0;       // addresses in answers that get none: private, or our own
  // Of first packets that were given a class, by who promised it.
  std::array<PromiseCounters, kSources> promises{};
};

class Core {
 public:
  // `publish_event` gets one JSON line; it is only called while `wants_events` says so.
  struct Events {
    std::function<bool()> wants_events;
    std::function<void(std::string_view line)> publish_event;
    // Called now and then by work that takes long: whoever calls tick() does what is waiting,
    // on_messages() and commit() included.
    std::function<void()> breathe;
  };

  Core(Dataplane& dataplane, std::shared_ptr<const Policy> policy, RecordNames names,
       JiffiesClock clock, Events events, std::set<std::string> our_sets = {});

  // Writes the policy into the kernel, makes the sets, adopts the flows that are there. After a
  // failure nothing is left of it.
  Status start();
  // Lets the kernel sample, or stop to.
  Status set_sampling(bool on);
  // On exit: takes the sets' elements and our sets out, and our bits out of conntrack.
  void withdraw();
  // Sets that this instance made, now or in the run that it continues.
  [[nodiscard]] std::set<std::string> our_sets() const;

  // Collects; commit() carries out.
  void on_messages(std::span<const Message> messages);
  void on_worker_died(std::uint32_t worker, const std::optional<FlowKey>& culprit);
  void commit();
  // About once a second.
  void tick();
  // Becomes readable when conntrack has events for on_conntrack_events(); -1 while no policy has
  // asked for marks in conntrack. Once there, it stays.
  [[nodiscard]] int conntrack_events_fd() const;
  void on_conntrack_events();

  // All or nothing: with an error the old policy goes on.
  Status reload(const std::shared_ptr<const Policy>& policy, RecordNames names);
  void set_interfaces(const std::vector<std::pair<std::string, std::uint32_t>>& indexes);

  // Fills in policy, flows, counters and publishing.
  void status(nlohmann::ordered_json& out);
  // One record a call, of each flow that is there now and still is when its turn comes. Not to be
  // called once the core is gone.
  [[nodiscard]] std::function<std::optional<nlohmann::ordered_json>()> records();

  [[nodiscard]] const Policy& policy() const { return *policy_; }
  [[nodiscard]] const Catalog& catalog() const { return names_.catalog; }

 private:
  // A flow whose time is over, by the verdict that was read; without one it is a candidate.
  struct Ended {
    FlowLife life;
    std::optional<l7m_verdict> verdict;
  };

  void on_answer(const Answer& said);
  [[nodiscard]] Flow* begin_life(const Answer& answer, bool& fresh);
  void on_hint(const DnsHint& hint);
  [[nodiscard]] bool may_have_hints(const Address& server);
  [[nodiscard]] bool wants_names(const Flow& flow) const;
  [[nodiscard]] HintKey hint_key(const Address& server, const Address& client) const;
  void hint_contradicted(const Address& server, const Address& client);
  void expire_hints(std::uint64_t ms);
  [[nodiscard]] nlohmann::ordered_json hints_status() const;
  void tell_budgets(nlohmann::ordered_json& out);
  void on_reopened(const Reopened& reopened);

  // `facts` are the flow's, as facts_of() tells them.
  [[nodiscard]] std::uint32_t classify(const Flow& flow, const FlowFacts& facts);
  void set_class(Flow& flow, const FlowFacts& facts, std::uint32_t action);
  void enter_sets(Flow& flow, const FlowFacts& facts);
  void leave_sets(Flow& flow);
  Status open_conntrack(const Policy& policy);
  [[nodiscard]] std::optional<ConntrackTuple> conntrack_tuple(const FlowKey& key,
                                                              const Flow& flow) const;
  void update_zones();
  void move_zones();
  void mark_conntrack(const FlowKey& key, const Flow& flow);
  void adopt_conntrack(const FlowKey& key, const Flow& flow);
  void end_conntrack(const FlowKey& key, const Flow& flow, bool clear);
  void see_conntrack(const FlowKey& key, const Flow& flow, std::uint64_t ms);
  void release_conntrack();
  void withdraw_conntrack();
  ConntrackOutcome send_conntrack(std::span<const ConntrackRequest> requests);
  [[nodiscard]] nlohmann::ordered_json conntrack_status() const;
  // The promise's until the flow's own last answer, so that nothing changes twice; of a flow that
  // was let through to look again, only once its last word is no answer; by headers, until any last
  // word, because classify() sees the headers too. Else classify()'s.
  [[nodiscard]] std::uint32_t action_of(const Flow& flow, const FlowFacts& facts);

  struct ServiceHash {
    std::size_t operator()(const l7m_service_key& key) const;
  };
  struct SameService {
    bool operator()(const l7m_service_key& a, const l7m_service_key& b) const noexcept;
  };
  // By the own answers of its flows.
  struct Service {
    l7m_service_key key{};
    std::uint32_t action = 0;          // the last one's, 0 for no class
    const Finding* finding = nullptr;  // likewise
    std::uint64_t taught_ms = 0;       // when that was
    std::uint64_t mixed_until_ms = 0;  // flows had different classes: no promise before
    std::uint64_t written_ms = 0;      // what the kernel was told, and when
    std::uint32_t written_action = 0;
    std::uint32_t ifindex = 0;
    std::uint16_t vlan = 0;
    std::uint8_t client_mac[6] = {0, 0, 0, 0, 0, 0};
  };
  [[nodiscard]] bool is_dns(const FlowKey& key, const Flow& flow) const;
  void teach_service(const FlowKey& key, Flow& flow);
  [[nodiscard]] std::uint64_t service_life_ms() const;
  void promise_service(Service& service);
  void forget_service(std::list<Service>::iterator service);
  void age_services();
  void rematch_services();
  [[nodiscard]] std::uint32_t service_action(const FlowKey& key, const Flow& flow) const;
  void tell_services(nlohmann::ordered_json& out) const;
  [[nodiscard]] static Source promised_by(const Flow& flow);
  void note_promise(const FlowKey& key, Flow& flow);
  void renew_promise(const FlowKey& key, Flow& flow);
  void weigh_promise(const FlowKey& key, const Flow& flow, FlowState before);
  void clear_promises();
  void write_headers();
  [[nodiscard]] std::uint32_t headers_action(const FlowFacts& facts);
  [[nodiscard]] std::uint32_t headers_action(const FlowKey& key, const l7m_candidate& candidate);
  void note_block(const FlowKey& key, Flow& flow);
  [[nodiscard]] Result<l7m_clock> recent_clock();
  void queue_edit(const FlowKey& key, const Flow& flow, std::uint8_t what,
                  const SamplingOverride* sampling = nullptr);
  void drop_edit(const FlowKey& key, std::uint64_t id);
  [[nodiscard]] std::uint64_t worth_timeout_ms(const Flow& flow) const;
  [[nodiscard]] static bool is_over(const Flow& flow, std::uint64_t ms);
  void let_go(const FlowLife& life, l7m_settle_step what);
  void write_departures();
  void make_room_among_candidates();
  void keep_waiting(const FlowKey& key, Flow& flow);
  void refuse(const FlowKey& key, Flow& flow, std::uint64_t& cause);
  void hold_one_packet_flows();
  void write_verdicts();
  void write_verdicts_of(const std::vector<FlowLife>& lives);
  void on_settled(const FlowKey& key, Flow& flow, const l7m_settlement& step);
  void write_edits();
  void write_actions();
  void write_services();
  void write_conntrack();
  void end_flow(const FlowKey& key, std::string_view reason);
  void end_flows(std::span<const Ended> ended);
  void remove_strays(std::span<const FlowLife> strays);
  void look_for(const FlowLife& life);
  void look_again(const FlowKey& key, Flow& flow);
  [[nodiscard]] static bool is_doubtful(const Flow& flow, const Answer& answer);
  [[nodiscard]] bool is_looked_at(const Flow& flow, const l7m_candidate& candidate,
                                  std::uint64_t quiet_ms) const;
  [[nodiscard]] std::uint16_t next_look(const Flow& flow) const;
  void emit(std::string_view type, const FlowKey& key, const Flow& flow,
            std::string_view reason = {});
  // `source` is `none` where the flow's answer and class tell it.
  [[nodiscard]] nlohmann::ordered_json record(const FlowKey& key, const Flow& flow,
                                              Source source = Source::none) const;
  [[nodiscard]] std::optional<nlohmann::ordered_json> promised_record(const FlowKey& key);
  // Who decided what the flow is taken for.
  [[nodiscard]] Source source_of(const FlowKey& key, const Flow& flow) const;
  void log_flow(const FlowKey& key, const Flow& flow);
  void tell_left_out(std::uint64_t ms);
  [[nodiscard]] Finding told_by(const l7m_verdict& verdict);
  void take_verdict(Flow& flow, const FlowKey& key, const l7m_verdict& verdict) const;

  // A verdict by hand as it was found, and what the kernel did by it then.
  struct ManualVerdict {
    FlowKey key;
    l7m_verdict verdict{};
    l7m_action effect{};
  };
  // As the last sweep saw it, and when a sweep first did.
  struct Manual {
    l7m_verdict verdict{};
    std::uint64_t since_ms = 0;
  };
  void number_classes();
  [[nodiscard]] Result<std::vector<ManualVerdict>> read_manual() const;
  [[nodiscard]] std::optional<std::uint32_t> same_effect(const ManualVerdict& entry);
  [[nodiscard]] std::optional<std::uint32_t> same_names(const ManualVerdict& entry,
                                                        const Policy& before);
  void renumber_manual(
      const std::vector<ManualVerdict>& entries,
      const std::function<std::optional<std::uint32_t>(const ManualVerdict&)>& number);
  [[nodiscard]] bool is_manual(const FlowKey& key) const;
  void age_manual(std::unordered_map<FlowKey, Manual> found, const l7m_clock& now);
  [[nodiscard]] std::optional<nlohmann::ordered_json> manual_record(const FlowKey& key);
  void sweep();
  void breathe_each(std::size_t& count);
  void rematch();
  void withdraw_promises(const std::vector<bool>& before);
  // Makes or adopts the sets of an action, once.
  Result<std::vector<TargetId>> make_targets(const EffectiveAction& action,
                                             const std::string& comment);
  Status make_class_targets(const Policy& policy);
  const std::vector<TargetId>& targets_of(std::uint32_t action);
  Status write_policy();
  Status adopt();
  [[nodiscard]] std::uint64_t timeout_ms(const FlowKey& key, bool closing) const;

  Dataplane& dataplane_;
  std::shared_ptr<const Policy> policy_;
  RecordNames names_;
  JiffiesClock jiffies_;
  Events events_;
  std::unique_ptr<PolicyMatcher> matcher_;
  ActionTable actions_;
  std::optional<HeaderRules> headers_;  // as the kernel has them; nothing before start()
  Publisher publisher_;
  std::optional<Conntrack> conntrack_;
  std::optional<ConntrackEvents> conntrack_events_;
  ConntrackMarks conntrack_marks_;
  // Conntrack's zones. A flow that was found in the kernel has no interface: its zone is known if
  // all interfaces have the same.
  struct Zones {
    std::unordered_map<std::uint32_t, std::uint16_t> by_index;  // those not in zone 0
    std::optional<std::uint16_t> common = 0;
    [[nodiscard]] std::optional<std::uint16_t> of(std::uint32_t ifindex) const;
    friend bool operator==(const Zones&, const Zones&) = default;
  };
  Zones zones_;
  std::map<std::uint32_t, std::vector<TargetId>> targets_;  // by action number
  std::vector<std::pair<std::string, std::uint32_t>> interfaces_;
  std::set<std::string> our_sets_;

  FlowTable flows_;
  std::unordered_map<FlowKey, Manual> manual_;
  Admission admission_;
  std::vector<FlowLife> fresh_;             // final answers without a verdict in the kernel yet
  std::vector<FlowLife> retries_;           // of them, for the next tick: one packet so far
  std::vector<l7m_settlement> departures_;  // not carried out yet: flows that have made way
  std::vector<l7m_edit> edits_;
  std::vector<ServiceEntry> services_;  // not written yet
  std::list<Service> service_list_;     // the one that was taught longest ago first
  std::unordered_map<l7m_service_key, std::list<Service>::iterator, ServiceHash, SameService>
      service_index_;
  std::optional<l7m_clock> clock_;
  HintTable hints_;
  std::set<Address> own_addresses_;
  std::uint64_t own_addresses_until_ms_ = 0;

  std::map<std::string, Tally> ended_;  // by class name, "" for none
  // Flows that were dropped, by class name and by who decided that.
  std::map<std::string, std::array<std::uint64_t, kSources>> blocked_;
  std::uint64_t log_second_ = 0;    // of CLOCK_MONOTONIC
  std::uint32_t log_lines_ = 0;     // of flows, written in it
  std::uint64_t log_left_out_ = 0;  // since it was last told
  CoreCounters counters_;
  std::uint64_t next_sweep_ms_ = 0;
  std::uint8_t sweep_ = 0;  // its number
  std::optional<WallTime> next_schedule_;
  std::vector<bool> in_schedule_;  // by class
  bool sampling_ = false;
  bool full_reported_ = false;
  bool conntrack_reported_ = false;
};

}  // namespace l7mark
