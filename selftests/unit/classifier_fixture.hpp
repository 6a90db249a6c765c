// SPDX-License-Identifier: GPL-2.0-only
// A classifier with nDPI behind it, and all that it answers, for tests of what it makes of samples.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "dpi/classifier.hpp"
#include "packets.hpp"

namespace l7mark::test {

constexpr std::uint64_t kSecond = 1'000'000'000;

class ClassifierTest : public testing::Test, public ClassifierSink {
 protected:
  ClassifierTest() : engine_(std::move(*Engine::make())) { restart({}); }

  void on_answer(Answer&& answer) override { answers_.push_back(std::move(answer)); }
  void on_dns(DnsAnswer&& answer) override { dns_.push_back(std::move(answer)); }

  void restart(const ClassifierOptions& options) {
    classifier_ = std::make_unique<Classifier>(engine_, *this, options);
  }
  bool take(const Sample& sample) { return classifier_->take(sample.bytes()); }
  static FlowKey key_of(const Sample& sample) {
    FlowKey key;
    key.raw = sample.head.key;
    return key;
  }

  Engine engine_;
  std::unique_ptr<Classifier> classifier_;
  std::vector<Answer> answers_;
  std::vector<DnsAnswer> dns_;
  const Endpoints ends_;
};

}  // namespace l7mark::test
