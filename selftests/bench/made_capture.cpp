// SPDX-License-Identifier: GPL-2.0-only
#include "made_capture.hpp"

#include <fmt/format.h>
#include <l7mark/parse.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>

#include "../unit/packets.hpp"
#include "capture/reader.hpp"
#include "flow.hpp"

namespace l7mark::bench {

namespace {

using test::Bytes;
using test::put;
using test::put16;

constexpr std::uint32_t kFirstClient = 0x0a000000;  // 10.0.0.0
constexpr std::uint32_t kClientMask = 0x00ffffff;
constexpr std::uint8_t kFin = 0x11, kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kPush = 0x18;

constexpr std::array<const char*, 24> kHosts = {"www.wikipedia.org", "zoom.us",
                                                "us04web.zoom.us",   "www.youtube.com",
                                                "i.ytimg.com",       "www.netflix.com",
                                                "api.spotify.com",   "github.com",
                                                "www.google.com",    "fonts.gstatic.com",
                                                "outlook.live.com",  "teams.microsoft.com",
                                                "web.whatsapp.com",  "discord.com",
                                                "www.facebook.com",  "static.cdninstagram.com",
                                                "www.reddit.com",    "store.steampowered.com",
                                                "www.twitch.tv",     "updates.example.org",
                                                "cdn.example.net",   "shop.example.com",
                                                "news.example.org",  "mail.example.net"};

// Bytes that look random, and are the same each time.
class Noise {
 public:
  std::uint8_t next() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<std::uint8_t>(state_ >> 56);
  }
  Bytes bytes(std::size_t count) {
    Bytes out(count);
    for (std::uint8_t& byte : out) byte = next();
    return out;
  }

 private:
  std::uint64_t state_ = 1;
};

Bytes tls_record(std::uint8_t type, const Bytes& body) {
  Bytes out{type, 0x03, 0x03};
  put16(out, static_cast<unsigned>(body.size()));
  put(out, body);
  return out;
}

void put_extension(Bytes& out, unsigned type, const Bytes& body) {
  put16(out, type);
  put16(out, static_cast<unsigned>(body.size()));
  put(out, body);
}

Bytes handshake(std::uint8_t type, const Bytes& body) {
  Bytes out{type, 0};
  put16(out, static_cast<unsigned>(body.size()));
  put(out, body);
  return tls_record(0x16, out);
}

// RFC 8446, 4.1.2, with what browsers put in, padded to 517 bytes as they do (RFC 7685).
Bytes client_hello(const std::string& host, Noise& noise) {
  Bytes hello{0x03, 0x03};
  put(hello, noise.bytes(32));
  hello.push_back(32);
  put(hello, noise.bytes(32));
  put(hello, Bytes{0x00, 0x20, 0x13, 0x01, 0x13, 0x02, 0x13, 0x03, 0xc0, 0x2b, 0xc0, 0x2f,
                   0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8, 0xc0, 0x13, 0xc0, 0x14,
                   0x00, 0x9c, 0x00, 0x9d, 0x00, 0x2f, 0x00, 0x35, 0x00, 0x0a, 0x01, 0x00});
  Bytes name;
  put16(name, static_cast<unsigned>(host.size() + 3));
  name.push_back(0);
  put16(name, static_cast<unsigned>(host.size()));
  put(name, host);
  Bytes all;
  put_extension(all, 0, name);
  put_extension(all, 0x17, {});
  put_extension(all, 0xff01, {0});
  put_extension(all, 10, {0, 6, 0, 0x1d, 0, 0x17, 0, 0x18});
  put_extension(all, 11, {1, 0});
  put_extension(all, 35, {});
  put_extension(all, 16, {0, 12, 2, 'h', '2', 8, 'h', 't', 't', 'p', '/', '1', '.', '1'});
  put_extension(all, 5, {1, 0, 0, 0, 0});
  put_extension(all, 13, {0, 8, 4, 3, 8, 4, 4, 1, 5, 3});
  put_extension(all, 18, {});
  Bytes share{0, 36, 0, 0x1d, 0, 32};
  put(share, noise.bytes(32));
  put_extension(all, 51, share);
  put_extension(all, 45, {1, 1});
  put_extension(all, 43, {4, 3, 4, 3, 3});
  constexpr std::size_t wanted = 517 - 5 - 4;
  const std::size_t so_far = hello.size() + 2 + all.size() + 4;
  if (so_far < wanted) put_extension(all, 21, Bytes(wanted - so_far, 0));
  put16(hello, static_cast<unsigned>(all.size()));
  put(hello, all);
  return handshake(1, hello);
}

// ServerHello, ChangeCipherSpec, and encrypted the rest of the handshake.
Bytes server_flight(Noise& noise) {
  Bytes hello{0x03, 0x03};
  put(hello, noise.bytes(32));
  hello.push_back(32);
  put(hello, noise.bytes(32));
  put(hello, Bytes{0x13, 0x01, 0x00});
  Bytes all;
  Bytes share{0, 0x1d, 0, 32};
  put(share, noise.bytes(32));
  put_extension(all, 51, share);
  put_extension(all, 43, {3, 4});
  put16(hello, static_cast<unsigned>(all.size()));
  put(hello, all);
  Bytes out = handshake(2, hello);
  put(out, Bytes{0x14, 0x03, 0x03, 0x00, 0x01, 0x01});
  put(out, tls_record(0x17, noise.bytes(2600)));
  return out;
}

// A TCP connection, from its SYN to its end.
class Connection {
 public:
  Connection(const test::Endpoints& ends, std::vector<Bytes>& out) : ends_(ends), out_(out) {
    send(true, kSyn);
    send(false, kSynAck);
    send(true, kAck);
  }
  void payload(bool by_client, const Bytes& bytes) {
    constexpr std::size_t segment = 1460;
    for (std::size_t at = 0; at < bytes.size(); at += segment) {
      const std::size_t end = std::min(bytes.size(), at + segment);
      send(by_client, kPush,
           Bytes(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                 bytes.begin() + static_cast<std::ptrdiff_t>(end)));
    }
    send(!by_client, kAck);
  }
  void close() {
    send(true, kFin);
    send(false, kFin);
    send(true, kAck);
  }

