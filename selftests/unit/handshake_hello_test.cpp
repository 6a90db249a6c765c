// SPDX-License-Identifier: GPL-2.0-only
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handshake/client_hello.hpp"
#include "hellos.hpp"
#include "recorded_hellos.hpp"

namespace l7mark {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::size_t kRecordHeader = 5;

// The first message of recorded TLS records, which are one record each.
Bytes first_message(std::string_view hex) {
  const Bytes bytes = from_hex(hex);
  const std::size_t length = static_cast<std::size_t>(bytes[3]) << 8 | bytes[4];
  return {bytes.begin() + kRecordHeader,
          bytes.begin() + static_cast<std::ptrdiff_t>(kRecordHeader + length)};
}

std::optional<ClientHello> parse(const HelloSpec& spec) {
  return parse_client_hello(made_client_hello(spec),
                            spec.dtls ? HelloTransport::dtls : HelloTransport::tls);
}

std::string name_of(const Extension& extension) {
  HelloSpec spec;
  spec.extensions = {extension};
  const auto hello = parse(spec);
  return hello ? hello->server_name : "malformed";
}

TEST(ClientHello, AllItsFields) {
  HelloSpec spec;
  spec.ciphers = {0x2a2a, 0x1301, 0xc02b};
  spec.extensions = {{0x1a1a, {}},
                     server_name("WWW.Example.COM"),
                     alpn({"h2", "http/1.1"}),
                     versions({0x3a3a, 0x0304, 0x0303}),
                     algorithms({0x0403, 0x0804}),
                     {0xfe0d, Bytes(20)},
                     {0x0039, {1, 2}}};
  const auto hello = parse(spec);
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->legacy_version, 0x0303);
  EXPECT_THAT(hello->ciphers, ElementsAre(0x2a2a, 0x1301, 0xc02b));
  EXPECT_THAT(hello->extensions, ElementsAre(0x1a1a, 0, 16, 43, 13, 0xfe0d, 0x39));
  EXPECT_EQ(hello->server_name, "www.example.com");
  EXPECT_THAT(hello->alpn, ElementsAre("h2", "http/1.1"));
  EXPECT_THAT(hello->supported_versions, ElementsAre(0x3a3a, 0x0304, 0x0303));
  EXPECT_THAT(hello->signature_algorithms, ElementsAre(0x0403, 0x0804));
  EXPECT_TRUE(hello->ech);
  EXPECT_TRUE(hello->quic_transport_parameters);
  EXPECT_TRUE(hello->has(extension::kServerName));
  EXPECT_FALSE(hello->has(extension::kServerName + 1));
}

TEST(ClientHello, WithoutExtensions) {
  HelloSpec spec;
  spec.with_extensions = false;
  const auto hello = parse(spec);
  ASSERT_TRUE(hello);
  EXPECT_THAT(hello->extensions, IsEmpty());
  EXPECT_EQ(hello->server_name, "");
  EXPECT_FALSE(hello->ech);
  EXPECT_FALSE(hello->quic_transport_parameters);
}

TEST(ClientHello, DraftNumberOfQuicTransportParameters) {
  HelloSpec spec;
  spec.extensions = {{0xffa5, {}}};
  EXPECT_TRUE(parse(spec)->quic_transport_parameters);
}

TEST(ClientHello, CookieOfDtls) {
  HelloSpec spec;
  spec.version = 0xfefd;
  spec.dtls = true;
  spec.extensions = {server_name("dtls.example")};
  const auto hello = parse(spec);
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->legacy_version, 0xfefd);
  EXPECT_EQ(hello->server_name, "dtls.example");
  // Read as TLS, the cookie stands where the ciphers are.
  EXPECT_FALSE(parse_client_hello(made_client_hello(spec), HelloTransport::tls));
}

TEST(ClientHello, ServerNames) {
  EXPECT_EQ(name_of(server_name("a.example.")), "a.example");
  EXPECT_EQ(name_of(server_name("")), "");
  EXPECT_EQ(name_of(server_name("a b.example")), "");
  EXPECT_EQ(name_of(server_name("a\x7f.example")), "");
  EXPECT_EQ(name_of(server_name("a\xc3\xa4.example")), "");
  EXPECT_EQ(name_of(server_name(std::string_view("a\0.example", 10))), "");
  EXPECT_EQ(name_of(server_name(std::string(255, 'a'))), std::string(255, 'a'));
  EXPECT_EQ(name_of(server_name(std::string(256, 'a'))), "");
  EXPECT_EQ(name_of(server_name("other.example", 1)), "");
  // A name of another type, then the host's.
  EXPECT_EQ(name_of({0, {0, 10, 1, 0, 1, 'x', 0, 0, 3, 'a', '.', 'b'}}), "a.b");
  // Lengths that lead out of the list, and out of the extension.
  EXPECT_EQ(name_of({0, {0, 4, 0, 0, 9, 'x'}}), "");
  EXPECT_EQ(name_of({0, {0, 90, 0, 0, 1, 'x'}}), "");
  EXPECT_EQ(name_of({0, {}}), "");
}

TEST(ClientHello, OfAnExtensionTwiceTheFirstCounts) {
  HelloSpec spec;
  spec.extensions = {server_name("first.example"), server_name("second.example"), alpn({"h2"}),
                     alpn({"h3"})};
  const auto hello = parse(spec);
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->server_name, "first.example");
  EXPECT_THAT(hello->alpn, ElementsAre("h2"));
  EXPECT_EQ(hello->extensions.size(), 4U);
}

