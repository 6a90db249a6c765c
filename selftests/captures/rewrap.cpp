// SPDX-License-Identifier: GPL-2.0-only
// Rewrites a capture of Ethernet frames: the same packets in a tunnel, behind another link layer,
// or in another file format, for tests on kernels that have no such tunnel. Lengths on the wire
// grow with the headers; time stamps stay.
#include <pcap/pcap.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Frame {
  std::uint64_t time_us = 0;
  Bytes bytes;

  [[nodiscard]] unsigned type() const { return bytes[12] * 256U + bytes[13]; }
  [[nodiscard]] bool ipv6() const { return type() == 0x86dd; }
  [[nodiscard]] Bytes ip() const { return {bytes.begin() + 14, bytes.end()}; }
};

// Big endian, as on the wire.
void put(Bytes& out, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}
void put(Bytes& out, const Bytes& more) {
  out.insert(out.end(), more.begin(), more.end());
}

Bytes behind(Bytes head, const Bytes& rest) {
  put(head, rest);
  return head;
}

Bytes ethernet(const Frame& frame, unsigned type, const Bytes& payload) {
  Bytes out(frame.bytes.begin(), frame.bytes.begin() + 12);
  put(out, type, 2);
  put(out, payload);
  return out;
}

// From one end of a tunnel to the other; no checksum: nobody looks at it.
Bytes outer_ipv4(std::uint8_t protocol, const Bytes& payload) {
  Bytes out;
  put(out, 0x4500, 2);
  put(out, 20 + payload.size(), 2);
  put(out, 0x00004000, 4);  // do not fragment
  put(out, 64, 1);
  put(out, protocol, 1);
  put(out, 0, 2);
  put(out, 0xcb007101, 4);  // 203.0.113.1 and .2
  put(out, 0xcb007102, 4);
  return behind(out, payload);
}

Bytes outer_ipv6(std::uint8_t next, const Bytes& payload) {
  Bytes out;
  put(out, 0x60000000, 4);
  put(out, payload.size(), 2);
  put(out, next, 1);
  put(out, 64, 1);
  for (const std::uint64_t end : {1U, 2U}) {
    put(out, 0x20010db8ffff0000, 8);
    put(out, end, 8);
  }
  return behind(out, payload);
}

Bytes outer_udp(unsigned port, const Bytes& payload) {
  Bytes out;
  put(out, port, 2);
  put(out, port, 2);
  put(out, 8 + payload.size(), 2);
  put(out, 0, 2);
  return behind(out, payload);
}

Bytes gtpu(bool extended, const Bytes& packet) {
  Bytes out;
  put(out, extended ? 0x36ff : 0x30ff,
      2);  // version 1, with an extension header and a number; a packet
  put(out, packet.size() + (extended ? 8 : 0), 2);
  put(out, 0x1234, 4);
  // Sequence number, then a PDU session container of 4 bytes (3GPP TS 38.415), then nothing more.
  if (extended) put(out, 0x0001008501000500, 8);
  return behind(out, packet);
}

using Wrap = Bytes (*)(const Frame&);
struct Kind {
  std::string_view name;
  int link_type;
  Wrap wrap;
};

constexpr int kSll2 = 276;

