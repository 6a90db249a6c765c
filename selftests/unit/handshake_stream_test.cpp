// SPDX-License-Identifier: GPL-2.0-only
// Reassembly of hellos from TCP segments and from DTLS datagrams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "handshake/client_hello.hpp"
#include "handshake/dtls_stream.hpp"
#include "handshake/tls_stream.hpp"
#include "hellos.hpp"
#include "recorded_hellos.hpp"

namespace l7mark {
namespace {

using namespace test;
using testing::ElementsAreArray;
using testing::IsEmpty;

using Span = std::span<const std::uint8_t>;
constexpr std::uint32_t kFirst = 1000;

struct Segment {
  std::size_t offset = 0;
  std::size_t size = 0;
};

std::vector<Segment> cut(std::size_t total, std::size_t pieces) {
  std::vector<Segment> out;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t from = total * i / pieces;
    out.push_back({from, total * (i + 1) / pieces - from});
  }
  return out;
}

void add(TlsStream& stream, const Bytes& bytes, const Segment& segment,
         std::uint32_t first = kFirst) {
  stream.add(first + static_cast<std::uint32_t>(segment.offset),
             Span(bytes).subspan(segment.offset, segment.size));
}

Bytes copy(Span bytes) {
  return {bytes.begin(), bytes.end()};
}
Bytes without_header(const Bytes& record) {
  return {record.begin() + 5, record.end()};
}

// The hello's name, or the reason why there is none.
std::string name_of(const TlsStream& stream) {
  if (stream.state() != TlsState::complete) return "not complete";
  const auto hello = parse_client_hello(stream.message(), HelloTransport::tls);
  return hello ? hello->server_name : "malformed";
}

TEST(TlsStream, OneSegment) {
  const Bytes bytes = from_hex(kChromium);
  TlsStream stream;
  EXPECT_EQ(stream.state(), TlsState::empty);
  stream.add(kFirst, bytes);
  EXPECT_EQ(stream.state(), TlsState::complete);
  EXPECT_EQ(stream.first_sequence(), kFirst);
  EXPECT_THAT(stream.message(), ElementsAreArray(without_header(bytes)));
  EXPECT_THAT(stream.contiguous(), ElementsAreArray(bytes));
  EXPECT_EQ(stream.flight_length(), bytes.size());
  EXPECT_FALSE(stream.conflict());
}

TEST(TlsStream, SegmentsOfAnySizeInAnyOrder) {
  std::mt19937 random(5);
  const std::vector<std::pair<Bytes, std::string>> hellos = {
      {from_hex(kChromium), "browser.example.com"},
      {from_hex(kCurl), "www.example.com"},
      {hello_record("padded.example", 1700), "padded.example"},
      {hello_record("large.example", 16000), "large.example"}};
  for (const auto& [bytes, name] : hellos) {
    for (const std::size_t pieces :
         {std::size_t{2}, std::size_t{3}, std::size_t{40}, bytes.size()}) {
      std::vector<Segment> segments = cut(bytes.size(), pieces);
      for (const char* order : {"forward", "backward", "shuffled", "twice"}) {
        auto sent = segments;
        if (order[0] == 'b') std::reverse(sent.begin(), sent.end());
        if (order[0] == 't') sent.insert(sent.end(), segments.begin(), segments.end());
        if (order[0] == 's' || order[0] == 't') std::shuffle(sent.begin(), sent.end(), random);
        // Sequence numbers that wrap around within the hello, and such that do not.
        for (const std::uint32_t first : {kFirst, std::uint32_t{0xffffff00}}) {
          TlsStream stream;
          stream.begin(first);
          for (const Segment& segment : sent) add(stream, bytes, segment, first);
          EXPECT_EQ(name_of(stream), name) << order << ' ' << pieces;
          EXPECT_EQ(stream.flight_length(), bytes.size());
          EXPECT_FALSE(stream.conflict());
        }
      }
    }
  }
}

TEST(TlsStream, RecordsOfAnySize) {
  const Bytes whole = without_header(from_hex(kChromium));
  for (const std::size_t most : {1U, 2U, 3U, 4U, 5U, 100U, 1000U}) {
    const Bytes bytes = records(whole, most);
    TlsStream stream;
    stream.begin(kFirst);
    for (const Segment& segment : cut(bytes.size(), 7)) add(stream, bytes, segment);
    ASSERT_EQ(name_of(stream), "browser.example.com") << most;
    EXPECT_THAT(stream.message(), ElementsAreArray(whole));
    EXPECT_EQ(stream.flight_length(), bytes.size());
  }
}

TEST(TlsStream, CutShortAtEveryByte) {
  for (const Bytes& bytes : {from_hex(kChromium), records(without_header(from_hex(kCurl)), 1)}) {
    for (std::size_t size = 1; size < bytes.size(); ++size) {
      TlsStream stream;
      stream.add(kFirst, Span(bytes).first(size));
      ASSERT_EQ(stream.state(), TlsState::partial) << size;
      ASSERT_THAT(stream.message(), IsEmpty());
      ASSERT_EQ(stream.flight_length(), 0U);
      ASSERT_EQ(stream.contiguous().size(), size);
    }
  }
}

TEST(TlsStream, FirstCopyWinsAndTheConflictIsNoted) {
  const Bytes bytes = hello_record("honest.example", 600);
  Bytes forged = hello_record("forged.example", 600);
  ASSERT_EQ(bytes.size(), forged.size());
  TlsStream stream;
  stream.begin(kFirst);
  // Once behind the hole, once before it.
  add(stream, bytes, {40, 300});
  add(stream, forged, {30, 400});
  add(stream, bytes, {0, 30});
  EXPECT_TRUE(stream.conflict());
  add(stream, bytes, {0, bytes.size()});
  EXPECT_EQ(name_of(stream), "honest.example");

  TlsStream late;
  late.begin(kFirst);
  add(late, bytes, {0, bytes.size()});
  EXPECT_FALSE(late.conflict());
  add(late, forged, {0, bytes.size()});
  EXPECT_TRUE(late.conflict());
  EXPECT_EQ(name_of(late), "honest.example");
}

TEST(TlsStream, OverlapWithoutDifferenceIsNoConflict) {
  const Bytes bytes = from_hex(kChromium);
  TlsStream stream;
  stream.begin(kFirst);
  for (std::size_t from = bytes.size(); from-- > 0;) {
    add(stream, bytes, {from, std::min<std::size_t>(100, bytes.size() - from)});
  }
  EXPECT_EQ(name_of(stream), "browser.example.com");
  EXPECT_FALSE(stream.conflict());
}

TEST(TlsStream, WithoutSynTheFirstSegmentBegins) {
  const Bytes bytes = from_hex(kCurl);
  TlsStream stream;
  add(stream, bytes, {0, 200});
  stream.begin(kFirst + 50);
  EXPECT_EQ(stream.first_sequence(), kFirst);
  add(stream, bytes, {200, bytes.size() - 200});
  EXPECT_EQ(name_of(stream), "www.example.com");

  TlsStream middle;
  add(middle, bytes, {1, 200});
  EXPECT_EQ(middle.state(), TlsState::not_tls);
  EXPECT_THAT(middle.contiguous(), IsEmpty());
}

TEST(TlsStream, BytesBeforeTheBeginningDoNotCount) {
  const Bytes bytes = from_hex(kCurl);
  TlsStream stream;
  stream.begin(kFirst);
  // A keep-alive probe has the byte before (RFC 9293, 3.8.4).
  stream.add(kFirst - 1, Bytes{0});
  EXPECT_EQ(stream.state(), TlsState::empty);
  Bytes with_probe{0};
  put(with_probe, bytes);
  stream.add(kFirst - 1, with_probe);
  EXPECT_EQ(name_of(stream), "www.example.com");
  stream.add(kFirst, {});
  EXPECT_FALSE(stream.conflict());
}

TEST(TlsStream, OtherProtocolsAreToldApartEarly) {
  const Bytes hello = from_hex(kCurl);
  const auto state_of = [](const Bytes& bytes) {
    TlsStream stream;
    stream.begin(kFirst);
    stream.add(kFirst, bytes);
    return stream.state();
  };
  EXPECT_EQ(state_of({'G'}), TlsState::not_tls);
  EXPECT_EQ(state_of({22}), TlsState::partial);
  EXPECT_EQ(state_of({22, 2}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 5}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 4}), TlsState::partial);
  EXPECT_EQ(state_of({22, 3, 1, 0x41}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 1, 0x40}), TlsState::partial);
  EXPECT_EQ(state_of({22, 3, 1, 0x40, 1}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 1, 0, 0}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 1, 1, 0, 3}), TlsState::not_tls);
  EXPECT_EQ(state_of({22, 3, 1, 1, 0, 2}), TlsState::partial);
  // Shorter than any hello.
  EXPECT_EQ(state_of({22, 3, 1, 1, 0, 1, 0, 0, 37}), TlsState::not_tls);
  // A ChangeCipherSpec before the first hello, an alert within one.
  EXPECT_EQ(state_of({20, 3, 3, 0, 1, 1}), TlsState::not_tls);
  Bytes alert = records({hello.begin() + 5, hello.begin() + 50});
  put(alert, records({2, 40}, 2, 21));
  EXPECT_EQ(state_of(alert), TlsState::not_tls);
}

