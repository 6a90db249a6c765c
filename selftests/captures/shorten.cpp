// SPDX-License-Identifier: GPL-2.0-only
// Cuts a capture of Ethernet frames down to the beginning of each connection: its first packets, by
// default 12, and of TCP and UDP only. What a packet holds stays as it was recorded.
#include <pcap/pcap.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;

// The protocol, then both ends in an order of their own, so that both directions have one key;
// empty for what is not TCP or UDP. Extension headers and fragments are not looked for.
Bytes key_of(const u_char* frame, std::size_t size) {
  if (size < 14 + 20) return {};
  const bool ipv4 = frame[12] == 0x08 && frame[13] == 0x00;
  const bool ipv6 = frame[12] == 0x86 && frame[13] == 0xdd;
  if (!ipv4 && !ipv6) return {};
  const u_char* ip = frame + 14;
  const std::size_t head = ipv4 ? static_cast<std::size_t>(ip[0] & 15) * 4 : 40;
  if (size < 14 + head + 4) return {};
  const std::uint8_t protocol = ipv4 ? ip[9] : ip[6];
  if (protocol != 6 && protocol != 17) return {};
  const std::size_t length = ipv4 ? 4 : 16;
  const u_char* addresses = ip + (ipv4 ? 12 : 8);
  const u_char* ports = ip + head;
  Bytes one(addresses, addresses + length);
  one.insert(one.end(), ports, ports + 2);
  Bytes other(addresses + length, addresses + 2 * length);
  other.insert(other.end(), ports + 2, ports + 4);
  if (other < one) one.swap(other);
  one.insert(one.begin(), protocol);
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fputs("usage: shorten IN OUT [PACKETS]\n", stderr);
    return 2;
  }
  const unsigned long most = argc == 4 ? std::strtoul(argv[3], nullptr, 10) : 12;
  std::array<char, PCAP_ERRBUF_SIZE> error{};
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> in(pcap_open_offline(argv[1], error.data()),
                                                          pcap_close);
  if (in == nullptr || pcap_datalink(in.get()) != DLT_EN10MB) {
    std::fprintf(stderr, "cannot read %s: %s\n", argv[1],
                 in == nullptr ? error.data() : "not of Ethernet");
    return 1;
  }
  const std::unique_ptr<pcap_dumper_t, decltype(&pcap_dump_close)> out(
      pcap_dump_open(in.get(), argv[2]), pcap_dump_close);
  if (out == nullptr) {
    std::fprintf(stderr, "cannot write %s: %s\n", argv[2], pcap_geterr(in.get()));
    return 1;
  }
  std::map<Bytes, unsigned long> seen;
  pcap_pkthdr* head = nullptr;
  const u_char* frame = nullptr;
  while (pcap_next_ex(in.get(), &head, &frame) == 1) {
    const Bytes key = key_of(frame, head->caplen);
    if (!key.empty() && seen[key]++ < most)
      pcap_dump(reinterpret_cast<u_char*>(out.get()), head, frame);
  }
  return pcap_dump_flush(out.get()) == 0 ? 0 : 1;
}
