// SPDX-License-Identifier: GPL-2.0-only
// A capture through the real programs: BPF_PROG_TEST_RUN, ring buffer, classifier, verdict maps.
#pragma once

#include <deque>
#include <memory>

#include "capture/path.hpp"
#include "util/result.hpp"

namespace l7mark {

class KernelPath : public CapturePath {
 public:
  // `expected_flows` sizes the maps: a capture with more may lose some. Loading the programs takes
  // longer than most captures: for one after the other there is restart(). Needs root, or CAP_BPF
  // with CAP_NET_ADMIN and CAP_PERFMON.
  [[nodiscard]] static Result<KernelPath> make(const PathOptions& options,
                                               std::uint32_t expected_flows);
  KernelPath(KernelPath&&) noexcept;
  KernelPath& operator=(KernelPath&&) noexcept;
  ~KernelPath() override;

  Status packet(const CapturedPacket& packet) override;
  Status finish() override;
  Status restart() override;
  [[nodiscard]] const std::deque<CaptureFlow>& flows() const override;
  [[nodiscard]] const Engine& engine() const override;

 private:
  struct State;
  explicit KernelPath(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace l7mark