TEST(TlsStream, LongerThanTheLimit) {
  TlsStream stream(1000);
  const Bytes bytes = hello_record("a.example", 1001);
  stream.add(kFirst, Span(bytes).first(8));
  EXPECT_EQ(stream.state(), TlsState::partial);
  stream.add(kFirst + 8, Span(bytes).subspan(8, 1));
  EXPECT_EQ(stream.state(), TlsState::overflow);
  stream.add(kFirst + 9, Span(bytes).subspan(9));
  EXPECT_EQ(stream.contiguous().size(), 9U);

  TlsStream fits(1000);
  fits.add(kFirst, hello_record("a.example", 1000));
  EXPECT_EQ(name_of(fits), "a.example");

  // The message would fit, but not with a record header for each byte.
  TlsStream headers(1000);
  headers.add(kFirst, records(without_header(hello_record("a.example", 500)), 1));
  EXPECT_EQ(headers.state(), TlsState::overflow);
}

TEST(TlsStream, BytesBeyondTheLimitAreIgnored) {
  const Bytes bytes = hello_record("a.example", 500);
  TlsStream stream(1000);
  stream.begin(kFirst);
  stream.add(kFirst + 1000, Bytes(10, 1));
  stream.add(kFirst + 0x7fffffff, Bytes(10, 1));
  EXPECT_EQ(stream.state(), TlsState::empty);
  stream.add(kFirst + 995, Bytes(10, 1));
  EXPECT_EQ(stream.state(), TlsState::partial);
  stream.add(kFirst, bytes);
  EXPECT_EQ(name_of(stream), "a.example");
  stream.add(kFirst + 500, Bytes(600, 1));
  EXPECT_EQ(stream.contiguous().size(), 1000U);
}