const Kind kKinds[] = {
    {"same", DLT_EN10MB, [](const Frame& f) { return f.bytes; }},
    // Tunnels
    {"ipip", DLT_EN10MB,
     [](const Frame& f) { return ethernet(f, 0x0800, outer_ipv4(f.ipv6() ? 41 : 4, f.ip())); }},
    {"ip6tnl", DLT_EN10MB,
     [](const Frame& f) { return ethernet(f, 0x86dd, outer_ipv6(f.ipv6() ? 41 : 4, f.ip())); }},
    {"gre", DLT_EN10MB,
     [](const Frame& f) {
       Bytes head;
       put(head, f.type(), 4);
       return ethernet(f, 0x0800, outer_ipv4(47, behind(head, f.ip())));
     }},
    {"gre-key", DLT_EN10MB,  // checksum, key and sequence number
     [](const Frame& f) {
       Bytes head;
       put(head, 0xb0000000U | f.type(), 4);
       put(head, 0, 4);
       put(head, 7, 4);
       put(head, 1, 4);
       return ethernet(f, 0x0800, outer_ipv4(47, behind(head, f.ip())));
     }},
    {"gretap", DLT_EN10MB,
     [](const Frame& f) {
       Bytes head;
       put(head, 0x6558, 4);
       return ethernet(f, 0x86dd, outer_ipv6(47, behind(head, f.bytes)));
     }},
    {"gtpu", DLT_EN10MB,
     [](const Frame& f) {
       return ethernet(f, 0x0800, outer_ipv4(17, outer_udp(2152, gtpu(false, f.ip()))));
     }},
    {"gtpu-ext", DLT_EN10MB,
     [](const Frame& f) {
       return ethernet(f, 0x0800, outer_ipv4(17, outer_udp(2152, gtpu(true, f.ip()))));
     }},
    {"vxlan", DLT_EN10MB,
     [](const Frame& f) {
       Bytes head;
       put(head, 0x0800000000000700, 8);
       return ethernet(f, 0x86dd, outer_ipv6(17, outer_udp(4789, behind(head, f.bytes))));
     }},
    // Link layers
    {"qinq", DLT_EN10MB,
     [](const Frame& f) {
       Bytes tags;
       put(tags, 0x000a, 2);
       put(tags, 0x8100, 2);
       put(tags, 0x0014, 2);
       put(tags, f.type(), 2);
       return ethernet(f, 0x88a8, behind(tags, f.ip()));
     }},
    {"mpls", DLT_EN10MB,
     [](const Frame& f) {
       Bytes labels;
       put(labels, 0x00064040, 4);  // label 100, then label 200 at the bottom
       put(labels, 0x000c8140, 4);
       return ethernet(f, 0x8847, behind(labels, f.ip()));
     }},
    {"pppoe", DLT_EN10MB,
     [](const Frame& f) {
       Bytes head;
       put(head, 0x11000007, 4);
       put(head, f.ip().size() + 2, 2);
       put(head, f.ipv6() ? 0x0057 : 0x0021, 2);
       return ethernet(f, 0x8864, behind(head, f.ip()));
     }},
    {"ppp", DLT_PPP,
     [](const Frame& f) {
       Bytes head;
       put(head, f.ipv6() ? 0x0057 : 0x0021, 2);
       return behind(head, f.ip());
     }},
    {"raw", DLT_RAW, [](const Frame& f) { return f.ip(); }},
    {"null", DLT_NULL,
     [](const Frame& f) {
       return behind({static_cast<std::uint8_t>(f.ipv6() ? 30 : 2), 0, 0, 0}, f.ip());
     }},
    {"sll", DLT_LINUX_SLL,
     [](const Frame& f) {
       Bytes head{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0};
       put(head, f.type(), 2);
       return behind(head, f.ip());
     }},
    {"sll2", kSll2,
     [](const Frame& f) {
       Bytes head;
       put(head, f.type(), 2);
       put(head, Bytes{0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0});
       return behind(head, f.ip());
     }},
};

// --- files ---------------------------------------------------------------------------------------

// Numbers in the byte order of the file.
struct Writer {
  bool big = false;
  Bytes out{};

  void number(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i)
      out.push_back(static_cast<std::uint8_t>(value >> 8 * (big ? bytes - 1 - i : i)));
  }
};

// https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html
Bytes as_pcap(const std::vector<Frame>& frames, int link_type, bool big, bool nano) {
  Writer w{big};
  w.number(nano ? 0xa1b23c4d : 0xa1b2c3d4, 4);
  w.number(2, 2);
  w.number(4, 2);
  w.number(0, 8);
  w.number(262144, 4);
  w.number(static_cast<std::uint64_t>(link_type), 4);
  for (const Frame& frame : frames) {
    w.number(frame.time_us / 1'000'000, 4);
    w.number(frame.time_us % 1'000'000 * (nano ? 1000 : 1), 4);
    w.number(frame.bytes.size(), 4);
    w.number(frame.bytes.size(), 4);
    put(w.out, frame.bytes);
  }
  return w.out;
}

