// SPDX-License-Identifier: GPL-2.0-only
// A policy file of any bytes: no crash, one line where it is refused, and where it is taken a
// policy that matches and merges within its own bounds. Seeds: the files in examples/.
#include <cstdlib>
#include <memory>
#include <string_view>

#include "policy/actions.hpp"
#include "policy/matcher.hpp"

namespace {

using namespace l7mark;

const Catalog& catalog() {
  static const Catalog names = [] {
    Catalog out;
    for (const char* name : {"Unknown", "TLS", "Zoom", "Teams", "Webex", "WhatsAppCall", "OpenVPN",
                             "WireGuard", "IPsec", "PPTP", "CiscoVPN", "TINC", "FortiClient",
                             "HotspotShield", "Tor", "iCloudPrivateRelay", "BitTorrent"})
      out.add_application(static_cast<std::uint16_t>(out.application_names().size()), name, 0);
    for (const char* name : {"Unspecified", "VPN", "VoIP", "Game"})
      out.add_category(static_cast<std::uint16_t>(out.category_names().size()), name);
    for (std::uint16_t id = 1; id < 42; ++id)
      out.add_risk(id, "risk " + std::to_string(id), RiskSeverity::high);
    return out;
  }();
  return names;
}

FlowFacts flow() {
  FlowFacts facts;
  facts.client = *Address::parse("192.168.1.20");
  facts.server = *Address::parse("203.0.113.7");
  facts.server_port = 443;
  facts.protocol = 6;
  facts.application = 2;
  facts.master = 1;
  facts.hostname = "us04web.zoom.us";
  facts.details.tls_version = 0x0301;
  return facts;
}

void require(bool holds) {
  if (!holds) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto parsed = parse_policy(text, "fuzz.json", catalog());
  if (!parsed) {
    const std::string message = parsed.error().message();
    require(message.starts_with("cannot read policy fuzz.json:"));
    require(message.find('\n') == std::string::npos);
    return 0;
  }
  const auto policy = std::make_shared<const Policy>(std::move(*parsed));
  const auto settings = policy->settings();
  require(settings.packets >= 1 && settings.packets <= 255 && settings.whole <= settings.packets);
  require(settings.snaplen <= settings.whole_snaplen && settings.whole_snaplen <= L7M_MAX_SNAPLEN);

  PolicyMatcher matcher(policy);
  matcher.set_interfaces({{"lan0", 1}});
  ActionTable table(policy);
  const WallTime now{std::chrono::hours(24 * 365)};
  for (const FlowState state :
       {FlowState::undecided, FlowState::provisional, FlowState::guessed, FlowState::final}) {
    const ClassList classes = matcher.match(flow(), state, now);
    const auto id = table.intern(classes);
    require(id.ok());
    for (const auto& action : table.effective(*id).kernel) {
      require((action.mark & ~action.mark_mask) == 0);
      require((action.mark_mask & ~policy->touched_mark_bits().packet) == 0);
    }
  }
  return 0;
}