TEST(TlsStream, MessageBeforeItsRecordEnds) {
  // A server of TLS 1.2 may put all its messages into one record.
  const Bytes hello = made_server_hello({});
  Bytes flight = hello;
  put(flight, message(11, Bytes(3000)));
  const Bytes bytes = records(flight);
  TlsStream stream;
  stream.add(kFirst, Span(bytes).first(200));
  ASSERT_EQ(stream.state(), TlsState::complete);
  EXPECT_THAT(stream.message(), ElementsAreArray(hello));
  EXPECT_EQ(stream.flight_length(), 200U);
  stream.add(kFirst + 200, Span(bytes).subspan(200));
  EXPECT_EQ(stream.flight_length(), bytes.size());
  // The next record is not there, and is no hello when it comes.
  stream.next();
  EXPECT_EQ(stream.state(), TlsState::empty);
  stream.add(kFirst + static_cast<std::uint32_t>(bytes.size()), records(message(12, Bytes(100))));
  EXPECT_EQ(stream.state(), TlsState::not_tls);
}

TEST(TlsStream, HelloRetryRequest) {
  std::mt19937 random(6);
  for (const std::size_t pieces : {std::size_t{1}, std::size_t{3}, std::size_t{250}}) {
    TlsStream client;
    TlsStream server;
    client.begin(kFirst);
    server.begin(kFirst);
    const Bytes sent = from_hex(kRetryClient);
    const Bytes answered = from_hex(kRetryServer);
    auto segments = cut(sent.size(), pieces);
    std::shuffle(segments.begin(), segments.end(), random);
    for (const auto& segment : segments) add(client, sent, segment);
    segments = cut(answered.size(), pieces);
    std::shuffle(segments.begin(), segments.end(), random);
    for (const auto& segment : segments) add(server, answered, segment);

    EXPECT_EQ(name_of(client), "retry.example");
    const Bytes first = copy(client.message());
    const std::size_t length = client.flight_length();
    client.next();
    EXPECT_EQ(name_of(client), "retry.example");
    EXPECT_NE(copy(client.message()), first);
    EXPECT_EQ(client.flight_length(), sent.size());
    EXPECT_LT(length, sent.size());
    client.next();
    EXPECT_EQ(client.state(), TlsState::empty);

    auto hello = parse_server_hello(server.message());
    ASSERT_TRUE(hello);
    EXPECT_TRUE(hello->is_retry);
    server.next();
    hello = parse_server_hello(server.message());
    ASSERT_TRUE(hello);
    EXPECT_FALSE(hello->is_retry);
    EXPECT_EQ(hello->version, 0x0304);
    server.next();
    EXPECT_EQ(server.state(), TlsState::empty);
    server.add(kFirst + static_cast<std::uint32_t>(answered.size()), Bytes{23, 3, 3, 0, 9});
    EXPECT_EQ(server.state(), TlsState::not_tls);
  }
}

