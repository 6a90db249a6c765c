// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/message.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace l7mark {
namespace {

Answer sample_answer() {
  Answer answer;
  answer.key.raw.protocol = 6;
  answer.key.raw.port[0] = 0x1234;
  answer.id = 77ULL << 48 | 1;
  answer.initiator = 1;
  answer.state = FlowState::guessed;
  answer.closed = true;
  answer.flags = L7M_FLOW_SERVICE | 0x100;
  answer.facts.client = *Address::parse("192.0.2.1");
  answer.facts.server = *Address::parse("2001:db8::1");
  answer.facts.client_port = 40000;
  answer.facts.server_port = 443;
  answer.facts.application = 189;
  answer.facts.confidence = Confidence::detector;
  answer.facts.risks = 1ULL << 40;
  answer.facts.detector = Detector::wireguard;
  answer.facts.hostname = "us04web.zoom.us";
  answer.facts.details.alpn = "h2";
  answer.facts.details.tls_not_after = -5;
  answer.facts.details.ech = true;
  answer.facts.client_mac[5] = 9;
  answer.sampled_bytes = 1514;
  answer.count.packets[1] = 3;
  answer.name = "TLS.Zoom";
  answer.followed = true;
  return answer;
}

std::vector<std::byte> one_of_each() {
  MessageWriter writer;
  writer.add(sample_answer());
  DnsHint hint;
  hint.answer.name = "example.org";
  hint.answer.ttl = 300;
  hint.answer.client_mac[5] = 7;
  hint.answer.ifindex = 3;
  hint.answer.addresses = {*Address::parse("198.51.100.1"), *Address::parse("2001:db8::2")};
  hint.application = 5;
  writer.add(hint);
  Reopened reopened;
  reopened.key.raw.protocol = 17;
  reopened.id = 3ULL << 48 | 9;
  reopened.count.bytes[0] = 99;
  reopened.again = true;
  writer.add(reopened);
  writer.add(Ready{"4.2.0"});
  return {writer.bytes().begin(), writer.bytes().end()};
}

// Nothing if one of them is malformed. Read through few places, so that each is used again.
std::optional<std::vector<Message>> read_messages(std::span<const std::byte> bytes) {
  std::vector<Message> out;
  std::array<Message, 2> places;
  MessageReader reader(bytes);
  while (const std::size_t count = reader.read(places))
    out.insert(out.end(), places.begin(), places.begin() + static_cast<std::ptrdiff_t>(count));
  if (reader.malformed()) return std::nullopt;
  return out;
}

TEST(Message, ComesBackAsItWas) {
  const auto messages = read_messages(one_of_each());
  ASSERT_TRUE(messages);
  ASSERT_EQ(messages->size(), 4U);
  const Answer was = sample_answer();
  const auto& answer = std::get<Answer>((*messages)[0]);
  EXPECT_EQ(answer.key, was.key);
  EXPECT_EQ(answer.id, was.id);
  EXPECT_EQ(answer.initiator, was.initiator);
  EXPECT_EQ(answer.state, was.state);
  EXPECT_TRUE(answer.closed);
  EXPECT_EQ(answer.flags, L7M_FLOW_SERVICE | 0x100);
  EXPECT_EQ(answer.facts.client, was.facts.client);
  EXPECT_EQ(answer.facts.server, was.facts.server);
  EXPECT_EQ(answer.facts.server_port, 443);
  EXPECT_EQ(answer.facts.confidence, Confidence::detector);
  EXPECT_EQ(answer.facts.risks, was.facts.risks);
  EXPECT_EQ(answer.facts.detector, was.facts.detector);
  EXPECT_EQ(answer.facts.hostname, was.facts.hostname);
  EXPECT_EQ(answer.facts.details.alpn, "h2");
  EXPECT_EQ(answer.facts.details.tls_not_after, -5);
  EXPECT_TRUE(answer.facts.details.ech);
  EXPECT_EQ(answer.facts.client_mac[5], 9);
  EXPECT_TRUE(answer.followed);
  EXPECT_EQ(answer.sampled_bytes, 1514U);
  EXPECT_EQ(answer.count.packets[1], 3U);
  EXPECT_EQ(answer.name, "TLS.Zoom");
  const auto& hint = std::get<DnsHint>((*messages)[1]);
  EXPECT_EQ(hint.answer.name, "example.org");
  EXPECT_EQ(hint.answer.addresses.size(), 2U);
  EXPECT_EQ(hint.application, 5);
  EXPECT_EQ(hint.answer.client_mac[5], 7);
  EXPECT_EQ(hint.answer.ifindex, 3U);
  EXPECT_EQ(std::get<Reopened>((*messages)[2]).id, 3ULL << 48 | 9);
  EXPECT_EQ(std::get<Reopened>((*messages)[2]).count.bytes[0], 99U);
  EXPECT_TRUE(std::get<Reopened>((*messages)[2]).again);
  EXPECT_EQ(std::get<Ready>((*messages)[3]).ndpi_version, "4.2.0");
}

TEST(Message, CutAnywhereIsRefusedOrShorter) {
  const auto whole = one_of_each();
  std::size_t complete = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto messages = read_messages(std::span(whole).first(size));
    if (messages) {
      // Only at the seams between messages.
      EXPECT_EQ(messages->size(), complete) << size;
      ++complete;
    }
  }
  EXPECT_EQ(complete, 4U);
}

