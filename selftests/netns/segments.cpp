// SPDX-License-Identifier: GPL-2.0-only
// Sends a TLS hello from a file to a real server, cut into segments of the caller's choice and in
// an order of the caller's choice, which no TCP stack would do when asked. The connection is made
// of packets (packet(7)) from an address that the machine does not have, so that the stack here
// does not reset it; the gateway needs a neighbour entry for it. Success is that the server answers
// with a handshake record: it put together what was sent.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "packet_socket.hpp"
#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {
namespace {

constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16;
constexpr std::uint8_t kHandshake = 22;  // a TLS record's type (RFC 8446, 5.1)
constexpr int kRounds = 20;              // of sending again what was not acknowledged
constexpr int kRoundMs = 300;

struct Options {
  std::string device, gateway, from, to, hello, order = "in";
  unsigned from_port = 0, to_port = 443, pieces = 1;
  std::uint32_t sequence = 1000;  // of our SYN; the hello's first byte has the next
};

std::uint32_t read32(const std::uint8_t* at) {
  return static_cast<std::uint32_t>(at[0]) << 24 | static_cast<std::uint32_t>(at[1]) << 16 |
         static_cast<std::uint32_t>(at[2]) << 8 | at[3];
}

// A segment that arrived.
struct Segment {
  std::uint8_t flags = 0;
  std::uint32_t sequence = 0, acknowledged = 0;
  Bytes payload;
};

// One end of one connection, on a packet socket.
class Connection {
 public:
  static Result<Connection> open(const Options& options) {
    const auto from = Address::parse(options.from);
    const auto to = Address::parse(options.to);
    if (!from || !to || from->is_v4() != to->is_v4())
      return Error{"use", options.from + " and " + options.to, 0, "two addresses of one version"};
    auto socket = PacketSocket::open(options.device, options.gateway, from->is_v4(), true);
    if (!socket) return socket.error();
    return Connection(std::move(*socket), *from, *to, static_cast<std::uint16_t>(options.from_port),
                      static_cast<std::uint16_t>(options.to_port));
  }

  Status send(std::uint8_t flags, std::uint32_t sequence, std::uint32_t acknowledged,
              const std::uint8_t* data = nullptr, std::size_t size = 0) {
    return socket_.send(build(flags, sequence, acknowledged, data, size));
  }

  // The next segment of this connection, if one comes within so many milliseconds.
  std::optional<Segment> receive(int wait_ms) {
    pollfd waiting{socket_.fd(), POLLIN, 0};
    Bytes buffer(65536);
    while (::poll(&waiting, 1, wait_ms) == 1) {
      const ssize_t got = ::recv(socket_.fd(), buffer.data(), buffer.size(), 0);
      if (got <= 0) return std::nullopt;
      if (auto segment = parse(buffer, static_cast<std::size_t>(got))) return segment;
    }
    return std::nullopt;
  }

 private:
  Connection(PacketSocket socket, Address from, Address to, std::uint16_t from_port,
             std::uint16_t to_port)
      : socket_(std::move(socket)),
        from_(from),
        to_(to),
        from_port_(from_port),
        to_port_(to_port) {}

  [[nodiscard]] Bytes build(std::uint8_t flags, std::uint32_t sequence, std::uint32_t acknowledged,
                            const std::uint8_t* data, std::size_t size) const {
    Bytes tcp;
    put(tcp, from_port_, 2);
    put(tcp, to_port_, 2);
    put(tcp, sequence, 4);
    put(tcp, acknowledged, 4);
    put(tcp, flags & kSyn ? 0x60 : 0x50, 1);  // header in words of 32 bits
    put(tcp, flags, 1);
    put(tcp, 0xffff, 2);                               // window
    put(tcp, 0, 4);                                    // checksum, urgent pointer
    if (flags & kSyn) put(tcp, 0x02040000 | 1440, 4);  // maximum segment size
    tcp.insert(tcp.end(), data, data + size);

    Bytes pseudo;
    put_address(pseudo, from_);
    put_address(pseudo, to_);
    put(pseudo, tcp.size(), 4);
    put(pseudo, IPPROTO_TCP, 4);
    set16(tcp, 16, fold(sum16(tcp.data(), tcp.size(), sum16(pseudo.data(), pseudo.size(), 0))));

    return ip_packet(from_, to_, tcp);
  }