 private:
  void send(bool by_client, std::uint8_t flags, const Bytes& bytes = {}) {
    std::uint32_t& mine = sequence_[by_client ? 0 : 1];
    const std::uint32_t other = sequence_[by_client ? 1 : 0];
    out_.push_back(test::ethernet(test::tcp(by_client ? ends_ : ends_.reversed(), flags, mine,
                                            flags == kSyn ? 0 : other, bytes)));
    mine += static_cast<std::uint32_t>(bytes.size()) + ((flags & 0x03) != 0 ? 1 : 0);
  }

  test::Endpoints ends_;
  std::vector<Bytes>& out_;
  std::uint32_t sequence_[2] = {1000, 5000};
};

void make_tls(const test::Endpoints& ends, const std::string& host, Noise& noise, bool closed,
              std::vector<Bytes>& out) {
  Connection connection(ends, out);
  connection.payload(true, client_hello(host, noise));
  connection.payload(false, server_flight(noise));
  Bytes finished{0x14, 0x03, 0x03, 0x00, 0x01, 0x01};
  put(finished, tls_record(0x17, noise.bytes(53)));
  put(finished, tls_record(0x17, noise.bytes(220)));
  connection.payload(true, finished);
  connection.payload(false, tls_record(0x17, noise.bytes(5000)));
  if (closed) connection.close();
}

void make_http(const test::Endpoints& ends, const std::string& host, Noise& noise, bool closed,
               std::vector<Bytes>& out) {
  Connection connection(ends, out);
  connection.payload(true, test::text(fmt::format("GET /assets/{:02x}.json HTTP/1.1\r\nHost: {}\r\n"
                                                  "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
                                                  "Accept: */*\r\nConnection: keep-alive\r\n\r\n",
                                                  noise.next(), host)));
  Bytes response = test::text(
      "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/octet-stream\r\n"
      "Content-Length: 4096\r\n\r\n");
  put(response, noise.bytes(4096));
  connection.payload(false, response);
  if (closed) connection.close();
}

void make_dns(const test::Endpoints& ends, const std::string& host, Noise& noise,
              std::vector<Bytes>& out) {
  const auto id = static_cast<std::uint16_t>(noise.next() << 8 | noise.next());
  out.push_back(test::ethernet(test::udp(ends, test::dns_query(id, host, 1))));
  const test::DnsRecord record{1, 300, {203, 0, 113, noise.next()}};
  out.push_back(test::ethernet(
      test::udp(ends.reversed(), test::dns_response(id, host, 1, {record, record}))));
}

void make_unknown(const test::Endpoints& ends, Noise& noise, bool closed, std::vector<Bytes>& out) {
  Connection connection(ends, out);
  for (int i = 0; i < 6; ++i) connection.payload(i % 2 == 0, noise.bytes(180));
  if (closed) connection.close();
}

// RFC 791: the IPv4 header's checksum.
void write_checksum(std::uint8_t* header) {
  const std::size_t length = (header[0] & 0x0fU) * std::size_t{4};
  header[10] = header[11] = 0;
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < length; i += 2)
    sum += std::uint32_t{header[i]} << 8 | header[i + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  header[10] = static_cast<std::uint8_t>(~sum >> 8);
  header[11] = static_cast<std::uint8_t>(~sum);
}

}  // namespace

