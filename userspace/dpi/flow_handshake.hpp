// SPDX-License-Identifier: GPL-2.0-only
// The handshake of one flow: puts the client's hello together from the packets that were copied,
// over TCP, DTLS and QUIC, and says what nDPI is given in their place. nDPI 4.2 reads a hello of
// QUIC or DTLS from a single packet only, and looks at 32 packets of a flow at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace l7mark {

enum class HelloTransport : std::uint8_t;

// A packet with payload as it was copied; the spans are its sender's bytes and may be cut.
struct HandshakePacket {
  int direction = 0;                     // endpoint that sent it, 0 or 1
  std::uint8_t protocol = 0;             // IPPROTO_TCP or IPPROTO_UDP
  std::uint32_t sequence = 0;            // TCP: of the first byte of payload, host order
  std::span<const std::uint8_t> packet;  // from the IP header on
  std::size_t payload_offset = 0;        // in `packet`, not above its size
  std::size_t payload_length = 0;        // on the wire
};

// The facts of the two hellos, the same in every build. Empty or 0 if not seen.
struct HandshakeFacts {
  std::string server_name;  // the outer one where `ech` stands for a real ECH
  std::string alpn;         // of the client, "h2,http/1.1"; what is not printable became '?'
  std::string ja4;
  bool hello = false;         // a ClientHello was read
  bool ech = false;           // it has the extension, which may be GREASE
  bool conflict = false;      // two copies of a byte of the handshake differed
  std::uint16_t version = 0;  // that the server chose: 0x0303 is TLS 1.2
  std::uint16_t cipher = 0;   // that the server chose, IANA's number
};

class FlowHandshake {
 public:
  FlowHandshake();
  ~FlowHandshake();
  FlowHandshake(FlowHandshake&&) noexcept;
  FlowHandshake& operator=(FlowHandshake&&) noexcept;

  // True if a flow may begin a handshake by this packet, its side's first with payload: otherwise
  // nothing of it need be shown to a FlowHandshake. `begin`: where the side's stream begins by its
  // SYN, and `has_begin` whether that is known.
  [[nodiscard]] static bool may_begin(const HandshakePacket& packet, bool has_begin,
                                      std::uint32_t begin);

  // TCP: the side's stream begins here, by its SYN.
  void begin(int direction, std::uint32_t sequence);

  enum class Step : std::uint8_t {
    as_it_is,  // give nDPI this packet
    hold,      // give it nothing: more must come first
    replaced,  // give it take_made() instead, which has what was held
    released,  // give it take_made(), all there was of what was held, and then this packet
  };
  [[nodiscard]] Step take(const HandshakePacket& packet);

  // No more will come: what is held, as one packet; empty if nothing is.
  [[nodiscard]] std::vector<std::uint8_t> give_up();

  // Once for a packet that take() made.
  [[nodiscard]] std::vector<std::uint8_t> take_made() { return std::exchange(made_, {}); }
  // Something is held that nDPI has not seen.
  [[nodiscard]] bool holds() const;
  // The client's hello is read, the server's answer to it is not, and QUIC's Initials can tell it.
  [[nodiscard]] bool awaits_server() const;
  [[nodiscard]] const HandshakeFacts& facts() const { return facts_; }

 private:
  struct Tcp;
  struct Dtls;
  struct Quic;

  Step take_tcp(const HandshakePacket& packet);
  Step read_tcp(const HandshakePacket& packet, Step step);
  Step take_dtls(const HandshakePacket& packet);
  Step take_quic(const HandshakePacket& packet);
  void keep_headers(const HandshakePacket& packet);
  void read_client(std::span<const std::uint8_t> message, HelloTransport transport);
  void read_server(std::span<const std::uint8_t> message);

  std::unique_ptr<Tcp> tcp_;
  std::unique_ptr<Dtls> dtls_;
  std::unique_ptr<Quic> quic_;
  HandshakeFacts facts_;
  std::vector<std::uint8_t> headers_;  // of the first packet that is held
  std::vector<std::uint8_t> made_;
};

}  // namespace l7mark