  // Only what belongs to the connection; the servers of the labs send no options of IP.
  [[nodiscard]] std::optional<Segment> parse(const Bytes& in, std::size_t size) const {
    const std::size_t head = from_.is_v4() ? 20 : 40;
    if (size < head + 20 || in[from_.is_v4() ? 9 : 6] != IPPROTO_TCP) return std::nullopt;
    const std::size_t total = from_.is_v4() ? in[2] * 256U + in[3] : head + in[4] * 256U + in[5];
    Bytes ends;
    put_address(ends, to_);
    put_address(ends, from_);
    put(ends, to_port_, 2);
    put(ends, from_port_, 2);
    const auto at = in.begin() + static_cast<std::ptrdiff_t>(head);
    if (!std::equal(ends.begin(), ends.end() - 4, in.begin() + (from_.is_v4() ? 12 : 8)) ||
        !std::equal(ends.end() - 4, ends.end(), at))
      return std::nullopt;
    const std::size_t data = head + static_cast<std::size_t>(in[head + 12] >> 4) * 4;
    const std::size_t end = std::min(total, size);
    if (data > end) return std::nullopt;
    return Segment{in[head + 13], read32(&in[head + 4]), read32(&in[head + 8]),
                   Bytes(in.begin() + static_cast<std::ptrdiff_t>(data),
                         in.begin() + static_cast<std::ptrdiff_t>(end))};
  }

  PacketSocket socket_;
  Address from_, to_;
  std::uint16_t from_port_, to_port_;
};

struct Piece {
  std::size_t begin = 0, size = 0;
};

// `count` pieces of nearly one size; 0: a byte each.
std::vector<Piece> cut(std::size_t size, std::size_t count) {
  if (count == 0 || count > size) count = size;
  std::vector<Piece> out;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = size * i / count;
    out.push_back({begin, size * (i + 1) / count - begin});
  }
  return out;
}

std::vector<Piece> ordered(std::vector<Piece> pieces, const std::string& order) {
  if (order == "reversed") std::reverse(pieces.begin(), pieces.end());
  if (order == "swapped")  // neighbours
    for (std::size_t i = 0; i + 1 < pieces.size(); i += 2) std::swap(pieces[i], pieces[i + 1]);
  if (order == "shuffled") {
    std::mt19937 random(1);  // NOLINT(bugprone-random-generator-seed): the same order each time
    std::shuffle(pieces.begin(), pieces.end(), random);
  }
  return pieces;
}

// The conversation up to the server's first record.
class Talk {
 public:
  Talk(Connection connection, Bytes hello, std::uint32_t first)
      : connection_(std::move(connection)), hello_(std::move(hello)), first_(first) {}