struct PacketSource::Known {
  std::unordered_map<FlowKey, std::pair<Address, std::uint32_t>> flows;  // client and its number
  std::unordered_map<std::string, std::uint32_t> clients;                // by file and address
};

void PacketSource::add(std::span<const std::uint8_t> frame, std::size_t file) {
  l7m_packet packet{};
  l7m_cursor cursor{frame.data(), frame.data() + frame.size(), 0, nullptr, 0};
  if (l7m_parse(&cursor, &packet, 0, static_cast<std::uint32_t>(frame.size()), 0) != L7M_PARSE_OK ||
      packet.fragment == L7M_FRAGMENT_LATER)
    return;
  l7m_map_ipv4(&packet);
  FlowKey key;
  l7m_make_key(&packet, &key.raw);
  // Of two files, equal flows are two.
  key.raw.vlan[0] = static_cast<std::uint8_t>(file);
  key.raw.vlan[1] = static_cast<std::uint8_t>(file >> 8);
  Address sender;
  std::memcpy(sender.bytes.data(), packet.saddr, sender.bytes.size());
  const auto [flow, fresh] = known_->flows.try_emplace(key, sender, 0U);
  if (fresh) {
    ++flows_;
    const auto [client, other] =
        known_->clients.try_emplace(fmt::format("{} {}", file, sender.to_string()), clients_);
    if (other) ++clients_;
    flow->second.second = client->second;
  }
  const bool by_client = sender == flow->second.first;
  const std::size_t source = packet.l3_offset + (packet.version == 4 ? 12U : 8U + 12U);
  MadePacket made;
  made.frame.assign(frame.begin(), frame.end());
  made.ip_offset = packet.l3_offset;
  made.address_offset = by_client ? source : source + (packet.version == 4 ? 4U : 16U);
  made.version = packet.version;
  made.client = flow->second.second;
  packets_.push_back(std::move(made));
}

PacketSource PacketSource::made_up(bool closed, bool ipv6) {
  constexpr unsigned flows = 400;
  PacketSource source;
  source.known_ = std::make_shared<Known>();
  Noise noise;
  for (unsigned i = 0; i < flows; ++i) {
    const std::string host =
        i % 3 == 0 ? fmt::format("host{}.example.com", i) : std::string(kHosts[i % kHosts.size()]);
    test::Endpoints ends;
    ends.source = fmt::format("{}10.0.0.{}", ipv6 ? "fd00::" : "", 1 + i % 50);
    ends.destination = fmt::format("{}198.51.100.{}", ipv6 ? "2001:db8::" : "", 1 + i % 200);
    ends.sport = static_cast<std::uint16_t>(32768 + i);
    std::vector<Bytes> frames;
    const unsigned kind = i % 20;
    if (kind < 10) {
      make_tls(ends, host, noise, closed, frames);
    } else if (kind < 15) {
      ends.dport = 53;
      make_dns(ends, host, noise, frames);
    } else if (kind < 19) {
      ends.dport = 80;
      make_http(ends, host, noise, closed, frames);
    } else {
      ends.dport = 23456;
      make_unknown(ends, noise, closed, frames);
    }
    for (const Bytes& frame : frames) source.add(frame, 0);
  }
  source.known_.reset();
  return source;
}

