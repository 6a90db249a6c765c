// SPDX-License-Identifier: GPL-2.0-only
#include "capture/reader.hpp"

#include <pcap/pcap.h>

#include <cerrno>
#include <utility>

namespace l7mark {

struct CaptureReader::State {
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (pcap != nullptr) pcap_close(pcap);
  }

  std::string path;
  pcap_t* pcap = nullptr;
  int link_type = 0;
  std::vector<std::uint8_t> frame;
  std::optional<Error> problem;
  std::uint64_t packets = 0;
  std::uint64_t skipped = 0;
  std::uint64_t shortened = 0;
  bool ended = false;
};

CaptureReader::CaptureReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
CaptureReader::CaptureReader(CaptureReader&&) noexcept = default;
CaptureReader& CaptureReader::operator=(CaptureReader&&) noexcept = default;
CaptureReader::~CaptureReader() = default;

Result<CaptureReader> CaptureReader::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  char text[PCAP_ERRBUF_SIZE] = {};
  state->pcap =
      pcap_open_offline_with_tstamp_precision(path.c_str(), PCAP_TSTAMP_PRECISION_NANO, text);
  if (state->pcap == nullptr) return Error{"read capture", path, 0, text};
  state->link_type = pcap_datalink(state->pcap);
  if (!is_supported_link_type(state->link_type)) {
    const char* name = pcap_datalink_val_to_name(state->link_type);
    return Error{"read capture", path, EPROTONOSUPPORT,
                 "link type " + (name == nullptr ? std::to_string(state->link_type) : name)};
  }
  return CaptureReader(std::move(state));
}

std::optional<CapturedPacket> CaptureReader::next() {
  State& state = *state_;
  while (!state.ended) {
    pcap_pkthdr* header = nullptr;
    const u_char* data = nullptr;
    const int got = pcap_next_ex(state.pcap, &header, &data);
    if (got != 1) {
      state.ended = true;
      if (got == PCAP_ERROR)
        state.problem = Error{"read all of", state.path, 0, pcap_geterr(state.pcap)};
      break;
    }
    ++state.packets;
    if (header->caplen < header->len) ++state.shortened;
    const auto frame = to_ethernet(state.link_type, {data, header->caplen}, state.frame);
    if (frame.empty()) {
      ++state.skipped;
      continue;
    }
    // With nanosecond precision tv_usec holds nanoseconds.
    const std::uint64_t time = static_cast<std::uint64_t>(header->ts.tv_sec) * 1'000'000'000ULL +
                               static_cast<std::uint64_t>(header->ts.tv_usec);
    return CapturedPacket{time, frame, header->caplen};
  }
  return std::nullopt;
}

const std::optional<Error>& CaptureReader::problem() const {
  return state_->problem;
}
std::uint64_t CaptureReader::packets() const {
  return state_->packets;
}
std::uint64_t CaptureReader::skipped() const {
  return state_->skipped;
}
std::uint64_t CaptureReader::shortened() const {
  return state_->shortened;
}

}  // namespace l7mark