TEST(TlsStream, SecondHelloInManyRecordsAndLater) {
  const Bytes first = hello_record("a.example", 400);
  Bytes rest = records({1}, 1, 20);
  put(rest, records(without_header(hello_record("b.example", 400)), 7));
  TlsStream stream;
  stream.add(kFirst, first);
  stream.next();
  EXPECT_EQ(stream.state(), TlsState::empty);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    stream.add(kFirst + static_cast<std::uint32_t>(first.size() + i), Span(rest).subspan(i, 1));
    const auto expected = i + 1 < rest.size() ? TlsState::partial : TlsState::complete;
    ASSERT_EQ(stream.state(), expected) << i;
  }
  EXPECT_EQ(name_of(stream), "b.example");
  // The other way round: many records, then one.
  const Bytes many = records(without_header(first), 7);
  TlsStream other;
  other.add(kFirst, many);
  EXPECT_EQ(name_of(other), "a.example");
  other.next();
  other.add(kFirst + static_cast<std::uint32_t>(many.size()), hello_record("b.example", 400));
  EXPECT_EQ(name_of(other), "b.example");
  // A ChangeCipherSpec of another length is none.
  TlsStream wrong;
  wrong.add(kFirst, first);
  wrong.next();
  wrong.add(kFirst + static_cast<std::uint32_t>(first.size()), Bytes{20, 3, 3, 0, 2});
  EXPECT_EQ(wrong.state(), TlsState::not_tls);
}

TEST(TlsStream, Moved) {
  const Bytes bytes = from_hex(kCurl);
  TlsStream stream;
  add(stream, bytes, {0, 100});
  TlsStream other = std::move(stream);
  add(other, bytes, {100, bytes.size() - 100});
  EXPECT_EQ(name_of(other), "www.example.com");
}

std::string name_of(const DtlsStream& stream) {
  if (stream.state() != TlsState::complete) return "not complete";
  const auto hello = parse_client_hello(stream.message(), HelloTransport::dtls);
  return hello ? hello->server_name : "malformed";
}

Bytes dtls_hello(std::string_view name, std::size_t padding = 0) {
  HelloSpec spec;
  spec.dtls = true;
  spec.version = 0xfefd;
  spec.extensions = {server_name(name), {21, Bytes(padding)}};
  return made_client_hello(spec);
}

TEST(DtlsStream, RecordedHellos) {
  DtlsStream client;
  EXPECT_EQ(client.state(), TlsState::empty);
  client.add(from_hex(kDtlsClient1));
  EXPECT_EQ(name_of(client), "dtls.example");
  client.next();
  EXPECT_EQ(client.state(), TlsState::empty);
  client.add(from_hex(kDtlsClient1));  // said again
  EXPECT_THAT(client.message(), IsEmpty());
  client.add(from_hex(kDtlsClient3));
  EXPECT_EQ(client.state(), TlsState::partial);
  client.add(from_hex(kDtlsClient2));
  EXPECT_EQ(name_of(client), "dtls.example");
  EXPECT_FALSE(client.conflict());

  DtlsStream server;
  server.add(from_hex(kDtlsServer1));
  EXPECT_EQ(server.state(), TlsState::not_tls) << "a HelloVerifyRequest is no hello";
  server.add(from_hex(kDtlsServer2));
  const auto hello = parse_server_hello(server.message());
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->version, 0xfefd);
}

TEST(DtlsStream, FragmentsInAnyOrder) {
  std::mt19937 random(7);
  const Bytes hello = dtls_hello("cut.example", 1700);
  for (const std::size_t pieces :
       {std::size_t{2}, std::size_t{3}, std::size_t{40}, hello.size() - 4}) {
    auto segments = cut(hello.size() - 4, pieces);
    const auto again = segments;
    segments.insert(segments.end(), again.begin(), again.end());
    std::shuffle(segments.begin(), segments.end(), random);
    DtlsStream stream;
    Bytes two;  // two records in a datagram
    for (const auto& segment : segments) {
      put(two, dtls_fragment(hello, 0, segment.offset, segment.size));
      if (two.size() < 60) continue;
      stream.add(two);
      two.clear();
    }
    stream.add(two);
    EXPECT_EQ(name_of(stream), "cut.example") << pieces;
    EXPECT_THAT(stream.message(), ElementsAreArray(hello));
    EXPECT_FALSE(stream.conflict());
  }
}