Result<PacketSource> PacketSource::read(const std::vector<std::string>& captures) {
  PacketSource source;
  source.known_ = std::make_shared<Known>();
  for (std::size_t file = 0; file < captures.size(); ++file) {
    auto reader = CaptureReader::open(captures[file]);
    if (!reader) return reader.error();
    while (const auto packet = reader->next()) source.add(packet->frame, file);
  }
  source.known_.reset();
  if (source.packets_.empty())
    return Error{"read", "the captures", 0, "there is no IP packet in them"};
  return source;
}

Status PacketSource::replay(
    std::size_t first, std::size_t copies,
    const std::function<Status(std::span<const std::uint8_t>)>& call) const {
  std::vector<std::uint8_t> frame;
  for (std::size_t copy = first; copy < first + copies; ++copy) {
    for (const MadePacket& packet : packets_) {
      frame.assign(packet.frame.begin(), packet.frame.end());
      const auto number = static_cast<std::uint32_t>(copy * clients_ + packet.client);
      const std::uint32_t address = __builtin_bswap32(kFirstClient | ((number + 1) & kClientMask));
      std::memcpy(&frame[packet.address_offset], &address, sizeof(address));
      if (packet.version == 4) write_checksum(&frame[packet.ip_offset]);
      L7MARK_TRY(call(frame));
    }
  }
  return success();
}

Result<TemporaryFile> TemporaryFile::make(const std::string& suffix) {
  const char* folder = std::getenv("TMPDIR");
  std::string path =
      fmt::format("{}/l7mark-bench-XXXXXX{}", folder != nullptr ? folder : "/tmp", suffix);
  const int fd = mkstemps(path.data(), static_cast<int>(suffix.size()));
  if (fd < 0) return error_from_errno("make", path);
  close(fd);
  return TemporaryFile(std::move(path));
}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : path_(std::exchange(other.path_, std::string())) {}

TemporaryFile& TemporaryFile::operator=(TemporaryFile&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TemporaryFile::~TemporaryFile() {
  if (!path_.empty()) unlink(path_.c_str());
}

namespace {

// The headers of a pcap file and of a packet in it (pcap-savefile(5)), in the host's byte order.
struct FileHeader {
  std::uint32_t magic = 0xa1b2c3d4;
  std::uint16_t major = 2;
  std::uint16_t minor = 4;
  std::uint32_t zone = 0;
  std::uint32_t accuracy = 0;
  std::uint32_t snaplen = 65535;
  std::uint32_t link_type = 1;  // Ethernet
};
struct RecordHeader {
  std::uint32_t seconds;
  std::uint32_t microseconds;
  std::uint32_t captured;
  std::uint32_t length;
};

}  // namespace

Status write_capture(const PacketSource& source, std::size_t copies, const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file) return error_from_errno("write", path);
  const FileHeader header;
  bool good = std::fwrite(&header, sizeof(header), 1, file.get()) == 1;
  std::uint64_t time_us = 1'700'000'000ULL * 1'000'000;
  L7MARK_TRY(source.replay(0, copies, [&](std::span<const std::uint8_t> frame) -> Status {
    const auto size = static_cast<std::uint32_t>(frame.size());
    const RecordHeader record{static_cast<std::uint32_t>(time_us / 1'000'000),
                              static_cast<std::uint32_t>(time_us % 1'000'000), size, size};
    time_us += 20;
    good = good && std::fwrite(&record, sizeof(record), 1, file.get()) == 1 &&
           std::fwrite(frame.data(), 1, frame.size(), file.get()) == frame.size();
    return good ? success() : error_from_errno("write", path);
  }));
  if (!good || std::fflush(file.get()) != 0) return error_from_errno("write", path);
  return success();
}

}  // namespace l7mark::bench
