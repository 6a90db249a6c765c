// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/dns.hpp"

#include <gtest/gtest.h>

#include "packets.hpp"

namespace l7mark {
namespace {

using namespace test;

const Bytes kFour{192, 0, 2, 1};

Bytes six() {
  const Address address = *Address::parse("2001:db8::1");
  return {address.bytes.begin(), address.bytes.end()};
}

TEST(Dns, AddressesOfTheNameAskedFor) {
  const auto answer = parse_dns_answer(
      dns_response(7, "Zoom.US", 1, {{1, 60, kFour}, {1, 30, {192, 0, 2, 2}}, {28, 90, six()}}));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->name, "zoom.us");
  ASSERT_EQ(answer->addresses.size(), 3U);
  EXPECT_EQ(answer->addresses[1].to_string(), "192.0.2.2");
  EXPECT_EQ(answer->addresses[2].to_string(), "2001:db8::1");
  EXPECT_EQ(answer->ttl, 30U);
}

TEST(Dns, AliasesAreFollowedInAnyOrder) {
  const Bytes second = dns_name("b.example");
  const Bytes third = dns_name("c.example");
  const auto answer = parse_dns_answer(dns_response(
      7, "a.example", 1, {{1, 100, kFour, third}, {5, 40, third, second}, {5, 50, second}}));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->name, "a.example");
  EXPECT_EQ(answer->addresses.size(), 1U);
  EXPECT_EQ(answer->ttl, 40U);
}

TEST(Dns, RecordsOfOtherNamesDoNotCount) {
  EXPECT_FALSE(parse_dns_answer(
      dns_response(7, "a.example", 1, {{1, 100, kFour, dns_name("evil.example")}})));
}

TEST(Dns, AliasesInACircleEnd) {
  EXPECT_FALSE(parse_dns_answer(dns_response(
      7, "a.example", 1,
      {{5, 1, dns_name("b.example")}, {5, 1, dns_name("a.example"), dns_name("b.example")}})));
}

TEST(Dns, WhatIsNoAnswer) {
  EXPECT_FALSE(parse_dns_answer(dns_query(7, "a.example", 1)));
  EXPECT_FALSE(parse_dns_answer(dns_response(7, "a.example", 1, {})));
  Bytes refused = dns_response(7, "a.example", 1, {{1, 60, kFour}});
  refused[3] = 0x85;
  EXPECT_FALSE(parse_dns_answer(refused));
  Bytes truncated = dns_response(7, "a.example", 1, {{1, 60, kFour}});
  truncated[2] |= 0x02;
  EXPECT_FALSE(parse_dns_answer(truncated));
  EXPECT_FALSE(parse_dns_answer({}));
}

TEST(Dns, APointerForwardOrToItselfIsRefused) {
  for (const std::uint8_t target : Bytes{0x0c, 0x1b, 0xff}) {
    Bytes message = dns_response(7, "a.example", 1, {{1, 60, kFour, {0xc0, target}}});
    const bool to_question = target == 0x0c;
    EXPECT_EQ(parse_dns_answer(message).has_value(), to_question) << int{target};
  }
}

TEST(Dns, EveryPrefixOfAMessageIsRefusedOrGood) {
  const Bytes whole = dns_response(7, "www.a.example", 1, {{1, 60, kFour}, {28, 60, six()}});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    // A copy of exactly this size: sanitizers see every byte read behind it.
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(parse_dns_answer(cut)) << length;
  }
  EXPECT_TRUE(parse_dns_answer(whole));
}

TEST(Dns, AddressesAreLimited) {
  std::vector<DnsRecord> records(100, {1, 60, kFour});
  EXPECT_EQ(parse_dns_answer(dns_response(7, "a.example", 1, records))->addresses.size(),
            kDnsMaxAddresses);
}

TEST(Dns, ATtlWithItsTopBitSetIsZero) {
  EXPECT_EQ(parse_dns_answer(dns_response(7, "a.example", 1, {{1, 0x80000001, kFour}}))->ttl, 0U);
}

TEST(Dns, AQuestionIsTheSameInQueryAndResponse) {
  const auto query = parse_dns_question(dns_query(0x1234, "WWW.Zoom.us", 28));
  ASSERT_TRUE(query);
  EXPECT_EQ(query->id, 0x1234);
  EXPECT_EQ(query->type, 28);
  EXPECT_EQ(query->name, "www.zoom.us");
  EXPECT_EQ(parse_dns_question(dns_response(0x1234, "www.zoom.US", 28, {{28, 60, six()}})), *query);
  // Also of a response that names nothing.
  EXPECT_EQ(parse_dns_question(dns_response(0x1234, "www.zoom.us", 28, {})), *query);
}

TEST(Dns, WhatHasNoQuestion) {
  Bytes none = dns_query(7, "a.example", 1);
  none[5] = 0;
  EXPECT_FALSE(parse_dns_question(none));
  Bytes two = dns_query(7, "a.example", 1);
  two[5] = 2;
  EXPECT_FALSE(parse_dns_question(two));
  Bytes chaos = dns_query(7, "a.example", 1);
  chaos.back() = 3;
  EXPECT_FALSE(parse_dns_question(chaos));
  const Bytes whole = dns_query(7, "a.example", 1);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(parse_dns_question(cut)) << length;
  }
}

TEST(Dns, AnAnswerNeedsItsQuestion) {
  const DnsQuestion question{7, 1, "a.example"};
  DnsQuestions questions;
  EXPECT_FALSE(questions.answer(question, 1)) << "nothing was asked";
  questions.ask(question, 0);
  EXPECT_FALSE(questions.answer(question, 0)) << "from the side that asked";
  EXPECT_FALSE(questions.answer({8, 1, "a.example"}, 1)) << "another id";
  EXPECT_FALSE(questions.answer({7, 28, "a.example"}, 1)) << "another type";
  EXPECT_FALSE(questions.answer({7, 1, "b.example"}, 1)) << "another name";
  EXPECT_TRUE(questions.answer(question, 1));
  EXPECT_TRUE(questions.empty());
  EXPECT_FALSE(questions.answer(question, 1)) << "answered before";
}

TEST(Dns, OutstandingQuestionsAreBounded) {
  DnsQuestions questions;
  const auto question = [](std::size_t id) {
    return DnsQuestion{static_cast<std::uint16_t>(id), 1, "a.example"};
  };
  for (std::size_t id = 0; id < kDnsMaxQuestions; ++id) questions.ask(question(id), 0);
  questions.ask(question(1), 0);  // repeated: no place more
  EXPECT_TRUE(questions.answer(question(0), 1));
  questions.ask(question(0), 0);
  questions.ask(question(kDnsMaxQuestions), 0);
  EXPECT_FALSE(questions.answer(question(1), 1)) << "the oldest went";
  for (std::size_t id = 2; id <= kDnsMaxQuestions; ++id)
    EXPECT_TRUE(questions.answer(question(id), 1)) << id;
  EXPECT_TRUE(questions.answer(question(0), 1));
}

TEST(Dns, Kinds) {
  EXPECT_EQ(dns_kind(dns_query(7, "a.example", 1)), DnsKind::query);
  EXPECT_EQ(dns_kind(dns_response(7, "a.example", 1, {})), DnsKind::response);
  EXPECT_FALSE(dns_kind(Bytes(11, 0)));
}

}  // namespace
}  // namespace l7mark