TEST(DtlsStream, FirstCopyWinsAndTheConflictIsNoted) {
  const Bytes hello = dtls_hello("honest.example");
  const Bytes forged = dtls_hello("forged.example");
  const std::size_t body = hello.size() - 4;
  DtlsStream stream;
  stream.add(dtls_fragment(hello, 0, 30, body - 30));
  stream.add(dtls_fragment(forged, 0, 0, body));
  EXPECT_EQ(name_of(stream), "honest.example");
  EXPECT_TRUE(stream.conflict());
  stream.next();
  EXPECT_TRUE(stream.conflict()) << "it is not forgotten";

  DtlsStream length;
  length.add(dtls_fragment(hello, 0, 0, 50));
  length.add(dtls_fragment(dtls_hello("another-length.example"), 0, 0, 50));
  EXPECT_TRUE(length.conflict());
  length.add(dtls_fragment(hello, 0, 50, body - 50));
  EXPECT_EQ(name_of(length), "honest.example");
  length.next();
  EXPECT_TRUE(length.conflict());
}

TEST(DtlsStream, LowerMessageNumberTakesTheHellosPlace) {
  const Bytes hello = dtls_hello("honest.example");
  const Bytes forged = dtls_hello("forged-one.example");
  DtlsStream stream;
  stream.add(dtls_fragment(forged, 900, 0, 60));
  EXPECT_EQ(stream.state(), TlsState::not_tls);
  stream.add(dtls_fragment(forged, 3, 0, 60));
  EXPECT_EQ(stream.state(), TlsState::partial);
  Bytes other = forged;
  other[20] ^= 1;
  stream.add(dtls_fragment(other, 3, 0, 60));
  stream.add(dtls_fragment(hello, 0, 0, hello.size() - 4));
  EXPECT_EQ(name_of(stream), "honest.example");
  EXPECT_TRUE(stream.conflict()) << "it is not forgotten";
  stream.add(dtls_fragment(forged, 1, 0, forged.size() - 4));
  EXPECT_EQ(name_of(stream), "honest.example");

  // One that is whole already stays.
  DtlsStream second;
  second.add(dtls_fragment(hello, 1, 0, hello.size() - 4));
  second.add(dtls_fragment(forged, 0, 0, 60));
  EXPECT_EQ(name_of(second), "honest.example");
}

TEST(DtlsStream, LongerThanTheLimit) {
  const Bytes hello = dtls_hello("a.example", 500);
  DtlsStream stream(hello.size() - 1);
  stream.add(dtls_fragment(hello, 0, 0, 100));
  EXPECT_EQ(stream.state(), TlsState::overflow);
  stream.add(dtls_fragment(hello, 0, 0, hello.size() - 4));
  EXPECT_THAT(stream.message(), IsEmpty());
  DtlsStream fits(hello.size());
  fits.add(dtls_fragment(hello, 0, 0, hello.size() - 4));
  EXPECT_EQ(name_of(fits), "a.example");
}

TEST(DtlsStream, OtherAndMalformedDatagrams) {
  const Bytes hello = dtls_hello("a.example");
  const Bytes whole = dtls_fragment(hello, 0, 0, hello.size() - 4);
  DtlsStream stream;
  stream.add({});
  EXPECT_EQ(stream.state(), TlsState::empty);
  stream.add(Bytes{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42});  // STUN
  for (std::size_t size = 0; size < whole.size(); ++size) stream.add(Span(whole).first(size));
  stream.add(dtls_fragment(hello, 0, 0, hello.size() - 4, 1));  // encrypted
  Bytes wrong = whole;
  wrong[1] = 3;  // not DTLS's version
  stream.add(wrong);
  wrong = whole;
  wrong[21] = 1;  // the fragment's offset, beyond the message's end
  stream.add(wrong);
  EXPECT_EQ(stream.state(), TlsState::not_tls);
  stream.add(whole);
  EXPECT_EQ(name_of(stream), "a.example");
}

}  // namespace
}  // namespace l7mark
