// SPDX-License-Identifier: GPL-2.0-only
// Capture files, whatever their format and link type, as a row of Ethernet frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

// One packet. `frame` is valid until the next one is read.
struct CapturedPacket {
  std::uint64_t time_ns = 0;            // since 1970
  std::span<const std::uint8_t> frame;  // Ethernet; the header is made up for other link types
  std::uint32_t bytes = 0;              // captured of the original frame
};

// A packet of `link_type` (DLT_* of libpcap) as an Ethernet frame in `out`, which is not written
// for Ethernet itself. Empty for what carries no IP or is too short. Where the original link header
// is longer than Ethernet's, bytes are added behind so that the length stays what it was.
[[nodiscard]] std::span<const std::uint8_t> to_ethernet(int link_type,
                                                        std::span<const std::uint8_t> packet,
                                                        std::vector<std::uint8_t>& out);

[[nodiscard]] bool is_supported_link_type(int link_type);

// Reads pcap and pcapng, either byte order, with micro- or nanoseconds. The file is not loaded: it
// may be larger than memory.
class CaptureReader {
 public:
  // Code EPROTONOSUPPORT: a capture, of a link type that to_ethernet() does not know.
  [[nodiscard]] static Result<CaptureReader> open(const std::string& path);
  CaptureReader(CaptureReader&&) noexcept;
  CaptureReader& operator=(CaptureReader&&) noexcept;
  ~CaptureReader();

  // The next packet that may carry IP; nothing at the end, or where the file can't be read on.
  [[nodiscard]] std::optional<CapturedPacket> next();

  // After the end: why the file ended early, if it did (cut short, damaged, interfaces with several
  // link types). What was read before is good.
  [[nodiscard]] const std::optional<Error>& problem() const;

  // Packets read so far; of them those that could not be turned into a frame, and those that were
  // recorded with a snap length shorter than they were. The parser refuses these as ndpiReader
  // does, unless only padding is missing.
  [[nodiscard]] std::uint64_t packets() const;
  [[nodiscard]] std::uint64_t skipped() const;
  [[nodiscard]] std::uint64_t shortened() const;

 private:
  struct State;
  explicit CaptureReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace l7mark
