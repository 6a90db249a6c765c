// SPDX-License-Identifier: GPL-2.0-only
#include "groups.hpp"

#include <algorithm>
#include <array>

namespace l7mark {
namespace {

using Names = std::string_view;

constexpr std::array kVpn{
    Names("OpenVPN"),    Names("WireGuard"),      Names("IPsec"),    Names("CiscoVPN"),
    Names("Tor"),        Names("TINC"),           Names("Psiphon"),  Names("VHUA"),
    Names("PPTP"),       Names("L2TP"),           Names("GRE"),      Names("HotspotShield"),
    Names("UltraSurf"),  Names("AnyDesk"),        Names("ESP"),      Names("AH"),
    Names("Tunnelbear"), Names("CloudflareWarp"), Names("SoftEther")};
constexpr std::array kVoice{Names("Zoom"),
                            Names("Teams"),
                            Names("Skype_Teams"),
                            Names("SkypeCall"),
                            Names("Skype_TeamsCall"),
                            Names("STUN"),
                            Names("RTP"),
                            Names("RTCP"),
                            Names("SIP"),
                            Names("H323"),
                            Names("Webex"),
                            Names("GoogleHangout"),
                            Names("GoogleHangoutDuo"),
                            Names("WhatsAppCall"),
                            Names("SignalVoip"),
                            Names("FacebookVoip"),
                            Names("TelegramVoip"),
                            Names("Viber"),
                            Names("Jabber"),
                            Names("YouTube"),
                            Names("NetFlix"),
                            Names("Twitch"),
                            Names("Discord"),
                            Names("RTSP"),
                            Names("RTMP"),
                            Names("Hulu"),
                            Names("DisneyPlus"),
                            Names("AmazonVideo"),
                            Names("IMO"),
                            Names("LineCall"),
                            Names("GoTo"),
                            Names("H323"),
                            Names("MGCP"),
                            Names("Megaco"),
                            Names("TeamSpeak"),
                            Names("Mumble")};

template <class List>
bool in(const List& list, std::string_view part) {
  return std::find(list.begin(), list.end(), part) != list.end();
}

}  // namespace

std::vector<std::string> groups_of(std::string_view ndpi) {
  std::vector<std::string> out{"all"};
  out.emplace_back(ndpi == "Unknown" ? "unknown" : "known");
  const auto dot = ndpi.find('.');
  const std::string_view first = ndpi.substr(0, dot);
  const std::string_view last = dot == std::string_view::npos ? first : ndpi.substr(dot + 1);
  const auto either = [&](std::string_view name) { return first == name || last == name; };
  if (either("TLS") || either("DTLS")) out.emplace_back("TLS");
  if (either("QUIC")) out.emplace_back("QUIC");
  if (either("HTTP")) out.emplace_back("HTTP");
  if (either("DNS")) out.emplace_back("DNS");
  if (either("BitTorrent")) out.emplace_back("BitTorrent");
  if (in(kVpn, first) || in(kVpn, last)) out.emplace_back("VPN");
  if (in(kVoice, first) || in(kVoice, last)) out.emplace_back("voice/video");
  return out;
}

}  // namespace l7mark