TEST(Message, UnknownTagIsRefused) {
  const std::vector<std::byte> bytes{std::byte{9}};
  EXPECT_FALSE(read_messages(bytes));
}

TEST(Message, StateAndInitiatorOutOfRangeAreMadeHarmless) {
  MessageWriter writer;
  writer.add(sample_answer());
  std::vector<std::byte> bytes(writer.bytes().begin(), writer.bytes().end());
  // tag, key, id, then initiator and state
  const std::size_t initiator = 1 + sizeof(l7m_key) + sizeof(Answer::id);
  bytes[initiator] = std::byte{0xff};
  bytes[initiator + 1] = std::byte{0xff};
  const auto messages = read_messages(bytes);
  ASSERT_TRUE(messages);
  EXPECT_EQ(std::get<Answer>((*messages)[0]).initiator, 1);
  EXPECT_EQ(std::get<Answer>((*messages)[0]).state, FlowState::undecided);
}

TEST(Message, ConfidenceOutOfRangeIsNone) {
  Answer answer = sample_answer();
  MessageWriter writer;
  writer.add(answer);
  const std::vector<std::byte> first(writer.bytes().begin(), writer.bytes().end());
  answer.facts.confidence = Confidence::port;
  MessageWriter other;
  other.add(answer);
  const auto place = std::mismatch(first.begin(), first.end(), other.bytes().begin()).first;
  ASSERT_NE(place, first.end());
  for (const std::uint8_t raw : {std::uint8_t{6}, std::uint8_t{0xff}}) {
    std::vector<std::byte> bytes = first;
    bytes[static_cast<std::size_t>(place - first.begin())] = std::byte{raw};
    const auto messages = read_messages(bytes);
    ASSERT_TRUE(messages);
    EXPECT_EQ(std::get<Answer>((*messages)[0]).facts.confidence, Confidence::none);
  }
}

TEST(Message, ADetectorOutOfRangeIsNone) {
  Answer answer = sample_answer();
  answer.facts.detector = static_cast<Detector>(kDetectors);
  MessageWriter writer;
  writer.add(answer);
  const auto messages = read_messages(writer.bytes());
  ASSERT_TRUE(messages);
  EXPECT_EQ(std::get<Answer>((*messages)[0]).facts.detector, Detector::none);
  EXPECT_EQ(std::get<Answer>((*messages)[0]).facts.hostname, answer.facts.hostname);
}

TEST(Message, NothingOfOneIsLeftInTheNext) {
  Answer full = sample_answer();
  full.facts.details.ja3_client.assign(100, 'j');
  Answer bare;
  bare.key = full.key;
  MessageWriter writer;
  for (const Answer* answer : {&full, &full, &full, &bare, &bare}) writer.add(*answer);
  const auto messages = read_messages(writer.bytes());
  ASSERT_TRUE(messages);
  ASSERT_EQ(messages->size(), 5U);
  EXPECT_EQ(std::get<Answer>((*messages)[2]).facts.details.ja3_client.size(), 100U);
  for (const std::size_t i : {3U, 4U}) {
    const auto& answer = std::get<Answer>((*messages)[i]);
    EXPECT_EQ(answer.facts.hostname, "");
    EXPECT_EQ(answer.facts.details.ja3_client, "");
    EXPECT_EQ(answer.facts.details.tls_not_after, 0);
    EXPECT_FALSE(answer.facts.details.ech);
    EXPECT_EQ(answer.name, "");
  }
}

TEST(Message, MessagesBeforeAMalformedOneCount) {
  auto bytes = one_of_each();
  bytes.push_back(std::byte{9});
  std::array<Message, 8> places;
  MessageReader reader(bytes);
  EXPECT_EQ(reader.read(places), 4U);
  EXPECT_TRUE(reader.malformed());
  EXPECT_EQ(reader.read(places), 0U);
}

TEST(Message, LongTextIsCut) {
  Answer answer = sample_answer();
  answer.facts.hostname.assign(100'000, 'x');
  MessageWriter writer;
  writer.add(answer);
  EXPECT_LT(writer.bytes().size(), kMessageBatch / 2);
  const auto messages = read_messages(writer.bytes());
  ASSERT_TRUE(messages);
  EXPECT_EQ(std::get<Answer>((*messages)[0]).facts.hostname.size(), 2048U);
}

}  // namespace
}  // namespace l7mark
