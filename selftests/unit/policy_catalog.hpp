// SPDX-License-Identifier: GPL-2.0-only
// A few of nDPI 4.2's names with their numbers, for tests that read policies.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "policy/policy.hpp"

namespace l7mark {

inline constexpr std::uint16_t kDns = 5;
inline constexpr std::uint16_t kBitTorrent = 37;
inline constexpr std::uint16_t kTls = 91;
inline constexpr std::uint16_t kOpenVpn = 159;
inline constexpr std::uint16_t kZoom = 189;
inline constexpr std::uint16_t kCategoryVpn = 2;
inline constexpr std::uint16_t kCategoryVideo = 26;

inline const Catalog& test_catalog() {
  static const Catalog catalog = [] {
    Catalog out;
    out.add_category(0, "Unspecified");
    out.add_category(kCategoryVpn, "VPN");
    out.add_category(5, "Web");
    out.add_category(7, "Download");
    out.add_category(kCategoryVideo, "Video");
    out.add_application(0, "Unknown", 0);
    out.add_application(kDns, "DNS", 0);
    out.add_application(kBitTorrent, "BitTorrent", 7);
    out.add_application(55, "Zattoo", kCategoryVideo);
    out.add_application(kTls, "TLS", 5);
    out.add_application(kOpenVpn, "OpenVPN", kCategoryVpn);
    out.add_application(kZoom, "Zoom", kCategoryVideo);
    out.add_risk(6, "Self-signed Certificate", RiskSeverity::high);
    out.add_risk(8, "Weak TLS Cipher", RiskSeverity::high);
    out.add_risk(24, "Missing SNI TLS Extension", RiskSeverity::medium);
    return out;
  }();
  return catalog;
}

// The policy in `text`, which must be a good one.
inline std::shared_ptr<const Policy> good_policy(const std::string& text) {
  auto policy = parse_policy(text, "p.json", test_catalog());
  EXPECT_TRUE(policy.ok()) << (policy.ok() ? "" : policy.error().message());
  return std::make_shared<const Policy>(policy.ok() ? std::move(*policy) : Policy{});
}

// A good policy of these classes.
inline std::shared_ptr<const Policy> policy_of(const std::string& classes,
                                               const std::string& more = "") {
  return good_policy(R"({ "version": 1, )" + more + R"( "classes": [)" + classes + "] }");
}

}  // namespace l7mark
