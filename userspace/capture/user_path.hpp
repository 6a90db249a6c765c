// SPDX-License-Identifier: GPL-2.0-only
// The data plane's logic in userspace: what the programs in the kernel do to a packet up to its
// sample, over the same shared headers, for `l7mark classify --path user` and for tests.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "capture/path.hpp"
#include "util/result.hpp"

namespace l7mark {

struct UserPathStats {
  std::uint64_t packets = 0;  // that belong to a flow
  std::uint64_t bytes = 0;
  std::uint64_t sampled_packets = 0;
  std::uint64_t sampled_bytes = 0;
  std::uint64_t not_ip = 0;
  std::uint64_t malformed = 0;
  std::uint64_t later_fragments = 0;  // not counted in flows
};

class UserPath : public CapturePath {
 public:
  [[nodiscard]] static Result<UserPath> make(const PathOptions& options);
  UserPath(UserPath&&) noexcept;
  UserPath& operator=(UserPath&&) noexcept;
  ~UserPath() override;

  Status packet(const CapturedPacket& packet) override;
  Status finish() override;
  Status restart() override;
  [[nodiscard]] const std::deque<CaptureFlow>& flows() const override;
  [[nodiscard]] const Engine& engine() const override;
  [[nodiscard]] const UserPathStats& stats() const;

 private:
  struct State;
  explicit UserPath(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace l7mark