  Status run(const std::vector<Piece>& pieces) {
    if (auto status = greet(); !status) return status;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (auto status = send_piece(pieces[i]); !status) return status;
      if (i % 16 != 15) continue;
      ::usleep(200);  // so that no queue on the way overflows
      while (auto segment = connection_.receive(0)) take(*segment);
    }
    const auto in_order = ordered_by_begin(pieces);
    for (int round = 0; round < kRounds && answer_.empty() && !reset_; ++round) {
      while (auto segment = connection_.receive(kRoundMs)) {
        take(*segment);
        if (!answer_.empty() || reset_) break;
      }
      if (!answer_.empty() || reset_) break;
      for (const Piece& piece : in_order)
        if (piece.begin + piece.size > acknowledged_)
          if (auto status = send_piece(piece); !status) return status;
    }
    if (auto status = connection_.send(kRst | kAck, own(hello_.size()), theirs_); !status)
      return status;
    if (answer_.empty()) return Error{"talk", "the server", 0, reset_ ? "it resets" : "no answer"};
    if (answer_[0] != kHandshake)
      return Error{"talk", "the server", 0, "a record of type " + std::to_string(answer_[0])};
    return success();
  }

 private:
  static std::vector<Piece> ordered_by_begin(std::vector<Piece> pieces) {
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    return pieces;
  }

  [[nodiscard]] std::uint32_t own(std::size_t offset) const {
    return first_ + 1 + static_cast<std::uint32_t>(offset);
  }

  Status greet() {
    for (int round = 0; round < kRounds; ++round) {
      if (auto status = connection_.send(kSyn, first_, 0); !status) return status;
      const auto segment = connection_.receive(kRoundMs);
      if (!segment || (segment->flags & (kSyn | kAck)) != (kSyn | kAck)) continue;
      theirs_ = segment->sequence + 1;
      return connection_.send(kAck, own(0), theirs_);
    }
    return Error{"talk", "the server", 0, "no SYN-ACK"};
  }

  Status send_piece(const Piece& piece) {
    return connection_.send(kPsh | kAck, own(piece.begin), theirs_, hello_.data() + piece.begin,
                            piece.size);
  }

  void take(const Segment& segment) {
    if (segment.flags & kRst) reset_ = true;
    const std::uint32_t offset = segment.acknowledged - own(0);
    if (offset <= hello_.size()) acknowledged_ = std::max<std::size_t>(acknowledged_, offset);
    if (segment.sequence == theirs_ && !segment.payload.empty()) answer_ = segment.payload;
    if (segment.flags & kFin && segment.payload.empty()) reset_ = true;
  }

  Connection connection_;
  Bytes hello_;
  std::uint32_t first_ = 0;       // our first sequence number
  Bytes answer_;                  // the server's first bytes
  std::uint32_t theirs_ = 0;      // sequence number of the server's first byte
  std::size_t acknowledged_ = 0;  // bytes of the hello
  bool reset_ = false;
};

Status run(const Options& options) {
  std::ifstream file(options.hello, std::ios::binary);
  Bytes hello((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (hello.empty()) return Error{"read", options.hello, 0, "no bytes"};
  const auto pieces = ordered(cut(hello.size(), options.pieces), options.order);
  auto connection = Connection::open(options);
  if (!connection) return connection.error();
  return Talk(std::move(*connection), std::move(hello), options.sequence).run(pieces);
}

}  // namespace
}  // namespace l7mark

int main(int argc, char** argv) {
  l7mark::Options options;
  CLI::App app{"Sends a TLS hello in segments of any size and order"};
  app.add_option("--device", options.device, "Interface to send on")->required();
  app.add_option("--gateway", options.gateway, "Ethernet address of the next hop")->required();
  app.add_option("--from", options.from, "Source address, not one of this machine")->required();
  app.add_option("--from-port", options.from_port, "Source port")
      ->required()
      ->check(CLI::Range(1, 65535));
  app.add_option("--to", options.to, "The server's address")->required();
  app.add_option("--to-port", options.to_port, "The server's port")->check(CLI::Range(1, 65535));
  app.add_option("--pieces", options.pieces, "Number of segments; 0: one for each byte");
  app.add_option("--sequence", options.sequence, "First sequence number");
  app.add_option("--order", options.order, "Order of the segments")
      ->check(CLI::IsMember({"in", "swapped", "reversed", "shuffled"}));
  app.add_option("hello", options.hello, "File with the bytes of the record")->required();
  CLI11_PARSE(app, argc, argv);
  const auto status = l7mark::run(options);
  if (!status) std::fprintf(stderr, "segments: %s\n", status.error().message().c_str());
  return status ? 0 : 1;
}
