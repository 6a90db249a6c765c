// SPDX-License-Identifier: GPL-2.0-only
// nDPI behind a narrow interface. Only engine.cpp and ndpi_api.hpp see its headers, so nothing else
// depends on its version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flow.hpp"
#include "policy/catalog.hpp"
#include "util/result.hpp"

namespace l7mark {

class Engine;

// nDPI's state of one flow. Sole owner; freed with nDPI's own deep free. Must not outlive its
// Engine's process, and is used with one Engine only.
class EngineFlow {
 public:
  EngineFlow() = default;
  EngineFlow(EngineFlow&& other) noexcept;
  EngineFlow& operator=(EngineFlow&& other) noexcept;
  EngineFlow(const EngineFlow&) = delete;
  EngineFlow& operator=(const EngineFlow&) = delete;
  ~EngineFlow();

  explicit operator bool() const { return flow_ != nullptr; }

 private:
  friend class Engine;
  explicit EngineFlow(void* flow) : flow_(flow) {}
  void* flow_ = nullptr;  // struct ndpi_flow_struct
};

// What nDPI says of a flow, in its own numbers. 0 is unknown; `master` is 0 where there is one
// protocol only, or equals `application`, just as nDPI returned it.
struct Detection {
  std::uint16_t application = 0;
  std::uint16_t master = 0;
  std::uint16_t category = 0;
  std::uint16_t by_address = 0;  // whose address the server's is; 0 where this nDPI does not tell

  [[nodiscard]] bool known() const { return application != 0 || master != 0; }
  friend bool operator==(const Detection&, const Detection&) = default;
};

struct EngineOptions {
  std::string protocols_file;  // nDPI's format for custom protocols ("-p" of ndpiReader), or empty
};

struct ApplicationName {
  std::uint16_t id;
  std::string name;
  std::uint16_t category;
};
struct CategoryName {
  std::uint16_t id;
  std::string name;
};
struct RiskName {
  std::uint16_t id;  // number of the bit in FlowFacts::risks
  std::string name;
  RiskSeverity severity;
};

// One detection module, set up as ndpiReader sets up its own, so that the two agree. Not safe for
// threads: one per thread or process.
class Engine {
 public:
  [[nodiscard]] static Result<Engine> make(const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  // Empty when out of memory.
  [[nodiscard]] EngineFlow new_flow() const;

  // Feeds one packet from its IP header on. `length` bytes are readable, and are the packet's
  // length on the wire: nDPI silently ignores a packet that is shorter than its header says.
  [[nodiscard]] Detection process(EngineFlow& flow, const std::uint8_t* packet, std::size_t length,
                                  std::uint64_t time_ms);

  // nDPI finds this transport in the packet. It does not walk all of IPv6's extension headers, and
  // version 4.2 reads through a null pointer where a TLS flow goes on as ICMP.
  [[nodiscard]] static bool finds(std::uint8_t protocol, const std::uint8_t* packet,
                                  std::size_t length);

  // True while more packets could still tell something: certificate, server name, hash, …
  [[nodiscard]] bool wants_more(const EngineFlow& flow) const;

  // The last word on a flow: guesses by port and address where nothing was found. nDPI keeps the
  // guess, so later packets of the flow are not inspected.
  [[nodiscard]] Detection give_up(EngineFlow& flow) const;

  // True if the flow's answer rests on port or address alone.
  [[nodiscard]] bool is_guess(const EngineFlow& flow) const;
  // True for an application that nDPI tells by its port alone, though it calls that DPI.
  [[nodiscard]] bool is_told_by_port(const Detection& detection) const;

  // Fills all that nDPI knows: numbers, risks, host name and details. The rest is left as it is. It
  // overwrites the risks: those of add_risk() come afterwards. `both_ways`: packets of both
  // directions were counted, whichever of them nDPI was given.
  void describe(const EngineFlow& flow, const Detection& detection, FlowFacts& facts,
                bool both_ways = false) const;

  // "TLS.Zoom", "DNS", "Unknown": as ndpiReader prints it.
  [[nodiscard]] std::string name(const Detection& detection) const;
  [[nodiscard]] std::string application_name(std::uint16_t application) const;
  [[nodiscard]] std::string category_name(std::uint16_t category) const;
  [[nodiscard]] std::string risk_name(unsigned risk) const;
  [[nodiscard]] RiskSeverity risk_severity(unsigned risk) const;
  // "Acceptable", "Dangerous", …: nDPI's opinion of an application.
  [[nodiscard]] std::string breed_name(std::uint16_t application) const;

  // The application that nDPI's list of host names gives for `host`, 0 for none.
  [[nodiscard]] std::uint16_t match_host(std::string_view host) const;

  // The application of that name, as nDPI would return it; unknown if this nDPI has none. Case is
  // ignored.
  [[nodiscard]] Detection application(std::string_view name) const;

  // Sets a risk that is not nDPI's finding (own_risks.hpp) and adds the score that nDPI gives to a
  // risk of its severity. Once: the same risk again changes nothing.
  void add_risk(FlowFacts& facts, unsigned risk) const;
  [[nodiscard]] static std::uint32_t score_of(RiskSeverity severity);
  // The number to set for a fully encrypted flow: nDPI's where this one has the risk, else our own.
  [[nodiscard]] static unsigned fully_encrypted_risk();

  // All that this nDPI can name, in the order of their numbers; behind nDPI's risks our own.
  [[nodiscard]] std::vector<ApplicationName> applications() const;
  [[nodiscard]] std::vector<CategoryName> categories() const;
  [[nodiscard]] std::vector<RiskName> risks() const;

  // Hands all of them to what policies are read and shown with.
  void fill(Catalog& catalog) const;

  // Name of a TLS cipher suite by IANA's number.
  [[nodiscard]] static std::string cipher_name(std::uint16_t cipher);

  // Of the library: "4.2.0"; of one built from a checkout "4.11.0-4823-0123abcd".
  [[nodiscard]] static std::string version();

 private:
  struct Module;
  explicit Engine(std::unique_ptr<Module> module);
  std::unique_ptr<Module> module_;
};

}  // namespace l7mark