// https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html
Bytes as_pcapng(const std::vector<Frame>& frames, int link_type, bool big, bool nano) {
  Writer w{big};
  const auto block = [&w](std::uint32_t type, Bytes body) {
    body.resize((body.size() + 3) / 4 * 4);
    w.number(type, 4);
    w.number(body.size() + 12, 4);
    put(w.out, body);
    w.number(body.size() + 12, 4);
  };
  Writer section{big};
  section.number(0x1a2b3c4d, 4);
  section.number(1, 2);
  section.number(0, 2);
  section.number(~std::uint64_t{0}, 8);
  block(0x0a0d0d0a, section.out);
  Writer interface { big };
  interface.number(static_cast<std::uint64_t>(link_type), 2);
  interface.number(0, 2);
  interface.number(262144, 4);
  if (nano) {
    interface.number(9, 2);  // if_tsresol: 10^-9 s
    interface.number(1, 2);
    interface.number(big ? 0x09000000 : 9, 4);
    interface.number(0, 4);
  }
  block(1, interface.out);
  for (const Frame& frame : frames) {
    const std::uint64_t time = frame.time_us * (nano ? 1000 : 1);
    Writer packet{big};
    packet.number(0, 4);
    packet.number(time >> 32, 4);
    packet.number(time & 0xffffffff, 4);
    packet.number(frame.bytes.size(), 4);
    packet.number(frame.bytes.size(), 4);
    put(packet.out, frame.bytes);
    block(6, packet.out);
  }
  return w.out;
}

struct Format {
  std::string_view name;
  bool next_generation, big, nano;
};
constexpr Format kFormats[] = {
    {"pcap", false, false, false},      {"pcap-big", false, true, false},
    {"pcap-nano", false, false, true},  {"pcap-big-nano", false, true, true},
    {"pcapng", true, false, false},     {"pcapng-big", true, true, false},
    {"pcapng-nano", true, false, true}, {"pcapng-big-nano", true, true, true},
};

int usage() {
  std::fputs("usage: rewrap KIND FORMAT IN OUT\nkinds:", stderr);
  for (const Kind& kind : kKinds) std::fprintf(stderr, " %s", kind.name.data());
  std::fputs("\nformats:", stderr);
  for (const Format& format : kFormats) std::fprintf(stderr, " %s", format.name.data());
  std::fputs("\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return usage();
  const Kind* kind = nullptr;
  for (const Kind& each : kKinds)
    if (each.name == argv[1]) kind = &each;
  const Format* format = nullptr;
  for (const Format& each : kFormats)
    if (each.name == argv[2]) format = &each;
  if (kind == nullptr || format == nullptr) return usage();

  std::array<char, PCAP_ERRBUF_SIZE> error{};
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> in(pcap_open_offline(argv[3], error.data()),
                                                          pcap_close);
  if (in == nullptr || pcap_datalink(in.get()) != DLT_EN10MB) {
    std::fprintf(stderr, "cannot read %s: %s\n", argv[3],
                 in == nullptr ? error.data() : "not of Ethernet");
    return 1;
  }
  std::vector<Frame> frames;
  pcap_pkthdr* head = nullptr;
  const u_char* data = nullptr;
  while (pcap_next_ex(in.get(), &head, &data) == 1) {
    Frame frame;
    frame.time_us = static_cast<std::uint64_t>(head->ts.tv_sec) * 1'000'000 +
                    static_cast<std::uint64_t>(head->ts.tv_usec);
    frame.bytes.assign(data, data + head->caplen);
    if (frame.bytes.size() < 34 || (frame.type() != 0x0800 && frame.type() != 0x86dd)) continue;
    frame.bytes = kind->wrap(frame);
    frames.push_back(std::move(frame));
  }
  const Bytes out = (format->next_generation ? as_pcapng : as_pcap)(frames, kind->link_type,
                                                                    format->big, format->nano);
  std::ofstream file(argv[4], std::ios::binary);
  file.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size()));
  if (!file.flush()) {
    std::fprintf(stderr, "cannot write %s\n", argv[4]);
    return 1;
  }
  return 0;
}
