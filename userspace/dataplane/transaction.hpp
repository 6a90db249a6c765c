// SPDX-License-Identifier: GPL-2.0-only
// Steps that are taken back together where one of them fails.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace l7mark {

// Takes back, last first, what was noted with on_failure(), unless commit() was called before. The
// steps hold no reference to what may be gone by then.
class Transaction {
 public:
  Transaction() = default;
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction() {
    for (auto step = undo_.rbegin(); step != undo_.rend(); ++step) (*step)();
  }

  void on_failure(std::function<void()> step) { undo_.push_back(std::move(step)); }
  void on_success(std::function<void()> step) { finish_.push_back(std::move(step)); }
  // Takes over the steps of `part`, which has nothing left to take back.
  void absorb(Transaction& part) {
    for (auto& step : std::exchange(part.undo_, {})) undo_.push_back(std::move(step));
    for (auto& step : std::exchange(part.finish_, {})) finish_.push_back(std::move(step));
  }
  void commit() {
    undo_.clear();
    for (const auto& step : std::exchange(finish_, {})) step();
  }

 private:
  std::vector<std::function<void()>> undo_;
  std::vector<std::function<void()>> finish_;
};

}  // namespace l7mark