TEST(ClientHello, ContentThatCannotBeRightIsAbsent) {
  HelloSpec spec;
  spec.extensions = {{16, {0, 3, 5, 'h', '2'}}, {13, {0, 3, 4, 3, 8}}, {43, {9, 3, 4}}};
  const auto hello = parse(spec);
  ASSERT_TRUE(hello);
  EXPECT_THAT(hello->alpn, IsEmpty());
  EXPECT_THAT(hello->signature_algorithms, IsEmpty());
  EXPECT_THAT(hello->supported_versions, IsEmpty());
}

TEST(ClientHello, ProtocolNamesAreBounded) {
  HelloSpec spec;
  spec.extensions = {alpn(std::vector<std::string>(5000, "x"))};
  EXPECT_EQ(parse(spec)->alpn.size(), kHelloMaxAlpn);
}

TEST(ClientHello, OtherAndMalformedMessages) {
  const HelloSpec spec;
  Bytes hello = made_client_hello(spec);
  EXPECT_FALSE(parse_client_hello(made_server_hello(spec), HelloTransport::tls));
  hello.push_back(0);
  EXPECT_FALSE(parse_client_hello(hello, HelloTransport::tls)) << "longer than it states";
  Bytes body(hello.begin() + 4, hello.end());
  EXPECT_FALSE(parse_client_hello(message(1, body), HelloTransport::tls)) << "a byte left over";

  HelloSpec odd;
  odd.with_extensions = false;
  body = made_client_hello(odd);
  body.erase(body.begin(), body.begin() + 4);
  body.erase(body.end() - 3);  // a byte of the cipher's two
  body[2 + 32 + 33 + 1] = 1;   // and the length of that list
  EXPECT_FALSE(parse_client_hello(message(1, body), HelloTransport::tls));
}

TEST(ClientHello, CutShortAtEveryByte) {
  for (const auto* hex : {&kChromium, &kCurl, &kOpenssl12}) {
    const Bytes whole = first_message(*hex);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const std::span<const std::uint8_t> part(whole.data(), size);
      ASSERT_FALSE(parse_client_hello(part, HelloTransport::tls)) << size;
      // The same with lengths that say so: most have half a field then.
      if (size < 4) continue;
      const Bytes body(whole.begin() + 4, whole.begin() + static_cast<std::ptrdiff_t>(size));
      const auto parsed = parse_client_hello(message(1, body), HelloTransport::tls);
      if (!parsed) continue;
      ASSERT_THAT(parsed->extensions, IsEmpty()) << size;
      ASSERT_GT(body.size(), 2U + 32U + 1U);
    }
  }
}

TEST(ClientHello, OfChromium) {
  const auto hello = parse_client_hello(first_message(kChromium), HelloTransport::tls);
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->server_name, "browser.example.com");
  EXPECT_THAT(hello->alpn, ElementsAre("h2", "http/1.1"));
  EXPECT_TRUE(hello->ech);
  EXPECT_FALSE(hello->quic_transport_parameters);
  EXPECT_EQ(hello->ciphers.size(), 16U);
}

TEST(ClientHello, OfOpenssl) {
  const auto curl = parse_client_hello(first_message(kCurl), HelloTransport::tls);
  ASSERT_TRUE(curl);
  EXPECT_EQ(curl->server_name, "www.example.com");
  EXPECT_FALSE(curl->ech);
  const auto old = parse_client_hello(first_message(kOpenssl12), HelloTransport::tls);
  ASSERT_TRUE(old);
  EXPECT_EQ(old->server_name, "twelve.example");
  EXPECT_THAT(old->supported_versions, IsEmpty());
  EXPECT_THAT(old->alpn, IsEmpty());
}

TEST(ServerHello, VersionThatWasChosen) {
  HelloSpec spec;
  spec.version = 0x0302;
  spec.ciphers = {0xc013};
  spec.extensions = {alpn({"h2"})};
  auto hello = parse_server_hello(made_server_hello(spec));
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->version, 0x0302);
  EXPECT_EQ(hello->cipher, 0xc013);
  EXPECT_EQ(hello->alpn, "h2");
  EXPECT_FALSE(hello->is_retry);

  spec.version = 0x0303;
  spec.extensions = {{51, Bytes(36)}, {43, {0x03, 0x04}}};
  hello = parse_server_hello(made_server_hello(spec));
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->version, 0x0304);
  EXPECT_EQ(hello->alpn, "");

  spec.with_extensions = false;
  EXPECT_EQ(parse_server_hello(made_server_hello(spec))->version, 0x0303);
}

TEST(ServerHello, HelloRetryRequest) {
  const auto retry = parse_server_hello(first_message(kRetryServer));
  ASSERT_TRUE(retry);
  EXPECT_TRUE(retry->is_retry);
  EXPECT_EQ(retry->version, 0x0304);
  EXPECT_EQ(retry->cipher, 0x1302);
}

TEST(ServerHello, OtherAndMalformedMessages) {
  EXPECT_FALSE(parse_server_hello(made_client_hello({})));
  const Bytes whole = first_message(kRetryServer);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(parse_server_hello({whole.data(), size})) << size;
  }
  Bytes longer = made_server_hello({});
  longer.push_back(0);
  EXPECT_FALSE(parse_server_hello(longer));
}

TEST(Grease, ItsSixteenValues) {
  int count = 0;
  for (unsigned value = 0; value <= 0xffff; ++value) {
    if (is_grease(static_cast<std::uint16_t>(value))) ++count;
  }
  EXPECT_EQ(count, 16);
  EXPECT_TRUE(is_grease(0x0a0a));
  EXPECT_TRUE(is_grease(0xfafa));
  EXPECT_FALSE(is_grease(0x0a1a));
  EXPECT_FALSE(is_grease(0x1301));
}

}  // namespace
}  // namespace l7mark
