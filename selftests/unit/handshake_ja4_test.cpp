// SPDX-License-Identifier: GPL-2.0-only
// JA4 against examples that FoxIO published beside its specification: the raw form (JA4_r) says
// what a hello had, so one is made of it.
#include "handshake/ja4.hpp"

#include <gtest/gtest.h>

#include <random>

#include "hellos.hpp"
#include "recorded_hellos.hpp"

namespace l7mark {
namespace {

using namespace test;

Numbers list_of(std::string_view text) {
  Numbers out;
  for (std::size_t at = 0; at + 4 <= text.size(); at += 5) {
    out.push_back(
        static_cast<std::uint16_t>(std::stoul(std::string(text.substr(at, 4)), nullptr, 16)));
  }
  return out;
}

struct Raw {
  std::string_view start;  // the first part, which both forms have
  std::string_view ciphers;
  std::string_view extensions;  // without server_name and ALPN
  std::string_view algorithms;
  std::string_view hashes;
};

// GREASE values, as browsers mix them in, must change nothing; neither must the order.
std::string fingerprint(const Raw& raw, bool grease, unsigned seed) {
  std::mt19937 random(seed);
  HelloSpec spec;
  spec.ciphers = list_of(raw.ciphers);
  std::shuffle(spec.ciphers.begin(), spec.ciphers.end(), random);
  const char minor = raw.start[2];
  const auto version = static_cast<std::uint16_t>(0x0301 + minor - '0');
  for (const std::uint16_t number : list_of(raw.extensions)) {
    if (number == 13) {
      Numbers list = list_of(raw.algorithms);
      if (grease) list.insert(list.begin() + 1, 0x4a4a);
      spec.extensions.push_back(algorithms(list));
    } else if (number == 43) {
      Numbers list{0x0303, version, 0x0302};
      if (grease) list.push_back(0xfafa);
      spec.extensions.push_back(versions(list));
    } else {
      spec.extensions.push_back({number, {}});
    }
  }
  if (raw.start[3] == 'd') spec.extensions.push_back(server_name("a.example"));
  const std::string_view protocol = raw.start.substr(8);
  if (protocol == "h1") spec.extensions.push_back(alpn({"http/1.1", "h2"}));
  if (protocol == "h2") spec.extensions.push_back(alpn({"h2", "http/1.1"}));
  if (protocol == "h3") spec.extensions.push_back(alpn({"h3"}));
  std::shuffle(spec.extensions.begin(), spec.extensions.end(), random);
  if (grease) {
    spec.ciphers.insert(spec.ciphers.begin(), 0x8a8a);
    spec.extensions.insert(spec.extensions.begin(), {0x2a2a, {}});
    spec.extensions.push_back({0xdada, {0}});
  }
  const auto transport = raw.start[0] == 'q' ? HelloTransport::quic : HelloTransport::tls;
  const auto hello = parse_client_hello(made_client_hello(spec), transport);
  return hello ? ja4_of(*hello, transport) : "malformed";
}

constexpr std::string_view kChromeCiphers =
    "002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9";
constexpr std::string_view kChromeAlgorithms = "0403,0804,0401,0503,0805,0501,0806,0601";
constexpr std::string_view kWindowsCiphers =
    "000a,002f,0035,003c,003d,009c,009d,c009,c00a,c013,c014,c023,c024,c027,c028,c02b,c02c,c02f,"
    "c030";
constexpr std::string_view kWindowsExtensions = "0005,000a,000b,000d,0017,0023,ff01";
constexpr std::string_view kWindowsAlgorithms =
    "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603";

TEST(Ja4, PublishedExamples) {
  const Raw examples[] = {
      // The specification's own, Chrome over TCP.
      {"t13d1516h2", kChromeCiphers,
       "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01", kChromeAlgorithms,
       "8daaf6152771_e5627efa2ab1"},
      // FoxIO's test data, by the capture's name. tls3: a resumed session.
      {"t13d1516h2", kChromeCiphers,
       "0005,000a,000b,000d,0012,0017,001b,0023,0029,002b,002d,0033,4469,ff01", kChromeAlgorithms,
       "8daaf6152771_9b887d9acb53"},
      // badcurveball
      {"t13d1615h2",
       "000a,002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9",
       "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,ff01",
       "0403,0804,0401,0503,0805,0501,0806,0601,0201", "46e7e9700bed_45f260be83e2"},
      // sigalg-grease
      {"t13d1517h2", kChromeCiphers,
       "0005,000a,000b,000d,0012,0017,001b,0023,002b,002d,0033,44cd,ca34,fe0d,ff01",
       "0904,0905,0906,0403,0804,0401,0503,0805,0501,0806,0601", "8daaf6152771_cb7bf5808d99"},
      // ssh2: TLS 1.2 with and without ALPN, and QUIC.
      {"t12d1909h2", kWindowsCiphers, kWindowsExtensions, kWindowsAlgorithms,
       "d83cc789557e_7af1ed941c26"},
      {"t12d190800", kWindowsCiphers, kWindowsExtensions, kWindowsAlgorithms,
       "d83cc789557e_7af1ed941c26"},
      {"q13d0312h3", "1301,1302,1303", "000a,000d,001b,0029,002a,002b,002d,0033,0039,4469",
       "0403,0804,0401,0503,0805,0501,0806,0601,0201", "55b375c5d22e_73e2d9e6cde6"},
      // tls-handshake: Chrome's connections of another protocol. Its raw form is not there, but
      // differs by the protocol only.
      {"t13d1516h1", kChromeCiphers,
       "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01", kChromeAlgorithms,
       "8daaf6152771_e5627efa2ab1"},
  };
  for (const Raw& raw : examples) {
    const std::string expected = std::string(raw.start) + "_" + std::string(raw.hashes);
    EXPECT_EQ(fingerprint(raw, false, 1), expected);
    EXPECT_EQ(fingerprint(raw, true, 2), expected);
  }
}

// The specification's example of a list without signature algorithms.
TEST(Ja4, WithoutSignatureAlgorithms) {
  ClientHello hello;
  hello.extensions = list_of(
      "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,"
      "000a,0015");
  hello.supported_versions = {0x0304};
  EXPECT_EQ(ja4_of(hello, HelloTransport::tls), "t13d001600_000000000000_6d807ffa2a79");
}

TEST(Ja4, EmptyLists) {
  EXPECT_EQ(ja4_of({}, HelloTransport::tls), "t00i000000_000000000000_000000000000");
  // Nothing is left of these for the hash; without extensions there are no algorithms either.
  ClientHello hello;
  hello.legacy_version = 0x0301;
  hello.ciphers = {0x3a3a};
  hello.extensions = {0, 16, 0xbaba};
  EXPECT_EQ(ja4_of(hello, HelloTransport::tls), "t10d000200_000000000000_000000000000");
}

// The specification's table of first protocols.
TEST(Ja4, FirstProtocol) {
  const auto of = [](const std::string& first) {
    ClientHello hello;
    hello.alpn = {first, "h2"};
    return ja4_of(hello, HelloTransport::tls).substr(8, 2);
  };
  EXPECT_EQ(of("h2"), "h2");
  EXPECT_EQ(of("http/1.1"), "h1");
  EXPECT_EQ(of("x"), "xx");
  EXPECT_EQ(of("Az9Z"), "AZ");
  EXPECT_EQ(of(""), "00");
  EXPECT_EQ(of("\xab"), "ab");
  EXPECT_EQ(of("\xab\xcd"), "ad");
  EXPECT_EQ(of("0\xab"), "3b");
  EXPECT_EQ(of("01\xab\xcd"), "3d");
  EXPECT_EQ(of("0\xab\xcd"
               "1"),
            "01");
  EXPECT_EQ(of("\xab"
               "1"),
            "a1");
}

TEST(Ja4, VersionsAndTransports) {
  const auto of = [](std::uint16_t legacy, const Numbers& offered, HelloTransport transport) {
    ClientHello hello;
    hello.legacy_version = legacy;
    if (!offered.empty()) hello.extensions = {43};
    hello.supported_versions = offered;
    return ja4_of(hello, transport).substr(0, 3);
  };
  EXPECT_EQ(of(0x0303, {}, HelloTransport::tls), "t12");
  EXPECT_EQ(of(0x0302, {}, HelloTransport::tls), "t11");
  EXPECT_EQ(of(0x0301, {}, HelloTransport::tls), "t10");
  EXPECT_EQ(of(0x0300, {}, HelloTransport::tls), "ts3");
  EXPECT_EQ(of(0x0002, {}, HelloTransport::tls), "ts2");
  EXPECT_EQ(of(0x7f1c, {}, HelloTransport::tls), "t00");
  EXPECT_EQ(of(0x0303, {0xfafa, 0x0303, 0x0304}, HelloTransport::quic), "q13");
  EXPECT_EQ(of(0x0303, {0xfafa}, HelloTransport::tls), "t00");
  EXPECT_EQ(of(0xfeff, {}, HelloTransport::dtls), "dd1");
  EXPECT_EQ(of(0xfefd, {}, HelloTransport::dtls), "dd2");
  EXPECT_EQ(of(0xfefd, {0xfefc}, HelloTransport::dtls), "dd3");
  EXPECT_EQ(of(0xfefd, {0xfefc, 0xfefd}, HelloTransport::dtls), "dd2");
}

TEST(Ja4, CountsEndAt99) {
  ClientHello hello;
  hello.ciphers.assign(99, 0x1301);
  hello.extensions.assign(100, 5);
  EXPECT_EQ(ja4_of(hello, HelloTransport::tls).substr(4, 4), "9999");
  hello.ciphers.resize(9);
  EXPECT_EQ(ja4_of(hello, HelloTransport::tls).substr(4, 4), "0999");
}

// Hellos recorded here, against fingerprints that others published of the same clients: curl with
// OpenSSL 3.0, and Chromium as in FoxIO's capture sigalg-grease.
TEST(Ja4, RecordedHellos) {
  const auto of = [](std::string_view hex) {
    const Bytes bytes = from_hex(hex);
    const auto hello = parse_client_hello(std::span(bytes).subspan(5), HelloTransport::tls);
    return hello ? ja4_of(*hello, HelloTransport::tls) : "malformed";
  };
  EXPECT_EQ(of(kCurl), "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6");
  EXPECT_EQ(of(kChromium), "t13d1517h2_8daaf6152771_cb7bf5808d99");
}

}  // namespace
}  // namespace l7mark
